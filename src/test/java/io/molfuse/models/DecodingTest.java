// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.molfuse.chem.Vocabulary;
import io.molfuse.train.Seeds;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** Decoding from a made-up model, whose every sequence can be listed. */
class DecodingTest {
  private static final Vocabulary VOCABULARY = Vocabulary.of(List.of("<pad>", "<sos>", "<eos>", "<unk>", "[C]", "[N]", "[O]"));
  private static final int[] ALLOWED = {Vocabulary.EOS, 4, 5, 6};

  /** Logits by the hash of molecule and prefix. */
  private static final class HashLogits implements TokenLogits {
    private long[] states;
    private int work;

    HashLogits(int count) {
      states = new long[count];
      Arrays.setAll(states, molecule -> molecule);
    }

    static float logit(long state, int token) {
      return (float) new Random(Seeds.mix(state, token)).nextGaussian() * 2;
    }

    @Override
    public float[] next(long[] tokens) {
      assertThat(tokens).hasSize(states.length);
      work += tokens.length;
      float[] logits = new float[tokens.length * VOCABULARY.size()];
      for (int row = 0; row < tokens.length; row++) {
        states[row] = Seeds.mix(states[row], tokens[row]);
        for (int token = 0; token < VOCABULARY.size(); token++) {
          logits[row * VOCABULARY.size() + token] = logit(states[row], token);
        }
      }
      return logits;
    }

    @Override
    public void select(int[] rows) {
      long[] before = states;
      states = Arrays.stream(rows).mapToLong(row -> before[row]).toArray();
    }

    @Override
    public void close() {}
  }

  private record Best(List<Integer> tokens, double score) {}

  /** The most likely sequence of all, those cut at the longest length included. */
  private static Best best(long state, int left, List<Integer> prefix, double score) {
    if (left == 0) {
      return new Best(List.copyOf(prefix), score);
    }
    double total = 0;
    for (int token : ALLOWED) {
      total += Math.exp(HashLogits.logit(state, token));
    }
    Best best = null;
    for (int token : ALLOWED) {
      double with = score + HashLogits.logit(state, token) - Math.log(total);
      Best found;
      if (token == Vocabulary.EOS) {
        found = new Best(List.copyOf(prefix), with);
      } else {
        prefix.add(token);
        found = best(Seeds.mix(state, token), left - 1, prefix, with);
        prefix.remove(prefix.size() - 1);
      }
      best = best == null || found.score() > best.score() ? found : best;
    }
    return best;
  }

  private static Random[] randoms(int count) {
    Random[] randoms = new Random[count];
    Arrays.setAll(randoms, i -> new Random(100 + i));
    return randoms;
  }

  private static void same(Decoded[] actual, Decoded[] expected) {
    assertThat(actual).hasSameSizeAs(expected);
    for (int i = 0; i < actual.length; i++) {
      assertThat(actual[i].tokens()).containsExactly(expected[i].tokens());
      assertThat(actual[i].ended()).isEqualTo(expected[i].ended());
      assertThat(actual[i].logProbability()).isCloseTo(expected[i].logProbability(), within(1e-9));
    }
  }

  @Test
  void aWideBeamFindsTheMostLikelySequenceOfAll() {
    int maxLength = 6;
    // 3^4 prefixes before the last position.
    Decoded[] found = new Decoding(VOCABULARY, maxLength).beam(new HashLogits(20), 20, 81);
    boolean greedyMissedSome = false;
    Decoded[] greedy = new Decoding(VOCABULARY, maxLength).draw(new HashLogits(20), randoms(20), GenerationOptions.greedy(0));
    for (int molecule = 0; molecule < 20; molecule++) {
      Best best = best(Seeds.mix(molecule, Vocabulary.SOS), maxLength - 1, new ArrayList<>(), 0);
      assertThat(found[molecule].tokens()).containsExactly(best.tokens().stream().mapToInt(Integer::intValue).toArray());
      assertThat(found[molecule].logProbability()).isCloseTo(best.score(), within(1e-6));
      greedyMissedSome |= greedy[molecule].logProbability() < best.score() - 1e-6;
    }
    assertThat(greedyMissedSome).isTrue();
  }

  @Test
  void aBeamOfOneIsGreedy() {
    same(
        new Decoding(VOCABULARY, 12).beam(new HashLogits(50), 50, 1),
        new Decoding(VOCABULARY, 12).draw(new HashLogits(50), randoms(50), GenerationOptions.greedy(0)));
  }

  @Test
  void noSequenceOfABeamIsLessLikelyThanTheGreedyOne() {
    int count = 300;
    Decoded[] greedy = new Decoding(VOCABULARY, 14).draw(new HashLogits(count), randoms(count), GenerationOptions.greedy(0));
    for (int width : new int[] {2, 3, 8}) {
      Decoded[] beam = new Decoding(VOCABULARY, 14).beam(new HashLogits(count), count, width);
      int better = 0;
      for (int molecule = 0; molecule < count; molecule++) {
        assertThat(beam[molecule].logProbability())
            .as("width %d, molecule %d", width, molecule)
            .isGreaterThanOrEqualTo(greedy[molecule].logProbability() - 1e-9);
        better += beam[molecule].logProbability() > greedy[molecule].logProbability() + 1e-9 ? 1 : 0;
      }
      assertThat(better).as("width %d", width).isGreaterThan(count / 20);
    }
  }

  @Test
  void moleculesOfABatchDoNotMeet() {
    for (GenerationOptions options : List.of(GenerationOptions.seeded(0), GenerationOptions.greedy(0))) {
      Decoded[] together = new Decoding(VOCABULARY, 30).draw(new HashLogits(40), randoms(40), options);
      for (int molecule = 0; molecule < 40; molecule++) {
        HashLogits alone = new HashLogits(41);
        alone.select(new int[] {molecule});
        same(
            new Decoding(VOCABULARY, 30).draw(alone, new Random[] {new Random(100 + molecule)}, options),
            new Decoded[] {together[molecule]});
      }
    }
    Decoded[] together = new Decoding(VOCABULARY, 30).beam(new HashLogits(40), 40, 3);
    for (int molecule = 0; molecule < 40; molecule++) {
      HashLogits alone = new HashLogits(41);
      alone.select(new int[] {molecule});
      same(new Decoding(VOCABULARY, 30).beam(alone, 1, 3), new Decoded[] {together[molecule]});
    }
  }

  @Test
  void sequencesThatEndedLeaveTheWork() {
    HashLogits logits = new HashLogits(64);
    Decoded[] drawn = new Decoding(VOCABULARY, 60).draw(logits, randoms(64), GenerationOptions.seeded(0));
    int longest = Arrays.stream(drawn).mapToInt(one -> one.tokens().length).max().orElseThrow();
    int needed = Arrays.stream(drawn).mapToInt(one -> one.tokens().length + 1).sum();
    assertThat(longest).isGreaterThan(8);
    assertThat(logits.work).isGreaterThanOrEqualTo(needed).isLessThan((int) (1.34 * needed) + 64);
    assertThat(logits.work).isLessThan(64 * longest / 2);
  }

  @Test
  void probabilityIsThatOfTheWholeSequence() {
    Decoded[] drawn = new Decoding(VOCABULARY, 8).draw(new HashLogits(30), randoms(30), new GenerationOptions(1.5, 3, 1, 0));
    for (int molecule = 0; molecule < 30; molecule++) {
      long state = Seeds.mix(molecule, Vocabulary.SOS);
      double score = 0;
      int[] tokens = drawn[molecule].tokens();
      for (int i = 0; i < tokens.length + (drawn[molecule].ended() ? 1 : 0); i++) {
        int token = i < tokens.length ? tokens[i] : Vocabulary.EOS;
        double total = 0;
        for (int other : ALLOWED) {
          total += Math.exp(HashLogits.logit(state, other));
        }
        score += HashLogits.logit(state, token) - Math.log(total);
        state = Seeds.mix(state, token);
      }
      assertThat(drawn[molecule].logProbability()).isCloseTo(score, within(1e-6));
      assertThat(tokens.length == 7).isEqualTo(!drawn[molecule].ended());
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.Vocabulary;
import java.util.Arrays;
import java.util.Random;

/** Draws sequences token by token. Those that have ended leave the batch. */
final class Decoding {
  /** The caches are copied for the smaller batch, which is worth it only if enough sequences leave at once. */
  private static final double LARGEST_SHARE_TO_SHRINK_TO = 0.75;

  private final Vocabulary vocabulary;
  private final boolean[] forbidden;
  private final int maxLength;

  /** @param maxLength most tokens of a sequence, both ends included */
  Decoding(Vocabulary vocabulary, int maxLength) {
    this.vocabulary = vocabulary;
    this.maxLength = maxLength;
    // Padding, start and unknown say nothing about a molecule.
    forbidden = new boolean[vocabulary.size()];
    forbidden[Vocabulary.PAD] = true;
    forbidden[Vocabulary.SOS] = true;
    forbidden[Vocabulary.UNK] = true;
  }

  /** @param random one for each sequence */
  Decoded[] draw(TokenLogits model, Random[] random, GenerationOptions options) {
    int count = random.length;
    int[][] sequences = new int[count][maxLength];
    double[] scores = new double[count];
    Decoded[] results = new Decoded[count];
    TokenSampler sampler = new TokenSampler(options, forbidden);
    double[] logProbabilities = new double[forbidden.length];
    // Row of the batch to number of the sequence.
    int[] sequence = new int[count];
    Arrays.setAll(sequence, row -> row);
    long[] current = new long[count];
    Arrays.fill(current, Vocabulary.SOS);
    // One position is left for the start token.
    for (int position = 0; position < maxLength - 1; position++) {
      float[] logits = model.next(current);
      int[] open = new int[sequence.length];
      int stillOpen = 0;
      for (int row = 0; row < sequence.length; row++) {
        int number = sequence[row];
        if (results[number] != null) {
          current[row] = Vocabulary.PAD;
          continue;
        }
        int token = sampler.draw(logits, row, random[number]);
        TokenSampler.logProbabilities(logits, row, forbidden, logProbabilities);
        scores[number] += logProbabilities[token];
        if (token == Vocabulary.EOS) {
          results[number] = decoded(sequences[number], position, true, scores[number]);
        } else {
          sequences[number][position] = token;
          current[row] = token;
          open[stillOpen++] = row;
        }
      }
      if (stillOpen == 0) {
        break;
      }
      if (stillOpen <= LARGEST_SHARE_TO_SHRINK_TO * sequence.length && position + 1 < maxLength - 1) {
        int[] rows = Arrays.copyOf(open, stillOpen);
        model.select(rows);
        int[] before = sequence;
        long[] tokens = current;
        sequence = Arrays.stream(rows).map(row -> before[row]).toArray();
        current = Arrays.stream(rows).mapToLong(row -> tokens[row]).toArray();
      }
    }
    for (int number = 0; number < count; number++) {
      if (results[number] == null) {
        results[number] = decoded(sequences[number], maxLength - 1, false, scores[number]);
      }
    }
    return results;
  }

  /**
   * Beam search: of each molecule's sequences so far, the most likely are kept. Ends when no open sequence can become more likely than
   * one that has ended, since probabilities only fall. They are not divided by the length. Never less likely than greedy decoding.
   *
   * @param count how many molecules
   */
  Decoded[] beam(TokenLogits model, int count, int width) {
    Beam[] beams = new Beam[count];
    for (int molecule = 0; molecule < count; molecule++) {
      beams[molecule] = new Beam(width, forbidden.length);
    }
    long[] current = new long[count];
    Arrays.fill(current, Vocabulary.SOS);
    double[] logProbabilities = new double[forbidden.length];
    for (int position = 0; position < maxLength - 1; position++) {
      float[] logits = model.next(current);
      int row = 0;
      int rows = 0;
      for (Beam beam : beams) {
        int first = row;
        for (int i = 0; i < beam.size(); i++) {
          TokenSampler.logProbabilities(logits, row++, forbidden, logProbabilities);
          beam.offer(i, logProbabilities);
        }
        beam.advance(first);
        rows += beam.size();
      }
      if (rows == 0 || position + 1 == maxLength - 1) {
        break;
      }
      int[] parents = new int[rows];
      current = new long[rows];
      int next = 0;
      for (Beam beam : beams) {
        for (int i = 0; i < beam.size(); i++) {
          parents[next] = beam.row(i);
          current[next++] = beam.lastToken(i);
        }
      }
      if (!isIdentity(parents, row)) {
        model.select(parents);
      }
    }
    Decoded[] results = new Decoded[count];
    for (int molecule = 0; molecule < count; molecule++) {
      Beam.Sequence best = beams[molecule].best();
      results[molecule] = decoded(best.tokens(), best.tokens().length, best.ended(), best.score());
    }
    return results;
  }

  private static boolean isIdentity(int[] rows, int before) {
    if (rows.length != before) {
      return false;
    }
    for (int i = 0; i < rows.length; i++) {
      if (rows[i] != i) {
        return false;
      }
    }
    return true;
  }

  private Decoded decoded(int[] tokens, int length, boolean ended, double score) {
    int[] own = Arrays.copyOf(tokens, length);
    return new Decoded(own, ended, vocabulary.decode(own), score);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import java.util.TreeSet;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class TokenSamplerTest {
  private static final float[] LOGITS = {9, 1, 3, 2, 0, /* row 1 */ 9, 3, 1, 0, 2};
  private static final boolean[] FIRST_FORBIDDEN = {true, false, false, false, false};

  private static double[] frequencies(GenerationOptions options, int row) {
    TokenSampler sampler = new TokenSampler(options, FIRST_FORBIDDEN);
    Random random = new Random(4);
    double[] counts = new double[5];
    for (int i = 0; i < 40_000; i++) {
      counts[sampler.draw(LOGITS, row, random)] += 1.0 / 40_000;
    }
    return counts;
  }

  @Test
  void drawsBySoftmaxOfWhatIsAllowed() {
    double[] counts = frequencies(GenerationOptions.seeded(1), 0);
    double total = Math.exp(1) + Math.exp(3) + Math.exp(2) + 1;
    assertThat(counts[0]).isZero();
    assertThat(counts[1]).isCloseTo(Math.exp(1) / total, within(0.01));
    assertThat(counts[2]).isCloseTo(Math.exp(3) / total, within(0.01));
    assertThat(counts[3]).isCloseTo(Math.exp(2) / total, within(0.01));
    assertThat(counts[4]).isCloseTo(1 / total, within(0.01));
    assertThat(frequencies(GenerationOptions.seeded(1), 1)[1]).isCloseTo(Math.exp(3) / total, within(0.01));
  }

  @Test
  void temperatureSharpensAndZeroTakesTheBest() {
    double[] half = frequencies(new GenerationOptions(0.5, 0, 1, 1), 0);
    double total = Math.exp(2) + Math.exp(6) + Math.exp(4) + 1;
    assertThat(half[2]).isCloseTo(Math.exp(6) / total, within(0.01));
    assertThat(frequencies(new GenerationOptions(0, 0, 1, 1), 0)[2]).isCloseTo(1, within(1e-9));
  }

  @Test
  void topKKeepsTheKBest() {
    double[] counts = frequencies(new GenerationOptions(1, 2, 1, 1), 0);
    assertThat(counts[1]).isZero();
    assertThat(counts[4]).isZero();
    assertThat(counts[2]).isCloseTo(1 / (1 + Math.exp(-1)), within(0.01));
  }

  @Test
  void topPKeepsTheFewestThatReachIt() {
    // The probabilities are .644, .237, .087, .032.
    double[] counts = frequencies(new GenerationOptions(1, 0, 0.7, 1), 0);
    assertThat(counts[1]).isZero();
    assertThat(counts[4]).isZero();
    assertThat(counts[3]).isCloseTo(0.237 / (0.237 + 0.644), within(0.01));
    assertThat(frequencies(new GenerationOptions(1, 0, 0.5, 1), 0)[2]).isCloseTo(1, within(1e-9));
  }

  @Test
  void topPsSetIsTheSmallestOfAnyLogits() {
    Random random = new Random(6);
    for (int round = 0; round < 50; round++) {
      float[] logits = new float[8];
      double[] probabilities = new double[8];
      double total = 0;
      for (int k = 0; k < 8; k++) {
        logits[k] = (float) random.nextGaussian();
        probabilities[k] = Math.exp(logits[k]);
        total += probabilities[k];
      }
      double topP = 0.2 + 0.7 * random.nextDouble();
      TreeSet<Integer> expected = new TreeSet<>();
      double sum = 0;
      List<Integer> falling =
          IntStream.range(0, 8).boxed().sorted(Comparator.comparingDouble(k -> -logits[k])).toList();
      for (int k : falling) {
        if (sum < topP * total) {
          expected.add(k);
          sum += probabilities[k];
        }
      }
      TokenSampler sampler = new TokenSampler(new GenerationOptions(1, 0, topP, 1), new boolean[8]);
      TreeSet<Integer> drawn = new TreeSet<>();
      for (int i = 0; i < 3000; i++) {
        drawn.add(sampler.draw(logits, 0, random));
      }
      assertThat(drawn).as("top-p %s of %s", topP, Arrays.toString(logits)).isEqualTo(expected);
    }
  }

  @Test
  void badOptionsAreNamed() {
    assertThatThrownBy(() -> GenerationOptions.beam(-1, 1)).hasMessage("beam must be 0 to 256, but is -1");
    assertThatThrownBy(() -> new GenerationOptions(-1, 0, 1, 1)).hasMessage("temperature must be at least 0, but is -1.0");
    assertThatThrownBy(() -> new GenerationOptions(1, -1, 1, 1)).hasMessage("top_k must be at least 0, but is -1");
    assertThatThrownBy(() -> new GenerationOptions(1, 0, 0, 1)).hasMessage("top_p must be above 0 and at most 1, but is 0.0");
  }

  @Test
  void logitsThatAreNoNumbersAreRefused() {
    TokenSampler sampler = new TokenSampler(GenerationOptions.seeded(1), FIRST_FORBIDDEN);
    float[] logits = {0, 1, Float.NaN, 0, 0};
    assertThatThrownBy(() -> sampler.draw(logits, 0, new Random(1))).hasMessageContaining("not numbers");
  }
}

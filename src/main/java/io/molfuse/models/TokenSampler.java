// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import java.util.Arrays;
import java.util.Comparator;
import java.util.random.RandomGenerator;

/** Draws a token from a row of logits. Forbidden tokens are never drawn. */
final class TokenSampler {
  private final GenerationOptions options;
  private final boolean[] forbidden;
  private final double[] weights;

  TokenSampler(GenerationOptions options, boolean[] forbidden) {
    this.options = options;
    this.forbidden = forbidden;
    weights = new double[forbidden.length];
  }

  /**
   * @param logits [B,K] row by row
   * @param row which row
   */
  int draw(float[] logits, int row, RandomGenerator random) {
    int start = row * weights.length;
    int best = best(logits, start, forbidden);
    if (options.temperature() == 0) {
      return best;
    }
    double largest = logits[start + best];
    for (int k = 0; k < weights.length; k++) {
      weights[k] = forbidden[k] ? 0 : Math.exp((logits[start + k] - largest) / options.temperature());
    }
    if ((options.topK() > 0 && options.topK() < weights.length) || options.topP() < 1) {
      cut();
    }
    return pick(random.nextDouble(), best);
  }

  /**
   * Logarithms of the probabilities at temperature 1 of the tokens that are not forbidden; of the others, negative infinity.
   *
   * @param logits [B,K] row by row
   * @param row which row
   * @param result takes them, [K]
   */
  static void logProbabilities(float[] logits, int row, boolean[] forbidden, double[] result) {
    int start = row * forbidden.length;
    double largest = logits[start + best(logits, start, forbidden)];
    double sum = 0;
    for (int k = 0; k < forbidden.length; k++) {
      sum += forbidden[k] ? 0 : Math.exp(logits[start + k] - largest);
    }
    double logSum = largest + Math.log(sum);
    for (int k = 0; k < forbidden.length; k++) {
      result[k] = forbidden[k] ? Double.NEGATIVE_INFINITY : logits[start + k] - logSum;
    }
  }

  private static int best(float[] logits, int start, boolean[] forbidden) {
    int best = -1;
    for (int k = 0; k < forbidden.length; k++) {
      float value = logits[start + k];
      if (Float.isNaN(value)) {
        throw new IllegalStateException("the model's logits are not numbers: its parameters are unusable");
      }
      if (!forbidden[k] && (best < 0 || value > logits[start + best])) {
        best = k;
      }
    }
    return best;
  }

  /** Clears the weights beyond the first topK, and beyond those that together have the probability topP. */
  private void cut() {
    Integer[] order = new Integer[weights.length];
    Arrays.setAll(order, k -> k);
    Arrays.sort(order, Comparator.comparingDouble(k -> -weights[k]));
    int kept = options.topK() > 0 ? Math.min(options.topK(), order.length) : order.length;
    double total = 0;
    for (int i = 0; i < kept; i++) {
      total += weights[order[i]];
    }
    double sum = 0;
    for (int i = 0; i < order.length; i++) {
      if (i >= kept || sum >= options.topP() * total) {
        weights[order[i]] = 0;
      } else {
        sum += weights[order[i]];
      }
    }
  }

  private int pick(double uniform, int fallback) {
    double total = 0;
    for (double weight : weights) {
      total += weight;
    }
    double threshold = uniform * total;
    double sum = 0;
    for (int k = 0; k < weights.length; k++) {
      sum += weights[k];
      if (weights[k] > 0 && sum > threshold) {
        return k;
      }
    }
    // Rounding can leave the sum at the threshold.
    return fallback;
  }
}

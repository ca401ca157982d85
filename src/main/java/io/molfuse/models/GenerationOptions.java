// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

/**
 * How tokens are drawn.
 *
 * @param temperature divides the logits; 0 takes the most likely token
 * @param topK only so many of the most likely tokens are drawn from; 0 for all
 * @param topP only the most likely tokens that together have this probability are drawn from; 1 for all
 * @param seed decides the latents and the draws; molecule n depends on it and n alone
 */
public record GenerationOptions(double temperature, int topK, double topP, long seed) {
  /** Checks the values. */
  public GenerationOptions {
    if (!(temperature >= 0) || Double.isInfinite(temperature)) {
      throw new IllegalArgumentException("temperature must be at least 0, but is " + temperature);
    }
    if (topK < 0) {
      throw new IllegalArgumentException("top_k must be at least 0, but is " + topK);
    }
    if (!(topP > 0 && topP <= 1)) {
      throw new IllegalArgumentException("top_p must be above 0 and at most 1, but is " + topP);
    }
  }

  /**
   * Temperature 1 over all tokens.
   *
   * @param seed decides the latents and the draws
   * @return the options
   */
  public static GenerationOptions seeded(long seed) {
    return new GenerationOptions(1, 0, 1, seed);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

/**
 * How tokens are drawn.
 *
 * @param temperature divides the logits; 0 takes the most likely token
 * @param topK only so many of the most likely tokens are drawn from; 0 for all
 * @param topP only the most likely tokens that together have this probability are drawn from; 1 for all
 * @param seed decides the latents and the draws; molecule n depends on it and n alone, up to the rounding of batches of other sizes
 * @param beam 0 draws tokens one after the other; above, nothing is drawn: of so many sequences kept at each step, the most likely at
 *     the end is taken, which is never less likely than the greedy one
 */
public record GenerationOptions(double temperature, int topK, double topP, long seed, int beam) {
  /** Widest beam. */
  public static final int MAX_BEAM = 256;

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
    if (beam < 0 || beam > MAX_BEAM) {
      throw new IllegalArgumentException("beam must be 0 to " + MAX_BEAM + ", but is " + beam);
    }
  }

  /**
   * Without beam search.
   *
   * @param temperature divides the logits; 0 takes the most likely token
   * @param topK only so many of the most likely tokens are drawn from; 0 for all
   * @param topP only the most likely tokens that together have this probability are drawn from; 1 for all
   * @param seed decides the latents and the draws
   */
  public GenerationOptions(double temperature, int topK, double topP, long seed) {
    this(temperature, topK, topP, seed, 0);
  }

  /**
   * The most likely token at each step.
   *
   * @param seed decides the latents
   * @return the options
   */
  public static GenerationOptions greedy(long seed) {
    return new GenerationOptions(0, 0, 1, seed);
  }

  /**
   * Beam search.
   *
   * @param width sequences kept at each step; 1 is the same as greedy
   * @param seed decides the latents
   * @return the options
   */
  public static GenerationOptions beam(int width, long seed) {
    return new GenerationOptions(0, 0, 1, seed, width);
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

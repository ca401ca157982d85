// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.Checks.floating;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/**
 * Sampling of a diagonal Gaussian with the reparameterisation of Kingma &amp; Welling 2014.
 *
 * <pre>
 *   z = mean + exp(clamp(log_var, -20, 10) / 2) * eps,   eps ~ N(0,1)
 * </pre>
 *
 * eps comes from Philox by (seed, offset, position) and is made again in backward, never stored. The gradient through the
 * clamp is 0 outside -20..10. T is float16, bfloat16, float32 or float64. Mean and log_var are differentiable, once.
 *
 * <p>Every result is a new tensor that belongs to the caller's innermost {@link PointerScope}. Wrong arguments are
 * {@link IllegalArgumentException}s; other failures are {@link MolfuseException}s.
 */
public final class Reparameterize {
  private Reparameterize() {}

  /**
   * Draws with a seed from libtorch's default generator.
   *
   * @param mean T [B,L]
   * @param logVar T [B,L]: the logarithm of the variance
   * @return z, T [B,L]
   */
  public static Tensor apply(Tensor mean, Tensor logVar) {
    return draw(mean, logVar, null, 0);
  }

  /**
   * Draws reproducibly: the same seed gives the same eps.
   *
   * @param mean T [B,L]
   * @param logVar T [B,L]
   * @param seed any number
   * @return z, T [B,L]
   */
  public static Tensor apply(Tensor mean, Tensor logVar, long seed) {
    return draw(mean, logVar, seed, 0);
  }

  /**
   * As {@link #apply(Tensor, Tensor, long)}, with an offset that separates calls sharing a seed.
   *
   * @param mean T [B,L]
   * @param logVar T [B,L]
   * @param seed any number
   * @param offset any number, such as a step count
   * @return z, T [B,L]
   */
  public static Tensor apply(Tensor mean, Tensor logVar, long seed, long offset) {
    return draw(mean, logVar, seed, offset);
  }

  private static Tensor draw(Tensor mean, Tensor logVar, Long seed, long offset) {
    floating("mean", mean, "[B,L]", 2);
    floating("log_var", logVar, "[B,L]", 2);
    return Unfused.on() ? Unfused.reparameterize(mean, logVar) : Native.reparameterize(mean, logVar, seed, offset);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import org.bytedeco.pytorch.global.torch;

/** Independent seeds from one: no generator state needs saving when every step's randomness is a function of its number. */
public final class Seeds {
  private static final long GAMMA = 0x9E3779B97F4A7C15L;

  private Seeds() {}

  /**
   * Mixes a seed with the numbers that tell its uses apart (SplitMix64's finaliser, Steele et al. 2014, once a number).
   *
   * @param seed the run's seed
   * @param parts such as a step and a layer
   * @return a seed
   */
  public static long mix(long seed, long... parts) {
    long hash = finish(seed + GAMMA);
    for (long part : parts) {
      // Without the sum, seed 1 at step 2 would be seed 2 at step 1.
      hash = finish((hash + GAMMA) ^ finish(part + GAMMA));
    }
    return hash;
  }

  /**
   * Sets libtorch's default generators, on which its initialisation and dropout draw.
   *
   * @param seed any number
   */
  public static void seedLibtorch(long seed) {
    torch.manual_seed(seed);
  }

  private static long finish(long z) {
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }
}

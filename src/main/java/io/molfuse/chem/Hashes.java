// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/** 64-bit hashes that are the same on every machine and in every release. */
final class Hashes {
  private Hashes() {}

  /** The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection that spreads every bit. */
  static long mix(long value) {
    long z = value;
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }

  /** Hash of a string's characters; two of 10^6 random strings collide with a probability of about 3e-8. */
  static long of(String text) {
    long hash = 0x51_7C_C1_B7_27_22_0A_95L ^ text.length();
    for (int i = 0; i < text.length(); i++) {
      // The shift feeds the high bits, where multiplication gathers what came before, back into the low ones.
      hash = (hash ^ text.charAt(i)) * 0x9E3779B97F4A7C15L;
      hash ^= hash >>> 29;
    }
    return mix(hash);
  }

  /** The hash of a sequence, continued by one more element's hash. */
  static long chain(long hash, long next) {
    return mix(hash + 0x9E3779B97F4A7C15L) ^ next;
  }

  /** A hash as a number in [0, 1), by its upper 53 bits. */
  static double unit(long hash) {
    return (hash >>> 11) * 0x1.0p-53;
  }
}

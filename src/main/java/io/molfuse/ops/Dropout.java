// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

/** Dropout probability and, if the caller wants reproducible draws, the Philox seed and offset. */
final class Dropout {
  double p;
  Long seed;
  long offset;

  Dropout set(double probability) {
    p = checked(probability);
    seed = null;
    offset = 0;
    return this;
  }

  Dropout set(double probability, long newSeed, long newOffset) {
    p = checked(probability);
    seed = newSeed;
    offset = newOffset;
    return this;
  }

  private static double checked(double probability) {
    if (!(probability >= 0 && probability < 1)) {
      throw new IllegalArgumentException("dropout_p: expected a number in [0,1), got " + probability);
    }
    return probability;
  }
}

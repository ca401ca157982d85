// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.SplittableRandom;

/** A permutation an epoch, by Fisher and Yates; the last one used is kept. */
final class ShuffledSampler implements Sampler {
  private final long seed;
  private final int[] order;
  private long shuffledFor = -1;

  ShuffledSampler(long size, long seed) {
    if (size < 0 || size > Integer.MAX_VALUE - 8) {
      throw new IllegalArgumentException("size must be 0 to 2^31-9 to be shuffled, but is " + size);
    }
    this.seed = seed;
    order = new int[(int) size];
  }

  @Override
  public long length() {
    return order.length;
  }

  @Override
  public long index(long epoch, long position) {
    if (epoch != shuffledFor) {
      shuffle(epoch);
    }
    return order[(int) position];
  }

  private void shuffle(long epoch) {
    // Each epoch starts from the same order, so that reaching it takes no replay of the epochs before it.
    for (int i = 0; i < order.length; i++) {
      order[i] = i;
    }
    SplittableRandom random = new SplittableRandom(Seeds.mix(seed, epoch));
    for (int i = order.length - 1; i > 0; i--) {
      int j = random.nextInt(i + 1);
      int swap = order[i];
      order[i] = order[j];
      order[j] = swap;
    }
    shuffledFor = epoch;
  }
}

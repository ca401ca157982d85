// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/**
 * Which sample comes when. A sample's place depends on nothing but the epoch, so that a run goes on in the middle of any epoch
 * without replaying those before. Used by one thread at a time.
 */
public interface Sampler {
  /** What a shard does when the samples cannot be shared out evenly. */
  enum Tail {
    /** The first shards have one sample more. */
    KEEP,
    /** The last samples of the epoch are left out: every shard has as many as the smallest. */
    DROP,
    /** The first samples of the epoch come again: every shard has as many as the largest. */
    REPEAT
  }

  /** @return samples of an epoch */
  long length();

  /**
   * The sample at a place.
   *
   * @param epoch from 0
   * @param position 0 to length-1
   * @return number of the sample
   */
  long index(long epoch, long position);

  /**
   * All samples in their order.
   *
   * @param size number of samples
   * @return a sampler
   */
  static Sampler sequential(long size) {
    if (size < 0) {
      throw new IllegalArgumentException("size must be at least 0, but is " + size);
    }
    return new Sampler() {
      @Override
      public long length() {
        return size;
      }

      @Override
      public long index(long epoch, long position) {
        return position;
      }
    };
  }

  /**
   * All samples, each epoch in an order of its own. Keeps 4 bytes a sample.
   *
   * @param size number of samples, less than 2^31
   * @param seed decides the orders
   * @return a sampler
   */
  static Sampler shuffled(long size, long seed) {
    return new ShuffledSampler(size, seed);
  }

  /**
   * Every worldSize-th sample of this one's order, beginning with the rank-th: the shards of one sampler share nothing, and with
   * {@link Tail#KEEP} or {@link Tail#REPEAT} leave nothing out.
   *
   * @param rank which shard, 0 to worldSize-1
   * @param worldSize number of shards, at least 1
   * @param tail what to do if worldSize does not divide the samples
   * @return a view of this sampler
   */
  default Sampler shard(int rank, int worldSize, Tail tail) {
    if (rank < 0 || rank >= worldSize) {
      throw new IllegalArgumentException("rank must be 0 to worldSize-1, but is " + rank + " of " + worldSize);
    }
    Sampler whole = this;
    long all = length();
    long least = all / worldSize;
    long most = least + (all % worldSize == 0 ? 0 : 1);
    long own =
        switch (tail) {
          case KEEP -> rank < all % worldSize ? most : least;
          case DROP -> least;
          case REPEAT -> most;
        };
    return new Sampler() {
      @Override
      public long length() {
        return own;
      }

      @Override
      public long index(long epoch, long position) {
        return whole.index(epoch, (position * worldSize + rank) % all);
      }
    };
  }
}

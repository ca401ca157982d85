// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;
import java.util.SplittableRandom;

/**
 * Draws batches so that each epoch sees every entry exactly once, in an order that depends only on the seed and the number of
 * the epoch. A run that stops can go on from {@link #state()} with the same batches.
 *
 * <p>Not thread-safe.
 */
public final class EpochSampler {
  /**
   * Where a sampler stands.
   *
   * @param epoch 0-based epoch
   * @param position number of entries of that epoch already drawn
   */
  public record State(int epoch, int position) {}

  private final int[] entries;
  private final int[] order;
  private final int batchSize;
  private final boolean shuffle;
  private final long seed;
  private int epoch;
  private int position;

  /**
   * @param entries the entries of the data set to draw; copied; no duplicates are looked for
   * @param batchSize entries of a batch, at least 1
   * @param shuffle false keeps the order of {@code entries} in every epoch
   * @param seed any number
   */
  public EpochSampler(int[] entries, int batchSize, boolean shuffle, long seed) {
    if (entries == null || entries.length == 0) {
      throw new IllegalArgumentException("entries must not be empty");
    }
    if (batchSize < 1) {
      throw new IllegalArgumentException("batchSize must be at least 1, but is " + batchSize);
    }
    this.entries = entries.clone();
    this.order = new int[entries.length];
    this.batchSize = batchSize;
    this.shuffle = shuffle;
    this.seed = seed;
    seek(new State(0, 0));
  }

  /**
   * The next batch of the current epoch.
   *
   * @return entries of the data set, at most the batch size, or null at the end of the epoch; then {@link #seek} goes on
   */
  public int[] nextBatch() {
    int left = order.length - position;
    if (left == 0) {
      return null;
    }
    int count = Math.min(left, batchSize);
    int[] batch = Arrays.copyOfRange(order, position, position + count);
    position += count;
    return batch;
  }

  /** @return where the sampler stands, for a checkpoint */
  public State state() {
    return new State(epoch, position);
  }

  /**
   * Goes to a place.
   *
   * @param state what {@link #state()} gave for a sampler with the same entries, shuffle and seed
   */
  public void seek(State state) {
    if (state.epoch() < 0 || state.position() < 0 || state.position() > entries.length) {
      throw new IllegalArgumentException(
          "position must be 0 to " + entries.length + " of an epoch from 0, but is " + state.position() + " of " + state.epoch());
    }
    epoch = state.epoch();
    position = state.position();
    System.arraycopy(entries, 0, order, 0, entries.length);
    if (shuffle) {
      // Each epoch starts from the given order, so that reaching it takes no replay of the epochs before it.
      SplittableRandom random = new SplittableRandom(Hashes.mix(seed + 0x9E3779B97F4A7C15L * (epoch + 1L)));
      for (int i = order.length - 1; i > 0; i--) {
        int j = random.nextInt(i + 1);
        int swap = order[i];
        order[i] = order[j];
        order[j] = swap;
      }
    }
  }

  /** @return batches of an epoch */
  public int batchesPerEpoch() {
    return (entries.length - 1) / batchSize + 1;
  }

  /** @return the largest batch */
  public int batchSize() {
    return batchSize;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/**
 * Samples that can only be read one after the other. An epoch must give the same samples in the same order whenever it is opened, or
 * a run cannot go on where it stopped.
 *
 * @param <S> a sample
 */
public interface StreamingDataset<S> {
  /**
   * Begins an epoch.
   *
   * @param epoch from 0
   * @return its samples
   * @throws Exception any; it reaches whoever takes the batch, as the cause of a {@link DataLoaderException}
   */
  SampleStream<S> open(long epoch) throws Exception;

  /** @return samples of an epoch; -1 if that is not known, and then a {@link Trainer} cannot use the data set */
  default long size() {
    return -1;
  }

  /**
   * The same samples in an order that depends on the seed and the epoch only: each is drawn from a buffer, whose place the next one of
   * the stream takes.
   *
   * @param buffer samples to draw from, at least 1
   * @param seed any number
   * @return a view of this data set
   */
  default StreamingDataset<S> shuffled(int buffer, long seed) {
    return new ShuffleBuffer<>(this, buffer, seed);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.List;

/**
 * Samples by number. Several threads read at once.
 *
 * @param <S> a sample
 */
public interface IndexedDataset<S> {
  /** @return number of samples; the same all the time */
  long size();

  /**
   * Reads a sample.
   *
   * @param index 0 to size-1
   * @return the sample, not null
   * @throws Exception any; it reaches whoever takes the batch, as the cause of a {@link DataLoaderException}
   */
  S get(long index) throws Exception;

  /**
   * Samples in memory.
   *
   * @param samples not copied; must not change
   * @param <S> a sample
   * @return a data set of them
   */
  static <S> IndexedDataset<S> of(List<S> samples) {
    return new IndexedDataset<>() {
      @Override
      public long size() {
        return samples.size();
      }

      @Override
      public S get(long index) {
        return samples.get(Math.toIntExact(index));
      }
    };
  }
}

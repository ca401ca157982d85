// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.List;

/**
 * Writes samples into the memory that the device copies from, so that nothing on the host is copied. Several threads do so at once.
 *
 * @param <S> a sample
 */
@FunctionalInterface
public interface StagedCollate<S> {
  /**
   * Writes a batch.
   *
   * @param samples at least one
   * @param slot gives the tensors to write, in the order in which {@link Transfer#take} returns them
   * @throws Exception any; it reaches whoever takes the batch, as the cause of a {@link DataLoaderException}
   */
  void collate(List<S> samples, StagingRing.Slot slot) throws Exception;
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.List;

/**
 * Joins samples into a batch. Several threads do so at once. One that draws random numbers has a generator of its own, seeded by its
 * samples or their number: drawn from libtorch's default ones, batches would depend on the threads, and {@link Checkpointing} could not
 * repeat what it drew.
 *
 * @param <S> a sample
 * @param <B> a batch
 */
@FunctionalInterface
public interface Collate<S, B> {
  /**
   * Joins samples.
   *
   * @param samples at least one
   * @return the batch, not null
   * @throws Exception any; it reaches whoever takes the batch, as the cause of a {@link DataLoaderException}
   */
  B collate(List<S> samples) throws Exception;
}

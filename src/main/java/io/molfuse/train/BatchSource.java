// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/**
 * Batches by number. Batch n is the same whenever it is asked for, so a run resumes by remembering how many it has used.
 *
 * @param <B> a batch as Java data
 */
public interface BatchSource<B> {
  /** @return batches in one pass over the data, at least 1 */
  long batchesPerEpoch();

  /**
   * Makes a batch. Called by one thread at a time, not always the same.
   *
   * @param index counted from 0 through all epochs
   * @return the batch
   */
  B batch(long index);
}

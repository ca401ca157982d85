// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.io.IOException;

/**
 * Samples one after the other. Used by one thread at a time, not always the same.
 *
 * @param <S> a sample
 */
public interface SampleStream<S> extends AutoCloseable {
  /**
   * Reads the next sample. What takes long, such as parsing, is better left to the collate function, which runs on many threads.
   *
   * @return the sample; null at the end
   * @throws Exception any; it reaches whoever takes the batch, as the cause of a {@link DataLoaderException}
   */
  S next() throws Exception;

  /**
   * Leaves out samples, as a run that goes on in the middle of an epoch does.
   *
   * @param samples at least 0
   * @throws Exception as {@link #next}
   */
  default void skip(long samples) throws Exception {
    for (long i = 0; i < samples && next() != null; i++) {
      // Each is read and dropped.
    }
  }

  /**
   * Closes what the stream reads from.
   *
   * @throws IOException if that fails
   */
  @Override
  default void close() throws IOException {}
}

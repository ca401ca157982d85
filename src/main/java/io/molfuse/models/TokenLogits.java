// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

/** What the decoder says about the next token of several sequences that grow by one token a call. */
interface TokenLogits extends AutoCloseable {
  /**
   * @param tokens the next token of each sequence, the first {@code <sos>}
   * @return [sequences,K] row by row: the logits of the token after it
   */
  float[] next(long[] tokens);

  /** Goes on with these sequences, in this order; one may be there several times. */
  void select(int[] rows);

  @Override
  void close();
}

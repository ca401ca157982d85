// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/** A batch could not be made. Thrown where the batch is taken; the cause is what was thrown where it was to be made. */
public final class DataLoaderException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final long epoch;
  private final long batch;
  private final long sample;

  DataLoaderException(String what, long epoch, long batch, long sample, Throwable cause) {
    super(
        what
            + (sample < 0 ? "" : " sample " + sample + " of")
            + " batch " + batch + " of epoch " + epoch + ": "
            + (cause.getMessage() == null ? cause.toString() : cause.getMessage()),
        cause);
    this.epoch = epoch;
    this.batch = batch;
    this.sample = sample;
  }

  /** @return epoch of the batch, from 0 */
  public long epoch() {
    return epoch;
  }

  /** @return number of the batch in its epoch, from 0 */
  public long batch() {
    return batch;
  }

  /** @return number of the sample that could not be read; -1 if the samples could not be joined */
  public long sample() {
    return sample;
  }
}

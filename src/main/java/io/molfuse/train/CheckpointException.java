// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/** A checkpoint cannot be written or read; the message names the file and the reason. */
public final class CheckpointException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** @param message which file, and what is wrong with it */
  public CheckpointException(String message) {
    super(message);
  }

  /**
   * @param message which file, and what is wrong with it
   * @param cause the underlying failure
   */
  public CheckpointException(String message, Throwable cause) {
    super(message, cause);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/** Training cannot go on, for a reason the message explains to the user. */
public final class TrainingException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** @param message what happened and what to do about it */
  public TrainingException(String message) {
    super(message);
  }

  /**
   * @param message what happened and what to do about it
   * @param cause the underlying failure
   */
  public TrainingException(String message, Throwable cause) {
    super(message, cause);
  }
}

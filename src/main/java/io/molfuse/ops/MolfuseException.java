// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

/**
 * A failure below Java that is not the caller's wrong argument: the native libraries cannot be loaded, the request has no
 * backend on this machine, memory ran out, or libtorch failed. Wrong arguments are {@link IllegalArgumentException}s.
 */
public final class MolfuseException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** @param message what failed */
  public MolfuseException(String message) {
    super(message);
  }

  /**
   * @param message what failed
   * @param cause what caused it
   */
  public MolfuseException(String message, Throwable cause) {
    super(message, cause);
  }
}

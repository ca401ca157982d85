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

  /**
   * What failed, without the list of C++ functions that libtorch appends to the messages of its exceptions.
   *
   * @param failure from libtorch or from anywhere else
   * @return its message up to that list
   */
  public static String reason(Throwable failure) {
    String message = failure.getMessage();
    if (message == null) {
      return "failure without a message";
    }
    int end = message.length();
    for (String mark : new String[] {"\nException raised from ", "\nC++ CapturedTraceback:", "\nframe #0:"}) {
      int at = message.indexOf(mark);
      if (at >= 0) {
        end = Math.min(end, at);
      }
    }
    return message.substring(0, end).strip();
  }
}

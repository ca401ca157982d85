// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

/** A command cannot do what it was asked for; the message says why. */
final class FailureException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  FailureException(String message) {
    super(message);
  }
}

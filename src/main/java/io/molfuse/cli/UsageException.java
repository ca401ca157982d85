// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

/** The command line asks for something it cannot ask for. */
final class UsageException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  UsageException(String message) {
    super(message);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/**
 * A SMILES string that has no SELFIES, or a SELFIES string that is malformed. The message names what is wrong and where.
 */
public final class SelfiesException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final String input;
  private final String reason;
  private final int position;

  SelfiesException(String input, String reason, int position) {
    super(
        position < 0
            ? reason + ": \"" + input + "\""
            : reason + " at position " + position + " of \"" + input + "\"");
    this.input = input;
    this.reason = reason;
    this.position = position;
  }

  /** @return the string that was to be translated */
  public String input() {
    return input;
  }

  /** @return what is wrong, without the place and the input */
  public String reason() {
    return reason;
  }

  /** @return 0-based character position of the fault in the input, or -1 if it has no single place */
  public int position() {
    return position;
  }
}

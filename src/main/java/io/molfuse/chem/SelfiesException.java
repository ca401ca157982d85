// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/**
 * A SMILES string that has no SELFIES, or a SELFIES string that is malformed. The message names what is wrong and where, and quotes the
 * input, of a long one the part around the fault.
 */
public final class SelfiesException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** Longer inputs, up to megabytes, are quoted in part. */
  private static final int MAX_QUOTED = 240;

  private final String input;
  private final String reason;
  private final int position;

  SelfiesException(String input, String reason, int position) {
    super(
        position < 0
            ? reason + ": \"" + excerpt(input, 0) + "\""
            : reason + " at position " + position + " of \"" + excerpt(input, position) + "\"");
    this.input = input;
    this.reason = reason;
    this.position = position;
  }

  /** The whole input, or of one too long for a message what is around the position. */
  static String excerpt(String input, int position) {
    if (input.length() <= MAX_QUOTED) {
      return input;
    }
    int from = Math.max(0, Math.min(position - MAX_QUOTED / 2, input.length() - MAX_QUOTED));
    int to = from + MAX_QUOTED;
    return (from > 0 ? "..." : "") + input.substring(from, to) + (to < input.length() ? "..." : "");
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

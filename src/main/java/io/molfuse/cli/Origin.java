// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

/**
 * Where a setting was given.
 *
 * @param layer kind of place; a later one has the last word
 * @param source the file's name, or the option as it was written
 * @param line of the file, from 1; 0 for an option
 */
record Origin(Layer layer, String source, int line) {
  /** Kinds of places, from the weakest on. */
  enum Layer {
    BUNDLED,
    FILE,
    OPTION
  }

  Origin atLine(int number) {
    return layer == Layer.OPTION ? this : new Origin(layer, source, number);
  }

  /** The failure that a setting from here causes: wrong usage if it is from the command line. */
  RuntimeException refusal(String message) {
    String text = this + ": " + message;
    return layer == Layer.OPTION ? new UsageException(text) : new FailureException(text);
  }

  @Override
  public String toString() {
    return line > 0 ? source + ", line " + line : source;
  }
}

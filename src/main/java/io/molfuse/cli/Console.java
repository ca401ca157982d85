// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.InputStream;
import java.io.PrintStream;
import java.util.Locale;

/**
 * Where a command reads and writes.
 *
 * @param in input
 * @param out results
 * @param err everything for people while it works
 */
record Console(InputStream in, PrintStream out, PrintStream err) {
  private static final ObjectMapper JSON = new ObjectMapper();

  /** A line for people. */
  void say(String format, Object... arguments) {
    err.println(String.format(Locale.ROOT, format, arguments));
    err.flush();
  }

  /** One JSON object on a line of its own. */
  void json(Object value) {
    try {
      out.println(JSON.writeValueAsString(value));
    } catch (JsonProcessingException e) {
      throw new IllegalStateException("cannot write as JSON: " + value, e);
    }
    flush();
  }

  /**
   * Sends off what was written to out.
   *
   * @throws FailureException if it did not arrive, as on a full disk or when the reader has gone; a PrintStream only notes that
   */
  void flush() {
    if (out.checkError()) {
      throw new FailureException("cannot write to standard output");
    }
  }

  /**
   * Whether a person watches err, so that a line may be drawn over again. Java itself cannot tell of that stream; the launcher
   * does.
   */
  boolean isTerminal() {
    return err == System.err && Boolean.getBoolean("molfuse.terminal");
  }
}

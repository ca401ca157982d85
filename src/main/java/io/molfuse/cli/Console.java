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
      out.flush();
    } catch (JsonProcessingException e) {
      throw new IllegalStateException("cannot write as JSON: " + value, e);
    }
  }

  /** Whether a person watches err, so that a line may be drawn over again. */
  boolean isTerminal() {
    return err == System.err && System.console() != null;
  }
}

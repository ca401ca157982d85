// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** Runs the program and keeps what it writes. */
record Program(int code, String out, String err) {
  private static final ObjectMapper JSON = new ObjectMapper();

  static Program run(Object... args) {
    return withInput("", args);
  }

  static Program withInput(String input, Object... args) {
    return withStreams(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)), new ByteArrayOutputStream(), args);
  }

  /** Runs the program on other streams than strings. */
  static Program withStreams(InputStream in, OutputStream out, Object... args) {
    String[] words = new String[args.length];
    for (int i = 0; i < words.length; i++) {
      words[i] = args[i].toString();
    }
    ByteArrayOutputStream err = new ByteArrayOutputStream();
    int code =
        Main.run(
            words,
            in,
            new PrintStream(out, true, StandardCharsets.UTF_8),
            new PrintStream(err, true, StandardCharsets.UTF_8));
    String written = out instanceof ByteArrayOutputStream bytes ? bytes.toString(StandardCharsets.UTF_8) : "";
    return new Program(code, written, err.toString(StandardCharsets.UTF_8));
  }

  List<JsonNode> json() throws JsonProcessingException {
    List<JsonNode> lines = new ArrayList<>();
    for (String line : out.lines().toList()) {
      lines.add(JSON.readTree(line));
    }
    return lines;
  }

  /** A pipe whose reader goes away after so many bytes. */
  static OutputStream closedAfter(int bytes) {
    return new OutputStream() {
      private int left = bytes;

      @Override
      public void write(int b) throws IOException {
        if (left-- <= 0) {
          throw new IOException("Broken pipe");
        }
      }
    };
  }
}

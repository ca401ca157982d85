// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;

/** Lines of comma-separated values, as RFC 4180 has them. */
final class Csv {
  private Csv() {}

  /** Numbers that are not finite are empty. */
  static String line(List<?> values) {
    return values.stream().map(Csv::field).collect(Collectors.joining(","));
  }

  private static String field(Object value) {
    if (value instanceof Double number) {
      return Double.isFinite(number) ? String.format(Locale.ROOT, "%.6g", number) : "";
    }
    String text = String.valueOf(value);
    boolean plain = text.chars().noneMatch(c -> c == ',' || c == '"' || c == '\n' || c == '\r');
    return plain ? text : '"' + text.replace("\"", "\"\"") + '"';
  }
}

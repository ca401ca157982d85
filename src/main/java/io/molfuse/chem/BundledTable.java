// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.List;

/** Tables beside the classes; scripts/chem/make_property_tables.py says what they hold and where it comes from. */
final class BundledTable {
  private BundledTable() {}

  /** The rows of a table, parted by tabs, without the line that names its source. */
  static List<String[]> rows(String name) {
    try (BufferedReader reader = new BufferedReader(new InputStreamReader(open(name), StandardCharsets.US_ASCII))) {
      return reader.lines().skip(1).map(line -> line.split("\t")).toList();
    } catch (IOException e) {
      throw new UncheckedIOException(name, e);
    }
  }

  /** The first column of a table as patterns. */
  static List<Smarts> patterns(String name, int column) {
    return rows(name).stream().map(row -> Smarts.of(row[column])).toList();
  }

  static InputStream open(String name) {
    InputStream stream = BundledTable.class.getResourceAsStream(name);
    if (stream == null) {
      throw new IllegalStateException("the jar lacks io/molfuse/chem/" + name);
    }
    return stream;
  }
}

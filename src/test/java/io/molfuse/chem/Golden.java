// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.GZIPInputStream;

/** Rows of the golden files beside the tests; the scripts under scripts/chem say what the columns are. */
final class Golden {
  private Golden() {}

  static List<String[]> rows(String name) {
    List<String[]> rows = new ArrayList<>();
    try (BufferedReader reader =
        new BufferedReader(
            new InputStreamReader(
                new GZIPInputStream(Golden.class.getResourceAsStream(name)), StandardCharsets.US_ASCII))) {
      for (String line = reader.readLine(); line != null; line = reader.readLine()) {
        rows.add(line.split("\t", -1));
      }
    } catch (IOException e) {
      throw new AssertionError(name, e);
    }
    return rows;
  }
}

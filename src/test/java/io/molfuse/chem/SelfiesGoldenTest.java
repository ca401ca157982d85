// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Test;

/** Every string of the golden file translates as the Python package selfies translates it, or fails where that fails. */
class SelfiesGoldenTest {
  private static final String ERROR = "<error>";

  @Test
  void equalsThePythonPackage() {
    List<String> differences = new ArrayList<>();
    int molecules = 0;
    int strings = 0;
    int errors = 0;
    for (String[] row : Golden.rows("selfies-golden.tsv.gz")) {
      Selfies codec = Selfies.with(SelfiesConstraints.preset(row[1]));
      String smiles = row[3];
      String selfies = row[4];
      if (row[0].equals("smiles")) {
        boolean strict = row[2].equals("1");
        String found = attempt(text -> codec.encode(text, strict), smiles);
        if (!found.equals(selfies)) {
          differences.add("encode " + smiles + "\n  expected " + selfies + "\n  found    " + found);
        }
        molecules += selfies.equals(ERROR) ? 0 : 1;
      } else {
        strings++;
      }
      if (selfies.equals(ERROR)) {
        errors++;
        continue;
      }
      String found = attempt(codec::decode, selfies);
      if (!found.equals(row[5])) {
        differences.add("decode " + selfies + "\n  expected " + row[5] + "\n  found    " + found);
      }
      errors += row[5].equals(ERROR) ? 1 : 0;
    }
    assertThat(differences).isEmpty();
    assertThat(molecules).isGreaterThan(5_000);
    assertThat(strings).isGreaterThan(3_000);
    assertThat(errors).isGreaterThan(1_000);
  }

  private static String attempt(UnaryOperator<String> translation, String text) {
    try {
      return translation.apply(text);
    } catch (SelfiesException e) {
      assertThat(e.input()).isEqualTo(text);
      assertThat(e.position()).isBetween(-1, text.length());
      return ERROR;
    }
  }
}

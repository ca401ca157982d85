// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class ChemistryTest {
  @ParameterizedTest
  @ValueSource(
      strings = {
        "C", "CC(=O)Oc1ccccc1C(=O)O", "C[N+](C)(C)C", "CN(=O)=O", "C[N+](=O)[O-]", "CN=[N+]=[N-]", "CN=N#N", "OS(=O)(=O)O",
        "F[P-](F)(F)(F)(F)F", "F[B-](F)(F)F", "OCl(=O)(=O)=O", "[O-][Cl+3]([O-])([O-])[O-]", "[Fe+2]", "[13CH4]", "[CH3]",
        "c1cc[nH]c1", "c1ccsc1", "O=c1cc[nH]cc1", "[2H]O[2H]", "F/C=C/F", "N[C@@H](C)C(=O)O", "C1CCCCC1.Cl", "*C", "I(=O)(=O)O",
        "[H][H]", "C%10CC%10", "S(F)(F)(F)(F)(F)F", "F[S-](F)(F)(F)F"
      })
  void valid(String smiles) {
    assertThat(Chemistry.fault(smiles)).isEmpty();
    assertThat(Chemistry.isValid(Chemistry.canonical(smiles))).isTrue();
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "", " ", "C C", "CCO ethanol", "C(", "C)", "C()", "C1", "C=", "=C", "C==C", "C..C", ".C", "C.", "C=(C)C", "(C)C", "[", "[]", "[C",
        "[Qq]", "[Na+F]", "c1cccc1", "cc", "oC", "C=[N+](=o)[O-]", "F(C)C", "C(C)(C)(C)(C)C", "N(C)(C)(C)C", "O(C)(C)C", "[NH5]",
        "[CH5]", "[OH3]", "[Na+]C", "C[Cl-]C", "C>>C", "Q", "C\u00e9", "%10", "C1CC2"
      })
  void invalid(String smiles) {
    assertThat(Chemistry.isValid(smiles)).isFalse();
    assertThat(Chemistry.fault(smiles)).get().asString().isNotBlank();
    assertThatThrownBy(() -> Chemistry.canonical(smiles)).isInstanceOf(MoleculeException.class);
  }

  @ParameterizedTest
  @CsvSource({
    "OCC, CCO",
    "C1=CC=CC=C1, c1ccccc1",
    "C(O)(=O)C, CC(=O)O",
    "F/C=C/F, F\\C=C\\F",
    "N[C@@H](C)C(=O)O, OC(=O)[C@@H](N)C",
    "[H]C([H])([H])C, CC",
    "Cl.CN, CN.Cl",
    "C[C@H]1CC[C@@H](C)CC1, C[C@@H]1CC[C@H](C)CC1",
    "C1=CC=CC=CC=C1, C=1C=CC=CC=CC=1",
  })
  void oneMoleculeHasOneCanonicalForm(String first, String second) {
    assertThat(Chemistry.canonical(first)).isEqualTo(Chemistry.canonical(second));
  }

  @ParameterizedTest
  @CsvSource({
    "F/C=C/F, F/C=C\\F",
    "F/C=C/F, FC=CF",
    "N[C@@H](C)C(=O)O, N[C@H](C)C(=O)O",
    "[13CH4], C",
    "C[C@H]1CC[C@@H](C)CC1, C[C@H]1CC[C@H](C)CC1",
    "[CH3], C",
    "CC[O-], CCO",
  })
  void differentMoleculesStayDifferent(String first, String second) {
    assertThat(Chemistry.canonical(first)).isNotEqualTo(Chemistry.canonical(second));
  }

  @Test
  void canonicalFormsAreStable() {
    for (String[] row : Golden.rows("feature-golden.tsv.gz")) {
      if (row[0].equals("moses")) {
        String canonical = Chemistry.canonical(row[1]);
        assertThat(Chemistry.canonical(canonical)).isEqualTo(canonical);
        // SELFIES writes the same molecule kekulised and in another order.
        String rewritten = Selfies.standard().decode(Selfies.standard().encode(row[1]));
        assertThat(Chemistry.canonical(rewritten)).isEqualTo(canonical);
      }
    }
  }
}

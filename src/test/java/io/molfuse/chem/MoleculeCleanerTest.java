// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.data.Offset.offset;

import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class MoleculeCleanerTest {
  private static String cleaned(String smiles) {
    return cleaned(smiles, false, false);
  }

  private static String cleaned(String smiles, boolean keepSalts, boolean keepCharges) {
    MoleculeCleaner cleaner = new MoleculeCleaner(smiles, keepSalts, keepCharges);
    return MoleculeParser.parse(smiles, cleaner::clean, (molecule, atoms, canonical) -> canonical);
  }

  @ParameterizedTest
  @CsvSource({
    // salts
    "CC(=O)[O-].[Na+], CC(=O)O",
    "CCN.Cl, CCN",
    "Cl.CCN, CCN",
    "O.O.CCO, CCO",
    "CC(C)NCC(O)C.OS(=O)(=O)O, CC(C)NCC(O)C",
    "C1.C1, CC",
    "[K+].[O-]c1ccccc1C(=O)[O-].[K+], Oc1ccccc1C(=O)O",
    // charges
    "C[NH3+], CN",
    "[NH3+]CC(=O)[O-], NCC(=O)O",
    "c1cc[nH+]cc1, c1ccncc1",
    "c1nn[n-]n1, c1nn[nH]n1",
    "CC[S-], CCS",
    "[CH-]1C=CC=C1, C1C=CC=C1",
    "NC(=[NH2+])N, NC(=N)N",
    "C[NH+](C)CC[N+](C)(C)C, CN(C)CC[N+](C)(C)C",
    // groups that are drawn with charges
    "C[N+](=O)[O-], C[N+](=O)[O-]",
    "C[N+](C)(C)C, C[N+](C)(C)C",
    "C[n+]1ccccc1, C[n+]1ccccc1",
    "[O-][n+]1ccccc1, [O-][n+]1ccccc1",
    "CN=[N+]=[N-], CN=[N+]=[N-]",
    "C[N+]#[C-], C[N+]#[C-]",
    "C[B-](F)(F)F, C[B-](F)(F)F",
    // a centre that keeps its configuration, beside an atom that loses its charge
    "C[C@H]([NH3+])C(=O)[O-], C[C@H](N)C(=O)O",
    "C[C@@H](O)/C=C/C(=O)[O-].[Na+], C[C@@H](O)/C=C/C(=O)O"
  })
  void takesOffSaltsAndCharges(String given, String expected) {
    assertThat(cleaned(given)).isEqualTo(Chemistry.canonical(expected));
    // What is clean stays as it is.
    assertThat(cleaned(cleaned(given))).isEqualTo(cleaned(given));
  }

  @Test
  void orderOfFragmentsDoesNotMatter() {
    for (String[] pair : new String[][] {{"CCCO", "CCCN"}, {"CCCO", "CC(C)O"}, {"OCC", "CCO"}, {"C[C@H](N)O", "C[C@@H](N)O"}}) {
      assertThat(cleaned(pair[0] + "." + pair[1])).isEqualTo(cleaned(pair[1] + "." + pair[0]));
    }
    assertThat(cleaned("CCCN.CCCO")).as("the heavier of two with as many atoms").isEqualTo(Chemistry.canonical("CCCO"));
    assertThat(cleaned("CCCCC.OS(=O)(=O)OS(=O)(=O)O")).as("a larger fragment without carbon").isEqualTo("CCCCC");
  }

  @Test
  void keepsThemIfAsked() {
    assertThat(cleaned("CC(=O)[O-].[Na+]", true, true)).isEqualTo(Chemistry.canonical("CC(=O)[O-].[Na+]"));
    assertThat(cleaned("CC(=O)[O-].[Na+]", false, true)).isEqualTo(Chemistry.canonical("CC(=O)[O-]"));
    assertThat(cleaned("C[NH3+].Cl", true, false)).isEqualTo(Chemistry.canonical("CN.Cl"));
  }

  @Test
  void refusesWhatIsNoOrganicMolecule() {
    for (String smiles : List.of("[Na+].[Cl-]", "O", "[H][H]", "OS(=O)(=O)O")) {
      assertThatThrownBy(() -> cleaned(smiles))
          .isInstanceOfSatisfying(
              MoleculeException.class, e -> assertThat(e.kind()).isEqualTo(BadRecordReport.Reason.NO_ORGANIC_FRAGMENT));
    }
    for (String smiles : List.of("*CC", "CC[*:1]", "CC.*")) {
      assertThatThrownBy(() -> cleaned(smiles))
          .isInstanceOfSatisfying(MoleculeException.class, e -> assertThat(e.kind()).isEqualTo(BadRecordReport.Reason.WILDCARD_ATOM));
    }
  }

  @Test
  void cleanMoleculesStayAsTheyAre() {
    MoleculeDataset moses = MoleculeDataset.bundled("moses-test-2k5", new MoleculeDataset.Options().limit(500));
    for (int entry = 0; entry < moses.size(); entry++) {
      assertThat(cleaned(moses.smiles(entry))).isEqualTo(moses.smiles(entry));
    }
  }

  @ParameterizedTest
  @CsvSource({"O, 18.015", "CCO, 46.069", "CC(=O)Oc1ccccc1C(=O)O, 180.159", "[13CH4], 17.035", "Clc1ccc(Br)cc1, 191.453"})
  void weighs(String smiles, double expected) {
    double weight = MoleculeParser.parse(smiles, molecule -> molecule, (molecule, atoms, canonical) -> MolecularWeight.of(molecule));
    assertThat(weight).isCloseTo(expected, offset(2e-3));
  }
}

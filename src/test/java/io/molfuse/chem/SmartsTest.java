// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class SmartsTest {
  @ParameterizedTest
  @CsvSource(
      delimiter = ' ',
      value = {
        "C=O CC=O true", "C#O CC=O false", "[CH3] CC true", "[CH3] C=C false", "cc c1ccccc1 true", "CC c1ccccc1 false",
        "[#6]:[#6] c1ccccc1 true", "[#6]=[#6] c1ccccc1 false", "a-a c1ccccc1-c1ccccc1 true", "C1CC1 C1CC1 true", "C1CC1 C1CCC1 false",
        "[R] CCC false", "[r3] C1CC1 true", "[R2] C1CC2CC12 true", "[r5] C1CC1 false", "[C;!R] C1CC1C true", "C!@C C1CC1C true",
        "C.O CCO true", "C.O CC false", "[$(C=O)] CC=O true", "[$(C=O);H3] CC=O false", "[!$(C=O)&#6] CC=O true", "[N+](=O)[O-] CN(=O)=O true",
        "[C,N;H2] CNC false", "[C,N;H3] CNC true", "[Cl] CCl true", "[15N] [15NH3] true", "[15N] N false", "[NX3v3] CN true",
        "[+] C[NH3+] true", "[++] [Fe+2] true", "[O-0] CO true", "C(F)(F)F CC(F)(F)F true", "C(F)(F)F CC(F)F false", "[D3] CC(C)C true",
        "[x2] C1CC1 true", "C=,#N CC#N true", "C-,=;!@C CC=C true", "[H]C([H])[H] C false", "C%12CC%12 C1CC1 true", "[se] c1cc[se]c1 true",
        "[Se] c1cc[se]c1 true", "[se] C[Se]C false", "[S] c1ccsc1 false",
      })
  void matches(String pattern, String smiles, boolean expected) {
    assertThat(Smarts.of(pattern).matches(PerceivedMolecule.of(smiles))).isEqualTo(expected);
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "C(", "C)", "C1", "[", "[C", "C=", "[C@H]", "[$C]", "[$(C]", "Q", "[^3]"})
  void refuses(String pattern) {
    assertThatThrownBy(() -> Smarts.of(pattern)).isInstanceOf(IllegalArgumentException.class).hasMessageContaining("SMARTS");
  }

  @ParameterizedTest
  @ValueSource(strings = {"[H]C([H])([H])O", "[#1]O", "[CH3]O"})
  void hydrogensMayBeAtoms(String pattern) {
    assertThat(Smarts.of(pattern).matches(PerceivedMolecule.of("CO").withHydrogens())).isTrue();
  }
}

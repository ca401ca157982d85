// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class SelfiesTest {
  private static final Selfies SELFIES = Selfies.standard();

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "c1ccccc1              | [C][=C][C][=C][C][=C][Ring1][=Branch1]",
        "C/C=C/C               | [C][/C][=C][/C]",
        "N[C@@H](C)C(=O)O      | [N][C@@H1][Branch1][C][C][C][=Branch1][C][=O][O]",
        "[13CH4].[Na+].[Cl-]   | [13CH4].[Na+1].[Cl-1]",
        "c1cc[nH]c1            | [C][C][=C][NH1][C][=Ring1][Branch1]",
        "C%12CCCC%12           | [C][C][C][C][C][Ring1][Branch1]",
        "[CH3]                 | [CH3]",
      })
  void encodes(String smiles, String selfies) {
    assertThat(SELFIES.encode(smiles.strip())).isEqualTo(selfies.strip());
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "[C][=C][F]            | C=CF",
        "[C][nop][O]           | CO",
        "[C][epsilon][O]       | C",
        "[F][F][F]             | FF",
        "[#C][#O]              | C=O",
        "[C][Branch1]          | C",
        "[C][C][=Ring1][C]     | C#C",
        "[O].[C]               | O.C",
      })
  void decodes(String selfies, String smiles) {
    assertThat(SELFIES.decode(selfies.strip())).isEqualTo(smiles.strip());
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "C1CC     | ring bond 1 is not closed at position 1",
        "C(C      | branch ( is not closed at position 1",
        "CC)C     | branch ) was not opened at position 2",
        "[CH4     | bracket [ is not closed at position 0",
        "C*       | unrecognised character '*' at position 1",
        "C[Xx]    | invalid atom '[Xx]' at position 1",
        "C=       | bond leads nowhere at position 1",
        "C=1CC#1  | ring bond 1 opens as '=' and closes as '#' at position 6",
        "c1cccc1  | aromatic bonds cannot be kekulised",
        "FC(F)=F  | atom 4 (F) has 2 bonds where the constraints allow 1",
        "[Nh]     | invalid atom '[Nh]' at position 0",
      })
  void namesTheFaultOfASmiles(String smiles, String message) {
    assertThatThrownBy(() -> SELFIES.encode(smiles.strip()))
        .isInstanceOf(SelfiesException.class)
        .hasMessageContaining(message.strip())
        .hasMessageContaining(smiles.strip());
  }

  @Test
  void namesTheFaultOfASelfies() {
    assertThatThrownBy(() -> SELFIES.decode("[C][Foo][O]")).hasMessage("invalid symbol [Foo] at position 3 of \"[C][Foo][O]\"");
    assertThatThrownBy(() -> SELFIES.decode("[C][O")).hasMessageContaining("bracket [ is not closed at position 3");
    assertThatThrownBy(() -> SELFIES.encode("")).hasMessageContaining("empty SMILES");
    assertThatThrownBy(() -> Selfies.split("[C][")).isInstanceOf(SelfiesException.class);
  }

  @Test
  void splitsCountsAndCollects() {
    assertThat(Selfies.split("[C][=C][F].[C]")).containsExactly("[C]", "[=C]", "[F]", ".", "[C]");
    assertThat(Selfies.split("")).isEmpty();
    assertThat(Selfies.length("[C][=C][F].[C]")).isEqualTo(5);
    assertThat(Selfies.alphabet(List.of("[C][F][O]", "[C].[O]", "[F][F]"))).containsExactly("[C]", "[F]", "[O]");
  }

  @Test
  void constraintsDecideWhatIsStrict() {
    String chlorate = "O=Cl(=O)O";
    assertThatThrownBy(() -> SELFIES.encode(chlorate)).isInstanceOf(SelfiesException.class);
    assertThat(SELFIES.encode(chlorate, false)).isEqualTo("[O][=Cl][=Branch1][C][=O][O]");
    Selfies hypervalent = Selfies.with(SelfiesConstraints.preset("hypervalent"));
    assertThat(hypervalent.decode(hypervalent.encode(chlorate))).isEqualTo(chlorate);
    Selfies octet = Selfies.with(SelfiesConstraints.preset("octet_rule"));
    assertThatThrownBy(() -> octet.encode("CS(=O)(=O)C")).isInstanceOf(SelfiesException.class);
    assertThat(octet.decode("[S][=O][O]")).isEqualTo("S=O");
  }

  @Test
  void customConstraints() {
    SelfiesConstraints two = SelfiesConstraints.of(Map.of("?", 4, "C", 2, "N+1", 3));
    assertThat(two.capacity("C", 0)).isEqualTo(2);
    assertThat(two.capacity("N", 1)).isEqualTo(3);
    assertThat(two.capacity("N", 0)).isEqualTo(4);
    assertThat(two.capacity("C", 12)).isEqualTo(4);
    assertThat(Selfies.with(two).decode("[C][=C][=C]")).isEqualTo("C=C");
    assertThat(two.robustAlphabet()).contains("[C]", "[=C]", "[#N+1]", "[#C]").doesNotContain("[?]");
    assertThat(two).isEqualTo(SelfiesConstraints.of(two.asMap())).isNotEqualTo(SelfiesConstraints.standard());
    assertThatThrownBy(() -> SelfiesConstraints.of(Map.of("C", 4))).hasMessageContaining("?");
    assertThatThrownBy(() -> SelfiesConstraints.of(Map.of("?", 4, "Qq", 1))).hasMessageContaining("Qq");
    assertThatThrownBy(() -> SelfiesConstraints.of(Map.of("?", 4, "C+0", 1))).hasMessageContaining("C+0");
    assertThatThrownBy(() -> SelfiesConstraints.of(Map.of("?", -1))).hasMessageContaining("-1");
    assertThatThrownBy(() -> SelfiesConstraints.preset("none")).hasMessageContaining("none");
  }

  @Test
  void deepNestingDoesNotOverflowTheStack() {
    int depth = 50_000;
    String smiles = "C(".repeat(depth) + "C" + ")C".repeat(depth);
    String selfies = SELFIES.encode(smiles);
    assertThat(Selfies.length(selfies)).isGreaterThan(2 * depth);
    // A number of three symbols reaches 4095, so only shallower nesting comes back as it was.
    String shallow = "C(".repeat(500) + "C" + ")C".repeat(500);
    assertThat(SELFIES.decode(SELFIES.encode(shallow))).isEqualTo(shallow);
    assertThat(SELFIES.decode("[C][#Branch3][P][P][P]".repeat(depth))).startsWith("CCC");
  }

  @Test
  void symbolsOutsideAsciiAndHugeNumbersAreErrors() {
    assertThatThrownBy(() -> SELFIES.encode("C\u00B2CC\u00B2")).isInstanceOf(SelfiesException.class);
    assertThatThrownBy(() -> SELFIES.encode("[12345678901C]")).isInstanceOf(SelfiesException.class);
    assertThatThrownBy(() -> SELFIES.decode("[12345678901C]")).isInstanceOf(SelfiesException.class);
    assertThat(SELFIES.decode("[0000000000013C]")).isEqualTo("[13C]");
  }

  @Test
  void startsAugmentingPathsInTheOrderOfCPythonSets() {
    // What set(values).pop() gave, one after the other, in CPython 3.11.
    assertThat(CPythonSetOrder.of(new int[] {15, 37})).containsExactly(37, 15);
    assertThat(CPythonSetOrder.of(new int[] {33, 94, 139})).containsExactly(33, 139, 94);
    assertThat(CPythonSetOrder.of(new int[] {60, 74, 77, 80})).containsExactly(80, 74, 60, 77);
    assertThat(CPythonSetOrder.of(new int[] {6, 33, 119, 132, 240, 282})).containsExactly(33, 132, 6, 240, 119, 282);
    assertThat(CPythonSetOrder.of(new int[] {1, 19, 24, 29, 49, 50, 60, 66, 69, 70, 81, 85}))
        .containsExactly(1, 66, 69, 70, 49, 50, 19, 81, 85, 24, 60, 29);
  }
}

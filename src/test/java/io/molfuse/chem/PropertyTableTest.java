// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

class PropertyTableTest {
  private static final List<MolecularProperty> BOTH = List.of(MolecularProperty.RINGS, MolecularProperty.WEIGHT);

  @Test
  void weightsAndRingsOfKnownMolecules() {
    PropertyFunction function = PropertyFunction.standard();
    // Molar masses of aspirin, caffeine and ammonium chloride.
    assertThat(function.of("CC(=O)Oc1ccccc1C(=O)O", BOTH)).containsExactly(new float[] {1, 180.16f}, within(0.01f));
    assertThat(function.of("Cn1cnc2c1c(=O)n(C)c(=O)n2C", BOTH)).containsExactly(new float[] {2, 194.19f}, within(0.01f));
    assertThat(function.of("[NH4+].[Cl-]", BOTH)).containsExactly(new float[] {0, 53.49f}, within(0.01f));
    // Each of the three rings is as small as the others.
    assertThat(function.of("C1CC2CCC1CC2", List.of(MolecularProperty.RINGS))).containsExactly(3);
  }

  @Test
  void whatCannotBeComputedIsRefusedOrUnknown() {
    PropertyFunction rings =
        new PropertyFunction() {
          @Override
          public Set<MolecularProperty> known() {
            return Set.of(MolecularProperty.RINGS);
          }

          @Override
          public float[] of(String smiles, List<MolecularProperty> wanted) {
            throw new IllegalStateException("none for " + smiles);
          }
        };
    assertThatThrownBy(() -> rings.require(BOTH)).hasMessage("weight cannot be computed; what can be is [rings]");
    assertThat(PropertyTable.of(3, i -> "C", List.of(MolecularProperty.RINGS), rings, 1).rows(new int[] {0, 2})).containsOnly(Float.NaN);
    assertThatThrownBy(() -> MolecularProperty.of("mass"))
        .hasMessage("unknown property mass; known are weight, logP, QED, TPSA, rings");
    assertThat(MolecularProperty.of("LOGP")).isEqualTo(MolecularProperty.LOGP);
  }

  @Test
  void rowsAreThoseOfTheEntriesOnAnyNumberOfThreads() {
    List<String> smiles = java.util.stream.IntStream.range(1, 700).mapToObj(n -> "C".repeat(1 + n % 40)).toList();
    PropertyFunction function = PropertyFunction.standard();
    PropertyTable one = PropertyTable.of(smiles.size(), smiles::get, BOTH, function, 1);
    PropertyTable three = PropertyTable.of(smiles.size(), smiles::get, BOTH, function, 3);
    int[] entries = {650, 0, 13};
    assertThat(three.rows(entries)).isEqualTo(one.rows(entries));
    assertThat(one.rows(entries)).isEqualTo(PropertyTable.rows(List.of(smiles.get(650), smiles.get(0), smiles.get(13)), BOTH, function));
  }

  @Test
  void statisticsAreThoseOfTheValuesThereAre() {
    float[] values = new float[102];
    for (int i = 0; i <= 100; i++) {
      values[i] = 100 - i;
    }
    values[101] = Float.NaN;
    PropertyStatistics statistics = PropertyStatistics.of(MolecularProperty.LOGP, values);
    assertThat(statistics.mean()).isCloseTo(50, within(1e-9));
    // Of 0 to n the variance is n (n + 2) / 12.
    assertThat(statistics.deviation()).isCloseTo(Math.sqrt(850), within(1e-9));
    assertThat(statistics.low()).isCloseTo(1, within(1e-9));
    assertThat(statistics.high()).isCloseTo(99, within(1e-9));
    assertThat(statistics.covers(0.5)).isFalse();
    assertThat(statistics.covers(50)).isTrue();
    assertThat(PropertyStatistics.of(MolecularProperty.RINGS, new float[] {2, 2}).deviation()).isEqualTo(1);
    assertThatThrownBy(() -> PropertyStatistics.of(MolecularProperty.QED, new float[] {Float.NaN}))
        .hasMessage("no molecule has a value of QED");
  }
}

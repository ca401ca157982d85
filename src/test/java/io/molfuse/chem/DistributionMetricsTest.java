// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class DistributionMetricsTest {
  private static List<String> rows(String kind) {
    return Golden.rows("metric-golden.tsv.gz").stream().filter(row -> row[0].equals(kind)).map(row -> row[1]).toList();
  }

  @Test
  void agreesWithMoses() {
    Map<String, Double> expected = new HashMap<>();
    for (String[] row : Golden.rows("metric-golden.tsv.gz")) {
      if (row[0].equals("value")) {
        expected.put(row[1], Double.parseDouble(row[2]));
      }
    }
    MoleculeSet generated = MoleculeSet.of(rows("generated"), 2);
    MoleculeSet reference = MoleculeSet.of(rows("reference"), 2);
    KnownMolecules known = new KnownMolecules(reference.size());
    reference.canonical().forEach(known::add);
    DistributionMetrics found = DistributionMetrics.of(generated, reference, known, 2);
    Map<String, Double> values =
        Map.ofEntries(
            Map.entry("valid", found.valid()),
            Map.entry("unique@100", generated.unique(100)),
            Map.entry("unique@1000", found.unique().get(1000)),
            Map.entry("novelty", found.novelty()),
            Map.entry("IntDiv", found.internalDiversity()),
            Map.entry("IntDiv2", found.internalDiversity2()),
            Map.entry("SNN", found.nearestNeighbour()),
            Map.entry("Frag", found.fragments()),
            Map.entry("Scaf", found.scaffolds()),
            Map.entry("Filters", found.filters()),
            Map.entry("weight", found.weight()),
            Map.entry("logP", found.logP()),
            Map.entry("QED", found.qed()),
            Map.entry("SA", found.syntheticAccessibility()));
    assertThat(values.keySet()).isEqualTo(expected.keySet());
    values.forEach((name, value) -> assertThat(value).as(name).isCloseTo(expected.get(name), within(1e-3)));
  }

  @Test
  void distanceIsTheAreaBetweenTheDistributions() {
    assertThat(MoleculeSet.wasserstein(new double[] {0, 1, 3}, new double[] {8, 5, 6})).isCloseTo(5, within(1e-12));
    assertThat(MoleculeSet.wasserstein(new double[] {0, 1}, new double[] {0, 1, 1})).isCloseTo(1.0 / 6, within(1e-12));
    assertThat(MoleculeSet.wasserstein(new double[] {2}, new double[] {2})).isZero();
    assertThat(MoleculeSet.wasserstein(new double[0], new double[] {2})).isNaN();
  }

  @Test
  void fragmentsAreTheSameHoweverAMoleculeIsWritten() {
    MoleculeSet first = MoleculeSet.of(List.of("CCOC(=O)c1ccc(cc1)-c1ccncc1"), 1);
    MoleculeSet second = MoleculeSet.of(List.of("n1ccc(cc1)-c1ccc(cc1)C(OCC)=O"), 1);
    assertThat(first.fragmentSimilarity(second)).isCloseTo(1, within(1e-12));
    assertThat(first.scaffoldSimilarity(second)).isCloseTo(1, within(1e-12));
    // Decalin and bicyclopentyl: no rule for neighbours alone tells them apart.
    MoleculeSet decalin = MoleculeSet.of(List.of("C1CCC2CCCCC2C1"), 1);
    assertThat(decalin.scaffoldSimilarity(MoleculeSet.of(List.of("C1CCCC1C1CCCC1"), 1))).isZero();
  }

  @Test
  void setsWithoutMoleculesHaveNoMetrics() {
    MoleculeSet empty = MoleculeSet.of(List.of("C1", ""), 1);
    MoleculeSet some = MoleculeSet.of(List.of("CCO"), 1);
    DistributionMetrics metrics = DistributionMetrics.of(empty, some, null, 1);
    assertThat(metrics.valid()).isZero();
    assertThat(metrics.novelty()).isNaN();
    assertThat(metrics.internalDiversity()).isNaN();
    assertThat(metrics.nearestNeighbour()).isNaN();
    assertThat(metrics.fragments()).isNaN();
    assertThat(metrics.logP()).isNaN();
    assertThatThrownBy(() -> MoleculeSet.of(List.of("C"), 0)).isInstanceOf(IllegalArgumentException.class).hasMessageContaining("threads");
  }
}

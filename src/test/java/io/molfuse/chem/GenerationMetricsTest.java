// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.List;
import org.junit.jupiter.api.Test;

class GenerationMetricsTest {
  private static KnownMolecules known(String... smiles) {
    KnownMolecules known = new KnownMolecules(0);
    for (String text : smiles) {
      known.add(Chemistry.canonical(text));
    }
    return known;
  }

  @Test
  void countsAsMosesDoes() {
    List<String> generated = List.of("CCO", "OCC", "CC", "c1ccccc1", "C1", "", "C(C)(C)(C)(C)C", "C1=CC=CC=C1");
    GenerationMetrics metrics = GenerationMetrics.ofSmiles(generated, known("CCO"));
    assertThat(metrics.generated()).isEqualTo(8);
    assertThat(metrics.validCount()).isEqualTo(5);
    assertThat(metrics.uniqueCount()).isEqualTo(3);
    assertThat(metrics.novelCount()).isEqualTo(2);
    assertThat(metrics.validity()).isEqualTo(5.0 / 8);
    assertThat(metrics.uniqueness()).isEqualTo(3.0 / 5);
    assertThat(metrics.novelty()).isCloseTo(2.0 / 3, within(1e-12));
    assertThat(metrics.validExamples()).hasSize(3);
    assertThat(metrics.novelExamples()).containsExactly("CC", Chemistry.canonical("c1ccccc1"));
    assertThat(metrics.invalidExamples()).hasSize(3).anyMatch(text -> text.startsWith("C1  ("));
  }

  @Test
  void decodesSelfies() {
    List<String> generated = List.of("[C][C][O]", "[C][Foo]", "", "[C");
    GenerationMetrics metrics = GenerationMetrics.ofSelfies(generated, Selfies.standard(), null);
    assertThat(metrics.validCount()).isEqualTo(1);
    assertThat(metrics.novelCount()).isEqualTo(-1);
    assertThat(metrics.novelty()).isNaN();
    assertThat(metrics.invalidExamples()).hasSize(3);
  }

  @Test
  void nothingGeneratedHasNoShares() {
    GenerationMetrics metrics = GenerationMetrics.ofSmiles(List.of(), known("C"));
    assertThat(metrics.validity()).isNaN();
    assertThat(metrics.uniqueness()).isNaN();
    assertThat(metrics.novelty()).isNaN();
  }

  @Test
  void knownMoleculesGrow() {
    KnownMolecules known = new KnownMolecules(2);
    for (int i = 0; i < 10_000; i++) {
      assertThat(known.add("C".repeat(1 + i % 100) + i)).isTrue();
    }
    assertThat(known.add("C0")).isFalse();
    assertThat(known.contains("C0")).isTrue();
    assertThat(known.contains("N")).isFalse();
    assertThat(known.size()).isEqualTo(10_000);
    assertThat(known.add(0L)).isTrue();
    assertThat(known.add(0L)).isFalse();
    assertThatThrownBy(() -> new KnownMolecules(-1)).hasMessageContaining("expected");
  }

  @Test
  void trainingMoleculesAreNotNovel() {
    MoleculeDataset data = MoleculeDataset.bundled("moses-test-2k5", new MoleculeDataset.Options().limit(200));
    List<String> generated = List.of(data.smiles(3), data.smiles(150));
    assertThat(GenerationMetrics.ofSmiles(generated, KnownMolecules.of(data)).novelty()).isZero();
    assertThat(GenerationMetrics.ofSmiles(generated, KnownMolecules.of(data, new int[] {3})).novelty()).isEqualTo(0.5);
  }
}

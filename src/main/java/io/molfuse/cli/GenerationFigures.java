// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.DistributionMetrics;
import io.molfuse.chem.KnownMolecules;
import io.molfuse.chem.MoleculeSet;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;

/**
 * What evaluate says of generated molecules.
 *
 * @param values by name: whole numbers, or Double that may be NaN
 * @param rows {@link #COLUMNS} of each string
 * @param distinct the different valid molecules, canonical, in the order they came
 */
record GenerationFigures(Map<String, Object> values, List<List<?>> rows, List<String> distinct) {
  private static final List<String> PROPERTIES = List.of("weight", "logP", "QED", "synthetic_accessibility");

  /** The properties of what is no molecule are NaN. */
  static final List<String> COLUMNS = List.of("smiles", "selfies", "valid", "novel", "weight", "logP", "QED", "synthetic_accessibility");

  /**
   * Measures.
   *
   * @param selfies what was generated
   * @param known what is not novel
   * @param reference what the molecules should be like; null to leave out what needs it
   * @param threads how many
   */
  static GenerationFigures of(List<String> selfies, KnownMolecules known, MoleculeSet reference, int threads) {
    List<String> smiles = selfies.stream().map(GenerateCommand::smiles).toList();
    MoleculeSet generated = MoleculeSet.of(smiles, threads);
    DistributionMetrics metrics = DistributionMetrics.of(generated, reference == null ? generated : reference, known, threads);
    Map<String, Object> values = new LinkedHashMap<>();
    values.put("generated", generated.given());
    values.put("validity", metrics.valid());
    values.put("uniqueness", generated.unique(generated.size()));
    metrics.unique().forEach(
        (first, share) -> {
          if (generated.size() >= first) {
            values.put("unique_at_" + first, share);
          }
        });
    values.put("novelty", metrics.novelty());
    values.put("internal_diversity", metrics.internalDiversity());
    values.put("internal_diversity_2", metrics.internalDiversity2());
    values.put("passing_filters", metrics.filters());
    if (reference != null) {
      values.put("nearest_neighbour_similarity", metrics.nearestNeighbour());
      values.put("fragment_similarity", metrics.fragments());
      values.put("scaffold_similarity", metrics.scaffolds());
      values.put("weight_distance", metrics.weight());
      values.put("logP_distance", metrics.logP());
      values.put("QED_distance", metrics.qed());
      values.put("synthetic_accessibility_distance", metrics.syntheticAccessibility());
    }
    for (MoleculeSet.Value value : MoleculeSet.Value.values()) {
      double mean = Arrays.stream(generated.values(value)).average().orElse(Double.NaN);
      values.put(PROPERTIES.get(value.ordinal()) + "_mean", mean);
    }
    return new GenerationFigures(values, rows(selfies, smiles, generated, known), List.copyOf(new LinkedHashSet<>(generated.canonical())));
  }

  private static List<List<?>> rows(List<String> selfies, List<String> smiles, MoleculeSet generated, KnownMolecules known) {
    List<List<?>> rows = new ArrayList<>();
    double[][] properties = Arrays.stream(MoleculeSet.Value.values()).map(generated::values).toArray(double[][]::new);
    int molecule = 0;
    for (int i = 0; i < selfies.size(); i++) {
      boolean valid = molecule < generated.size() && generated.place(molecule) == i;
      String canonical = valid ? generated.canonical().get(molecule) : smiles.get(i);
      List<Object> row = new ArrayList<>(List.of(canonical, selfies.get(i), valid, valid && !known.contains(canonical)));
      for (double[] property : properties) {
        row.add(valid ? property[molecule] : Double.NaN);
      }
      rows.add(row);
      molecule += valid ? 1 : 0;
    }
    return rows;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.Chemistry;
import io.molfuse.chem.GenerationMetrics;
import io.molfuse.chem.KnownMolecules;
import io.molfuse.chem.MoleculeException;
import io.molfuse.chem.MoleculeParser;
import io.molfuse.chem.Selfies;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;

/**
 * What evaluate says of generated molecules.
 *
 * @param values by name: whole numbers, or Double that may be NaN
 * @param rows smiles, selfies, valid, novel of each molecule
 * @param distinct the different valid molecules, canonical, in the order they came
 */
record GenerationFigures(Map<String, Object> values, List<List<?>> rows, List<String> distinct) {
  /** MOSES measures uniqueness among the first so many valid molecules. */
  private static final int[] FIRST = {1000, 10_000};

  /** Figures of the valid molecules (canonical SMILES, repeated ones too) beyond {@link GenerationMetrics}, by name. */
  private static final List<Function<List<String>, Map<String, Double>>> MORE = List.of(GenerationFigures::heavyAtoms);

  static GenerationFigures of(List<String> selfies, KnownMolecules known) {
    GenerationMetrics metrics = GenerationMetrics.ofSelfies(selfies, Selfies.standard(), known);
    List<List<?>> rows = new ArrayList<>();
    List<String> valid = new ArrayList<>();
    for (String text : selfies) {
      String smiles = GenerateCommand.smiles(text);
      boolean molecule = true;
      try {
        smiles = Chemistry.canonical(smiles);
        valid.add(smiles);
      } catch (MoleculeException e) {
        molecule = false;
      }
      rows.add(List.of(smiles, text, molecule, molecule && !known.contains(smiles)));
    }
    Map<String, Object> values = new LinkedHashMap<>();
    values.put("generated", metrics.generated());
    values.put("validity", metrics.validity());
    values.put("uniqueness", metrics.uniqueness());
    for (int first : FIRST) {
      if (valid.size() >= first) {
        values.put("unique_at_" + first, (double) new LinkedHashSet<>(valid.subList(0, first)).size() / first);
      }
    }
    values.put("novelty", metrics.novelty());
    for (Function<List<String>, Map<String, Double>> more : MORE) {
      values.putAll(more.apply(valid));
    }
    Set<String> distinct = new LinkedHashSet<>(valid);
    return new GenerationFigures(values, rows, List.copyOf(distinct));
  }

  private static Map<String, Double> heavyAtoms(List<String> molecules) {
    MoleculeParser parser = new MoleculeParser();
    double sum = 0;
    double squares = 0;
    for (String smiles : molecules) {
      int atoms = parser.parse(smiles).heavyAtoms();
      sum += atoms;
      squares += (double) atoms * atoms;
    }
    double mean = sum / molecules.size();
    Map<String, Double> figures = new LinkedHashMap<>();
    figures.put("heavy_atoms_mean", mean);
    figures.put("heavy_atoms_deviation", Math.sqrt(Math.max(0, squares / molecules.size() - mean * mean)));
    return figures;
  }
}

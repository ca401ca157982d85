// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.ArrayList;
import java.util.List;

/**
 * How good generated molecules are as a set, by the definitions of MOSES (Polykovskiy et al., Front. Pharmacol. 11 (2020) 565644):
 * validity is the share of strings that are molecules, uniqueness the share of different molecules among the valid ones, novelty the
 * share of unknown molecules among the unique ones. Two strings are the same molecule if their canonical SMILES are equal.
 *
 * @param generated number of strings
 * @param validCount strings that are molecules, see {@link Chemistry#isValid}
 * @param uniqueCount different molecules among them
 * @param novelCount molecules among those that are not known; -1 if there is nothing to compare with
 * @param validity validCount / generated; NaN without strings
 * @param uniqueness uniqueCount / validCount; NaN without valid strings
 * @param novelty novelCount / uniqueCount; NaN without unique molecules or without known ones
 * @param validExamples the first unique molecules, canonical
 * @param novelExamples the first novel molecules, canonical
 * @param invalidExamples the first strings that are no molecules, as given, with the reason
 */
public record GenerationMetrics(
    int generated,
    int validCount,
    int uniqueCount,
    int novelCount,
    double validity,
    double uniqueness,
    double novelty,
    List<String> validExamples,
    List<String> novelExamples,
    List<String> invalidExamples) {

  /** Number of examples of each kind. */
  public static final int EXAMPLES = 10;

  /**
   * @param smiles generated strings; empty ones are invalid
   * @param known the training set, or null to leave novelty out
   * @return the metrics
   */
  public static GenerationMetrics ofSmiles(List<String> smiles, KnownMolecules known) {
    Collector collector = new Collector(known);
    for (String text : smiles) {
      collector.add(text, text);
    }
    return collector.finish(smiles.size());
  }

  /**
   * @param selfies generated strings; empty ones and those that cannot be decoded are invalid
   * @param codec how to decode them
   * @param known the training set, or null to leave novelty out
   * @return the metrics
   */
  public static GenerationMetrics ofSelfies(List<String> selfies, Selfies codec, KnownMolecules known) {
    Collector collector = new Collector(known);
    for (String text : selfies) {
      String smiles;
      try {
        smiles = codec.decode(text);
      } catch (SelfiesException e) {
        collector.reject(text, e.reason());
        continue;
      }
      collector.add(smiles, text);
    }
    return collector.finish(selfies.size());
  }

  private static final class Collector {
    private final KnownMolecules known;
    private final KnownMolecules seen = new KnownMolecules(1024);
    private final List<String> validExamples = new ArrayList<>();
    private final List<String> novelExamples = new ArrayList<>();
    private final List<String> invalidExamples = new ArrayList<>();
    private int valid;
    private int novel;

    Collector(KnownMolecules known) {
      this.known = known;
    }

    void add(String smiles, String given) {
      String canonical;
      try {
        canonical = Chemistry.canonical(smiles);
      } catch (MoleculeException e) {
        reject(given, e.reason());
        return;
      }
      valid++;
      if (seen.add(canonical)) {
        keep(validExamples, canonical);
        if (known != null && !known.contains(canonical)) {
          novel++;
          keep(novelExamples, canonical);
        }
      }
    }

    void reject(String given, String reason) {
      keep(invalidExamples, given + "  (" + reason + ")");
    }

    private static void keep(List<String> examples, String text) {
      if (examples.size() < EXAMPLES) {
        examples.add(text);
      }
    }

    GenerationMetrics finish(int generated) {
      int unique = seen.size();
      return new GenerationMetrics(
          generated,
          valid,
          unique,
          known == null ? -1 : novel,
          share(valid, generated),
          share(unique, valid),
          known == null ? Double.NaN : share(novel, unique),
          List.copyOf(validExamples),
          List.copyOf(novelExamples),
          List.copyOf(invalidExamples));
    }

    private static double share(int part, int whole) {
      return whole == 0 ? Double.NaN : (double) part / whole;
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Generated molecules against a reference set by the metrics of MOSES (D. Polykovskiy et al., Front. Pharmacol. 11 (2020) 565644), all but
 * the Fréchet ChemNet distance, which needs that network. All but validity are of the strings that are molecules. Fingerprints are
 * {@link MorganFingerprint}.
 *
 * @param valid share of strings that are molecules
 * @param unique unique@k by k: share of different molecules among the first k
 * @param novelty share of unknown molecules among the different ones; NaN without a training set
 * @param internalDiversity 1 less the mean similarity of pairs (IntDiv1)
 * @param internalDiversity2 1 less the mean over molecules of the root mean square similarity (IntDiv2)
 * @param nearestNeighbour mean similarity to the nearest reference molecule (SNN)
 * @param fragments cosine of the counts of BRICS fragments (Frag)
 * @param scaffolds cosine of the counts of Bemis-Murcko scaffolds of two rings or more (Scaf)
 * @param filters share that passes {@link StructureFilters}
 * @param weight Wasserstein distance of the molecular weights, in g/mol
 * @param logP Wasserstein distance of logP
 * @param qed Wasserstein distance of the drug-likeness
 * @param syntheticAccessibility Wasserstein distance of the synthetic accessibility scores
 */
public record DistributionMetrics(
    double valid,
    Map<Integer, Double> unique,
    double novelty,
    double internalDiversity,
    double internalDiversity2,
    double nearestNeighbour,
    double fragments,
    double scaffolds,
    double filters,
    double weight,
    double logP,
    double qed,
    double syntheticAccessibility) {

  /** The k of unique@k in the published tables. */
  public static final List<Integer> FIRST = List.of(1000, 10_000);

  /**
   * Compares generated molecules with a reference set.
   *
   * @param generated all strings that were generated, see {@link MoleculeSet#of}
   * @param reference the test set; it may serve many comparisons
   * @param training molecules that are not novel, or null to leave novelty out
   * @param threads number of threads, at least 1
   * @return the metrics; NaN where a set has no molecules
   */
  public static DistributionMetrics of(MoleculeSet generated, MoleculeSet reference, KnownMolecules training, int threads) {
    Map<Integer, Double> unique = new LinkedHashMap<>();
    for (int first : FIRST) {
      unique.put(first, generated.unique(first));
    }
    List<String> different = generated.canonical().stream().distinct().toList();
    long novel = training == null ? 0 : different.stream().filter(smiles -> !training.contains(smiles)).count();
    return new DistributionMetrics(
        (double) generated.size() / generated.given(),
        unique,
        training == null ? Double.NaN : (double) novel / different.size(),
        generated.internalDiversity(1, threads),
        generated.internalDiversity(2, threads),
        generated.nearestNeighbour(reference, threads),
        generated.fragmentSimilarity(reference),
        generated.scaffoldSimilarity(reference),
        generated.passing(threads),
        generated.distance(reference, MoleculeSet.Value.WEIGHT),
        generated.distance(reference, MoleculeSet.Value.LOG_P),
        generated.distance(reference, MoleculeSet.Value.QED),
        generated.distance(reference, MoleculeSet.Value.SYNTHETIC_ACCESSIBILITY));
  }
}

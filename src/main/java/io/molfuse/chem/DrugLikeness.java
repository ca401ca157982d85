// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.List;

/**
 * The quantitative estimate of drug-likeness (G. R. Bickerton et al., Nature Chem. 4 (2012) 90-98): the geometric mean of eight
 * desirabilities, weighted by the authors' mean weights. The properties are counted and the alerts written as in RDKit, whose
 * values differ a little from the article's.
 */
final class DrugLikeness {
  private static final List<Smarts> ALERTS = BundledTable.patterns("qed-alerts.tsv", 0);
  private static final List<Smarts> ACCEPTORS = BundledTable.patterns("qed-acceptors.tsv", 0);
  private static final Smarts ALIPHATIC_RING = Smarts.of("[A;R][!a]");

  /** Of each property the parameters a to f of the asymmetric double sigmoid, its greatest value, and the weight. */
  private static final double[][] DESIRABILITY = {
    {2.817065973, 392.5754953, 290.7489764, 2.419764353, 49.22325677, 65.37051707, 104.9805561, 0.66},
    {3.172690585, 137.8624751, 2.534937431, 4.581497897, 0.822739154, 0.576295591, 131.3186604, 0.46},
    {2.948620388, 160.4605972, 3.615294657, 4.435986202, 0.290141953, 1.300669958, 148.7763046, 0.05},
    {1.618662227, 1010.051101, 0.985094388, 0.000000001, 0.713820843, 0.920922555, 258.1632616, 0.61},
    {1.876861559, 125.2232657, 62.90773554, 87.83366614, 12.01999824, 28.51324732, 104.5686167, 0.06},
    {0.010000000, 272.4121427, 2.558379970, 1.565547684, 1.271567166, 2.758063707, 105.4420403, 0.65},
    {3.217788970, 957.7374108, 2.274627939, 0.000000001, 1.317690384, 0.375760881, 312.3372610, 0.48},
    {0.010000000, 1199.094025, -0.09002883, 0.000000001, 0.185904477, 0.875193782, 417.7253140, 0.95},
  };

  private DrugLikeness() {}

  /** @return 0 to 1, given what is known already: weight in g/mol, logP, donors, polar surface in square angstroms, rotatable bonds */
  static double qed(PerceivedMolecule molecule, double weight, double logP, int donors, double surface, int rotatable) {
    int acceptors = 0;
    for (Smarts acceptor : ACCEPTORS) {
      acceptors += acceptor.countAtoms(molecule);
    }
    int alerts = 0;
    for (Smarts alert : ALERTS) {
      alerts += alert.matches(molecule) ? 1 : 0;
    }
    double[] values = {weight, logP, acceptors, donors, surface, rotatable, aromaticRings(molecule), alerts};
    double sum = 0;
    double weights = 0;
    for (int i = 0; i < values.length; i++) {
      double[] p = DESIRABILITY[i];
      double rise = 1 + Math.exp(-(values[i] - p[2] + p[3] / 2) / p[4]);
      double fall = 1 + Math.exp(-(values[i] - p[2] - p[3] / 2) / p[5]);
      sum += p[7] * Math.log((p[0] + p[1] / rise * (1 - 1 / fall)) / p[6]);
      weights += p[7];
    }
    return Math.exp(sum / weights);
  }

  /** Rings that are left once aliphatic ring atoms are taken away. */
  private static int aromaticRings(PerceivedMolecule molecule) {
    boolean[] kept = new boolean[molecule.count];
    int atoms = 0;
    for (int atom = 0; atom < molecule.count; atom++) {
      kept[atom] = !ALIPHATIC_RING.matchesAt(molecule, atom);
      atoms += kept[atom] ? 1 : 0;
    }
    int bonds = 0;
    for (int bond = 0; bond < molecule.bondCount; bond++) {
      bonds += kept[molecule.begin[bond]] && kept[molecule.end[bond]] ? 1 : 0;
    }
    return bonds - atoms + molecule.parts(kept).size();
  }
}

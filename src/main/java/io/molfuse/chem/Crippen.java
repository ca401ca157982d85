// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.List;

/**
 * The octanol-water partition coefficient as a sum over atoms, hydrogens included (S. A. Wildman, G. M. Crippen, J. Chem. Inf. Comput.
 * Sci. 39 (1999) 868-873), with the atom types as RDKit writes them: the first that fits an atom counts.
 */
final class Crippen {
  private static final List<Smarts> TYPES = BundledTable.patterns("crippen.tsv", 0);
  private static final double[] LOG_P =
      BundledTable.rows("crippen.tsv").stream().mapToDouble(row -> Double.parseDouble(row[1])).toArray();

  private Crippen() {}

  /** @param molecule with its hydrogens as atoms */
  static double logP(PerceivedMolecule molecule) {
    double sum = 0;
    for (int atom = 0; atom < molecule.count; atom++) {
      for (int type = 0; type < LOG_P.length; type++) {
        if (TYPES.get(type).matchesAt(molecule, atom)) {
          sum += LOG_P[type];
          break;
        }
      }
    }
    return sum;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.io.UncheckedIOException;
import org.openscience.cdk.config.Isotopes;
import org.openscience.cdk.interfaces.IIsotope;

/** Masses in g/mol: of elements the standard atomic weight, of labelled atoms that of the isotope. */
final class AtomicWeights {
  private static final double[] WEIGHTS =
      BundledTable.rows("atomic-weights.tsv").stream().mapToDouble(row -> Double.parseDouble(row[0])).toArray();

  private AtomicWeights() {}

  /** @param isotope mass number, or 0 */
  static double of(int element, int isotope) {
    if (isotope == 0) {
      return WEIGHTS[element];
    }
    if (element == 0) {
      return 0;
    }
    try {
      IIsotope found = Isotopes.getInstance().getIsotope(Elements.symbol(element), isotope);
      return found == null || found.getExactMass() == null ? isotope : found.getExactMass();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Whole mass units by which an isotope differs from the standard atomic weight; 0 without a label. */
  static int isotopeShift(int element, int isotope) {
    return isotope == 0 ? 0 : (int) (of(element, isotope) - WEIGHTS[element]);
  }

  static double of(PerceivedMolecule molecule) {
    double sum = 0;
    for (int atom = 0; atom < molecule.count; atom++) {
      sum += of(molecule.element[atom], molecule.isotope[atom]) + molecule.implicitHydrogens[atom] * WEIGHTS[Elements.H];
    }
    return sum;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.io.UncheckedIOException;
import org.openscience.cdk.config.IsotopeFactory;
import org.openscience.cdk.config.Isotopes;
import org.openscience.cdk.interfaces.IAtom;
import org.openscience.cdk.interfaces.IAtomContainer;
import org.openscience.cdk.interfaces.IIsotope;

/** Molecular weight in g/mol by CDK's natural masses; an atom with a mass number has the exact mass of its isotope. */
final class MolecularWeight {
  private static final IsotopeFactory ISOTOPES = isotopes();
  private static final double[] NATURAL = natural();

  private MolecularWeight() {}

  private static IsotopeFactory isotopes() {
    try {
      return Isotopes.getInstance();
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read CDK's table of isotopes", e);
    }
  }

  private static double[] natural() {
    double[] masses = new double[Elements.COUNT];
    for (int number = 1; number < masses.length; number++) {
      masses[number] = ISOTOPES.getNaturalMass(number);
    }
    return masses;
  }

  static double of(IAtomContainer molecule) {
    double weight = 0;
    for (IAtom atom : molecule.atoms()) {
      Integer hydrogens = atom.getImplicitHydrogenCount();
      weight += mass(atom) + (hydrogens == null ? 0 : hydrogens) * NATURAL[Elements.H];
    }
    return weight;
  }

  private static double mass(IAtom atom) {
    if (atom.getMassNumber() == null) {
      return NATURAL[atom.getAtomicNumber()];
    }
    IIsotope isotope = ISOTOPES.getIsotope(Elements.symbol(atom.getAtomicNumber()), atom.getMassNumber());
    return isotope == null ? atom.getMassNumber() : isotope.getExactMass();
  }
}

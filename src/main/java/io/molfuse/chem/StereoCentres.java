// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/**
 * Atoms that may be tetrahedral stereo centres, whether or not a configuration is given: atoms with four different neighbours, one of
 * which may be a hydrogen, and among them nitrogens only where the ring holds them fast. As in RDKit's older perception,
 * neighbours are told apart by constitution, so that centres which differ by the configuration of other centres only are not found.
 */
final class StereoCentres {
  private StereoCentres() {}

  static int count(PerceivedMolecule molecule) {
    long[] classes = null;
    int found = 0;
    for (int atom = 0; atom < molecule.count; atom++) {
      if (mayBeCentre(molecule, atom)) {
        classes = classes == null ? AtomClasses.of(molecule) : classes;
        found += distinct(molecule, atom, classes) ? 1 : 0;
      }
    }
    return found;
  }

  private static boolean distinct(PerceivedMolecule molecule, int atom, long[] classes) {
    for (int i = molecule.rowPtr[atom]; i < molecule.rowPtr[atom + 1]; i++) {
      for (int j = i + 1; j < molecule.rowPtr[atom + 1]; j++) {
        if (classes[molecule.neighbour[i]] == classes[molecule.neighbour[j]]) {
          return false;
        }
      }
    }
    return true;
  }

  private static boolean mayBeCentre(PerceivedMolecule molecule, int atom) {
    int degree = molecule.degree(atom);
    int connectivity = molecule.connectivity(atom);
    int element = molecule.element[atom];
    if (molecule.hydrogens[atom] > 1 || degree < 3 || connectivity > 4 || element == Elements.H) {
      return false;
    }
    if (connectivity == 4) {
      return true;
    }
    // Three neighbours and a lone pair.
    boolean bridge = molecule.ringDegree(atom) == 3 && molecule.ringsOfAtom[atom] > 1;
    switch (element) {
      case Elements.N:
        return molecule.valence[atom] == 3 && !molecule.aromatic[atom] && (molecule.inRingOfSize(atom, 3) || bridge);
      case Elements.P:
      case Elements.AS:
        return molecule.valence[atom] == 3;
      case Elements.S:
      case Elements.SE:
        return molecule.valence[atom] == 4 || (molecule.valence[atom] == 3 && molecule.charge[atom] == 1);
      default:
        return false;
    }
  }
}

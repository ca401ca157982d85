// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;

/**
 * Atoms that may be tetrahedral stereo centres, whether or not a configuration is given: atoms with four different neighbours, one of
 * which may be a hydrogen; nitrogens, sulfurs and phosphorus also with a lone pair, nitrogens only where rings hold them fast. As in
 * RDKit's older perception, but neighbours are told apart by constitution alone: centres that exist only because others have a
 * configuration are not found.
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
    if (connectivity < 3 || connectivity > 4 || element == Elements.H) {
      return false;
    }
    if (element == Elements.P || element == Elements.AS) {
      // RDKit counts phosphines whatever their hydrogens.
      return true;
    }
    if (connectivity == 4) {
      return degree >= 3;
    }
    if (degree < 3) {
      return false;
    }
    // Three neighbours and a lone pair.
    switch (element) {
      case Elements.N:
        return !isConjugated(molecule, atom) && (molecule.inRingOfSize(atom, 3) || isBridgehead(molecule, atom));
      case Elements.S:
      case Elements.SE:
        return molecule.valence[atom] == 4 || (molecule.valence[atom] == 3 && molecule.charge[atom] == 1);
      default:
        return false;
    }
  }

  /** Whether the atom or a neighbour of its period has a multiple bond, so that the atom is flat. */
  private static boolean isConjugated(PerceivedMolecule molecule, int atom) {
    boolean found = isUnsaturated(molecule, atom);
    for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
      int other = molecule.neighbour[edge];
      found |= molecule.element[other] < 10 && isUnsaturated(molecule, other);
    }
    return found;
  }

  private static boolean isUnsaturated(PerceivedMolecule molecule, int atom) {
    boolean found = molecule.aromatic[atom];
    for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
      found |= molecule.order[molecule.bondTo[edge]] > 1;
    }
    return found;
  }

  /** Whether every ring of the atom, which has three bonds in rings, shares two bonds or more with another one of them. */
  private static boolean isBridgehead(PerceivedMolecule molecule, int atom) {
    if (molecule.ringDegree(atom) < 3) {
      return false;
    }
    List<BitSet> around = new ArrayList<>();
    for (int r = 0; r < molecule.rings.length; r++) {
      if (Arrays.stream(molecule.rings[r]).anyMatch(member -> member == atom)) {
        BitSet bonds = new BitSet();
        Arrays.stream(molecule.bondRings[r]).forEach(bonds::set);
        around.add(bonds);
      }
    }
    for (BitSet ring : around) {
      boolean bridged = false;
      for (BitSet other : around) {
        BitSet shared = (BitSet) ring.clone();
        shared.and(other);
        bridged |= other != ring && shared.cardinality() > 1;
      }
      if (!bridged) {
        return false;
      }
    }
    return true;
  }
}

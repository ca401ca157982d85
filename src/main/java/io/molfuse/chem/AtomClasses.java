// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;

/**
 * Tells the atoms of a molecule apart by what is bonded around them. Stereo plays no part; membership in rings does, since neighbours
 * alone cannot tell some systems of rings apart.
 */
final class AtomClasses {
  private AtomClasses() {}

  /** @return for each atom a number that atoms share if they look alike; the same for every way of writing a molecule */
  static long[] of(PerceivedMolecule molecule) {
    long[] keys = initial(molecule);
    int classes = count(keys);
    for (int before = 0; before < classes; ) {
      long[] next = new long[keys.length];
      for (int atom = 0; atom < next.length; atom++) {
        next[atom] = refined(molecule, keys, atom);
      }
      keys = next;
      before = classes;
      classes = count(keys);
    }
    return keys;
  }

  /** What the atoms are by themselves. */
  static long[] initial(PerceivedMolecule molecule) {
    long[] keys = new long[molecule.count];
    for (int atom = 0; atom < keys.length; atom++) {
      long key = molecule.element[atom];
      key = key * 1024 + molecule.isotope[atom];
      key = key * 32 + molecule.charge[atom] + 16;
      key = key * 32 + molecule.hydrogens[atom];
      key = key * 64 + Math.min(63, molecule.smallestRing[atom]);
      key = key * 16 + Math.min(15, molecule.ringsOfAtom[atom]);
      keys[atom] = Hashes.mix(key * 2 + (molecule.aromatic[atom] ? 1 : 0));
    }
    return keys;
  }

  /** One round: an atom with its neighbours. */
  static long refined(PerceivedMolecule molecule, long[] keys, int atom) {
    long sum = 0;
    for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
      int bond = molecule.bondTo[edge];
      long type = molecule.aromaticBond[bond] ? 4 : molecule.order[bond];
      type = type * 2 + (molecule.ringsOfBond[bond] > 0 ? 1 : 0);
      sum += Hashes.mix(keys[molecule.neighbour[edge]] * 31 + type);
    }
    return Hashes.mix(keys[atom] * 37 + sum);
  }

  private static int count(long[] keys) {
    return (int) Arrays.stream(keys).distinct().count();
  }
}

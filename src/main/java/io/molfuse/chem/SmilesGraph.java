// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;

/**
 * A molecule in the order a SMILES string gives it. Atoms are numbered as written; the bonds that leave an atom are a linked list
 * of half-bonds in the order written, where a chain bond has a half at its first atom only and a ring bond has one at both.
 * Bond orders are doubled, so that an aromatic bond is 3.
 */
final class SmilesGraph {
  static final int NONE = -1;

  static final int SINGLE = 2;
  static final int AROMATIC = 3;
  static final int DOUBLE = 4;
  static final int TRIPLE = 6;

  private static final int INITIAL_ATOMS = 32;
  private static final int INITIAL_HALVES = 48;

  int atomCount;
  byte[] element = new byte[INITIAL_ATOMS];
  int[] isotope = new int[INITIAL_ATOMS];
  byte[] hydrogens = new byte[INITIAL_ATOMS];
  int[] charge = new int[INITIAL_ATOMS];
  byte[] chirality = new byte[INITIAL_ATOMS];
  boolean[] aromatic = new boolean[INITIAL_ATOMS];
  boolean[] inRingBond = new boolean[INITIAL_ATOMS];
  /** The atom from which a chain bond leads here; {@link #NONE} for the first atom of a fragment. */
  int[] chainParent = new int[INITIAL_ATOMS];
  /** Sum of the doubled orders of an atom's bonds. */
  int[] bonds = new int[INITIAL_ATOMS];

  int[] firstHalf = new int[INITIAL_ATOMS];
  private int[] lastHalf = new int[INITIAL_ATOMS];

  private int halfCount;
  int[] target = new int[INITIAL_HALVES];
  byte[] order = new byte[INITIAL_HALVES];
  int[] nextHalf = new int[INITIAL_HALVES];
  /** The half of a ring bond at its other end; {@link #NONE} for a chain bond. */
  int[] otherHalf = new int[INITIAL_HALVES];
  char[] stereo = new char[INITIAL_HALVES];

  /** The half-bonds of order {@link #AROMATIC}, one for each bond, in the order the bonds were made, with their first atoms. */
  int aromaticCount;
  int[] aromaticHalf = new int[INITIAL_HALVES];
  int[] aromaticFrom = new int[INITIAL_HALVES];

  /** Makes an atom without bonds. */
  int addAtom(int number, boolean isAromatic, int isotopeNumber, int handedness, int hydrogenCount, int formalCharge) {
    if (atomCount == element.length) {
      growAtoms(2 * atomCount);
    }
    int atom = atomCount++;
    element[atom] = (byte) number;
    aromatic[atom] = isAromatic;
    isotope[atom] = isotopeNumber;
    chirality[atom] = (byte) handedness;
    hydrogens[atom] = (byte) hydrogenCount;
    charge[atom] = formalCharge;
    chainParent[atom] = NONE;
    firstHalf[atom] = NONE;
    return atom;
  }

  private void growAtoms(int size) {
    element = Arrays.copyOf(element, size);
    isotope = Arrays.copyOf(isotope, size);
    hydrogens = Arrays.copyOf(hydrogens, size);
    charge = Arrays.copyOf(charge, size);
    chirality = Arrays.copyOf(chirality, size);
    aromatic = Arrays.copyOf(aromatic, size);
    inRingBond = Arrays.copyOf(inRingBond, size);
    chainParent = Arrays.copyOf(chainParent, size);
    bonds = Arrays.copyOf(bonds, size);
    firstHalf = Arrays.copyOf(firstHalf, size);
    lastHalf = Arrays.copyOf(lastHalf, size);
  }

  private void growHalves(int size) {
    target = Arrays.copyOf(target, size);
    order = Arrays.copyOf(order, size);
    nextHalf = Arrays.copyOf(nextHalf, size);
    otherHalf = Arrays.copyOf(otherHalf, size);
    stereo = Arrays.copyOf(stereo, size);
  }

  /** Makes room for a half-bond at the end of the atom's list. */
  int addHalf(int atom) {
    if (halfCount == target.length) {
      growHalves(2 * halfCount);
    }
    int half = halfCount++;
    nextHalf[half] = NONE;
    otherHalf[half] = NONE;
    target[half] = NONE;
    if (firstHalf[atom] == NONE) {
      firstHalf[atom] = half;
    } else {
      nextHalf[lastHalf[atom]] = half;
    }
    lastHalf[atom] = half;
    return half;
  }

  void addChainBond(int from, int to, int bondOrder, char bondStereo) {
    int half = addHalf(from);
    target[half] = to;
    chainParent[to] = from;
    order[half] = (byte) bondOrder;
    stereo[half] = bondStereo;
    count(from, to, half, bondOrder);
  }

  /** Makes a ring bond of a half that was set aside at its opening and a new one at its closing. */
  void addRingBond(int from, int opening, char openingStereo, int to, char closingStereo, int bondOrder) {
    int closing = addHalf(to);
    target[opening] = to;
    target[closing] = from;
    order[opening] = (byte) bondOrder;
    order[closing] = (byte) bondOrder;
    stereo[opening] = openingStereo;
    stereo[closing] = closingStereo;
    otherHalf[opening] = closing;
    otherHalf[closing] = opening;
    inRingBond[from] = true;
    inRingBond[to] = true;
    count(from, to, opening, bondOrder);
  }

  private void count(int from, int to, int half, int bondOrder) {
    bonds[from] += bondOrder;
    bonds[to] += bondOrder;
    if (bondOrder == AROMATIC) {
      if (aromaticCount == aromaticHalf.length) {
        aromaticHalf = Arrays.copyOf(aromaticHalf, 2 * aromaticCount);
        aromaticFrom = Arrays.copyOf(aromaticFrom, 2 * aromaticCount);
      }
      aromaticHalf[aromaticCount] = half;
      aromaticFrom[aromaticCount++] = from;
    }
  }

  /** Changes the order of a bond, given one of its halves and the atom that half is at. */
  void setOrder(int from, int half, int bondOrder) {
    int change = bondOrder - order[half];
    bonds[from] += change;
    bonds[target[half]] += change;
    order[half] = (byte) bondOrder;
    if (otherHalf[half] != NONE) {
      order[otherHalf[half]] = (byte) bondOrder;
    }
  }

  boolean isRingHalf(int half) {
    return otherHalf[half] != NONE;
  }

  /**
   * Whether the ring bond that is to close at an atom joins atoms that are bonded. Looks through both atoms' bonds at the same pace,
   * so that it ends with the shorter list.
   */
  boolean bonded(int a, int b) {
    // A chain bond stands at its lower atom and is the only one that leads from there to its higher one; a ring bond stands at both.
    int low = Math.min(a, b);
    int high = Math.max(a, b);
    if (chainParent[high] == low) {
      return true;
    }
    int ofLow = firstHalf[low];
    int ofHigh = firstHalf[high];
    while (ofLow != NONE && ofHigh != NONE) {
      if (target[ofLow] == high || target[ofHigh] == low) {
        return true;
      }
      ofLow = nextHalf[ofLow];
      ofHigh = nextHalf[ofHigh];
    }
    return false;
  }
}

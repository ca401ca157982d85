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

  int atomCount;
  final int[] element;
  final int[] isotope;
  final int[] hydrogens;
  final int[] charge;
  final byte[] chirality;
  final boolean[] aromatic;
  final boolean[] inRingBond;
  final boolean[] root;
  /** Sum of the doubled orders of an atom's bonds. */
  final int[] bonds;

  final int[] firstHalf;
  final int[] lastHalf;

  int halfCount;
  final int[] target;
  final int[] order;
  final int[] nextHalf;
  /** The half of a ring bond at its other end; {@link #NONE} for a chain bond. */
  final int[] otherHalf;
  final char[] stereo;

  /** The half-bonds of order {@link #AROMATIC}, one for each bond, in the order the bonds were made, with their first atoms. */
  int aromaticCount;
  final int[] aromaticHalf;
  final int[] aromaticFrom;

  /** @param length of the SMILES string, which bounds the number of atoms and of bonds */
  SmilesGraph(int length) {
    element = new int[length];
    isotope = new int[length];
    hydrogens = new int[length];
    charge = new int[length];
    chirality = new byte[length];
    aromatic = new boolean[length];
    inRingBond = new boolean[length];
    root = new boolean[length];
    bonds = new int[length];
    firstHalf = new int[length];
    lastHalf = new int[length];
    int halves = length + 1;
    target = new int[halves];
    order = new int[halves];
    nextHalf = new int[halves];
    otherHalf = new int[halves];
    stereo = new char[halves];
    aromaticHalf = new int[halves];
    aromaticFrom = new int[halves];
    Arrays.fill(firstHalf, NONE);
  }

  /** Makes room for a half-bond at the end of the atom's list. */
  int addHalf(int atom) {
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
    order[half] = bondOrder;
    stereo[half] = bondStereo;
    count(from, to, half, bondOrder);
  }

  /** Makes a ring bond of a half that was set aside at its opening and a new one at its closing. */
  void addRingBond(int from, int opening, char openingStereo, int to, char closingStereo, int bondOrder) {
    int closing = addHalf(to);
    target[opening] = to;
    target[closing] = from;
    order[opening] = bondOrder;
    order[closing] = bondOrder;
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
      aromaticHalf[aromaticCount] = half;
      aromaticFrom[aromaticCount++] = from;
    }
  }

  /** Changes the order of a bond, given one of its halves and the atom that half is at. */
  void setOrder(int from, int half, int bondOrder) {
    int change = bondOrder - order[half];
    bonds[from] += change;
    bonds[target[half]] += change;
    order[half] = bondOrder;
    if (otherHalf[half] != NONE) {
      order[otherHalf[half]] = bondOrder;
    }
  }

  boolean isRingHalf(int half) {
    return otherHalf[half] != NONE;
  }

  boolean bonded(int a, int b) {
    // A chain bond stands at its lower atom, a ring bond at both.
    int low = Math.min(a, b);
    int high = Math.max(a, b);
    for (int half = firstHalf[low]; half != NONE; half = nextHalf[half]) {
      if (target[half] == high) {
        return true;
      }
    }
    return false;
  }
}

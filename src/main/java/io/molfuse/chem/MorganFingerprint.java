// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;
import java.util.BitSet;
import java.util.HashSet;
import java.util.Set;

/**
 * Circular fingerprints (D. Rogers, M. Hahn, J. Chem. Inf. Model. 50 (2010) 742-754) of radius 2 with the identifiers of RDKit: what
 * an atom and its neighbours up to two bonds away look like, as 32-bit hashes; an environment of the same bonds as one before counts
 * once. Folded to {@value #BITS} bits by the remainder, which is what MOSES compares molecules by.
 */
public final class MorganFingerprint {
  /** Number of bits. */
  public static final int BITS = 1024;

  static final int WORDS = BITS / Long.SIZE;
  private static final int RADIUS = 2;
  private static final int AROMATIC = 12;

  private MorganFingerprint() {}

  /**
   * @param smiles a molecule
   * @return the bits set, bit i in bit i % 64 of word i / 64: 16 words
   * @throws MoleculeException if it is not a molecule, saying why
   */
  public static long[] of(String smiles) {
    return bits(PerceivedMolecule.of(smiles));
  }

  /**
   * Similarity of two fingerprints.
   *
   * @param first 16 words
   * @param second 16 words
   * @return the bits common to both over the bits in either, 0 to 1; 1 if neither has any
   */
  public static double tanimoto(long[] first, long[] second) {
    int both = 0;
    int either = 0;
    for (int i = 0; i < WORDS; i++) {
      both += Long.bitCount(first[i] & second[i]);
      either += Long.bitCount(first[i] | second[i]);
    }
    return either == 0 ? 1 : (double) both / either;
  }

  static long[] bits(PerceivedMolecule molecule) {
    long[] words = new long[WORDS];
    for (int identifier : identifiers(molecule)) {
      int bit = Integer.remainderUnsigned(identifier, BITS);
      words[bit >> 6] |= 1L << bit;
    }
    return words;
  }

  /** The identifier of every environment; the same one may occur several times. Hydrogens are implicit. */
  static int[] identifiers(PerceivedMolecule molecule) {
    int n = molecule.count;
    int[] found = new int[n * (RADIUS + 1)];
    int[] current = new int[n];
    for (int atom = 0; atom < n; atom++) {
      current[atom] = invariant(molecule, atom);
      found[atom] = current[atom];
    }
    int size = n;
    BitSet[] around = new BitSet[n];
    Arrays.setAll(around, i -> new BitSet(molecule.bondCount));
    boolean[] dead = new boolean[n];
    Set<BitSet> seen = new HashSet<>();
    for (int layer = 0; layer < RADIUS; layer++) {
      int[] next = new int[n];
      BitSet[] wider = new BitSet[n];
      Integer[] order = new Integer[n];
      int alive = 0;
      for (int atom = 0; atom < n; atom++) {
        wider[atom] = around[atom];
        if (dead[atom] || molecule.degree(atom) == 0) {
          continue;
        }
        wider[atom] = (BitSet) around[atom].clone();
        for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
          wider[atom].set(molecule.bondTo[edge]);
          wider[atom].or(around[molecule.neighbour[edge]]);
        }
        next[atom] = grown(molecule, atom, layer, current);
        order[alive++] = atom;
      }
      BitSet[] environments = wider;
      Arrays.sort(order, 0, alive, (a, b) -> {
        int difference = compare(environments[a], environments[b]);
        difference = difference != 0 ? difference : Integer.compareUnsigned(next[a], next[b]);
        return difference != 0 ? difference : Integer.compare(a, b);
      });
      for (int i = 0; i < alive; i++) {
        int atom = order[i];
        if (seen.add(wider[atom])) {
          found[size++] = next[atom];
        } else {
          dead[atom] = true;
        }
      }
      current = next;
      around = wider;
    }
    return Arrays.copyOf(found, size);
  }

  /** As numbers whose highest digit is the highest bond. */
  private static int compare(BitSet first, BitSet second) {
    BitSet different = (BitSet) first.clone();
    different.xor(second);
    int highest = different.length() - 1;
    return highest < 0 ? 0 : first.get(highest) ? 1 : -1;
  }

  private static int invariant(PerceivedMolecule molecule, int atom) {
    int element = molecule.element[atom];
    int hash = 0;
    hash = combine(hash, element);
    hash = combine(hash, molecule.connectivity(atom));
    hash = combine(hash, molecule.hydrogens[atom]);
    hash = combine(hash, molecule.charge[atom]);
    hash = combine(hash, AtomicWeights.isotopeShift(element, molecule.isotope[atom]));
    return molecule.ringsOfAtom[atom] > 0 ? combine(hash, 1) : hash;
  }

  private static int grown(PerceivedMolecule molecule, int atom, int layer, int[] current) {
    int from = molecule.rowPtr[atom];
    long[] pairs = new long[molecule.degree(atom)];
    for (int i = 0; i < pairs.length; i++) {
      int bond = molecule.bondTo[from + i];
      int type = molecule.aromaticBond[bond] ? AROMATIC : molecule.order[bond];
      pairs[i] = (long) type << 32 | current[molecule.neighbour[from + i]] & 0xFFFFFFFFL;
    }
    Arrays.sort(pairs);
    int hash = combine(layer, current[atom]);
    for (long pair : pairs) {
      hash = combine(hash, combine(combine(0, (int) (pair >>> 32)), (int) pair));
    }
    return hash;
  }

  /** The mixing step of Boost's hash_combine for 32 bits. */
  private static int combine(int seed, int value) {
    return seed ^ (value + 0x9e3779b9 + (seed << 6) + (seed >>> 2));
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.List;

/**
 * Parts of molecules that sets are compared by: BRICS fragments (J. Degen et al., ChemMedChem 3 (2008) 1503-1507) and Bemis-Murcko
 * scaffolds (G. W. Bemis, M. A. Murcko, J. Med. Chem. 39 (1996) 2887-2893), each as a hash of its graph. Stereo is not looked at.
 */
final class Fragments {
  /** A kind of bond that BRICS cuts, and the labels of its ends. */
  private record Cut(Smarts bond, int first, int second) {}

  private static final List<Cut> CUTS = BundledTable.rows("brics.tsv").stream().map(Fragments::cut).toList();

  private Fragments() {}

  private static Cut cut(String[] row) {
    Smarts bond = Smarts.of("[$(" + row[1] + ")]" + row[2] + ";!@[$(" + row[4] + ")]");
    return new Cut(bond, Integer.parseInt(row[0]), Integer.parseInt(row[3]));
  }

  /** The fragments that BRICS cuts the molecule into; where it cuts, both ends carry a label. */
  static long[] brics(PerceivedMolecule molecule) {
    boolean[] isCut = new boolean[molecule.bondCount];
    long[] labels = new long[molecule.count];
    for (Cut cut : CUTS) {
      for (int[] pair : cut.bond().pairs(molecule)) {
        int bond = molecule.bond(pair[0], pair[1]);
        if (!isCut[bond]) {
          isCut[bond] = true;
          // An atom may be cut on several sides, in any order.
          labels[pair[0]] += Hashes.mix(100L * molecule.order[bond] + cut.first());
          labels[pair[1]] += Hashes.mix(100L * molecule.order[bond] + cut.second());
        }
      }
    }
    return hashes(molecule.without(isCut, false), labels, null);
  }

  /**
   * The scaffold: rings, the chains that join them, and what is bound to these by double bonds.
   *
   * @return its hash, or 0 if there are fewer than two rings
   */
  static long scaffold(PerceivedMolecule molecule) {
    if (molecule.rings.length < 2) {
      return 0;
    }
    int[] left = molecule.core();
    boolean[] kept = new boolean[molecule.count];
    for (int bond = 0; bond < molecule.bondCount; bond++) {
      boolean begin = left[molecule.begin[bond]] > 1;
      boolean end = left[molecule.end[bond]] > 1;
      kept[molecule.begin[bond]] |= begin || (end && molecule.order[bond] == 2);
      kept[molecule.end[bond]] |= end || (begin && molecule.order[bond] == 2);
    }
    boolean[] isCut = new boolean[molecule.bondCount];
    for (int bond = 0; bond < isCut.length; bond++) {
      isCut[bond] = !kept[molecule.begin[bond]] || !kept[molecule.end[bond]];
    }
    long sum = 0;
    for (long hash : hashes(molecule.without(isCut, true), new long[molecule.count], kept)) {
      sum += Hashes.mix(hash);
    }
    return sum == 0 ? 1 : sum;
  }

  /** The hash of each connected part. */
  private static long[] hashes(PerceivedMolecule molecule, long[] labels, boolean[] kept) {
    long[] start = AtomClasses.initial(molecule);
    List<int[]> parts = molecule.parts(kept);
    long[] found = new long[parts.size()];
    for (int atom = 0; atom < start.length; atom++) {
      start[atom] += 3 * labels[atom];
    }
    for (int i = 0; i < found.length; i++) {
      found[i] = hash(molecule, parts.get(i), start);
    }
    return found;
  }

  /**
   * Each atom in turn is marked and the colours are spread from there: colours alone cannot tell all graphs apart, with one atom marked
   * they can for molecules.
   */
  private static long hash(PerceivedMolecule molecule, int[] part, long[] start) {
    long sum = 0;
    long[] keys = new long[molecule.count];
    long[] next = new long[molecule.count];
    for (int marked : part) {
      for (int atom : part) {
        keys[atom] = start[atom];
      }
      keys[marked] = ~keys[marked];
      for (int round = 0; round < part.length; round++) {
        for (int atom : part) {
          next[atom] = AtomClasses.refined(molecule, keys, atom);
        }
        long[] swap = keys;
        keys = next;
        next = swap;
      }
      long colours = 0;
      for (int atom : part) {
        colours += Hashes.mix(keys[atom]);
      }
      sum += Hashes.mix(colours);
    }
    return Hashes.mix(sum + part.length);
  }
}

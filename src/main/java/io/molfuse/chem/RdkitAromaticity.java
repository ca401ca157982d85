// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;

/**
 * RDKit's model of aromaticity (The RDKit Book, "Aromaticity"): a ring, or up to {@value #MAX_FUSED} rings fused bond to bond, is aromatic
 * if every atom can take part and the pi electrons of its atoms obey Hückel's 4n+2. A double bond out of the ring to a more
 * electronegative atom takes its electron along. CDK's Daylight model finds the same in drug-like molecules but fewer systems of
 * several rings, such as azulenes.
 */
final class RdkitAromaticity {
  private static final int MAX_FUSED = 6;
  private static final int MAX_RING = 24;
  /** More subsets of one size are not tried: only cages of many rings have them, and time would not end. */
  private static final double MAX_SUBSETS = 3e6;

  /** No part in aromatic systems. */
  private static final int NONE = -1;
  /** A wildcard: no, one or two electrons. */
  private static final int ANY = 3;

  private final PerceivedMolecule molecule;
  private final int[] donated;
  private final List<int[]> rings = new ArrayList<>();
  private final List<BitSet> bonds = new ArrayList<>();
  private final int[] visits;
  private final int[] bondVisits;
  private BitSet done;

  private RdkitAromaticity(PerceivedMolecule molecule) {
    this.molecule = molecule;
    donated = new int[molecule.count];
    visits = new int[molecule.count];
    bondVisits = new int[molecule.bondCount];
  }

  /** Sets the aromatic flags of atoms and bonds, which are all unset. */
  static void apply(PerceivedMolecule molecule) {
    if (molecule.rings.length > 0) {
      new RdkitAromaticity(molecule).perceive();
    }
  }

  private void perceive() {
    for (int atom = 0; atom < molecule.count; atom++) {
      donated[atom] = molecule.ringsOfAtom[atom] > 0 && mayBeAromatic(atom) ? electrons(atom) : NONE;
    }
    for (int r = 0; r < molecule.rings.length; r++) {
      boolean candidate = true;
      boolean wildcards = true;
      for (int atom : molecule.rings[r]) {
        candidate &= donated[atom] != NONE;
        wildcards &= molecule.element[atom] == 0;
      }
      if (candidate && !wildcards) {
        rings.add(molecule.rings[r]);
        BitSet set = new BitSet();
        for (int bond : molecule.bondRings[r]) {
          set.set(bond);
        }
        bonds.add(set);
      }
    }
    boolean[] taken = new boolean[rings.size()];
    for (int ring = 0; ring < rings.size(); ring++) {
      if (!taken[ring]) {
        List<Integer> fused = new ArrayList<>();
        collect(ring, taken, fused);
        system(fused.stream().mapToInt(Integer::intValue).toArray());
      }
    }
  }

  private boolean fused(int first, int second) {
    if (rings.get(first).length > MAX_RING || rings.get(second).length > MAX_RING) {
      return false;
    }
    BitSet shared = (BitSet) bonds.get(first).clone();
    shared.and(bonds.get(second));
    return shared.cardinality() == 1;
  }

  private void collect(int ring, boolean[] taken, List<Integer> found) {
    taken[ring] = true;
    found.add(ring);
    for (int other = 0; other < rings.size(); other++) {
      if (!taken[other] && fused(ring, other)) {
        collect(other, taken, found);
      }
    }
  }

  /** Looks for aromatic subsets of a fused system, small ones first, until every bond of it is aromatic. */
  private void system(int[] fused) {
    int n = fused.length;
    boolean[][] joined = new boolean[n][n];
    BitSet all = new BitSet();
    for (int i = 0; i < n; i++) {
      all.or(bonds.get(fused[i]));
      for (int j = 0; j < i; j++) {
        joined[i][j] = fused(fused[i], fused[j]);
        joined[j][i] = joined[i][j];
      }
    }
    done = new BitSet();
    double subsets = 1;
    for (int size = 1; size <= Math.min(n, MAX_FUSED) && done.cardinality() < all.cardinality(); size++) {
      subsets *= (n - size + 1.0) / size;
      if (subsets > MAX_SUBSETS) {
        return;
      }
      combine(fused, joined, new int[size], 0, 0);
    }
  }

  private void combine(int[] fused, boolean[][] joined, int[] chosen, int filled, int from) {
    if (filled == chosen.length) {
      if (connected(joined, chosen)) {
        int[] subset = new int[filled];
        for (int i = 0; i < filled; i++) {
          subset[i] = fused[chosen[i]];
        }
        judge(subset);
      }
      return;
    }
    for (int i = from; i < fused.length; i++) {
      chosen[filled] = i;
      combine(fused, joined, chosen, filled + 1, i + 1);
    }
  }

  private static boolean connected(boolean[][] joined, int[] chosen) {
    int reached = 1;
    int all = (1 << chosen.length) - 1;
    boolean grown = true;
    while (grown && reached != all) {
      grown = false;
      for (int i = 0; i < chosen.length; i++) {
        for (int j = 0; j < chosen.length; j++) {
          if ((reached >> i & 1) == 1 && (reached >> j & 1) == 0 && joined[chosen[i]][chosen[j]]) {
            reached |= 1 << j;
            grown = true;
          }
        }
      }
    }
    return reached == all;
  }

  private void judge(int[] subset) {
    int least = 0;
    int most = 0;
    int wildcards = 0;
    for (int ring : subset) {
      for (int atom : rings.get(ring)) {
        visits[atom]++;
      }
    }
    for (int ring : subset) {
      for (int atom : rings.get(ring)) {
        // An atom inside the system, common to three rings, gives nothing to its rim.
        if (visits[atom] == 1 || visits[atom] == 2) {
          boolean any = donated[atom] == ANY;
          wildcards += any ? 1 : 0;
          least += any ? 0 : donated[atom];
          most += any ? 2 : donated[atom];
        }
        visits[atom] = 0;
      }
    }
    boolean hueckel = most == 2;
    for (int n = least; most >= 6 && n <= most; n++) {
      hueckel |= (n - 2) % 4 == 0;
    }
    if (hueckel && wildcards < 2) {
      mark(subset);
    }
  }

  /** Bonds between the rings of the system stay as they are: only its rim is aromatic. */
  private void mark(int[] subset) {
    for (int ring : subset) {
      for (int atom : rings.get(ring)) {
        molecule.aromatic[atom] = true;
      }
      bonds.get(ring).stream().forEach(bond -> bondVisits[bond]++);
    }
    for (int ring : subset) {
      bonds.get(ring).stream().forEach(bond -> {
        if (bondVisits[bond] == 1) {
          molecule.aromaticBond[bond] = true;
          done.set(bond);
        }
      });
    }
    for (int ring : subset) {
      bonds.get(ring).stream().forEach(bond -> bondVisits[bond] = 0);
    }
  }

  private boolean mayBeAromatic(int atom) {
    int element = molecule.element[atom];
    if (element > 18 && element != Elements.SE && element != Elements.TE) {
      return false;
    }
    int lowest = Valences.lowest(element);
    int isoelectronic = element - molecule.charge[atom];
    if (lowest > 0 && (isoelectronic < 0 || molecule.valence[atom] > Valences.lowest(isoelectronic))) {
      return false;
    }
    if (molecule.unpaired[atom] > 0 && (element != Elements.C || molecule.charge[atom] != 0)) {
      return false;
    }
    int multiple = 0;
    for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
      multiple += molecule.order[molecule.bondTo[edge]] > 1 ? 1 : 0;
    }
    return multiple <= 1;
  }

  /** Electrons that the atom gives to an aromatic system: 0 to 2, ANY, or NONE. */
  private int electrons(int atom) {
    int chainBond = -1;
    boolean ringMultiple = false;
    int unsaturation = 0;
    for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
      int bond = molecule.bondTo[edge];
      unsaturation += molecule.order[bond] - 1;
      if (molecule.order[bond] > 1) {
        ringMultiple |= molecule.ringsOfBond[bond] > 0;
        chainBond = molecule.ringsOfBond[bond] > 0 ? chainBond : molecule.neighbour[edge];
      }
    }
    if (molecule.element[atom] == 0) {
      return ringMultiple ? 1 : ANY;
    }
    int free = freeElectrons(atom, unsaturation);
    if (free < 0) {
      return NONE;
    }
    boolean stolen = chainBond >= 0 && moreElectronegative(molecule.element[chainBond], molecule.element[atom]);
    if (free == 0) {
      return chainBond >= 0 ? 0 : ringMultiple ? 1 : NONE;
    }
    if (free == 1) {
      if (chainBond >= 0) {
        return stolen ? 0 : 1;
      }
      return unsaturation > 0 ? 1 : molecule.charge[atom] == 1 ? 0 : NONE;
    }
    return (free - (stolen ? 1 : 0)) % 2 == 1 ? 1 : 2;
  }

  /** Electrons of the atom in no sigma bond that it can give away; negative if it has no p orbital for them. */
  private int freeElectrons(int atom, int unsaturation) {
    int lowest = Valences.lowest(molecule.element[atom]);
    int connectivity = molecule.connectivity(atom);
    if (lowest <= 1 || connectivity > 3) {
      return -1;
    }
    int lone = Math.max(0, Valences.outerElectrons(molecule.element[atom]) - lowest - molecule.charge[atom]);
    int free = lowest - connectivity + lone - molecule.unpaired[atom];
    return free > 1 && unsaturation > 1 ? 1 : free;
  }

  private static boolean moreElectronegative(int first, int second) {
    int difference = Valences.outerElectrons(first) - Valences.outerElectrons(second);
    return difference == 0 ? first < second : difference > 0;
  }
}

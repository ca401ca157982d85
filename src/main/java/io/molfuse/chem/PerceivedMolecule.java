// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.openscience.cdk.graph.MinimumCycleBasis;
import org.openscience.cdk.graph.RelevantCycles;
import org.openscience.cdk.interfaces.IAtomContainer;

/**
 * A molecule with rings and aromaticity as RDKit perceives them, which is what published patterns and property models were fitted to.
 * The rings are the relevant cycles (P. Vismara, Electron. J. Combin. 4 (1997) R9), which is the union of all smallest sets of
 * smallest rings. Arrays are not copied; nobody writes to them once the molecule is made.
 */
final class PerceivedMolecule {
  /** Beyond so many relevant cycles, as in chains of para-linked rings closed to a loop, one minimum basis is taken. */
  private static final int MAX_RINGS = 500;

  final int count;
  final int bondCount;
  final int[] element;
  final int[] charge;
  final int[] isotope;
  /** Hydrogens that are no atoms of their own. */
  final int[] implicitHydrogens;
  /** All hydrogens. */
  final int[] hydrogens;
  /** Sum of bond orders, hydrogens included, of the kekulised molecule. */
  final int[] valence;
  final int[] unpaired;
  final int[] rowPtr;
  final int[] neighbour;
  /** The bond to each neighbour. */
  final int[] bondTo;
  final int[] begin;
  final int[] end;
  final int[] order;
  final boolean[] aromatic;
  final boolean[] aromaticBond;
  /** Number of rings each bond is in. */
  final int[] ringsOfBond;
  /** Number of rings each atom is in. */
  final int[] ringsOfAtom;
  /** Size of the smallest ring each atom is in; 0 in chains. */
  final int[] smallestRing;
  /** The atoms of each ring in order. */
  int[][] rings;
  /** The bonds of each ring. */
  int[][] bondRings;

  private PerceivedMolecule(int count, int bondCount) {
    this.count = count;
    this.bondCount = bondCount;
    element = new int[count];
    charge = new int[count];
    isotope = new int[count];
    implicitHydrogens = new int[count];
    hydrogens = new int[count];
    valence = new int[count];
    unpaired = new int[count];
    rowPtr = new int[count + 1];
    neighbour = new int[2 * bondCount];
    bondTo = new int[2 * bondCount];
    begin = new int[bondCount];
    end = new int[bondCount];
    order = new int[bondCount];
    aromatic = new boolean[count];
    aromaticBond = new boolean[bondCount];
    ringsOfBond = new int[bondCount];
    ringsOfAtom = new int[count];
    smallestRing = new int[count];
  }

  /**
   * Reads and perceives a molecule.
   *
   * @throws MoleculeException if it is not a molecule, saying why
   */
  static PerceivedMolecule of(String smiles) {
    return MoleculeParser.perceived(smiles);
  }

  /** @param molecule kekulised, hydrogens implicit */
  static PerceivedMolecule of(IAtomContainer molecule, AtomTable atoms) {
    PerceivedMolecule made = new PerceivedMolecule(atoms.count, atoms.neighbour.length / 2);
    int bond = 0;
    for (int i = 0; i < atoms.count; i++) {
      Integer mass = molecule.getAtom(i).getMassNumber();
      made.element[i] = atoms.element[i];
      made.charge[i] = atoms.charge[i];
      made.isotope[i] = mass == null ? 0 : mass;
      made.implicitHydrogens[i] = atoms.hydrogens[i];
      made.unpaired[i] = Valences.unpairedElectrons(atoms, i);
      for (int edge = atoms.rowPtr[i]; edge < atoms.rowPtr[i + 1]; edge++) {
        if (i < atoms.neighbour[edge]) {
          made.begin[bond] = i;
          made.end[bond] = atoms.neighbour[edge];
          made.order[bond++] = atoms.order[edge];
        }
      }
    }
    made.index();
    ChargeSeparation.apply(made);
    made.count();
    made.findRings();
    RdkitAromaticity.apply(made);
    return made;
  }

  /** The same molecule with every hydrogen as an atom behind the others; nothing is perceived anew. */
  PerceivedMolecule withHydrogens() {
    int added = Arrays.stream(implicitHydrogens).sum();
    PerceivedMolecule made = new PerceivedMolecule(count + added, bondCount + added);
    copyTo(made);
    int atom = count;
    int bond = bondCount;
    for (int i = 0; i < count; i++) {
      for (int h = 0; h < implicitHydrogens[i]; h++) {
        made.element[atom] = Elements.H;
        made.begin[bond] = i;
        made.end[bond] = atom++;
        made.order[bond++] = 1;
      }
    }
    Arrays.fill(made.implicitHydrogens, 0);
    made.index();
    made.count();
    return made;
  }

  /**
   * The same atoms with some bonds cut; rings and aromaticity as they were.
   *
   * @param isCut by bond
   * @param addHydrogens whether a hydrogen takes the place of each lost neighbour
   */
  PerceivedMolecule without(boolean[] isCut, boolean addHydrogens) {
    int kept = 0;
    for (boolean cut : isCut) {
      kept += cut ? 0 : 1;
    }
    PerceivedMolecule made = new PerceivedMolecule(count, kept);
    int[] to = new int[bondCount];
    int next = 0;
    for (int bond = 0; bond < bondCount; bond++) {
      to[bond] = isCut[bond] ? -1 : next++;
    }
    for (int bond = 0; bond < bondCount; bond++) {
      if (to[bond] >= 0) {
        made.begin[to[bond]] = begin[bond];
        made.end[to[bond]] = end[bond];
        made.order[to[bond]] = order[bond];
        made.aromaticBond[to[bond]] = aromaticBond[bond];
        made.ringsOfBond[to[bond]] = ringsOfBond[bond];
      }
    }
    copyAtomsTo(made);
    if (addHydrogens) {
      for (int bond = 0; bond < bondCount; bond++) {
        if (isCut[bond]) {
          made.implicitHydrogens[begin[bond]] += order[bond];
          made.implicitHydrogens[end[bond]] += order[bond];
        }
      }
    }
    made.rings = new int[0][];
    made.bondRings = new int[0][];
    made.index();
    made.count();
    return made;
  }

  private void copyAtomsTo(PerceivedMolecule other) {
    System.arraycopy(element, 0, other.element, 0, count);
    System.arraycopy(charge, 0, other.charge, 0, count);
    System.arraycopy(isotope, 0, other.isotope, 0, count);
    System.arraycopy(implicitHydrogens, 0, other.implicitHydrogens, 0, count);
    System.arraycopy(unpaired, 0, other.unpaired, 0, count);
    System.arraycopy(aromatic, 0, other.aromatic, 0, count);
    System.arraycopy(ringsOfAtom, 0, other.ringsOfAtom, 0, count);
    System.arraycopy(smallestRing, 0, other.smallestRing, 0, count);
  }

  private void copyTo(PerceivedMolecule other) {
    copyAtomsTo(other);
    System.arraycopy(begin, 0, other.begin, 0, bondCount);
    System.arraycopy(end, 0, other.end, 0, bondCount);
    System.arraycopy(order, 0, other.order, 0, bondCount);
    System.arraycopy(aromaticBond, 0, other.aromaticBond, 0, bondCount);
    System.arraycopy(ringsOfBond, 0, other.ringsOfBond, 0, bondCount);
    other.rings = rings;
    other.bondRings = bondRings;
  }

  /** Neighbours by atom, from the list of bonds. */
  private void index() {
    Arrays.fill(rowPtr, 0);
    for (int bond = 0; bond < bondCount; bond++) {
      rowPtr[begin[bond] + 1]++;
      rowPtr[end[bond] + 1]++;
    }
    for (int i = 0; i < count; i++) {
      rowPtr[i + 1] += rowPtr[i];
    }
    int[] fill = Arrays.copyOf(rowPtr, count);
    for (int bond = 0; bond < bondCount; bond++) {
      put(fill[begin[bond]]++, end[bond], bond);
      put(fill[end[bond]]++, begin[bond], bond);
    }
  }

  private void put(int edge, int atom, int bond) {
    neighbour[edge] = atom;
    bondTo[edge] = bond;
  }

  private void count() {
    for (int i = 0; i < count; i++) {
      hydrogens[i] = implicitHydrogens[i];
      valence[i] = implicitHydrogens[i];
      for (int edge = rowPtr[i]; edge < rowPtr[i + 1]; edge++) {
        hydrogens[i] += element[neighbour[edge]] == Elements.H ? 1 : 0;
        valence[i] += order[bondTo[edge]];
      }
    }
  }

  int degree(int atom) {
    return rowPtr[atom + 1] - rowPtr[atom];
  }

  /** Degree with implicit hydrogens. */
  int connectivity(int atom) {
    return degree(atom) + implicitHydrogens[atom];
  }

  /** The bond between two atoms, or -1. */
  int bond(int first, int second) {
    for (int edge = rowPtr[first]; edge < rowPtr[first + 1]; edge++) {
      if (neighbour[edge] == second) {
        return bondTo[edge];
      }
    }
    return -1;
  }

  /** Number of bonds of the atom that are in rings. */
  int ringDegree(int atom) {
    int found = 0;
    for (int edge = rowPtr[atom]; edge < rowPtr[atom + 1]; edge++) {
      found += ringsOfBond[bondTo[edge]] > 0 ? 1 : 0;
    }
    return found;
  }

  boolean inRingOfSize(int atom, int size) {
    for (int[] ring : rings) {
      if (ring.length == size) {
        for (int member : ring) {
          if (member == atom) {
            return true;
          }
        }
      }
    }
    return false;
  }

  /**
   * The connected parts.
   *
   * @param kept the atoms that count, or null for all
   */
  List<int[]> parts(boolean[] kept) {
    List<int[]> found = new ArrayList<>();
    boolean[] seen = new boolean[count];
    int[] reached = new int[count];
    for (int start = 0; start < count; start++) {
      if (seen[start] || (kept != null && !kept[start])) {
        continue;
      }
      int size = 0;
      reached[size++] = start;
      seen[start] = true;
      for (int next = 0; next < size; next++) {
        int atom = reached[next];
        for (int edge = rowPtr[atom]; edge < rowPtr[atom + 1]; edge++) {
          int other = neighbour[edge];
          if (!seen[other] && (kept == null || kept[other])) {
            seen[other] = true;
            reached[size++] = other;
          }
        }
      }
      found.add(Arrays.copyOf(reached, size));
    }
    return found;
  }

  /** Above 1 for the atoms that are left when ends of chains are taken away again and again: rings and what joins them. */
  int[] core() {
    int[] left = new int[count];
    int[] stack = new int[count];
    int top = 0;
    for (int i = 0; i < count; i++) {
      left[i] = degree(i);
      if (left[i] == 1) {
        stack[top++] = i;
      }
    }
    while (top > 0) {
      int atom = stack[--top];
      left[atom] = 0;
      for (int edge = rowPtr[atom]; edge < rowPtr[atom + 1]; edge++) {
        int other = neighbour[edge];
        if (left[other] > 0 && --left[other] == 1) {
          stack[top++] = other;
        }
      }
    }
    return left;
  }

  private void findRings() {
    int[] left = core();
    int[] compact = new int[count];
    int size = 0;
    for (int i = 0; i < count; i++) {
      compact[i] = left[i] > 1 ? size++ : -1;
    }
    if (size == 0) {
      rings = new int[0][];
      bondRings = new int[0][];
      return;
    }
    int[] original = new int[size];
    int[][] graph = new int[size][];
    for (int i = 0; i < count; i++) {
      if (compact[i] >= 0) {
        original[compact[i]] = i;
        int[] row = new int[degree(i)];
        int n = 0;
        for (int edge = rowPtr[i]; edge < rowPtr[i + 1]; edge++) {
          if (compact[neighbour[edge]] >= 0) {
            row[n++] = compact[neighbour[edge]];
          }
        }
        graph[compact[i]] = Arrays.copyOf(row, n);
      }
    }
    RelevantCycles relevant = new RelevantCycles(graph);
    int[][] walks = relevant.size() <= MAX_RINGS ? relevant.paths() : new MinimumCycleBasis(graph).paths();
    rings = new int[walks.length][];
    bondRings = new int[walks.length][];
    for (int r = 0; r < walks.length; r++) {
      // CDK closes a walk with its first vertex.
      int length = walks[r].length - 1;
      rings[r] = new int[length];
      bondRings[r] = new int[length];
      for (int i = 0; i < length; i++) {
        rings[r][i] = original[walks[r][i]];
        bondRings[r][i] = bond(rings[r][i], original[walks[r][i + 1]]);
        ringsOfBond[bondRings[r][i]]++;
        ringsOfAtom[rings[r][i]]++;
        int smallest = smallestRing[rings[r][i]];
        smallestRing[rings[r][i]] = smallest == 0 ? length : Math.min(smallest, length);
      }
    }
  }
}

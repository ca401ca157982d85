// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;

/**
 * Turns aromatic bonds into alternating single and double bonds. An atom that can lend no electron to a double bond is set aside
 * first; the others must then pair up completely, which is a perfect matching (R. Apodaca, "A comprehensive treatment of
 * aromaticity in the SMILES language", 2020). Which of several matchings is taken decides the SELFIES string, so the choices
 * follow the Python package selfies 2.2 step by step.
 */
final class Kekuliser {
  private Kekuliser() {}

  /**
   * @param graph whose aromatic bonds become single or double
   * @return whether it was possible; if not, the graph must not be used
   */
  static boolean kekulise(SmilesGraph graph) {
    int bonds = graph.aromaticCount;
    if (bonds == 0) {
      return true;
    }
    int[] degree = new int[graph.atomCount];
    for (int i = 0; i < bonds; i++) {
      degree[graph.aromaticFrom[i]]++;
      degree[graph.target[graph.aromaticHalf[i]]]++;
    }

    int[] label = new int[graph.atomCount];
    int kept = 0;
    for (int atom = 0; atom < graph.atomCount; atom++) {
      label[atom] = SmilesGraph.NONE;
      if (degree[atom] > 0) {
        if (valences(graph.element[atom]) == null) {
          return false;
        }
        if (lendsElectron(graph, atom, degree[atom])) {
          label[atom] = kept++;
        }
      }
    }

    // Neighbours of each kept atom in the order in which the bonds were made.
    int[] start = new int[kept + 1];
    int[] from = new int[bonds];
    int[] to = new int[bonds];
    for (int i = 0; i < bonds; i++) {
      from[i] = label[graph.aromaticFrom[i]];
      to[i] = label[graph.target[graph.aromaticHalf[i]]];
      if (from[i] >= 0 && to[i] >= 0) {
        start[from[i] + 1]++;
        start[to[i] + 1]++;
      }
    }
    for (int i = 0; i < kept; i++) {
      start[i + 1] += start[i];
    }
    int[] fill = Arrays.copyOf(start, kept);
    int[] neighbour = new int[start[kept]];
    int[] bondOf = new int[start[kept]];
    for (int i = 0; i < bonds; i++) {
      if (from[i] >= 0 && to[i] >= 0) {
        bondOf[fill[from[i]]] = i;
        neighbour[fill[from[i]]++] = to[i];
        bondOf[fill[to[i]]] = i;
        neighbour[fill[to[i]]++] = from[i];
      }
    }

    int[] mate = new PerfectMatching(start, neighbour).find();
    if (mate == null) {
      return false;
    }
    for (int i = 0; i < bonds; i++) {
      graph.setOrder(graph.aromaticFrom[i], graph.aromaticHalf[i], SmilesGraph.SINGLE);
    }
    for (int node = 0; node < kept; node++) {
      for (int k = start[node]; k < start[node + 1]; k++) {
        if (neighbour[k] == mate[node]) {
          graph.setOrder(graph.aromaticFrom[bondOf[k]], graph.aromaticHalf[bondOf[k]], SmilesGraph.DOUBLE);
        }
      }
    }
    return true;
  }

  /** The valences an atom of an aromatic system may have, ascending, or null if the element cannot be in one. */
  private static int[] valences(int element) {
    switch (element) {
      case Elements.B:
      case Elements.AL:
        return new int[] {3};
      case Elements.C:
      case Elements.SI:
        return new int[] {4};
      case Elements.N:
      case Elements.P:
      case Elements.AS:
        return new int[] {3, 5};
      case Elements.O:
      case Elements.S:
      case Elements.SE:
      case Elements.TE:
        return new int[] {2, 4};
      default:
        return null;
    }
  }

  private static int outerElectrons(int element) {
    switch (element) {
      case Elements.B:
      case Elements.AL:
        return 3;
      case Elements.C:
      case Elements.SI:
        return 4;
      case Elements.N:
      case Elements.P:
      case Elements.AS:
        return 5;
      default:
        return 6;
    }
  }

  /** Whether the atom needs one double bond among its aromatic bonds. */
  private static boolean lendsElectron(SmilesGraph graph, int atom, int aromaticDegree) {
    int[] valences = valences(graph.element[atom]);
    // With aromatic bonds (doubled order 3) taken as single ones.
    int used = (graph.bonds[atom] - aromaticDegree) / 2;
    if (graph.hydrogens[atom] == SmilesAtom.NONE) {
      return !contains(valences, used);
    }
    int charge = graph.charge[atom];
    used += graph.hydrogens[atom];
    if (contains(valences, used + charge)) {
      return false;
    }
    int bound = Math.max(0, charge) + graph.hydrogens[atom] + (graph.bonds[atom] + 1) / 2;
    int unpaired = Math.max(0, outerElectrons(graph.element[atom]) - bound) % 2;
    // An unpaired electron stays out of the aromatic system.
    int free = valences[valences.length - 1] - charge - used - unpaired;
    return free >= 0 && free % 2 != 0;
  }

  private static boolean contains(int[] values, int value) {
    for (int candidate : values) {
      if (candidate == value) {
        return true;
      }
    }
    return false;
  }
}

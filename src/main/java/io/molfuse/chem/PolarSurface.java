// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.HashMap;
import java.util.Map;

/**
 * The topological polar surface area of nitrogen and oxygen (P. Ertl, B. Rohde, P. Selzer, J. Med. Chem. 43 (2000) 3714-3717, table 1).
 * Atoms that the table lacks get the estimate that the authors' program makes from their neighbours and hydrogens, as in RDKit.
 */
final class PolarSurface {
  /**
   * By element, charge, hydrogens, single, double, triple and aromatic bonds to other atoms, and 3 in a ring of three. Nitrogens first.
   */
  private static final String TABLE =
      "N 0 0 0 0 1 0:23.79 N 0 1 0 1 0 0:23.85 N 0 2 1 0 0 0:26.02 N 1 2 0 1 0 0:25.59 N 1 3 1 0 0 0:27.64"
          + " N 0 0 1 1 0 0:12.36 N 0 0 0 1 1 0:13.60 N 0 1 2 0 0 0:12.03 N 0 1 2 0 0 0 3:21.94 N 1 0 1 0 1 0:4.36"
          + " N 1 1 1 1 0 0:13.97 N 1 2 2 0 0 0:16.61 N 0 0 0 0 0 2:12.89 N 0 1 0 0 0 2:15.79 N 1 1 0 0 0 2:14.14"
          + " N 0 0 3 0 0 0:3.24 N 0 0 3 0 0 0 3:3.01 N 0 0 1 2 0 0:11.68 N 1 0 2 1 0 0:3.01 N 1 1 3 0 0 0:4.44"
          + " N 0 0 0 0 0 3:4.41 N 0 0 1 0 0 2:4.93 N 0 0 0 1 0 2:8.39 N 1 0 0 0 0 3:4.10 N 1 0 1 0 0 2:3.88"
          + " N 1 0 4 0 0 0:0.00"
          + " O 0 0 0 1 0 0:17.07 O 0 1 1 0 0 0:20.23 O -1 0 1 0 0 0:23.06 O 0 0 2 0 0 0:9.23 O 0 0 2 0 0 0 3:12.53"
          + " O 0 0 0 0 0 2:13.14";
  private static final Map<Integer, Double> AREAS = areas();

  private PolarSurface() {}

  private static Map<Integer, Double> areas() {
    Map<Integer, Double> areas = new HashMap<>();
    for (String row : TABLE.split(" (?=[NO])")) {
      String[] parts = row.split("[ :]");
      int[] n = new int[7];
      for (int i = 1; i < parts.length - 1; i++) {
        n[i - 1] = Integer.parseInt(parts[i]);
      }
      int element = parts[0].equals("N") ? Elements.N : Elements.O;
      areas.put(key(element, n[0], n[1], n[2], n[3], n[4], n[5], n[6] == 3), Double.parseDouble(parts[parts.length - 1]));
    }
    return areas;
  }

  private static int key(int element, int charge, int hydrogens, int single, int twofold, int triple, int aromatic, boolean inThree) {
    int key = element == Elements.N ? 0 : 1;
    for (int part : new int[] {Math.min(Math.max(charge + 4, 0), 7), hydrogens, single, twofold, triple, aromatic}) {
      key = key * 8 + Math.min(part, 7);
    }
    return key * 2 + (inThree ? 1 : 0);
  }

  /** @return in square angstroms */
  static double area(PerceivedMolecule molecule) {
    double sum = 0;
    for (int atom = 0; atom < molecule.count; atom++) {
      if (molecule.element[atom] == Elements.N || molecule.element[atom] == Elements.O) {
        sum += area(molecule, atom);
      }
    }
    return sum;
  }

  private static double area(PerceivedMolecule molecule, int atom) {
    int element = molecule.element[atom];
    int[] bonds = new int[4];
    int aromatic = 0;
    int neighbours = 0;
    for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
      if (molecule.element[molecule.neighbour[edge]] == Elements.H) {
        continue;
      }
      neighbours++;
      if (molecule.aromaticBond[molecule.bondTo[edge]]) {
        aromatic++;
      } else {
        bonds[Math.min(3, molecule.order[molecule.bondTo[edge]])]++;
      }
    }
    int charge = molecule.charge[atom];
    int hydrogens = molecule.hydrogens[atom];
    // Only these two kinds of atoms have another area in a ring of three.
    boolean saturated = charge == 0 && bonds[1] == neighbours && bonds[1] == (element == Elements.N ? 3 - hydrogens : 2);
    boolean inThree = saturated && bonds[1] > 1 && molecule.inRingOfSize(atom, 3);
    Double area = AREAS.get(key(element, charge, hydrogens, bonds[1], bonds[2], bonds[3], aromatic, inThree));
    if (area != null) {
      return area;
    }
    boolean nitrogen = element == Elements.N;
    return Math.max(0, (nitrogen ? 30.5 - 8.2 * neighbours : 28.5 - 8.6 * neighbours) + 1.5 * hydrogens);
  }
}

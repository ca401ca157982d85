// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/**
 * Draws with charges what may be drawn without them, as RDKit does before anything else: nitro groups and N-oxides, azides and diazo
 * groups, phosphorus ylides of phosphine oxides, and chlorates and their like.
 */
final class ChargeSeparation {
  private ChargeSeparation() {}

  /** @param molecule with its neighbours known, valences not yet counted */
  static void apply(PerceivedMolecule molecule) {
    for (int atom = 0; atom < molecule.count; atom++) {
      if (molecule.charge[atom] != 0) {
        continue;
      }
      int element = molecule.element[atom];
      int valence = molecule.implicitHydrogens[atom];
      for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
        valence += molecule.order[molecule.bondTo[edge]];
      }
      if (element == Elements.N && valence == 5) {
        nitrogen(molecule, atom);
      } else if (element == Elements.P && valence == 5 && molecule.degree(atom) == 3) {
        phosphorus(molecule, atom);
      } else if ((element == Elements.CL || element == Elements.BR || element == Elements.I) && valence > 1) {
        halogen(molecule, atom);
      }
    }
  }

  private static void nitrogen(PerceivedMolecule molecule, int atom) {
    for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
      int other = molecule.neighbour[edge];
      int order = molecule.order[molecule.bondTo[edge]];
      boolean oxygen = molecule.element[other] == Elements.O && order == 2;
      boolean nitrogen = molecule.element[other] == Elements.N && order == 3;
      if (molecule.charge[other] == 0 && (oxygen || nitrogen)) {
        separate(molecule, atom, edge);
        return;
      }
    }
  }

  private static void phosphorus(PerceivedMolecule molecule, int atom) {
    int oxide = -1;
    boolean ylide = false;
    for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
      int other = molecule.neighbour[edge];
      if (molecule.order[molecule.bondTo[edge]] == 2) {
        if (molecule.element[other] == Elements.O && molecule.degree(other) == 1 && molecule.charge[other] == 0) {
          oxide = edge;
        } else if (molecule.element[other] == Elements.C || molecule.element[other] == Elements.N) {
          ylide |= molecule.degree(other) >= 2;
        }
      }
    }
    if (oxide >= 0 && ylide) {
      separate(molecule, atom, oxide);
    }
  }

  private static void halogen(PerceivedMolecule molecule, int atom) {
    for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
      if (molecule.element[molecule.neighbour[edge]] != Elements.O) {
        return;
      }
    }
    for (int edge = molecule.rowPtr[atom]; edge < molecule.rowPtr[atom + 1]; edge++) {
      if (molecule.order[molecule.bondTo[edge]] == 2) {
        separate(molecule, atom, edge);
      }
    }
  }

  private static void separate(PerceivedMolecule molecule, int atom, int edge) {
    molecule.order[molecule.bondTo[edge]]--;
    molecule.charge[atom]++;
    molecule.charge[molecule.neighbour[edge]]--;
    molecule.unpaired[atom] = 0;
    molecule.unpaired[molecule.neighbour[edge]] = 0;
  }
}

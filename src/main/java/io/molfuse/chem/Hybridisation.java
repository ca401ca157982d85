// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/**
 * Hybridisation after RDKit's rules, with its codes: 0 unspecified, 1 s, 2 sp, 3 sp2, 4 sp3, 5 sp3d, 6 sp3d2.
 *
 * <p>The number of orbitals is that of neighbours, lone pairs and unpaired electrons. Four mean sp3, but sp2 if a bond of the atom
 * is conjugated and it has at most three neighbours: the nitrogen of an amide or aniline and the oxygen of an ester are sp2. A
 * double, triple or aromatic bond conjugates with the single bonds beside it where both atoms next to it can take part, and with
 * another multiple bond beside it.
 */
final class Hybridisation {
  static final int UNSPECIFIED = 0;
  static final int S = 1;
  static final int SP = 2;
  static final int SP2 = 3;
  static final int SP3 = 4;
  static final int SP3D = 5;
  static final int SP3D2 = 6;

  private Hybridisation() {}

  static int[] of(AtomTable atoms) {
    boolean[] conjugated = conjugated(atoms);
    int[] codes = new int[atoms.count];
    for (int i = 0; i < atoms.count; i++) {
      codes[i] = code(atoms, i, conjugated[i]);
    }
    return codes;
  }

  private static int code(AtomTable atoms, int atom, boolean conjugated) {
    if (atoms.element[atom] == 0) {
      return UNSPECIFIED;
    }
    if (atoms.degree(atom) + atoms.hydrogens[atom] == 0 && Elements.group(atoms.element[atom]) == 0) {
      // Bare ions of the f block: the count of electrons below knows no f shell.
      return S;
    }
    switch (orbitals(atoms, atom)) {
      case 0:
      case 1:
        return S;
      case 2:
        return SP;
      case 3:
        return SP2;
      case 4:
        return conjugated && atoms.degree(atom) + atoms.hydrogens[atom] <= 3 ? SP2 : SP3;
      case 5:
        return SP3D;
      case 6:
        return SP3D2;
      default:
        return UNSPECIFIED;
    }
  }

  private static int orbitals(AtomTable atoms, int atom) {
    int neighbours = atoms.degree(atom) + atoms.hydrogens[atom];
    if (atoms.element[atom] <= 1) {
      return neighbours;
    }
    int outer = Valences.outerElectrons(atoms.element[atom]);
    int charge = atoms.charge[atom];
    int free = outer - (atoms.valence[atom] + charge);
    if (atoms.valence[atom] + outer - charge < 8) {
      int unpaired = Valences.unpairedElectrons(atoms, atom);
      return neighbours + (free - unpaired) / 2 + unpaired;
    }
    return neighbours + free / 2;
  }

  /** Whether an atom has a conjugated bond. */
  private static boolean[] conjugated(AtomTable atoms) {
    boolean[] candidate = new boolean[atoms.count];
    boolean[] conjugated = new boolean[atoms.count];
    for (int i = 0; i < atoms.count; i++) {
      candidate[i] = mayConjugate(atoms, i);
      conjugated[i] = atoms.aromatic[i];
    }
    for (int i = 0; i < atoms.count; i++) {
      int neighbours = atoms.degree(i) + atoms.hydrogens[i];
      if (!candidate[i] || neighbours < 2 || neighbours > 3) {
        continue;
      }
      for (int a = atoms.rowPtr[i]; a < atoms.rowPtr[i + 1]; a++) {
        int multiple = atoms.neighbour[a];
        if ((atoms.order[a] < 2 && !atoms.aromaticBond[a]) || !candidate[multiple]) {
          continue;
        }
        for (int b = atoms.rowPtr[i]; b < atoms.rowPtr[i + 1]; b++) {
          int other = atoms.neighbour[b];
          if (a != b && candidate[other] && atoms.degree(other) + atoms.hydrogens[other] <= 3) {
            conjugated[i] = true;
            conjugated[multiple] = true;
            conjugated[other] = true;
          }
        }
      }
    }
    return conjugated;
  }

  /** Atoms of the second period, and below it those without lone pairs or with one neighbour; no halogen, no expanded shell. */
  private static boolean mayConjugate(AtomTable atoms, int atom) {
    int element = atoms.element[atom];
    if (element == 0 || Valences.hypervalent(atoms, atom)) {
      return false;
    }
    int outer = Valences.outerElectrons(element);
    if (outer == 7) {
      return false;
    }
    return Elements.period(element) <= 2
        || (outer != 5 && outer != 6)
        || (outer == 6 && atoms.degree(atom) + atoms.hydrogens[atom] < 2);
  }
}

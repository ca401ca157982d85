// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/**
 * Which valences atoms may have, how many outer electrons, and how many of those are unpaired.
 *
 * <p>A valence is the sum of bond orders, hydrogens included. Main-group elements have the usual lists (OpenSMILES section 3.1.5,
 * extended to the elements below), d- and f-block elements may have any. A charged atom has the valences of the neutral element
 * with the same number of electrons: N+ those of C, O- those of F. As in RDKit an atom may have less, which leaves unpaired
 * electrons, but not more.
 *
 * <p>Three groups may be drawn without charges: a nitrogen of valence 5 with a double bond to O or N or a triple bond to N (nitro,
 * N-oxide, diazo, azide), a halogen with double bonds to oxygens that have no other bond (chlorates), and anions of group 16 with
 * up to 5 bonds (SF5-).
 */
final class Valences {
  private static final int[] ANY = {};
  private static final int[][] LISTS = lists();

  private Valences() {}

  private static int[][] lists() {
    int[][] lists = new int[Elements.COUNT][];
    for (int number = 0; number < lists.length; number++) {
      lists[number] = ANY;
    }
    set(lists, new int[] {0}, 2, 10, 18, 36, 86);
    set(lists, new int[] {1}, 1, 3, 9, 11, 17, 19, 35, 37, 55);
    set(lists, new int[] {2}, 4, 8, 12, 20, 38, 56);
    set(lists, new int[] {3}, 5, 7, 31, 49);
    set(lists, new int[] {4}, 6, 32);
    set(lists, new int[] {1, 3, 5}, 53, 85);
    set(lists, new int[] {2, 4}, 50, 82);
    set(lists, new int[] {2, 4, 6}, 16, 34, 52, 84);
    set(lists, new int[] {3, 5, 7}, 15, 33, 51, 83);
    set(lists, new int[] {3, 6}, 13);
    set(lists, new int[] {4, 6}, 14);
    set(lists, new int[] {0, 2, 4, 6}, 54);
    return lists;
  }

  private static void set(int[][] lists, int[] valences, int... numbers) {
    for (int number : numbers) {
      lists[number] = valences;
    }
  }

  /**
   * Looks for an atom with too many bonds.
   *
   * @return what is wrong, or null
   */
  static String fault(AtomTable atoms) {
    for (int i = 0; i < atoms.count; i++) {
      int most = greatest(atoms.element[i], atoms.charge[i]);
      if (most >= 0 && atoms.valence[i] > most && atoms.valence[i] - drawnWithoutCharges(atoms, i) > most) {
        String sign = atoms.charge[i] > 0 ? "+" : "";
        return "atom "
            + (i + 1)
            + " ("
            + Elements.symbol(atoms.element[i])
            + (atoms.charge[i] == 0 ? "" : sign + atoms.charge[i])
            + ") has valence "
            + atoms.valence[i]
            + " where at most "
            + most
            + " is allowed";
      }
    }
    return null;
  }

  /** The greatest valence of an atom, or -1 if there is no limit. */
  static int greatest(int element, int charge) {
    if (LISTS[element] == ANY) {
      return -1;
    }
    if (element - charge <= 0) {
      return 0;
    }
    if (charge == -1 && Elements.group(element) == 16 && element != Elements.O) {
      return 5;
    }
    int[] list = element - charge < LISTS.length ? LISTS[element - charge] : ANY;
    return list == ANY ? -1 : list[list.length - 1];
  }

  /** The part of the valence that vanishes when groups drawn without charges are drawn with them. */
  private static int drawnWithoutCharges(AtomTable atoms, int atom) {
    int element = atoms.element[atom];
    boolean halogen = element == Elements.CL || element == Elements.BR || element == Elements.I;
    boolean nitrogen = element == Elements.N;
    if (atoms.charge[atom] != 0 || !(halogen || (nitrogen && atoms.valence[atom] == 5))) {
      return 0;
    }
    int part = 0;
    for (int edge = atoms.rowPtr[atom]; edge < atoms.rowPtr[atom + 1]; edge++) {
      int other = atoms.neighbour[edge];
      boolean oxygen = atoms.element[other] == Elements.O;
      int order = atoms.order[edge];
      if (halogen && oxygen && order == 2 && atoms.degree(other) == 1) {
        part += 2;
      } else if (nitrogen && ((order == 2 && (oxygen || atoms.element[other] == 7)) || (order == 3 && atoms.element[other] == 7))) {
        part = 2;
      }
    }
    return part;
  }

  /** The lowest valence of the neutral element, or -1 if it may have any. */
  static int lowest(int element) {
    return LISTS[element] == ANY ? -1 : LISTS[element][0];
  }

  /** Outer electrons of the neutral atom: the group, without the ten d electrons from group 12 on. */
  static int outerElectrons(int element) {
    if (element == 0) {
      return 0;
    }
    if (element == 2) {
      return 2;
    }
    int group = Elements.group(element);
    return group >= 12 ? group - 10 : group;
  }

  /** Whether the valence is higher than the lowest of its element, as that of a sulfone's sulfur is. */
  static boolean hypervalent(AtomTable atoms, int atom) {
    int[] list = LISTS[atoms.element[atom]];
    return atoms.charge[atom] == 0 && list != ANY && atoms.valence[atom] > list[0];
  }

  /** Electrons of the atom that are in no bond and no pair, from the octet rule. */
  static int unpairedElectrons(AtomTable atoms, int atom) {
    int element = atoms.element[atom];
    if (element == 0) {
      return 0;
    }
    int[] list = LISTS[element];
    int outer = outerElectrons(element);
    int charge = atoms.charge[atom];
    int valence = atoms.valence[atom];
    if (list == ANY) {
      // Bonds of metals say little about their electrons, so only bare ones are judged.
      return atoms.degree(atom) > 0 ? 0 : Math.max(0, outer - charge) % 2;
    }
    int shell = element <= 2 ? 2 : 8;
    int missing = shell - outer - valence + charge;
    if (missing < 0) {
      missing = 0;
      for (int i = 0; list.length > 1 && i < list.length; i++) {
        if (list[i] - valence + charge >= 0) {
          missing = list[i] - valence + charge;
          break;
        }
      }
    }
    // Elements on the left have fewer electrons than it takes to fill the shell.
    int left = outer - valence - charge;
    return left >= 0 ? Math.min(missing, left) : missing;
  }
}

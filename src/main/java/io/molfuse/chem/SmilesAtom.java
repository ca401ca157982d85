// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/** Text of bracket atoms, which SMILES and SELFIES 2 share but for the defaults. */
final class SmilesAtom {
  /** No isotope is given, or the hydrogens are left to the valence rules. */
  static final int NONE = -1;

  static final int TOO_LARGE = -2;

  private static final int MAX_DIGITS = 9;

  private SmilesAtom() {}

  /**
   * The number that text[from, to) spells.
   *
   * @return the number, {@link #NONE} if there are no digits, {@link #TOO_LARGE} from 10 significant digits on
   */
  static int number(String text, int from, int to) {
    if (from == to) {
      return NONE;
    }
    int start = from;
    while (start < to - 1 && text.charAt(start) == '0') {
      start++;
    }
    return to - start > MAX_DIGITS ? TOO_LARGE : Integer.parseInt(text, start, to, 10);
  }

  /**
   * Appends what stands between the brackets.
   *
   * @param chirality 0, 1 for @, 2 for @@
   */
  static void append(StringBuilder out, int element, int isotope, int chirality, int hydrogens, int charge) {
    if (isotope >= 0) {
      out.append(isotope);
    }
    out.append(Elements.symbol(element));
    for (int i = 0; i < chirality; i++) {
      out.append('@');
    }
    if (hydrogens != 0) {
      out.append('H').append(hydrogens);
    } else if (isotope < 0 && chirality == 0 && charge == 0 && Elements.organic(element)) {
      // Without brackets, which SELFIES drops, the atom would get hydrogens.
      out.append("H0");
    }
    if (charge != 0) {
      out.append(charge > 0 ? "+" : "").append(charge);
    }
  }
}

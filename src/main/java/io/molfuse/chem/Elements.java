// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.BitSet;

/** The periodic table as the SELFIES grammar and the valence rules need it. Elements are given by their atomic number. */
final class Elements {
  private static final String[] SYMBOLS =
      ("* H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc"
              + " Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg"
              + " Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts"
              + " Og")
          .split(" ");

  static final int COUNT = SYMBOLS.length;

  static final int H = 1;
  static final int B = 5;
  static final int C = 6;
  static final int N = 7;
  static final int O = 8;
  static final int F = 9;
  static final int AL = 13;
  static final int SI = 14;
  static final int P = 15;
  static final int S = 16;
  static final int CL = 17;
  static final int AS = 33;
  static final int SE = 34;
  static final int BR = 35;
  static final int TE = 52;
  static final int I = 53;

  private static final byte[] BY_LETTERS = new byte[26 * 27];
  private static final BitSet ORGANIC = bits(B, C, N, O, S, P, F, CL, BR, I);
  private static final BitSet AROMATIC = bits(B, AL, C, SI, N, P, AS, O, S, SE, TE);

  /** Elements that SMILES knows but SELFIES 2 does not: Nh, Mc, Ts, Og. */
  private static final BitSet NOT_IN_SELFIES = bits(113, 115, 117, 118);

  static {
    for (int number = 1; number < COUNT; number++) {
      String symbol = SYMBOLS[number];
      BY_LETTERS[slot(symbol.charAt(0), symbol.length() > 1 ? symbol.charAt(1) : 0)] = (byte) number;
    }
  }

  private Elements() {}

  private static BitSet bits(int... numbers) {
    BitSet set = new BitSet();
    for (int number : numbers) {
      set.set(number);
    }
    return set;
  }

  private static int slot(char first, int second) {
    return (first - 'A') * 27 + (second == 0 ? 0 : second - 'a' + 1);
  }

  static String symbol(int number) {
    return SYMBOLS[number];
  }

  /**
   * The SELFIES element of one or two letters.
   *
   * @param first A to Z
   * @param second a to z, or 0 for a symbol of one letter
   * @return the atomic number, or 0 if SELFIES has no such element
   */
  static int inSelfies(char first, int second) {
    int number = BY_LETTERS[slot(first, second)];
    return NOT_IN_SELFIES.get(number) ? 0 : number;
  }

  /** As {@link #inSelfies(char, int)} for any string. */
  static int inSelfies(String symbol) {
    boolean plausible =
        (symbol.length() == 1 || (symbol.length() == 2 && isLower(symbol.charAt(1)))) && isUpper(symbol.charAt(0));
    return plausible ? inSelfies(symbol.charAt(0), symbol.length() == 2 ? symbol.charAt(1) : 0) : 0;
  }

  /** Group of the periodic table, 1 to 18; 0 for lanthanides, actinides and the wildcard. */
  static int group(int number) {
    return org.openscience.cdk.config.Elements.ofNumber(number).group();
  }

  /** Period of the periodic table, 1 to 7; 0 for the wildcard. */
  static int period(int number) {
    return org.openscience.cdk.config.Elements.ofNumber(number).period();
  }

  /** Whether SMILES allows the element without brackets. */
  static boolean organic(int number) {
    return ORGANIC.get(number);
  }

  /** Whether SELFIES reads the element's symbol in small letters as an aromatic atom. */
  static boolean mayBeAromatic(int number) {
    return AROMATIC.get(number);
  }

  static boolean isUpper(int c) {
    return c >= 'A' && c <= 'Z';
  }

  static boolean isLower(int c) {
    return c >= 'a' && c <= 'z';
  }

  static boolean isDigit(int c) {
    return c >= '0' && c <= '9';
  }
}

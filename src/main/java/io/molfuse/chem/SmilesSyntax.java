// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.BitSet;

/** Faults in the order of SMILES characters that CDK's parser lets pass: bonds that lead nowhere, empty branches, empty fragments. */
final class SmilesSyntax {
  private enum Last {
    START,
    ATOM,
    BOND,
    OPEN,
    CLOSE,
    DOT
  }

  private SmilesSyntax() {}

  /**
   * @param smiles not empty
   * @return what is wrong and where, or null; much else may still be wrong
   */
  static String fault(String smiles) {
    Last last = Last.START;
    for (int i = 0; i < smiles.length(); i++) {
      char c = smiles.charAt(i);
      Last here;
      if (c == '[') {
        int end = smiles.indexOf(']', i);
        if (end < 0) {
          return "bracket [ at position " + i + " is not closed";
        }
        i = end;
        here = Last.ATOM;
      } else if (Elements.isUpper(c) || Elements.isLower(c) || c == '*') {
        here = Last.ATOM;
      } else if (Elements.isDigit(c) || c == '%') {
        if (last != Last.ATOM && last != Last.CLOSE && last != Last.BOND) {
          return "ring bond at position " + i + " has no atom before it";
        }
        here = Last.ATOM;
      } else if (isBond(c)) {
        if (last == Last.START || last == Last.DOT || last == Last.BOND) {
          return "bond at position " + i + " has no atom before it";
        }
        here = Last.BOND;
      } else if (c == '(') {
        here = Last.OPEN;
      } else if (c == ')') {
        here = Last.CLOSE;
      } else if (c == '.') {
        here = Last.DOT;
      } else {
        // CDK takes what follows white space as a name, and knows reactions.
        return "character " + (c > ' ' && c <= '~' ? String.valueOf(c) : String.format("U+%04X", (int) c)) + " at position " + i;
      }
      boolean needsAtom = here == Last.OPEN || here == Last.CLOSE || here == Last.DOT;
      if (needsAtom && last != Last.ATOM && last != Last.CLOSE) {
        return "'" + c + "' at position " + i + " has no atom before it";
      }
      last = here;
    }
    return last == Last.ATOM || last == Last.CLOSE ? null : "SMILES ends without an atom";
  }

  /** Which atoms, counted from 0 as written, have their symbols in small letters. */
  static BitSet lowerCaseAtoms(String smiles) {
    BitSet lower = new BitSet();
    int atom = 0;
    for (int i = 0; i < smiles.length(); i++) {
      char c = smiles.charAt(i);
      if (c == '[') {
        int end = smiles.indexOf(']', i);
        int symbol = i + 1;
        while (symbol < end && Elements.isDigit(smiles.charAt(symbol))) {
          symbol++;
        }
        lower.set(atom++, Elements.isLower(smiles.charAt(symbol)));
        i = end;
      } else if (Elements.isLower(c)) {
        lower.set(atom++);
      } else if (Elements.isUpper(c) || c == '*') {
        boolean twoLetters = smiles.startsWith("Cl", i) || smiles.startsWith("Br", i);
        i += twoLetters ? 1 : 0;
        atom++;
      }
    }
    return lower;
  }

  private static boolean isBond(char c) {
    return c == '-' || c == '=' || c == '#' || c == '$' || c == ':' || c == '/' || c == '\\' || c == '~';
  }
}

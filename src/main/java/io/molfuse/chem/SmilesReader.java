// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;

/**
 * Reads the SMILES that SELFIES can express: no wildcard, no quadruple bond, no chirality but @ and @@, no ring bond across a
 * dot. Does not look at valences.
 */
final class SmilesReader {
  private static final int NONE = SmilesGraph.NONE;

  /** Ring labels 0 to 9, then %00 to %99; %01 and 1 are different labels, as in the reference. */
  private static final int LABELS = 110;

  private final String smiles;
  private final SmilesGraph graph;
  private int at;

  private final int[] ringHalf = new int[LABELS];
  private final int[] ringAtom = new int[LABELS];
  private final int[] ringAt = new int[LABELS];
  private final char[] ringBond = new char[LABELS];
  private int openRings;

  private int[] branches = new int[8];
  private int[] branchAt = new int[8];
  private int openBranches;

  private int previous = NONE;
  private boolean atStart = true;

  SmilesReader(String smiles) {
    this.smiles = smiles;
    this.graph = new SmilesGraph();
    Arrays.fill(ringHalf, NONE);
  }

  SmilesGraph read() {
    if (smiles.isEmpty()) {
      throw fault("empty SMILES", 0);
    }
    while (at < smiles.length()) {
      char c = smiles.charAt(at);
      if (c == '.') {
        finishFragment();
        at++;
        continue;
      }
      char bond = 0;
      if (isBond(c)) {
        bond = c;
        at++;
        if (at == smiles.length()) {
          throw fault("bond leads nowhere", at - 1);
        }
        c = smiles.charAt(at);
      }
      if (Elements.isUpper(c) || Elements.isLower(c)) {
        readPlainAtom(c, bond);
      } else if (c == '[') {
        readBracketAtom(bond);
      } else if (c == '(' || c == ')') {
        readBranch(c, bond);
      } else if (Elements.isDigit(c)) {
        readRing(c - '0', 1, bond);
      } else if (c == '%') {
        readLongRing(bond);
      } else {
        throw fault("unrecognised character '" + c + "'", at);
      }
    }
    finishFragment();
    return graph;
  }

  private SelfiesException fault(String reason, int position) {
    return new SelfiesException(smiles, reason, position);
  }

  private static boolean isBond(char c) {
    return c == '-' || c == '=' || c == '#' || c == '/' || c == '\\' || c == ':';
  }

  private static boolean isStereo(char bond) {
    return bond == '/' || bond == '\\';
  }

  private static char stereoOf(char bond) {
    return isStereo(bond) ? bond : 0;
  }

  private static int orderOf(char bond) {
    switch (bond) {
      case '=':
        return SmilesGraph.DOUBLE;
      case '#':
        return SmilesGraph.TRIPLE;
      case ':':
        return SmilesGraph.AROMATIC;
      default:
        return SmilesGraph.SINGLE;
    }
  }

  private void finishFragment() {
    if (graph.atomCount == 0) {
      throw fault("fragment has no atom", at);
    }
    if (openBranches > 0) {
      throw fault("branch ( is not closed", branchAt[openBranches - 1]);
    }
    if (openRings > 0) {
      for (int label = 0; label < LABELS; label++) {
        if (ringHalf[label] != NONE) {
          throw fault("ring bond " + labelText(label) + " is not closed", ringAt[label]);
        }
      }
    }
    previous = NONE;
    atStart = true;
  }

  private static String labelText(int label) {
    return label < 10 ? String.valueOf(label) : "%" + (label - 10) / 10 + (label - 10) % 10;
  }

  private void readPlainAtom(char c, char bond) {
    int second = at + 1 < smiles.length() ? smiles.charAt(at + 1) : 0;
    if ((c == 'B' && second == 'r') || (c == 'C' && second == 'l')) {
      addAtom(Elements.inSelfies(c, second), false, SmilesAtom.NONE, 0, SmilesAtom.NONE, 0, bond);
      at += 2;
      return;
    }
    boolean aromatic = Elements.isLower(c);
    int element = Elements.inSelfies(aromatic ? (char) (c - 'a' + 'A') : c, 0);
    if (element == 0 || (aromatic ? !Elements.mayBeAromatic(element) : !Elements.organic(element))) {
      throw fault("invalid atom '" + c + "'", at);
    }
    addAtom(element, aromatic, SmilesAtom.NONE, 0, SmilesAtom.NONE, 0, bond);
    at++;
  }

  /** [ isotope? symbol chirality? hydrogens? charge? class? ]. */
  private void readBracketAtom(char bond) {
    int start = at;
    int end = smiles.indexOf(']', start + 1);
    if (end < 0) {
      throw fault("bracket [ is not closed", start);
    }
    int i = skipDigits(start + 1);
    int isotope = SmilesAtom.number(smiles, start + 1, i);
    char first = smiles.charAt(i);
    if (isotope == SmilesAtom.TOO_LARGE || !(Elements.isUpper(first) || Elements.isLower(first))) {
      throw badAtom(start, end);
    }
    i++;
    int second = Elements.isLower(smiles.charAt(i)) ? smiles.charAt(i++) : 0;
    boolean lower = Elements.isLower(first);
    int element = Elements.inSelfies(lower ? (char) (first - 'a' + 'A') : first, second);
    if (element == 0) {
      throw badAtom(start, end);
    }
    int chirality = 0;
    while (chirality < 2 && smiles.charAt(i) == '@') {
      chirality++;
      i++;
    }
    int hydrogens = 0;
    if (smiles.charAt(i) == 'H') {
      i++;
      hydrogens = Elements.isDigit(smiles.charAt(i)) ? smiles.charAt(i++) - '0' : 1;
    }
    int charge = 0;
    char sign = smiles.charAt(i);
    if (sign == '+' || sign == '-') {
      int from = ++i;
      i = skipDigits(from);
      if (i > from) {
        charge = SmilesAtom.number(smiles, from, i);
      } else {
        while (smiles.charAt(i) == sign) {
          i++;
        }
        charge = 1 + i - from;
      }
      if (charge < 0) {
        throw badAtom(start, end);
      }
      charge = sign == '+' ? charge : -charge;
    }
    if (smiles.charAt(i) == ':') {
      int from = ++i;
      i = skipDigits(from);
      if (i == from) {
        throw badAtom(start, end);
      }
    }
    if (i != end) {
      throw badAtom(start, end);
    }
    // A symbol in small letters that has no aromatic form, such as cl, is taken as the plain element: so does the reference.
    addAtom(element, lower && Elements.mayBeAromatic(element), isotope, chirality, hydrogens, charge, bond);
    at = end + 1;
  }

  private SelfiesException badAtom(int start, int end) {
    return fault("invalid atom '" + SelfiesException.excerpt(smiles.substring(start, end + 1), 0) + "'", start);
  }

  private int skipDigits(int from) {
    int i = from;
    while (Elements.isDigit(smiles.charAt(i))) {
      i++;
    }
    return i;
  }

  private void addAtom(int element, boolean aromatic, int isotope, int chirality, int hydrogens, int charge, char bond) {
    int atom = graph.addAtom(element, aromatic, isotope, chirality, hydrogens, charge);
    if (previous != NONE) {
      boolean implicitAromatic = bond == 0 && aromatic && graph.aromatic[previous];
      int order = implicitAromatic ? SmilesGraph.AROMATIC : orderOf(bond);
      graph.addChainBond(previous, atom, order, stereoOf(bond));
    }
    previous = atom;
    atStart = false;
  }

  private void requireAtomBefore() {
    if (atStart) {
      throw fault("chain begins with something else than an atom", at);
    }
  }

  private void readBranch(char c, char bond) {
    if (bond != 0) {
      throw fault("bond leads nowhere", at - 1);
    }
    requireAtomBefore();
    if (c == '(') {
      if (openBranches == branches.length) {
        branches = Arrays.copyOf(branches, 2 * openBranches);
        branchAt = Arrays.copyOf(branchAt, 2 * openBranches);
      }
      branches[openBranches] = previous;
      branchAt[openBranches++] = at;
      atStart = true;
    } else {
      if (openBranches == 0) {
        throw fault("branch ) was not opened", at);
      }
      previous = branches[--openBranches];
    }
    at++;
  }

  private void readLongRing(char bond) {
    boolean wellFormed =
        at + 2 < smiles.length() && Elements.isDigit(smiles.charAt(at + 1)) && Elements.isDigit(smiles.charAt(at + 2));
    if (!wellFormed) {
      throw fault("% must be followed by a ring number of two digits", at);
    }
    readRing(10 + 10 * (smiles.charAt(at + 1) - '0') + smiles.charAt(at + 2) - '0', 3, bond);
  }

  private void readRing(int label, int length, char bond) {
    requireAtomBefore();
    if (ringHalf[label] == NONE) {
      ringHalf[label] = graph.addHalf(previous);
      ringAtom[label] = previous;
      ringAt[label] = at;
      ringBond[label] = bond;
      openRings++;
    } else {
      closeRing(label, bond);
    }
    at += length;
  }

  private void closeRing(int label, char closing) {
    int half = ringHalf[label];
    int from = ringAtom[label];
    char opening = ringBond[label];
    ringHalf[label] = NONE;
    openRings--;
    if (from == previous) {
      throw fault("ring bond " + labelText(label) + " joins an atom to itself", at);
    }
    if (graph.bonded(from, previous)) {
      throw fault("ring bond " + labelText(label) + " joins atoms that are already bonded", at);
    }
    boolean match = opening == closing || opening == 0 || closing == 0 || (isStereo(opening) && isStereo(closing));
    if (!match) {
      throw fault("ring bond " + labelText(label) + " opens as '" + opening + "' and closes as '" + closing + "'", at);
    }
    boolean implicitAromatic = opening == 0 && closing == 0 && graph.aromatic[from] && graph.aromatic[previous];
    int order = implicitAromatic ? SmilesGraph.AROMATIC : Math.max(orderOf(opening), orderOf(closing));
    graph.addRingBond(from, half, stereoOf(opening), previous, stereoOf(closing), order);
  }
}

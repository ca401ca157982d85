// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import io.molfuse.chem.Smarts.AtomTest;
import io.molfuse.chem.Smarts.BondTest;
import io.molfuse.chem.Smarts.Link;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BinaryOperator;

/** Compiles SMARTS to tests: in brackets and bonds, ! binds closest, then &amp; or nothing, then the comma, then the semicolon. */
final class SmartsReader {
  private static final BondTest SINGLE_OR_AROMATIC = (m, b) -> m.aromaticBond[b] || m.order[b] == 1;
  private static final String BOND_START = "-=#:~@!/\\";

  private static final Map<String, Integer> NUMBERS = new HashMap<>();

  static {
    for (int number = 1; number < Elements.COUNT; number++) {
      NUMBERS.put(Elements.symbol(number), number);
    }
  }

  private record Opened(int atom, BondTest bond) {}

  private final String text;
  private int at;
  private final List<AtomTest> atoms = new ArrayList<>();
  private final List<List<Link>> links = new ArrayList<>();
  private final Map<Integer, Opened> opened = new HashMap<>();

  SmartsReader(String text) {
    this.text = text;
  }

  Smarts read() {
    Smarts made = chain();
    if (at < text.length()) {
      throw fault("unexpected '" + text.charAt(at) + "'");
    }
    return made;
  }

  /** Reads up to the end or to a bracket that closes more than was opened. */
  private Smarts chain() {
    Deque<Integer> branches = new ArrayDeque<>();
    int previous = -1;
    BondTest bond = null;
    while (at < text.length()) {
      char c = text.charAt(at);
      if (c == '(') {
        branches.push(previous);
        at++;
      } else if (c == ')') {
        if (branches.isEmpty()) {
          break;
        }
        previous = branches.pop();
        at++;
      } else if (c == '.') {
        previous = -1;
        at++;
      } else if (BOND_START.indexOf(c) >= 0) {
        bond = bond();
      } else if (Elements.isDigit(c) || c == '%') {
        ring(previous, bond);
        bond = null;
      } else {
        AtomTest test = c == '[' ? bracket() : plain();
        atoms.add(test);
        links.add(new ArrayList<>());
        if (previous >= 0) {
          links.get(atoms.size() - 1).add(new Link(previous, bond == null ? SINGLE_OR_AROMATIC : bond));
        }
        previous = atoms.size() - 1;
        bond = null;
      }
    }
    if (!branches.isEmpty() || !opened.isEmpty() || atoms.isEmpty() || bond != null) {
      throw fault("a branch, ring or bond is not finished");
    }
    Link[][] rows = links.stream().map(row -> row.toArray(new Link[0])).toArray(Link[][]::new);
    return new Smarts(atoms.toArray(new AtomTest[0]), rows);
  }

  private IllegalArgumentException fault(String reason) {
    return new IllegalArgumentException("SMARTS '" + text + "', position " + at + ": " + reason);
  }

  private void ring(int atom, BondTest bond) {
    int label = text.charAt(at++) - '0';
    if (label < 0) {
      label = Integer.parseInt(text.substring(at, at + 2));
      at += 2;
    }
    Opened start = opened.remove(label);
    if (start == null) {
      opened.put(label, new Opened(atom, bond));
      return;
    }
    BondTest test = bond != null ? bond : start.bond() != null ? start.bond() : SINGLE_OR_AROMATIC;
    links.get(Math.max(atom, start.atom())).add(new Link(Math.min(atom, start.atom()), test));
  }

  private BondTest bond() {
    BondTest all = bondAny();
    while (peek(';')) {
      at++;
      BondTest first = all;
      BondTest second = bondAny();
      all = (m, b) -> first.fits(m, b) && second.fits(m, b);
    }
    return all;
  }

  private BondTest bondAny() {
    BondTest any = bondAll();
    while (peek(',')) {
      at++;
      BondTest first = any;
      BondTest second = bondAll();
      any = (m, b) -> first.fits(m, b) || second.fits(m, b);
    }
    return any;
  }

  private BondTest bondAll() {
    BondTest all = bondTerm();
    while (peek('&') || (at < text.length() && BOND_START.indexOf(text.charAt(at)) >= 0)) {
      at += peek('&') ? 1 : 0;
      BondTest first = all;
      BondTest second = bondTerm();
      all = (m, b) -> first.fits(m, b) && second.fits(m, b);
    }
    return all;
  }

  private BondTest bondTerm() {
    if (at == text.length()) {
      throw fault("bond expected");
    }
    char c = text.charAt(at++);
    switch (c) {
      case '!':
        BondTest inner = bondTerm();
        return (m, b) -> !inner.fits(m, b);
      case '-':
      case '/':
      case '\\':
        return (m, b) -> m.order[b] == 1 && !m.aromaticBond[b];
      case '=':
        return (m, b) -> m.order[b] == 2 && !m.aromaticBond[b];
      case '#':
        return (m, b) -> m.order[b] == 3;
      case ':':
        return (m, b) -> m.aromaticBond[b];
      case '~':
        return (m, b) -> true;
      case '@':
        return (m, b) -> m.ringsOfBond[b] > 0;
      default:
        throw fault("unknown bond '" + c + "'");
    }
  }

  private boolean peek(char c) {
    return at < text.length() && text.charAt(at) == c;
  }

  /** An atom without brackets. */
  private AtomTest plain() {
    char c = text.charAt(at);
    String two = text.substring(at, Math.min(at + 2, text.length()));
    if (two.equals("Cl") || two.equals("Br")) {
      at += 2;
      return symbol(NUMBERS.get(two), false);
    }
    at++;
    if (c == '*') {
      return (m, a) -> true;
    } else if (c == 'a') {
      return (m, a) -> m.aromatic[a];
    } else if (c == 'A') {
      return (m, a) -> !m.aromatic[a];
    }
    Integer number = NUMBERS.get(String.valueOf(Character.toUpperCase(c)));
    if (number == null || !(Elements.organic(number) && (Elements.isUpper(c) || "bcnops".indexOf(c) >= 0))) {
      throw fault("unknown atom '" + c + "'");
    }
    return symbol(number, Elements.isLower(c));
  }

  private static AtomTest symbol(int number, boolean aromatic) {
    return (m, a) -> m.element[a] == number && m.aromatic[a] == aromatic;
  }

  private AtomTest bracket() {
    at++;
    // Alone, H is the atom; elsewhere it counts hydrogens.
    int start = at;
    AtomTest hydrogen = text.startsWith("H]", at) ? (m, a) -> m.element[a] == Elements.H : null;
    AtomTest test = hydrogen;
    if (hydrogen == null) {
      test = atomList(';', BOTH);
    } else {
      at = start + 1;
    }
    if (!peek(']')) {
      throw fault("] expected");
    }
    at++;
    return test;
  }

  private static final BinaryOperator<AtomTest> BOTH = (f, s) -> (m, a) -> f.fits(m, a) && s.fits(m, a);
  private static final BinaryOperator<AtomTest> EITHER = (f, s) -> (m, a) -> f.fits(m, a) || s.fits(m, a);

  private AtomTest atomList(char separator, BinaryOperator<AtomTest> join) {
    AtomTest test = separator == ';' ? atomList(',', EITHER) : atomAll();
    while (peek(separator)) {
      at++;
      test = join.apply(test, separator == ';' ? atomList(',', EITHER) : atomAll());
    }
    return test;
  }

  private AtomTest atomAll() {
    AtomTest test = atomTerm();
    while (at < text.length() && "];,".indexOf(text.charAt(at)) < 0) {
      at += peek('&') ? 1 : 0;
      test = BOTH.apply(test, atomTerm());
    }
    return test;
  }

  private AtomTest atomTerm() {
    if (at == text.length()) {
      throw fault("atom expected");
    }
    char c = text.charAt(at);
    String two = text.substring(at, Math.min(at + 2, text.length()));
    if (Elements.isUpper(c) && NUMBERS.containsKey(two)) {
      at += 2;
      int number = NUMBERS.get(two);
      return (m, a) -> m.element[a] == number;
    }
    if (two.equals("se") || two.equals("as") || two.equals("te") || two.equals("si")) {
      at += 2;
      return symbol(NUMBERS.get(Character.toUpperCase(c) + two.substring(1)), true);
    }
    if ("BCNOFPSI*Aabcnops".indexOf(c) >= 0) {
      return plain();
    }
    if ("KVWUY".indexOf(c) >= 0) {
      at++;
      return symbol(NUMBERS.get(String.valueOf(c)), false);
    }
    if (Elements.isDigit(c)) {
      int isotope = number(0);
      return (m, a) -> m.isotope[a] == isotope;
    }
    at++;
    switch (c) {
      case '!':
        AtomTest inner = atomTerm();
        return (m, a) -> !inner.fits(m, a);
      case '$':
        return recursive();
      case '#':
        int element = number(0);
        return (m, a) -> m.element[a] == element;
      case '+':
      case '-':
        int charge = charge(c);
        return (m, a) -> m.charge[a] == charge;
      default:
        return primitive(c);
    }
  }

  private AtomTest primitive(char c) {
    boolean bare = !(at < text.length() && Elements.isDigit(text.charAt(at)));
    int n = number(1);
    switch (c) {
      case 'H':
        return (m, a) -> m.hydrogens[a] == n;
      case 'h':
        return bare ? (m, a) -> m.implicitHydrogens[a] > 0 : (m, a) -> m.implicitHydrogens[a] == n;
      case 'D':
        return (m, a) -> m.degree(a) == n;
      case 'X':
        return (m, a) -> m.connectivity(a) == n;
      case 'v':
        return (m, a) -> m.valence[a] == n;
      case 'R':
        return bare ? (m, a) -> m.ringsOfAtom[a] > 0 : (m, a) -> m.ringsOfAtom[a] == n;
      case 'r':
        return bare ? (m, a) -> m.ringsOfAtom[a] > 0 : (m, a) -> m.smallestRing[a] == n;
      case 'x':
        return bare ? (m, a) -> m.ringDegree(a) > 0 : (m, a) -> m.ringDegree(a) == n;
      default:
        at--;
        throw fault("unknown atom property '" + c + "'");
    }
  }

  private int number(int absent) {
    int from = at;
    while (at < text.length() && Elements.isDigit(text.charAt(at))) {
      at++;
    }
    return from == at ? absent : Integer.parseInt(text.substring(from, at));
  }

  private int charge(char sign) {
    int size = 1;
    while (peek(sign)) {
      size++;
      at++;
    }
    size = size == 1 ? number(1) : size;
    return sign == '+' ? size : -size;
  }

  /** $(...): a pattern whose first atom is the one tested. */
  private AtomTest recursive() {
    if (!peek('(')) {
      throw fault("( expected");
    }
    SmartsReader reader = new SmartsReader(text);
    reader.at = at + 1;
    Smarts pattern = reader.chain();
    if (!reader.peek(')')) {
      throw reader.fault(") expected");
    }
    at = reader.at + 1;
    return pattern::matchesAt;
  }
}

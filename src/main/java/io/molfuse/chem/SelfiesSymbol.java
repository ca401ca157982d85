// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * The meaning of one SELFIES symbol (Krenn et al. 2020, "Self-referencing embedded strings"; Lo et al. 2023 for version 2).
 * Immutable.
 */
final class SelfiesSymbol {
  enum Kind {
    ATOM,
    BRANCH,
    RING,
    EPSILON,
    NOP,
    INVALID
  }

  /** The symbols that stand for the hexadecimal digits 0 to 15 behind a branch or ring symbol. */
  static final List<String> INDEX_ALPHABET =
      List.of(
          "[C]", "[Ring1]", "[Ring2]", "[Branch1]", "[=Branch1]", "[#Branch1]", "[Branch2]", "[=Branch2]", "[#Branch2]", "[O]",
          "[N]", "[=N]", "[=C]", "[#C]", "[S]", "[P]");

  private static final Map<String, Integer> DIGITS = digits();

  // Strings from outside choose the symbols, so the cache has a fixed size, and a symbol that finds its places taken replaces another.
  // Threads write to it as they please: what they lose of each other's work is made again, and a symbol is immutable.
  private static final int CACHE_SIZE = 1 << 13;
  private static final int PROBES = 8;
  private static final int MAX_CACHED_LENGTH = 32;
  private static final SelfiesSymbol[] CACHE = new SelfiesSymbol[CACHE_SIZE];

  final Kind kind;
  final String text;

  /** 1 to 3: the bond before the atom, the bond of the ring, or the bond that starts the branch. */
  final int order;

  /** '/', '\\' or 0: of an atom's bond, or of a ring bond where it opens. */
  final char stereo;

  /** Of a ring bond where it closes. */
  final char closingStereo;

  /** Of a branch or ring: how many symbols behind it spell its number. */
  final int indexLength;

  /** What the symbol means as a digit; 0 for all that are not in the index alphabet. */
  final int digit;

  /** Of an atom. */
  final int element;

  final int hydrogens;
  final int charge;

  /** Of an atom: how SMILES writes it. */
  final String smiles;

  private SelfiesSymbol(
      Kind kind,
      String text,
      int order,
      char stereo,
      char closingStereo,
      int indexLength,
      int element,
      int hydrogens,
      int charge,
      String smiles) {
    this.kind = kind;
    this.text = text;
    this.order = order;
    this.stereo = stereo;
    this.closingStereo = closingStereo;
    this.indexLength = indexLength;
    this.digit = DIGITS.getOrDefault(text, 0);
    this.element = element;
    this.hydrogens = hydrogens;
    this.charge = charge;
    this.smiles = smiles;
  }

  /** The symbol that begins at a position and ends with the next ]; null if there is none. Looks at each character once, then compares. */
  static SelfiesSymbol at(String text, int from) {
    int end = text.length();
    int hash = 0;
    int to = from + 1;
    for (char c = 0; c != ']'; to++) {
      if (to >= end) {
        return null;
      }
      c = text.charAt(to);
      hash = 31 * hash + c;
    }
    int length = to - from;
    if (length > MAX_CACHED_LENGTH) {
      return parse(text.substring(from, to));
    }
    int slot = (hash ^ hash >>> 13) & CACHE_SIZE - 1;
    int last = slot + PROBES - 1;
    for (; slot <= last; slot++) {
      SelfiesSymbol symbol = CACHE[slot & CACHE_SIZE - 1];
      if (symbol == null) {
        break;
      }
      if (symbol.text.length() == length && text.startsWith(symbol.text, from)) {
        return symbol;
      }
    }
    SelfiesSymbol symbol = parse(text.substring(from, to));
    CACHE[Math.min(slot, last) & CACHE_SIZE - 1] = symbol;
    return symbol;
  }

  private static Map<String, Integer> digits() {
    Map<String, Integer> map = new HashMap<>();
    for (int i = 0; i < INDEX_ALPHABET.size(); i++) {
      map.put(INDEX_ALPHABET.get(i), i);
    }
    return map;
  }

  private static SelfiesSymbol parse(String text) {
    if (text.equals("[nop]")) {
      return plain(Kind.NOP, text);
    }
    // The two letters before the last two characters decide, as in the reference, before anything else is looked at.
    int length = text.length();
    if (text.startsWith("ch", length - 4)) {
      return branch(text);
    }
    if (text.startsWith("ng", length - 4)) {
      return ring(text);
    }
    if (text.contains("eps")) {
      return plain(Kind.EPSILON, text);
    }
    return atom(text);
  }

  private static SelfiesSymbol plain(Kind kind, String text) {
    return new SelfiesSymbol(kind, text, 1, (char) 0, (char) 0, 0, 0, 0, 0, null);
  }

  private static SelfiesSymbol branch(String text) {
    int order = text.length() == 10 ? orderOf(text.charAt(1)) : 1;
    int start = text.length() == 10 ? 2 : 1;
    boolean wellFormed = text.charAt(0) == '[' && order > 0 && text.length() == start + 8 && text.startsWith("Branch", start);
    int digits = digitsOf(text);
    if (!wellFormed || digits == 0) {
      return plain(Kind.INVALID, text);
    }
    return new SelfiesSymbol(Kind.BRANCH, text, order, (char) 0, (char) 0, digits, 0, 0, 0, null);
  }

  private static SelfiesSymbol ring(String text) {
    int prefix = text.length() - 6;
    int digits = digitsOf(text);
    if (prefix < 1 || prefix > 3 || text.charAt(0) != '[' || !text.startsWith("Ring", prefix) || digits == 0) {
      return plain(Kind.INVALID, text);
    }
    int order = 1;
    char opening = 0;
    char closing = 0;
    if (prefix == 2) {
      order = orderOf(text.charAt(1));
    } else if (prefix == 3) {
      opening = text.charAt(1);
      closing = text.charAt(2);
      boolean wellFormed = isRingStereo(opening) && isRingStereo(closing) && (opening != '-' || closing != '-');
      order = wellFormed ? 1 : 0;
      opening = opening == '-' ? 0 : opening;
      closing = closing == '-' ? 0 : closing;
    }
    if (order == 0) {
      return plain(Kind.INVALID, text);
    }
    return new SelfiesSymbol(Kind.RING, text, order, opening, closing, digits, 0, 0, 0, null);
  }

  private static boolean isRingStereo(char c) {
    return c == '-' || c == '/' || c == '\\';
  }

  /** 2 or 3, or 0 if it is neither. */
  private static int orderOf(char bond) {
    return bond == '=' ? 2 : bond == '#' ? 3 : 0;
  }

  /** The number before the closing bracket if it is 1 to 3, or 0. */
  private static int digitsOf(String text) {
    char digit = text.charAt(text.length() - 2);
    return digit >= '1' && digit <= '3' ? digit - '0' : 0;
  }

  /** [ bond? isotope? Element chirality? hydrogens? charge? ], where a charge is a sign and digits from 1 to 9. */
  private static SelfiesSymbol atom(String text) {
    SelfiesSymbol invalid = plain(Kind.INVALID, text);
    int end = text.length() - 1;
    if (end < 2 || text.charAt(0) != '[') {
      return invalid;
    }
    int at = 1;
    int order = 1;
    char stereo = 0;
    switch (text.charAt(at)) {
      case '=':
        order = 2;
        at++;
        break;
      case '#':
        order = 3;
        at++;
        break;
      case '/':
      case '\\':
        stereo = text.charAt(at);
        at++;
        break;
      default:
        break;
    }
    int body = at;
    while (Elements.isDigit(text.charAt(at))) {
      at++;
    }
    int isotope = SmilesAtom.number(text, body, at);
    char first = text.charAt(at);
    if (isotope == SmilesAtom.TOO_LARGE || !Elements.isUpper(first)) {
      return invalid;
    }
    at++;
    int second = Elements.isLower(text.charAt(at)) ? text.charAt(at++) : 0;
    int element = Elements.inSelfies(first, second);
    if (element == 0) {
      return invalid;
    }
    boolean bare = at == end && isotope < 0 && Elements.organic(element);
    if (bare) {
      String symbol = Elements.symbol(element);
      return new SelfiesSymbol(Kind.ATOM, text, order, stereo, (char) 0, 0, element, 0, 0, symbol);
    }
    int chirality = 0;
    while (chirality < 2 && text.charAt(at) == '@') {
      chirality++;
      at++;
    }
    int hydrogens = 0;
    if (text.charAt(at) == 'H' && Elements.isDigit(text.charAt(at + 1))) {
      hydrogens = text.charAt(at + 1) - '0';
      at += 2;
    }
    int charge = 0;
    char sign = text.charAt(at);
    if (sign == '+' || sign == '-') {
      int from = ++at;
      while (text.charAt(at) >= '1' && text.charAt(at) <= '9') {
        at++;
      }
      charge = SmilesAtom.number(text, from, at);
      if (charge < 1) {
        return invalid;
      }
      charge = sign == '+' ? charge : -charge;
    }
    if (at != end) {
      return invalid;
    }
    StringBuilder smiles = new StringBuilder().append('[');
    SmilesAtom.append(smiles, element, isotope, chirality, hydrogens, charge);
    return new SelfiesSymbol(
        Kind.ATOM, text, order, stereo, (char) 0, 0, element, hydrogens, charge, smiles.append(']').toString());
  }
}

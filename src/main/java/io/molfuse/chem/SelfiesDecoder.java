// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.ArrayList;
import java.util.List;

/**
 * One translation of a SELFIES string. Symbols are read from left to right with a state, the number of bonds the last atom may
 * still make; a symbol that asks for more gets what is left. Branches nest, which is kept on a stack of its own so that no input
 * overflows Java's. Ring bonds are made last, in the order they were read, as far as both ends have bonds left.
 */
final class SelfiesDecoder {
  private static final int NONE = -1;
  private static final int UNLIMITED = Integer.MAX_VALUE;
  private static final int CLOSED = -1;

  private final String selfies;
  private final SelfiesConstraints constraints;

  // The symbols of the fragment at hand.
  private SelfiesSymbol[] symbols;
  private int[] positions;
  private int symbolCount;
  private int next;

  // Atoms. A child is an atom bonded to an earlier one; siblings are chained in order.
  private SelfiesSymbol[] atoms;
  private int[] free;
  private int[] parent;
  private int[] bond;
  private int[] firstChild;
  private int[] lastChild;
  private int[] sibling;
  private int atomCount;

  /** A ring symbol, and the bond it became. */
  private static final class Ring {
    final int low;
    final int high;
    final SelfiesSymbol symbol;
    int order;
    int number;
    Ring nextOfLow;
    Ring nextOfHigh;

    Ring(int low, int high, SelfiesSymbol symbol, int order) {
      this.low = low;
      this.high = high;
      this.symbol = symbol;
      this.order = order;
    }
  }

  private final List<Ring> rings = new ArrayList<>();
  private Ring[] ringHead;
  private Ring[] ringTail;

  SelfiesDecoder(String selfies, SelfiesConstraints constraints) {
    this.selfies = selfies;
    this.constraints = constraints;
  }

  String decode() {
    int most = 1;
    for (int i = 0; i < selfies.length(); i++) {
      most += selfies.charAt(i) == ']' ? 1 : 0;
    }
    symbols = new SelfiesSymbol[most];
    positions = new int[most];
    atoms = new SelfiesSymbol[most];
    free = new int[most];
    parent = new int[most];
    bond = new int[most];
    firstChild = new int[most];
    lastChild = new int[most];
    sibling = new int[most];
    int from = 0;
    while (from <= selfies.length()) {
      int dot = selfies.indexOf('.', from);
      int to = dot < 0 ? selfies.length() : dot;
      readSymbols(from, to);
      derive();
      from = to + 1;
    }
    formRings();
    return write();
  }

  private void readSymbols(int from, int to) {
    symbolCount = 0;
    next = 0;
    int left = from;
    while (left < to && selfies.charAt(left) != '[') {
      left++;
    }
    while (left < to) {
      SelfiesSymbol symbol = SelfiesSymbol.at(selfies, left);
      if (symbol == null || left + symbol.text.length() > to) {
        throw new SelfiesException(selfies, "bracket [ is not closed", left);
      }
      if (symbol.kind != SelfiesSymbol.Kind.NOP) {
        positions[symbolCount] = left;
        symbols[symbolCount++] = symbol;
      }
      left += symbol.text.length();
    }
  }

  /** The main chain or a branch that is being read. */
  private static final class Chain {
    final Chain outer;
    final int limit;
    int read;
    int state;
    int last;

    Chain(Chain outer, int limit, int state, int last) {
      this.outer = outer;
      this.limit = limit;
      this.state = state;
      this.last = last;
    }
  }

  private void derive() {
    Chain chain = new Chain(null, UNLIMITED, 0, NONE);
    while (chain != null) {
      if (chain.state != CLOSED && chain.read < chain.limit && next < symbolCount) {
        SelfiesSymbol symbol = symbols[next++];
        chain.read++;
        switch (symbol.kind) {
          case BRANCH:
            // An atom with one bond left keeps it for the chain: then the symbols behind are read as if there were no branch.
            if (chain.state > 1) {
              int start = Math.min(chain.state - 1, symbol.order);
              chain.state -= start;
              int length = readNumber(symbol.indexLength) + 1;
              chain.read += symbol.indexLength;
              chain = new Chain(chain, length, start, chain.last);
            }
            break;
          case RING:
            if (chain.state > 0) {
              int order = Math.min(symbol.order, chain.state);
              chain.state -= order;
              int low = Math.max(0, chain.last - (readNumber(symbol.indexLength) + 1));
              chain.read += symbol.indexLength;
              rings.add(new Ring(low, chain.last, symbol, order));
              if (chain.state == 0) {
                chain.state = CLOSED;
              }
            }
            break;
          case EPSILON:
            chain.state = chain.state == 0 ? 0 : CLOSED;
            break;
          case ATOM:
            readAtom(symbol, chain);
            break;
          default:
            throw invalid(symbol);
        }
      } else {
        // What a branch announced but could not use is skipped.
        if (chain.limit == UNLIMITED) {
          next = symbolCount;
        } else if (chain.read < chain.limit) {
          int skipped = Math.min(chain.limit - chain.read, symbolCount - next);
          next += skipped;
          chain.read += skipped;
        }
        if (chain.outer != null) {
          chain.outer.read += chain.read;
        }
        chain = chain.outer;
      }
    }
  }

  private SelfiesException invalid(SelfiesSymbol symbol) {
    return new SelfiesException(selfies, "invalid symbol " + SelfiesException.excerpt(symbol.text, 0), positions[next - 1]);
  }

  private void readAtom(SelfiesSymbol symbol, Chain chain) {
    int capacity = constraints.capacity(symbol.element, symbol.charge) - symbol.hydrogens;
    if (capacity < 0) {
      throw invalid(symbol);
    }
    int order = Math.min(Math.min(symbol.order, chain.state), capacity);
    if (order == 0 && chain.state > 0) {
      chain.state = CLOSED;
      return;
    }
    int atom = atomCount++;
    atoms[atom] = symbol;
    free[atom] = capacity - order;
    parent[atom] = chain.state == 0 ? NONE : chain.last;
    bond[atom] = order;
    firstChild[atom] = NONE;
    sibling[atom] = NONE;
    if (order > 0) {
      int before = chain.last;
      free[before] -= order;
      if (firstChild[before] == NONE) {
        firstChild[before] = atom;
      } else {
        sibling[lastChild[before]] = atom;
      }
      lastChild[before] = atom;
    }
    chain.last = atom;
    chain.state = free[atom] == 0 ? CLOSED : free[atom];
  }

  /** The number spelled by the next symbols, most significant first; symbols past the end count as 0. */
  private int readNumber(int length) {
    int number = 0;
    for (int i = 0; i < length; i++) {
      number = number * SelfiesSymbol.INDEX_ALPHABET.size() + (next < symbolCount ? symbols[next++].digit : 0);
    }
    return number;
  }

  private void formRings() {
    if (rings.isEmpty()) {
      return;
    }
    ringHead = new Ring[atomCount];
    ringTail = new Ring[atomCount];
    for (Ring ring : rings) {
      int low = ring.low;
      int high = ring.high;
      if (low == high || free[low] <= 0 || free[high] <= 0) {
        continue;
      }
      int order = Math.min(ring.order, Math.min(free[low], free[high]));
      Ring existing = ringBetween(low, high);
      if (parent[high] == low || existing != null) {
        // A ring over atoms that are bonded already makes that bond stronger.
        int old = existing != null ? existing.order : bond[high];
        int stronger = Math.min(old + order, 3);
        free[low] -= stronger - old;
        free[high] -= stronger - old;
        if (existing != null) {
          existing.order = stronger;
        } else {
          bond[high] = stronger;
        }
        continue;
      }
      ring.order = order;
      free[low] -= order;
      free[high] -= order;
      link(low, ring);
      link(high, ring);
    }
  }

  /** Looks through both atoms' rings at the same pace, so that it ends with the shorter list. */
  private Ring ringBetween(int low, int high) {
    Ring ofHigh = ringHead[high];
    for (Ring ring = ringHead[low]; ring != null && ofHigh != null; ring = following(ring, low)) {
      if (ring.low == low && ring.high == high) {
        return ring;
      }
      if (ofHigh.low == low && ofHigh.high == high) {
        return ofHigh;
      }
      ofHigh = following(ofHigh, high);
    }
    return null;
  }

  private static Ring following(Ring ring, int atom) {
    return ring.low == atom ? ring.nextOfLow : ring.nextOfHigh;
  }

  private void link(int atom, Ring ring) {
    Ring tail = ringTail[atom];
    if (tail == null) {
      ringHead[atom] = ring;
    } else if (tail.low == atom) {
      tail.nextOfLow = ring;
    } else {
      tail.nextOfHigh = ring;
    }
    ringTail[atom] = ring;
  }

  private String write() {
    StringBuilder out = new StringBuilder(selfies.length());
    int ringNumber = 0;
    for (int root = 0; root < atomCount; root++) {
      if (parent[root] != NONE) {
        continue;
      }
      if (root > 0) {
        out.append('.');
      }
      ringNumber = writeAtom(root, ringNumber, out);
      // Down to the first child that is not written yet, or back to the parent.
      int atom = root;
      while (atom != NONE) {
        int child = firstChild[atom];
        if (child == NONE) {
          if (sibling[atom] != NONE) {
            out.append(')');
          }
          atom = parent[atom];
          continue;
        }
        firstChild[atom] = sibling[child];
        if (sibling[child] != NONE) {
          out.append('(');
        }
        writeBond(bond[child], atoms[child].stereo, out);
        ringNumber = writeAtom(child, ringNumber, out);
        atom = child;
      }
    }
    return out.toString();
  }

  /** Writes an atom and its ring bonds; gives the highest ring number so far. Numbers are not used again. */
  private int writeAtom(int atom, int ringNumber, StringBuilder out) {
    int highest = ringNumber;
    out.append(atoms[atom].smiles);
    for (Ring ring = ringHead == null ? null : ringHead[atom]; ring != null; ring = following(ring, atom)) {
      if (ring.number == 0) {
        ring.number = ++highest;
      }
      writeBond(ring.order, ring.low == atom ? ring.symbol.stereo : ring.symbol.closingStereo, out);
      if (ring.number >= 10) {
        out.append('%');
      }
      out.append(ring.number);
    }
    return highest;
  }

  private static void writeBond(int order, char stereo, StringBuilder out) {
    if (order == 2) {
      out.append('=');
    } else if (order == 3) {
      out.append('#');
    } else if (stereo != 0) {
      out.append(stereo);
    }
  }
}

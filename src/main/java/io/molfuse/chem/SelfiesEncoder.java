// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;

/** Writes a kekulised molecule as SELFIES, atoms in the order of the SMILES string. */
final class SelfiesEncoder {
  private static final int NONE = SmilesGraph.NONE;
  private static final long VISITED = -1;
  private static final int PLACE_BITS = 30;
  private static final int BASE = SelfiesSymbol.INDEX_ALPHABET.size();

  private final String smiles;
  private final SelfiesConstraints constraints;
  private final boolean strict;

  SelfiesEncoder(String smiles, SelfiesConstraints constraints, boolean strict) {
    this.smiles = smiles;
    this.constraints = constraints;
    this.strict = strict;
  }

  String encode() {
    SmilesGraph graph = new SmilesReader(smiles).read();
    if (!Kekuliser.kekulise(graph)) {
      throw new SelfiesException(smiles, "aromatic bonds cannot be kekulised", -1);
    }
    if (strict) {
      checkCapacities(graph);
    }
    for (int atom = 0; atom < graph.atomCount; atom++) {
      if (graph.chirality[atom] != 0 && graph.inRingBond[atom] && reordersOddly(graph, atom)) {
        graph.chirality[atom] = (byte) (3 - graph.chirality[atom]);
      }
    }
    return write(graph);
  }

  private void checkCapacities(SmilesGraph graph) {
    for (int atom = 0; atom < graph.atomCount; atom++) {
      int capacity = constraints.capacity(graph.element[atom], graph.charge[atom]) - Math.max(0, graph.hydrogens[atom]);
      if (graph.bonds[atom] > 2 * capacity) {
        StringBuilder text = new StringBuilder();
        appendAtom(text, graph, atom);
        throw new SelfiesException(
            smiles,
            "atom " + (atom + 1) + " (" + text + ") has " + graph.bonds[atom] / 2 + " bonds where the constraints allow " + capacity,
            -1);
      }
    }
  }

  /**
   * Chirality counts neighbours in the order written. Decoding writes an atom's ring bonds before its branches: closings in their
   * order, then openings by the atom that closes them. Whether that is an odd permutation of the bonds as they stand now.
   */
  private static boolean reordersOddly(SmilesGraph graph, int atom) {
    int count = 0;
    for (int half = graph.firstHalf[atom]; half != NONE; half = graph.nextHalf[half]) {
      count++;
    }
    // Sorting keys that end in the place of the bond gives the permutation.
    long[] keys = new long[count];
    int place = 0;
    for (int half = graph.firstHalf[atom]; half != NONE; half = graph.nextHalf[half]) {
      int group = group(graph, atom, half);
      long closingAtom = group == 1 ? graph.target[half] : 0;
      keys[place] = ((long) group << PLACE_BITS | closingAtom) << PLACE_BITS | place;
      place++;
    }
    Arrays.sort(keys);
    // A permutation is odd if its length less the number of its cycles is.
    boolean odd = false;
    for (int i = 0; i < count; i++) {
      int at = i;
      while (keys[at] >= 0) {
        int next = (int) (keys[at] & (1 << PLACE_BITS) - 1);
        keys[at] = VISITED;
        odd ^= next != i;
        at = next;
      }
    }
    return odd;
  }

  /** 0 for a ring bond that closes here, 1 for one that opens here, 2 for a chain bond. */
  private static int group(SmilesGraph graph, int atom, int half) {
    return !graph.isRingHalf(half) ? 2 : graph.target[half] > atom ? 1 : 0;
  }

  private String write(SmilesGraph graph) {
    int[] length = symbolCounts(graph);
    StringBuilder out = new StringBuilder(4 * smiles.length());
    int[] cursor = graph.firstHalf.clone();
    int[] stack = new int[graph.atomCount];
    for (int root = 0; root < graph.atomCount; root++) {
      if (graph.chainParent[root] != NONE) {
        continue;
      }
      if (root > 0) {
        out.append('.');
      }
      appendSymbol(out, graph, root, NONE);
      int depth = 0;
      stack[depth++] = root;
      while (depth > 0) {
        int atom = stack[depth - 1];
        int half = cursor[atom];
        if (half == NONE) {
          depth--;
          continue;
        }
        cursor[atom] = graph.nextHalf[half];
        int target = graph.target[half];
        if (!graph.isRingHalf(half)) {
          // The last bond goes on with the chain; those before it are branches.
          if (graph.nextHalf[half] != NONE) {
            openSymbol(out, graph.order[half]);
            out.append("Branch");
            appendNumber(out, length[target] - 1);
          }
          appendSymbol(out, graph, target, half);
          stack[depth++] = target;
        } else if (target < atom) {
          appendRing(out, graph, half);
          appendNumber(out, atom - target - 1);
        }
      }
    }
    return out.toString();
  }

  /** For each atom the number of symbols from it to the end of its chain. An atom's children have higher numbers than it has. */
  private static int[] symbolCounts(SmilesGraph graph) {
    int[] length = new int[graph.atomCount];
    for (int atom = graph.atomCount - 1; atom >= 0; atom--) {
      int count = 1;
      for (int half = graph.firstHalf[atom]; half != NONE; half = graph.nextHalf[half]) {
        int target = graph.target[half];
        if (graph.isRingHalf(half)) {
          count += target < atom ? 1 + digits(atom - target - 1) : 0;
        } else {
          count += length[target];
          count += graph.nextHalf[half] != NONE ? 1 + digits(length[target] - 1) : 0;
        }
      }
      length[atom] = count;
    }
    return length;
  }

  private static int digits(int number) {
    int digits = 1;
    for (int rest = number / BASE; rest > 0; rest /= BASE) {
      digits++;
    }
    return digits;
  }

  /** The number of digits, the closing bracket, and the digits as symbols. */
  private static void appendNumber(StringBuilder out, int number) {
    int digits = digits(number);
    out.append(digits).append(']');
    int place = 1;
    for (int i = 1; i < digits; i++) {
      place *= BASE;
    }
    for (; place > 0; place /= BASE) {
      out.append(SelfiesSymbol.INDEX_ALPHABET.get(number / place % BASE));
    }
  }

  private static void openSymbol(StringBuilder out, int order) {
    out.append('[');
    if (order == SmilesGraph.DOUBLE) {
      out.append('=');
    } else if (order == SmilesGraph.TRIPLE) {
      out.append('#');
    }
  }

  private static void appendRing(StringBuilder out, SmilesGraph graph, int closing) {
    openSymbol(out, graph.order[closing]);
    char openStereo = graph.stereo[graph.otherHalf[closing]];
    char closeStereo = graph.stereo[closing];
    if (graph.order[closing] == SmilesGraph.SINGLE && (openStereo != 0 || closeStereo != 0)) {
      out.append(openStereo == 0 ? '-' : openStereo).append(closeStereo == 0 ? '-' : closeStereo);
    }
    out.append("Ring");
  }

  private static void appendSymbol(StringBuilder out, SmilesGraph graph, int atom, int half) {
    openSymbol(out, half == NONE ? SmilesGraph.SINGLE : graph.order[half]);
    if (half != NONE && graph.order[half] == SmilesGraph.SINGLE && graph.stereo[half] != 0) {
      out.append(graph.stereo[half]);
    }
    appendAtom(out, graph, atom);
    out.append(']');
  }

  private static void appendAtom(StringBuilder out, SmilesGraph graph, int atom) {
    if (graph.hydrogens[atom] == SmilesAtom.NONE) {
      out.append(Elements.symbol(graph.element[atom]));
    } else {
      SmilesAtom.append(
          out, graph.element[atom], graph.isotope[atom], graph.chirality[atom], graph.hydrogens[atom], graph.charge[atom]);
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;
import java.util.BitSet;

/**
 * A perfect matching of a small sparse graph: greedy first, always at the node with the fewest free neighbours, then augmenting
 * paths by breadth-first search. The search does not contract odd cycles, so that in rare graphs it finds no matching where there
 * is one; the reference has the same limit, and results must equal the reference's.
 */
final class PerfectMatching {
  private static final int NONE = -1;

  private final int nodes;
  private final int[] start;
  private final int[] neighbour;
  private final int[] mate;

  /**
   * @param start [nodes+1]: where the neighbours of each node begin, and their number
   * @param neighbour the neighbours; both directions of each edge, no loops
   */
  PerfectMatching(int[] start, int[] neighbour) {
    this.nodes = start.length - 1;
    this.start = start;
    this.neighbour = neighbour;
    this.mate = new int[nodes];
  }

  /** The partner of each node, or null if some node stays alone. */
  int[] find() {
    Arrays.fill(mate, NONE);
    matchGreedily();
    int[] unmatched = new int[nodes];
    int count = 0;
    for (int node = 0; node < nodes; node++) {
      if (mate[node] == NONE) {
        unmatched[count++] = node;
      }
    }
    if (count == 0) {
      return mate;
    }
    if (count % 2 != 0) {
      return null;
    }
    for (int root : CPythonSetOrder.of(Arrays.copyOf(unmatched, count))) {
      if (mate[root] == NONE && !augment(root)) {
        return null;
      }
    }
    return mate;
  }

  private void matchGreedily() {
    int[] free = new int[nodes];
    int most = 0;
    for (int node = 0; node < nodes; node++) {
      free[node] = start[node + 1] - start[node];
      most = Math.max(most, free[node]);
    }
    // Unmatched nodes by their number of free neighbours; the next one is the lowest node of the lowest non-empty set.
    BitSet[] waiting = new BitSet[most + 1];
    for (int i = 1; i <= most; i++) {
      waiting[i] = new BitSet(nodes);
    }
    for (int node = 0; node < nodes; node++) {
      if (free[node] > 0) {
        waiting[free[node]].set(node);
      }
    }
    for (int level = 1; level <= most; ) {
      int node = waiting[level].nextSetBit(0);
      if (node < 0) {
        level++;
        continue;
      }
      int partner = NONE;
      for (int k = start[node]; partner == NONE; k++) {
        partner = mate[neighbour[k]] == NONE ? neighbour[k] : NONE;
      }
      mate[node] = partner;
      mate[partner] = node;
      waiting[free[node]].clear(node);
      waiting[free[partner]].clear(partner);
      loseNeighbour(node, free, waiting);
      loseNeighbour(partner, free, waiting);
      level = 1;
    }
  }

  private void loseNeighbour(int matched, int[] free, BitSet[] waiting) {
    for (int k = start[matched]; k < start[matched + 1]; k++) {
      int node = neighbour[k];
      if (mate[node] == NONE) {
        waiting[free[node]].clear(node);
        if (free[node] > 1) {
          waiting[free[node] - 1].set(node);
        }
      }
      free[node]--;
    }
  }

  /** Looks for an alternating path from an unmatched node to another and swaps the matching along it. */
  private boolean augment(int root) {
    int[] cameFrom = new int[nodes];
    int[] cameThrough = new int[nodes];
    Arrays.fill(cameFrom, NONE);
    cameFrom[root] = root;
    int[] queue = new int[nodes];
    int head = 0;
    int tail = 0;
    queue[tail++] = root;
    while (head < tail) {
      int node = queue[head++];
      for (int k = start[node]; k < start[node + 1]; k++) {
        int next = neighbour[k];
        int partner = mate[next];
        if (partner == NONE) {
          if (next != root) {
            cameFrom[next] = node;
            cameThrough[next] = next;
            flip(root, next, cameFrom, cameThrough);
            return true;
          }
        } else if (cameFrom[partner] == NONE) {
          cameFrom[partner] = node;
          cameThrough[partner] = next;
          queue[tail++] = partner;
        }
      }
    }
    return false;
  }

  private void flip(int root, int end, int[] cameFrom, int[] cameThrough) {
    for (int node = end; node != root; node = cameFrom[node]) {
      mate[cameThrough[node]] = cameFrom[node];
      mate[cameFrom[node]] = cameThrough[node];
    }
  }
}

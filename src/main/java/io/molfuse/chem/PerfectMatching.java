// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;

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

  private long[] waiting;
  private int waitingCount;

  // Of the search for paths: what an earlier search left is known by its root.
  private int[] searchedFor;
  private int[] cameFrom;
  private int[] cameThrough;
  private int[] queue;

  /**
   * @param start [nodes+1]: where the neighbours of each node begin, and their number
   * @param neighbour the neighbours; both directions of each edge, no loops
   */
  PerfectMatching(int[] start, int[] neighbour) {
    this.nodes = start.length - 1;
    this.start = start;
    this.neighbour = neighbour;
    this.mate = new int[nodes];
    this.waiting = new long[nodes + 1];
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
    searchedFor = new int[nodes];
    Arrays.fill(searchedFor, NONE);
    cameFrom = new int[nodes];
    cameThrough = new int[nodes];
    queue = new int[nodes];
    for (int root : CPythonSetOrder.of(Arrays.copyOf(unmatched, count))) {
      if (mate[root] == NONE && !augment(root)) {
        return null;
      }
    }
    return mate;
  }

  private void matchGreedily() {
    int[] free = new int[nodes];
    for (int node = 0; node < nodes; node++) {
      free[node] = start[node + 1] - start[node];
      push(free[node], node);
    }
    // The lowest node of those with the fewest free neighbours. A node is pushed again when it loses one: then the older entry comes
    // up after the node was matched, or has lost all.
    while (waitingCount > 0) {
      int node = (int) pop();
      if (mate[node] != NONE || free[node] == 0) {
        continue;
      }
      int partner = NONE;
      for (int k = start[node]; partner == NONE; k++) {
        partner = mate[neighbour[k]] == NONE ? neighbour[k] : NONE;
      }
      mate[node] = partner;
      mate[partner] = node;
      loseNeighbour(node, free);
      loseNeighbour(partner, free);
    }
  }

  private void loseNeighbour(int matched, int[] free) {
    for (int k = start[matched]; k < start[matched + 1]; k++) {
      int node = neighbour[k];
      free[node]--;
      if (mate[node] == NONE && free[node] > 0) {
        push(free[node], node);
      }
    }
  }

  /** Into the binary heap of pairs, the first of a pair before the second. */
  private void push(int first, int second) {
    if (waitingCount == waiting.length) {
      waiting = Arrays.copyOf(waiting, 2 * waitingCount);
    }
    long pair = (long) first << 32 | second;
    int at = waitingCount++;
    while (at > 0 && waiting[(at - 1) / 2] > pair) {
      waiting[at] = waiting[(at - 1) / 2];
      at = (at - 1) / 2;
    }
    waiting[at] = pair;
  }

  private long pop() {
    long lowest = waiting[0];
    long pair = waiting[--waitingCount];
    int at = 0;
    for (int child = 1; child < waitingCount; child = 2 * at + 1) {
      child += child + 1 < waitingCount && waiting[child + 1] < waiting[child] ? 1 : 0;
      if (waiting[child] >= pair) {
        break;
      }
      waiting[at] = waiting[child];
      at = child;
    }
    waiting[at] = pair;
    return lowest;
  }

  /** Looks for an alternating path from an unmatched node to another and swaps the matching along it. */
  private boolean augment(int root) {
    searchedFor[root] = root;
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
            flip(root, next);
            return true;
          }
        } else if (searchedFor[partner] != root) {
          searchedFor[partner] = root;
          cameFrom[partner] = node;
          cameThrough[partner] = next;
          queue[tail++] = partner;
        }
      }
    }
    return false;
  }

  private void flip(int root, int end) {
    for (int node = end; node != root; node = cameFrom[node]) {
      mate[cameThrough[node]] = cameFrom[node];
      mate[cameFrom[node]] = cameThrough[node];
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.Arrays;
import java.util.Comparator;
import java.util.Random;
import java.util.stream.IntStream;

/** Edge lists of tests, in by-target order as Graph sorts them. */
record Graphs(int nodes, long[] source, long[] target) {
  /** Some nodes get no edge, some edges come twice. */
  static Graphs random(Random random, int nodes, int edges) {
    long[] source = new long[edges];
    long[] target = new long[edges];
    for (int e = 0; e < edges; e++) {
      source[e] = random.nextInt(nodes);
      // Fewer targets than nodes, so that some have many in-edges and some none.
      target[e] = random.nextInt((nodes + 1) / 2) * 2 % nodes;
    }
    return of(nodes, source, target);
  }

  static Graphs of(int nodes, long[] source, long[] target) {
    Integer[] order = IntStream.range(0, source.length).boxed().toArray(Integer[]::new);
    Arrays.sort(order, Comparator.comparingLong(e -> target[e]));
    return new Graphs(
        nodes,
        Arrays.stream(order).mapToLong(e -> source[e]).toArray(),
        Arrays.stream(order).mapToLong(e -> target[e]).toArray());
  }

  int edges() {
    return source.length;
  }

  int[] rowPtr() {
    int[] rowPtr = new int[nodes + 1];
    for (long t : target) {
      rowPtr[(int) t + 1]++;
    }
    for (int t = 0; t < nodes; t++) {
      rowPtr[t + 1] += rowPtr[t];
    }
    return rowPtr;
  }

  Graph build() {
    return Graph.of(rowPtr(), Arrays.stream(source).mapToInt(s -> (int) s).toArray());
  }

  /** With int64 indices. */
  Graph buildLong() {
    return Graph.fromEdges(Tensors.longs(source), Tensors.longs(target), nodes);
  }
}

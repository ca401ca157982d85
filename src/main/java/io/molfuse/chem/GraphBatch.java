// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.List;

/**
 * Molecules joined into one graph without edges between them, with their token sequences. B molecules, V nodes and E directed
 * edges in all, T tokens in the longest sequence. The nodes of molecule b are graphPtr[b] to graphPtr[b+1]-1.
 *
 * <p>The arrays are the batch's own and are handed out without copying: copy them before changing them.
 *
 * @param indices [B]: the entries of the data set in batch order
 * @param features [V,6] row by row, see {@link MoleculeGraph}
 * @param rowPtr [V+1]: the first edge into each node, and E
 * @param source [E]: the node each edge comes from, sorted by target, then by source
 * @param graphPtr [B+1]: the first node of each molecule, and V
 * @param tokens [B,T] row by row: {@code <sos>} ... {@code <eos>}, filled up with {@link Vocabulary#PAD}
 * @param maxTokens T
 * @param properties [B,P] row by row: what a model is conditioned on, NaN where it is not known; empty without
 */
public record GraphBatch(
    int[] indices,
    float[] features,
    int[] rowPtr,
    int[] source,
    int[] graphPtr,
    long[] tokens,
    int maxTokens,
    float[] properties) {

  private static final float[] NONE = {};

  /**
   * A batch without properties.
   *
   * @param indices [B]
   * @param features [V,6]
   * @param rowPtr [V+1]
   * @param source [E]
   * @param graphPtr [B+1]
   * @param tokens [B,T]
   * @param maxTokens T
   */
  public GraphBatch(int[] indices, float[] features, int[] rowPtr, int[] source, int[] graphPtr, long[] tokens, int maxTokens) {
    this(indices, features, rowPtr, source, graphPtr, tokens, maxTokens, NONE);
  }

  /**
   * The same molecules with properties.
   *
   * @param values [B,P] row by row; not copied
   * @return a batch that shares the other arrays
   */
  public GraphBatch with(float[] values) {
    if (values.length % size() != 0) {
      throw new IllegalArgumentException("properties must be rows for " + size() + " molecules, but are " + values.length + " values");
    }
    return new GraphBatch(indices, features, rowPtr, source, graphPtr, tokens, maxTokens, values);
  }

  /**
   * Joins molecules of no data set, for an encoder: every token sequence is {@code <sos> <eos>}.
   *
   * @param graphs the molecules, at least one
   * @return new arrays; the indices count the molecules
   */
  public static GraphBatch of(List<MoleculeGraph> graphs) {
    if (graphs.isEmpty()) {
      throw new IllegalArgumentException("graphs must not be empty");
    }
    int nodes = 0;
    int edges = 0;
    for (MoleculeGraph graph : graphs) {
      nodes = Math.addExact(nodes, graph.nodeCount());
      edges = Math.addExact(edges, graph.edgeCount());
    }
    float[] features = new float[Math.multiplyExact(nodes, MoleculeGraph.FEATURES)];
    int[] rowPtr = new int[nodes + 1];
    int[] source = new int[edges];
    int[] graphPtr = new int[graphs.size() + 1];
    long[] tokens = new long[2 * graphs.size()];
    int[] indices = new int[graphs.size()];
    int node = 0;
    int edge = 0;
    for (int b = 0; b < indices.length; b++) {
      MoleculeGraph graph = graphs.get(b);
      float[] ownFeatures = graph.features();
      System.arraycopy(ownFeatures, 0, features, node * MoleculeGraph.FEATURES, ownFeatures.length);
      int[] ownRowPtr = graph.rowPtr();
      for (int i = 1; i < ownRowPtr.length; i++) {
        rowPtr[node + i] = edge + ownRowPtr[i];
      }
      for (int neighbour : graph.source()) {
        source[edge++] = node + neighbour;
      }
      node += graph.nodeCount();
      graphPtr[b + 1] = node;
      indices[b] = b;
      tokens[2 * b] = Vocabulary.SOS;
      tokens[2 * b + 1] = Vocabulary.EOS;
    }
    return new GraphBatch(indices, features, rowPtr, source, graphPtr, tokens, 2);
  }

  /** @return B, the number of molecules */
  public int size() {
    return indices.length;
  }

  /** @return V, the number of nodes */
  public int nodeCount() {
    return rowPtr.length - 1;
  }

  /** @return E, the number of directed edges */
  public int edgeCount() {
    return source.length;
  }
}

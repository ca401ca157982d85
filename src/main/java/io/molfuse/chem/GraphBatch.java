// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

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
 */
public record GraphBatch(
    int[] indices,
    float[] features,
    int[] rowPtr,
    int[] source,
    int[] graphPtr,
    long[] tokens,
    int maxTokens) {

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

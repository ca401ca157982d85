// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;

/**
 * A molecule as node features and directed edges: every bond gives two edges, hydrogens are implicit. Immutable; accessors
 * copy.
 *
 * <p>The {@value #FEATURES} features of a node, in this order:
 *
 * <ol>
 *   <li>atomic number, 1 to 118; 0 for the SMILES wildcard
 *   <li>degree: number of neighbours that are nodes, that is without implicit hydrogens
 *   <li>formal charge
 *   <li>hybridisation: 0 unspecified, 1 s, 2 sp, 3 sp2, 4 sp3, 5 sp3d, 6 sp3d2 (see {@link Hybridisation})
 *   <li>aromatic: 1 or 0
 *   <li>number of unpaired electrons
 * </ol>
 */
public final class MoleculeGraph {
  /** Number of features of a node. */
  public static final int FEATURES = 6;

  private final float[] features;
  private final int[] rowPtr;
  private final int[] source;

  MoleculeGraph(float[] features, int[] rowPtr, int[] source) {
    this.features = features;
    this.rowPtr = rowPtr;
    this.source = source;
  }

  /** @return V, the number of nodes */
  public int nodeCount() {
    return rowPtr.length - 1;
  }

  /** @return E, the number of directed edges, twice the number of bonds */
  public int edgeCount() {
    return source.length;
  }

  /** @return [V,6] row by row */
  public float[] features() {
    return features.clone();
  }

  /**
   * @param node 0 to V-1
   * @param feature 0 to 5
   * @return one feature
   */
  public float feature(int node, int feature) {
    if (feature < 0 || feature >= FEATURES) {
      throw new IndexOutOfBoundsException("feature must be 0 to " + (FEATURES - 1) + ", but is " + feature);
    }
    return features[node * FEATURES + feature];
  }

  /** @return [V+1]: the first edge into each node, and E */
  public int[] rowPtr() {
    return rowPtr.clone();
  }

  /** @return [E]: the node each edge comes from, edges sorted by the node they go to, then by this */
  public int[] source() {
    return source.clone();
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof MoleculeGraph that
        && Arrays.equals(features, that.features)
        && Arrays.equals(rowPtr, that.rowPtr)
        && Arrays.equals(source, that.source);
  }

  @Override
  public int hashCode() {
    return 31 * Arrays.hashCode(features) + Arrays.hashCode(source);
  }

  @Override
  public String toString() {
    return "MoleculeGraph[nodes=" + nodeCount() + ", edges=" + edgeCount() + "]";
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.ByteBuffer;

/** A molecule of {@link MoleculeRecords} as its record, a few hundred bytes; {@link MoleculeRecords#collate} decodes it. Immutable. */
public final class StoredMolecule {
  private final long index;
  private final ByteBuffer record;
  private final int[] tokenOf;

  /** @param tokenOf the vocabulary's number of each of the record's symbols */
  StoredMolecule(long index, byte[] record, int[] tokenOf) {
    this.index = index;
    this.record = RecordFormat.little(record);
    this.tokenOf = tokenOf;
  }

  /** @return its number in the data set */
  public long index() {
    return index;
  }

  /** @return its canonical SMILES */
  public String smiles() {
    return RecordFormat.smiles(record, 0);
  }

  /** @return number of nodes */
  public int nodeCount() {
    return RecordFormat.nodes(record, 0);
  }

  /** @return number of directed edges */
  public int edgeCount() {
    return RecordFormat.edges(record, 0);
  }

  /** @return its graph */
  public MoleculeGraph graph() {
    float[] features = new float[nodeCount() * MoleculeGraph.FEATURES];
    int[] rowPtr = new int[nodeCount() + 1];
    int[] source = new int[edgeCount()];
    copyGraph(features, rowPtr, source, 0, 0);
    return new MoleculeGraph(features, rowPtr, source);
  }

  /** Copies the graph into a batch, where its nodes begin at {@code node} and its edges at {@code edge}. */
  void copyGraph(float[] features, int[] rowPtr, int[] source, int node, int edge) {
    RecordFormat.features(record, 0, features, node);
    RecordFormat.edges(record, 0, rowPtr, source, node, edge);
  }

  int symbolCount() {
    return RecordFormat.symbols(record, 0);
  }

  /** The vocabulary's numbers of the first symbols. */
  int[] symbols(int count) {
    int[] tokens = new int[count];
    int at = RecordFormat.symbolsAt(record, 0);
    for (int i = 0; i < count; i++) {
      tokens[i] = tokenOf[RecordFormat.symbol(record, at, i)];
    }
    return tokens;
  }

  @Override
  public String toString() {
    return "StoredMolecule[index=" + index + ", smiles=" + smiles() + "]";
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Molecules one behind the other in a few shared arrays: 6 bytes a node for its features, 1 for its degree, 2 an edge, 2 a token, 1 a
 * character of SMILES. Numbers of nodes are counted within each molecule.
 */
final class MoleculeStore {
  // Java's arrays end a little below 2^31 elements.
  private static final int MAX_LENGTH = Integer.MAX_VALUE - 16;

  private int size;
  private int[] nodeStart = new int[2];
  private int[] edgeStart = new int[2];
  private int[] tokenStart = new int[2];
  private int[] textStart = new int[2];
  private byte[] features = new byte[0];
  private byte[] degree = new byte[0];
  private short[] source = new short[0];
  private short[] tokens = new short[0];
  private byte[] text = new byte[0];

  /** Most nodes of one molecule: nodes are counted from 0 in 16 bits. */
  static final int MAX_NODES = 65_536;

  /** Most neighbours of one node. */
  static final int MAX_DEGREE = 255;

  /** Largest number of a symbol. */
  static final int MAX_SYMBOL = 65_535;

  int size() {
    return size;
  }

  /** Why a graph cannot be stored, or null if it can. */
  static String fault(MoleculeGraph graph) {
    if (graph.nodeCount() > MAX_NODES) {
      return graph.nodeCount() + " atoms, at most " + MAX_NODES;
    }
    int[] rows = graph.rowPtr();
    for (int i = 0; i < graph.nodeCount(); i++) {
      if (rows[i + 1] - rows[i] > MAX_DEGREE) {
        return "an atom with " + (rows[i + 1] - rows[i]) + " neighbours, at most " + MAX_DEGREE;
      }
    }
    return null;
  }

  /**
   * @param graph one that has no {@link #fault}
   * @param symbols numbers from 0 to {@link #MAX_SYMBOL}
   */
  void add(MoleculeGraph graph, int[] symbols, String smiles) {
    int nodes = graph.nodeCount();
    int edges = graph.edgeCount();
    byte[] characters = smiles.getBytes(StandardCharsets.US_ASCII);
    reserve(nodes, edges, symbols.length, characters.length);
    float[] values = graph.features();
    int[] rows = graph.rowPtr();
    int[] sources = graph.source();
    int node = nodeStart[size];
    for (int i = 0; i < values.length; i++) {
      features[node * MoleculeGraph.FEATURES + i] = (byte) values[i];
    }
    for (int i = 0; i < nodes; i++) {
      degree[node + i] = (byte) (rows[i + 1] - rows[i]);
    }
    for (int i = 0; i < edges; i++) {
      source[edgeStart[size] + i] = (short) sources[i];
    }
    for (int i = 0; i < symbols.length; i++) {
      tokens[tokenStart[size] + i] = (short) symbols[i];
    }
    System.arraycopy(characters, 0, text, textStart[size], characters.length);
    size++;
    nodeStart[size] = node + nodes;
    edgeStart[size] = edgeStart[size - 1] + edges;
    tokenStart[size] = tokenStart[size - 1] + symbols.length;
    textStart[size] = textStart[size - 1] + characters.length;
  }

  private void reserve(int nodes, int edges, int symbols, int characters) {
    if (size + 2 > nodeStart.length) {
      int length = grown(nodeStart.length, size + 2L);
      nodeStart = Arrays.copyOf(nodeStart, length);
      edgeStart = Arrays.copyOf(edgeStart, length);
      tokenStart = Arrays.copyOf(tokenStart, length);
      textStart = Arrays.copyOf(textStart, length);
    }
    long allNodes = (long) nodeStart[size] + nodes;
    if (allNodes > degree.length) {
      degree = Arrays.copyOf(degree, grown(degree.length, allNodes));
    }
    long allFeatures = allNodes * MoleculeGraph.FEATURES;
    if (allFeatures > features.length) {
      features = Arrays.copyOf(features, grown(features.length, allFeatures));
    }
    long allEdges = (long) edgeStart[size] + edges;
    if (allEdges > source.length) {
      source = Arrays.copyOf(source, grown(source.length, allEdges));
    }
    long allTokens = (long) tokenStart[size] + symbols;
    if (allTokens > tokens.length) {
      tokens = Arrays.copyOf(tokens, grown(tokens.length, allTokens));
    }
    long allText = (long) textStart[size] + characters;
    if (allText > text.length) {
      text = Arrays.copyOf(text, grown(text.length, allText));
    }
  }

  private static int grown(int length, long needed) {
    if (needed > MAX_LENGTH) {
      throw new IllegalStateException("the molecules are too many for one data set in memory: 2^31 array elements are not enough");
    }
    return (int) Math.min(MAX_LENGTH, Math.max(needed, length + (long) length / 2 + 16));
  }

  /** Gives back what was reserved and not used. */
  void trim() {
    nodeStart = Arrays.copyOf(nodeStart, size + 1);
    edgeStart = Arrays.copyOf(edgeStart, size + 1);
    tokenStart = Arrays.copyOf(tokenStart, size + 1);
    textStart = Arrays.copyOf(textStart, size + 1);
    features = Arrays.copyOf(features, nodeStart[size] * MoleculeGraph.FEATURES);
    degree = Arrays.copyOf(degree, nodeStart[size]);
    source = Arrays.copyOf(source, edgeStart[size]);
    tokens = Arrays.copyOf(tokens, tokenStart[size]);
    text = Arrays.copyOf(text, textStart[size]);
  }

  /** Replaces every token by what the map holds for it. */
  void renumberTokens(int[] map) {
    for (int i = 0; i < tokenStart[size]; i++) {
      tokens[i] = (short) map[tokens[i] & 0xFFFF];
    }
  }

  int nodeCount(int entry) {
    return nodeStart[entry + 1] - nodeStart[entry];
  }

  int edgeCount(int entry) {
    return edgeStart[entry + 1] - edgeStart[entry];
  }

  /** Number of SELFIES symbols, without the tokens that start and end a sequence. */
  int symbolCount(int entry) {
    return tokenStart[entry + 1] - tokenStart[entry];
  }

  int symbol(int entry, int position) {
    return tokens[tokenStart[entry] + position] & 0xFFFF;
  }

  String smiles(int entry) {
    return new String(text, textStart[entry], textStart[entry + 1] - textStart[entry], StandardCharsets.US_ASCII);
  }

  /** Copies features from row {@code at} of [V,6] on. */
  void copyFeatures(int entry, float[] target, int at) {
    int from = nodeStart[entry] * MoleculeGraph.FEATURES;
    int to = nodeStart[entry + 1] * MoleculeGraph.FEATURES;
    int offset = at * MoleculeGraph.FEATURES - from;
    for (int i = from; i < to; i++) {
      // Charges are signed; atomic numbers stop at 118.
      target[offset + i] = features[i];
    }
  }

  /** Copies the edges into a batch, where the molecule's nodes begin at {@code node} and its edges at {@code edge}. */
  void copyEdges(int entry, int[] rowPtr, int[] sources, int node, int edge) {
    int first = nodeStart[entry];
    int next = edge;
    for (int i = 0; i < nodeCount(entry); i++) {
      rowPtr[node + i] = next;
      next += degree[first + i] & 0xFF;
    }
    rowPtr[node + nodeCount(entry)] = next;
    for (int i = 0; i < edgeCount(entry); i++) {
      sources[edge + i] = node + (source[edgeStart[entry] + i] & 0xFFFF);
    }
  }

  MoleculeGraph graph(int entry) {
    float[] values = new float[nodeCount(entry) * MoleculeGraph.FEATURES];
    int[] rowPtr = new int[nodeCount(entry) + 1];
    int[] sources = new int[edgeCount(entry)];
    copyFeatures(entry, values, 0);
    copyEdges(entry, rowPtr, sources, 0, 0);
    return new MoleculeGraph(values, rowPtr, sources);
  }

  long bytes() {
    return 4L * (nodeStart.length + edgeStart.length + tokenStart.length + textStart.length)
        + features.length
        + degree.length
        + 2L * (source.length + tokens.length)
        + text.length;
  }
}

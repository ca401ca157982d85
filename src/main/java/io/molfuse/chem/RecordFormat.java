// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32C;

/**
 * The layout of record files, version {@value #VERSION}, described in docs/molecule_records.md. All numbers are unsigned little-endian
 * but formal charges.
 *
 * <p>A record is: u16 nodes V, u16 directed edges E, u16 symbols S, u16 characters C; V times u8 atomic number, u8 degree, i8 charge, u8
 * (hybridisation, 8 if aromatic, 16 times the number of unpaired electrons); E sources sorted as in {@link MoleculeGraph}, u8 if
 * V is at most 256, else u16; S times u16 symbol; C characters of canonical SMILES.
 */
final class RecordFormat {
  /** The first byte is no text, and what translates line ends damages the rest. */
  static final byte[] MAGIC = {(byte) 0x8A, 'M', 'F', 'R', '\r', '\n', 0x1A, '\n'};

  static final int VERSION = 1;
  static final int HEADER_BYTES = 64;
  static final int BLOCK_RECORDS = 256;
  static final int BLOCK_ENTRY_BYTES = 16;
  static final int RECORD_HEAD = 8;
  static final int NODE_BYTES = 4;

  private static final int MAX_U16 = 65_535;
  private static final int MAX_NARROW = 256;
  private static final int AROMATIC = 8;

  private RecordFormat() {}

  /** Why a molecule does not fit a record, or null if it does. */
  static String fault(MoleculeGraph graph, int symbols, String smiles) {
    if (graph.nodeCount() > MAX_U16 || graph.edgeCount() > MAX_U16) {
      return graph.nodeCount() + " atoms and " + graph.edgeCount() + " directed bonds, at most " + MAX_U16 + " each";
    }
    if (symbols > MAX_U16 || smiles.length() > MAX_U16) {
      return symbols + " symbols and " + smiles.length() + " characters, at most " + MAX_U16 + " each";
    }
    for (int i = 0; i < graph.nodeCount(); i++) {
      float charge = graph.feature(i, 2);
      if (graph.feature(i, 1) > 255 || charge < Byte.MIN_VALUE || charge > Byte.MAX_VALUE || graph.feature(i, 5) > 15) {
        return "atom " + (i + 1) + " has more neighbours, charge or unpaired electrons than a record can hold";
      }
    }
    return null;
  }

  /** A molecule without {@link #fault} as a record, with symbols from 0 to 65535. */
  static byte[] encode(MoleculeGraph graph, int[] symbols, String smiles) {
    int nodes = graph.nodeCount();
    int width = sourceWidth(nodes);
    byte[] text = smiles.getBytes(StandardCharsets.US_ASCII);
    int bytes = RECORD_HEAD + NODE_BYTES * nodes + width * graph.edgeCount() + 2 * symbols.length + text.length;
    ByteBuffer out = little(new byte[bytes]);
    out.putShort((short) nodes).putShort((short) graph.edgeCount()).putShort((short) symbols.length).putShort((short) text.length);
    for (int i = 0; i < nodes; i++) {
      out.put((byte) graph.feature(i, 0)).put((byte) graph.feature(i, 1)).put((byte) graph.feature(i, 2));
      int rest = (int) graph.feature(i, 3) + (graph.feature(i, 4) != 0 ? AROMATIC : 0) + 16 * (int) graph.feature(i, 5);
      out.put((byte) rest);
    }
    for (int source : graph.source()) {
      if (width == 1) {
        out.put((byte) source);
      } else {
        out.putShort((short) source);
      }
    }
    for (int symbol : symbols) {
      out.putShort((short) symbol);
    }
    return out.put(text).array();
  }

  static ByteBuffer little(byte[] bytes) {
    return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
  }

  static int sourceWidth(int nodes) {
    return nodes <= MAX_NARROW ? 1 : 2;
  }

  static int u16(ByteBuffer buffer, int at) {
    return buffer.getShort(at) & 0xFFFF;
  }

  static int nodes(ByteBuffer record, int at) {
    return u16(record, at);
  }

  static int edges(ByteBuffer record, int at) {
    return u16(record, at + 2);
  }

  static int symbols(ByteBuffer record, int at) {
    return u16(record, at + 4);
  }

  static int characters(ByteBuffer record, int at) {
    return u16(record, at + 6);
  }

  static int sourcesAt(ByteBuffer record, int at) {
    return at + RECORD_HEAD + NODE_BYTES * nodes(record, at);
  }

  static int symbolsAt(ByteBuffer record, int at) {
    return sourcesAt(record, at) + sourceWidth(nodes(record, at)) * edges(record, at);
  }

  static int smilesAt(ByteBuffer record, int at) {
    return symbolsAt(record, at) + 2 * symbols(record, at);
  }

  static int length(ByteBuffer record, int at) {
    return smilesAt(record, at) + characters(record, at) - at;
  }

  static String smiles(ByteBuffer record, int at) {
    byte[] text = new byte[characters(record, at)];
    record.get(smilesAt(record, at), text);
    return new String(text, StandardCharsets.US_ASCII);
  }

  /** Writes the features of a record's nodes as rows of [V,6], from row {@code row} on. */
  static void features(ByteBuffer record, int at, float[] target, int row) {
    int nodes = nodes(record, at);
    for (int i = 0; i < nodes; i++) {
      int from = at + RECORD_HEAD + NODE_BYTES * i;
      int to = (row + i) * MoleculeGraph.FEATURES;
      int rest = record.get(from + 3) & 0xFF;
      target[to] = record.get(from) & 0xFF;
      target[to + 1] = record.get(from + 1) & 0xFF;
      target[to + 2] = record.get(from + 2);
      target[to + 3] = rest & 7;
      target[to + 4] = (rest & AROMATIC) == 0 ? 0 : 1;
      target[to + 5] = rest >> 4;
    }
  }

  /** Writes a record's edges into a batch, where its nodes begin at {@code node} and its edges at {@code edge}. */
  static void edges(ByteBuffer record, int at, int[] rowPtr, int[] source, int node, int edge) {
    int nodes = nodes(record, at);
    int next = edge;
    for (int i = 0; i < nodes; i++) {
      rowPtr[node + i] = next;
      next += record.get(at + RECORD_HEAD + NODE_BYTES * i + 1) & 0xFF;
    }
    rowPtr[node + nodes] = next;
    int from = sourcesAt(record, at);
    boolean narrow = sourceWidth(nodes) == 1;
    for (int i = 0; i < edges(record, at); i++) {
      source[edge + i] = node + (narrow ? record.get(from + i) & 0xFF : u16(record, from + 2 * i));
    }
  }

  static int symbol(ByteBuffer record, int symbolsAt, int position) {
    return u16(record, symbolsAt + 2 * position);
  }

  static int checksum(ByteBuffer bytes) {
    CRC32C crc = new CRC32C();
    crc.update(bytes);
    return (int) crc.getValue();
  }
}

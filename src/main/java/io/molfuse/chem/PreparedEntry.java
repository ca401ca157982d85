// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * A molecule on its way from the input to a record file, as bytes that can be sorted and spilled: i64 hash of the canonical SMILES, i64
 * place in the input, f32 weight, u16 length of the name, the name, the record.
 */
final class PreparedEntry {
  private static final int PLACE = 8;
  private static final int WEIGHT = 16;
  private static final int NAME_LENGTH = 20;
  private static final int NAME = 22;

  /** Names are cut to so many bytes. */
  private static final int MAX_NAME = 1000;

  /** Bits of the line in a place; the number of the input file stands above them. */
  private static final int LINE_BITS = 40;

  private PreparedEntry() {}

  static long place(int input, long line) {
    return (long) input << LINE_BITS | line;
  }

  static int input(long place) {
    return (int) (place >>> LINE_BITS);
  }

  static long line(long place) {
    return place & (1L << LINE_BITS) - 1;
  }

  static byte[] encode(long hash, long place, double weight, String name, byte[] record) {
    byte[] text = name.getBytes(StandardCharsets.UTF_8);
    int cut = Math.min(text.length, MAX_NAME);
    while (cut < text.length && (text[cut] & 0xC0) == 0x80) {
      // Not within a character.
      cut--;
    }
    ByteBuffer out = RecordFormat.little(new byte[NAME + cut + record.length]);
    out.putLong(hash).putLong(place).putFloat((float) weight).putShort((short) cut).put(text, 0, cut).put(record);
    return out.array();
  }

  /** By hash as an unsigned number, then by SMILES, then by place. */
  static int compare(byte[] a, byte[] b) {
    int byMolecule = compareMolecules(a, b);
    return byMolecule != 0 ? byMolecule : Long.compare(place(a), place(b));
  }

  /** 0 for entries of one molecule, also if other molecules share their hash. */
  static int compareMolecules(byte[] a, byte[] b) {
    ByteBuffer first = RecordFormat.little(a);
    ByteBuffer second = RecordFormat.little(b);
    int byHash = Long.compareUnsigned(first.getLong(0), second.getLong(0));
    if (byHash != 0) {
      return byHash;
    }
    int smilesA = RecordFormat.smilesAt(first, recordAt(first));
    int smilesB = RecordFormat.smilesAt(second, recordAt(second));
    return Arrays.compareUnsigned(a, smilesA, a.length, b, smilesB, b.length);
  }

  private static int recordAt(ByteBuffer entry) {
    return NAME + RecordFormat.u16(entry, NAME_LENGTH);
  }

  static long hash(byte[] entry) {
    return RecordFormat.little(entry).getLong(0);
  }

  static long place(byte[] entry) {
    return RecordFormat.little(entry).getLong(PLACE);
  }

  static float weight(byte[] entry) {
    return RecordFormat.little(entry).getFloat(WEIGHT);
  }

  static String name(byte[] entry) {
    return new String(entry, NAME, RecordFormat.u16(RecordFormat.little(entry), NAME_LENGTH), StandardCharsets.UTF_8);
  }

  static byte[] record(byte[] entry) {
    return Arrays.copyOfRange(entry, recordAt(RecordFormat.little(entry)), entry.length);
  }
}

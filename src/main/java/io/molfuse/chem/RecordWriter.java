// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Writes a record file, whose header comes last, so that a file that was cut off is no record file. Keeps 4 bytes a record and one block
 * in memory.
 */
final class RecordWriter implements AutoCloseable {
  private final FileChannel channel;
  private final ByteArrayOutputStream block = new ByteArrayOutputStream(1 << 16);
  private final Map<String, Integer> symbols = new LinkedHashMap<>();
  private int[] offsets = new int[RecordFormat.BLOCK_RECORDS];
  private ByteBuffer blocks = RecordFormat.little(new byte[64 * RecordFormat.BLOCK_ENTRY_BYTES]);
  private long position = RecordFormat.HEADER_BYTES;
  private int records;
  private int longest;

  RecordWriter(Path file) throws IOException {
    channel = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING, StandardOpenOption.WRITE);
  }

  /**
   * Adds a record.
   *
   * @param record as {@link RecordFormat} has it, with any numbers of symbols; they are replaced by the file's own
   * @param names the symbol of each number
   */
  void add(byte[] record, String[] names) throws IOException {
    ByteBuffer bytes = RecordFormat.little(record);
    int at = RecordFormat.symbolsAt(bytes, 0);
    int length = RecordFormat.symbols(bytes, 0);
    for (int i = 0; i < length; i++) {
      String name = names[RecordFormat.symbol(bytes, at, i)];
      Integer number = symbols.get(name);
      if (number == null) {
        number = symbols.size();
        symbols.put(name, number);
      }
      bytes.putShort(at + 2 * i, number.shortValue());
    }
    longest = Math.max(longest, length);
    if (records == offsets.length) {
      offsets = Arrays.copyOf(offsets, 2 * records);
    }
    offsets[records++] = block.size();
    block.write(record, 0, record.length);
    if (records % RecordFormat.BLOCK_RECORDS == 0) {
      endBlock();
    }
  }

  int records() {
    return records;
  }

  /** Bytes of records so far. */
  long bytes() {
    return position + block.size();
  }

  private void endBlock() throws IOException {
    ByteBuffer bytes = ByteBuffer.wrap(block.toByteArray());
    if (!blocks.hasRemaining()) {
      blocks = RecordFormat.little(Arrays.copyOf(blocks.array(), 2 * blocks.capacity())).position(blocks.capacity());
    }
    blocks.putLong(position).putInt(bytes.limit()).putInt(RecordFormat.checksum(bytes.duplicate()));
    write(bytes, position);
    position += bytes.limit();
    block.reset();
  }

  private void write(ByteBuffer bytes, long at) throws IOException {
    long to = at;
    while (bytes.hasRemaining()) {
      to += channel.write(bytes, to);
    }
  }

  /**
   * Writes the tables and the header and forces all to the disk.
   *
   * @return the checksum of the header, which depends on everything in the file
   */
  int finish() throws IOException {
    if (block.size() > 0) {
      endBlock();
    }
    ByteArrayOutputStream text = new ByteArrayOutputStream();
    for (String symbol : symbols.keySet()) {
      byte[] name = symbol.getBytes(StandardCharsets.UTF_8);
      text.write(name.length & 0xFF);
      text.write(name.length >> 8);
      text.write(name, 0, name.length);
    }
    ByteBuffer tables = RecordFormat.little(new byte[blocks.position() + 4 * records + text.size()]);
    tables.put(blocks.flip());
    for (int i = 0; i < records; i++) {
      tables.putInt(offsets[i]);
    }
    tables.put(text.toByteArray()).flip();
    long end = position + tables.limit();
    ByteBuffer header = RecordFormat.little(new byte[RecordFormat.HEADER_BYTES]);
    header.put(RecordFormat.MAGIC).putInt(RecordFormat.VERSION).putInt(RecordFormat.BLOCK_RECORDS);
    header.putLong(records).putLong(end).putLong(position).putInt(symbols.size()).putInt(text.size());
    header.putInt(RecordFormat.checksum(tables.duplicate())).putInt(longest).putInt(0);
    int checksum = RecordFormat.checksum(header.duplicate().flip());
    header.putInt(checksum).flip();
    write(tables, position);
    // What the header vouches for is on the disk before it.
    channel.force(true);
    write(header, 0);
    channel.force(true);
    return checksum;
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}

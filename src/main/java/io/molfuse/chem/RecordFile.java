// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;

/**
 * A record file: its header and tables in memory, its records mapped when one is asked for by number. Thread-safe. Blocks are checked
 * against their checksums when they are first touched.
 */
final class RecordFile {
  private final Path file;
  private final BasicFileAttributes opened;
  private final int records;
  private final long tablesAt;
  private final int checksum;
  private final int longest;
  private final long[] blockAt;
  private final int[] blockBytes;
  private final int[] blockChecksum;
  private final List<String> symbols;
  // Two threads may check one block, which does no harm.
  private final boolean[] checked;
  private volatile MappedByteBuffer mapped;

  /** Opens a file; a ChemDataException says what is wrong with it. */
  RecordFile(Path file) {
    this.file = file;
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      opened = attributes(file);
      long size = channel.size();
      if (size < RecordFormat.HEADER_BYTES) {
        throw fault(size + " bytes are too few for a record file", null);
      }
      ByteBuffer header = read(channel, 0, RecordFormat.HEADER_BYTES);
      checkHeader(header, size);
      records = Math.toIntExact(header.getLong(16));
      tablesAt = header.getLong(32);
      longest = header.getInt(52);
      checksum = header.getInt(60);
      int blocks = (records + RecordFormat.BLOCK_RECORDS - 1) / RecordFormat.BLOCK_RECORDS;
      ByteBuffer tables = read(channel, tablesAt, Math.toIntExact(size - tablesAt));
      if (RecordFormat.checksum(tables.duplicate()) != header.getInt(48)) {
        throw fault("the tables do not have their checksum: the file is damaged", null);
      }
      blockAt = new long[blocks];
      blockBytes = new int[blocks];
      blockChecksum = new int[blocks];
      for (int i = 0; i < blocks; i++) {
        blockAt[i] = tables.getLong();
        blockBytes[i] = tables.getInt();
        blockChecksum[i] = tables.getInt();
      }
      tables.position(tables.position() + 4 * records);
      symbols = symbols(tables, header.getInt(40));
      checked = new boolean[blocks];
    } catch (NoSuchFileException e) {
      throw fault("there is no such file", e);
    } catch (IOException e) {
      throw fault("cannot be read: " + e, e);
    } catch (ArithmeticException | IllegalArgumentException | java.nio.BufferUnderflowException e) {
      throw fault("the header makes no sense: " + e.getMessage(), e);
    }
  }

  private void checkHeader(ByteBuffer header, long size) {
    byte[] magic = Arrays.copyOf(header.array(), RecordFormat.MAGIC.length);
    if (!Arrays.equals(magic, RecordFormat.MAGIC)) {
      boolean unfinished = Arrays.equals(magic, new byte[magic.length]);
      throw fault(unfinished ? "was not written to its end" : "is no record file: its first bytes are others", null);
    }
    // Before the checksum, whose place another version may have moved.
    if (header.getInt(8) != RecordFormat.VERSION) {
      throw fault(
          "is of version " + header.getInt(8) + " of the record format, but only version " + RecordFormat.VERSION
              + " can be read: prepare the molecules again",
          null);
    }
    if (RecordFormat.checksum(header.duplicate().limit(60)) != header.getInt(60)) {
      throw fault("the header does not have its checksum: the file is damaged", null);
    }
    if (header.getLong(24) != size) {
      throw fault(
          "has " + size + " bytes where its header says " + header.getLong(24) + (size < header.getLong(24) ? ": it was cut off" : ""),
          null);
    }
    if (header.getInt(12) != RecordFormat.BLOCK_RECORDS) {
      throw fault("has blocks of " + header.getInt(12) + " records, not " + RecordFormat.BLOCK_RECORDS, null);
    }
  }

  private static List<String> symbols(ByteBuffer tables, int count) {
    List<String> names = new ArrayList<>(count);
    for (int i = 0; i < count; i++) {
      byte[] name = new byte[tables.getShort() & 0xFFFF];
      tables.get(name);
      names.add(new String(name, StandardCharsets.UTF_8));
    }
    return names;
  }

  private static BasicFileAttributes attributes(Path file) throws IOException {
    return Files.readAttributes(file, BasicFileAttributes.class);
  }

  private static ByteBuffer read(FileChannel channel, long at, int length) throws IOException {
    ByteBuffer buffer = RecordFormat.little(new byte[length]);
    while (buffer.hasRemaining()) {
      if (channel.read(buffer, at + buffer.position()) < 0) {
        throw new IOException("the file ends early");
      }
    }
    return buffer.flip().order(ByteOrder.LITTLE_ENDIAN);
  }

  private ChemDataException fault(String reason, Throwable cause) {
    return new ChemDataException(file, reason, cause);
  }

  Path file() {
    return file;
  }

  int records() {
    return records;
  }

  int blocks() {
    return blockAt.length;
  }

  /** Depends on everything in the file. */
  int checksum() {
    return checksum;
  }

  /** Symbols of the longest record. */
  int longest() {
    return longest;
  }

  /** The symbols by the file's own numbers. */
  List<String> symbols() {
    return symbols;
  }

  static int blockOf(int record) {
    return record / RecordFormat.BLOCK_RECORDS;
  }

  /** Records of a block. */
  int recordsOf(int block) {
    return Math.min(RecordFormat.BLOCK_RECORDS, records - block * RecordFormat.BLOCK_RECORDS);
  }

  /** Throws a ChemDataException if the file is not what it was when it was opened. */
  void checkUnchanged() {
    try {
      BasicFileAttributes now = attributes(file);
      boolean same =
          now.size() == opened.size()
              && now.lastModifiedTime().equals(opened.lastModifiedTime())
              && Objects.equals(now.fileKey(), opened.fileKey());
      if (!same) {
        throw fault("was changed while it was in use", null);
      }
    } catch (NoSuchFileException e) {
      throw fault("was deleted while it was in use", e);
    } catch (IOException e) {
      throw fault("cannot be read any more: " + e, e);
    }
  }

  /** The bytes of one record, from the mapped file. */
  byte[] record(int record) {
    int block = blockOf(record);
    try {
      MappedByteBuffer all = map();
      int start = Math.toIntExact(blockAt[block]);
      if (!checked[block]) {
        // The checksum's machine code on a page that is not there any more would end the process; a copy is an error that can be caught.
        byte[] copy = new byte[blockBytes[block]];
        all.get(start, copy);
        checkBlock(block, ByteBuffer.wrap(copy));
        checked[block] = true;
      }
      int at = start + all.getInt(Math.toIntExact(tablesAt) + RecordFormat.BLOCK_ENTRY_BYTES * blocks() + 4 * record);
      byte[] bytes = new byte[RecordFormat.length(all, at)];
      all.get(at, bytes);
      return bytes;
    } catch (InternalError e) {
      // What Java makes of a page that is not there any more.
      throw fault("was cut off while record " + record + " was read", e);
    } catch (IndexOutOfBoundsException e) {
      throw fault("record " + record + " is damaged: it reaches beyond the file", e);
    }
  }

  private MappedByteBuffer map() {
    MappedByteBuffer all = mapped;
    if (all == null) {
      synchronized (this) {
        all = mapped;
        if (all == null) {
          try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
            checkUnchanged();
            all = channel.map(FileChannel.MapMode.READ_ONLY, 0, opened.size());
            all.order(ByteOrder.LITTLE_ENDIAN);
          } catch (IOException e) {
            throw fault("cannot be mapped: " + e, e);
          }
          mapped = all;
        }
      }
    }
    return all;
  }

  private void checkBlock(int block, ByteBuffer bytes) {
    if (RecordFormat.checksum(bytes) != blockChecksum[block]) {
      int first = block * RecordFormat.BLOCK_RECORDS;
      throw fault("records " + first + " to " + (first + recordsOf(block) - 1) + " do not have their checksum: the file is damaged", null);
    }
  }

  FileChannel channel() {
    try {
      checkUnchanged();
      return FileChannel.open(file, StandardOpenOption.READ);
    } catch (IOException e) {
      throw fault("cannot be read: " + e, e);
    }
  }

  /**
   * Reads a block without mapping it.
   *
   * @param channel this file's
   * @return its records, one behind the other, checked
   */
  ByteBuffer block(FileChannel channel, int block) {
    try {
      ByteBuffer bytes = read(channel, blockAt[block], blockBytes[block]);
      checkBlock(block, bytes.duplicate());
      return bytes;
    } catch (IOException e) {
      throw fault("records from " + block * RecordFormat.BLOCK_RECORDS + " on cannot be read: " + e, e);
    }
  }
}

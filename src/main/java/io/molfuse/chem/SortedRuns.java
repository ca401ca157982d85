// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.PriorityQueue;
import java.util.zip.CRC32C;
import java.util.zip.CheckedInputStream;
import java.util.zip.CheckedOutputStream;

/**
 * Sorts more byte arrays than fit in memory: what was added is sorted and written as a run whenever the buffer is full, and runs are merged
 * when they are read. Equal arrays stay apart; their order among each other is not defined.
 */
final class SortedRuns {
  private static final int BUFFER = 1 << 16;

  /** What an array costs beside its bytes. */
  private static final int OVERHEAD = 32;

  /**
   * A run that is whole and on the disk.
   *
   * @param name of its file
   * @param entries how many
   * @param bytes size of its file
   * @param checksum CRC-32C of its file
   */
  record Run(
      @JsonProperty("name") String name,
      @JsonProperty("entries") long entries,
      @JsonProperty("bytes") long bytes,
      @JsonProperty("checksum") int checksum) {}

  private final Path folder;
  private final Comparator<byte[]> order;
  private final long capacity;
  private final List<byte[]> buffer = new ArrayList<>();
  private long bytes;

  /** @param capacity bytes to keep in memory */
  SortedRuns(Path folder, Comparator<byte[]> order, long capacity) {
    this.folder = folder;
    this.order = order;
    this.capacity = capacity;
  }

  void add(byte[] entry) {
    buffer.add(entry);
    bytes += entry.length + OVERHEAD;
  }

  boolean full() {
    return bytes >= capacity;
  }

  boolean isEmpty() {
    return buffer.isEmpty();
  }

  /** Writes what was added since the last time as a run of this number. */
  Run spill(int number) throws IOException {
    byte[][] entries = buffer.toArray(byte[][]::new);
    buffer.clear();
    bytes = 0;
    Arrays.sort(entries, order);
    String name = String.format("run-%05d", number);
    Path file = folder.resolve(name);
    CRC32C checksum = new CRC32C();
    try (FileChannel channel =
        FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING, StandardOpenOption.WRITE)) {
      OutputStream checked = new CheckedOutputStream(Channels.newOutputStream(channel), checksum);
      DataOutputStream out = new DataOutputStream(new BufferedOutputStream(checked, BUFFER));
      for (byte[] entry : entries) {
        out.writeInt(entry.length);
        out.write(entry);
      }
      out.flush();
      channel.force(true);
      return new Run(name, entries.length, channel.size(), (int) checksum.getValue());
    }
  }

  /** Reads one run, and at its end makes sure that it is the one that was written. */
  private final class Cursor {
    final Path file;
    final CRC32C checksum = new CRC32C();
    final DataInputStream in;
    final Run run;
    long left;
    byte[] entry;

    Cursor(Run run) throws IOException {
      this.run = run;
      file = folder.resolve(run.name);
      if (!Files.exists(file) || Files.size(file) != run.bytes) {
        throw new ChemDataException(file, "is missing or not what was written; prepare the molecules anew", (Throwable) null);
      }
      in = new DataInputStream(new BufferedInputStream(new CheckedInputStream(Files.newInputStream(file), checksum), BUFFER));
      left = run.entries;
    }

    boolean advance() throws IOException {
      if (left == 0) {
        if (in.read() >= 0 || (int) checksum.getValue() != run.checksum) {
          throw damaged(null);
        }
        in.close();
        return false;
      }
      left--;
      try {
        int length = in.readInt();
        if (length < 0 || length > run.bytes) {
          throw damaged(null);
        }
        entry = in.readNBytes(length);
      } catch (EOFException e) {
        throw damaged(e);
      }
      return true;
    }

    ChemDataException damaged(Throwable cause) {
      return new ChemDataException(file, "is damaged; prepare the molecules anew", cause);
    }
  }

  /** The entries of all runs in order. */
  final class Merge implements AutoCloseable {
    private final List<Cursor> cursors = new ArrayList<>();
    private final PriorityQueue<Cursor> queue = new PriorityQueue<>((a, b) -> order.compare(a.entry, b.entry));
    private Cursor last;

    private Merge(List<Run> runs) throws IOException {
      try {
        for (Run run : runs) {
          Cursor cursor = new Cursor(run);
          cursors.add(cursor);
          if (cursor.advance()) {
            queue.add(cursor);
          }
        }
      } catch (IOException | RuntimeException e) {
        close();
        throw e;
      }
    }

    /** The next entry; null at the end. */
    byte[] next() throws IOException {
      if (last != null && last.advance()) {
        queue.add(last);
      }
      last = queue.poll();
      return last == null ? null : last.entry;
    }

    @Override
    public void close() throws IOException {
      for (Cursor cursor : cursors) {
        cursor.in.close();
      }
    }
  }

  Merge merge(List<Run> runs) throws IOException {
    return new Merge(runs);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.BufferedInputStream;
import java.io.EOFException;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PushbackInputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.zip.GZIPInputStream;
import java.util.zip.ZipException;

/**
 * Lines of a text file, plain or compressed by gzip, which is recognised by its first bytes. A line that is no text or is too long has
 * no text but a {@link #fault}. Holds one line in memory.
 */
final class LineReader implements AutoCloseable {
  private static final int BUFFER = 1 << 16;

  /** Counts what was read of a file, as it lies on the disk. */
  private static final class Counting extends FilterInputStream {
    private long count;

    Counting(InputStream in) {
      super(in);
    }

    @Override
    public int read() throws IOException {
      int value = in.read();
      count += value < 0 ? 0 : 1;
      return value;
    }

    @Override
    public int read(byte[] target, int offset, int length) throws IOException {
      int got = in.read(target, offset, length);
      count += Math.max(0, got);
      return got;
    }
  }

  private final Path file;
  private final Counting raw;
  private final InputStream in;
  private final CharsetDecoder decoder = StandardCharsets.UTF_8.newDecoder();
  private byte[] bytes = new byte[256];
  private int length;
  private boolean tooLong;
  private long line;
  private String fault;

  private LineReader(Path file, Counting raw, InputStream in) {
    this.file = file;
    this.raw = raw;
    this.in = in;
  }

  /** A reader before the first line; a ChemDataException names the file, if it is missing or cannot be read. */
  static LineReader open(Path file) {
    try {
      if (Files.isDirectory(file)) {
        throw new ChemDataException(file, "this is a folder, not a SMILES file", (Throwable) null);
      }
      return of(file, Files.newInputStream(file));
    } catch (NoSuchFileException e) {
      throw new ChemDataException(file, "there is no such file", e);
    } catch (IOException e) {
      throw new ChemDataException(file, "cannot be read: " + e, e);
    }
  }

  /** Reads a stream, which is closed if this fails. */
  static LineReader of(Path file, InputStream stream) throws IOException {
    try {
      Counting raw = new Counting(stream);
      PushbackInputStream start = new PushbackInputStream(new BufferedInputStream(raw, BUFFER), 2);
      byte[] magic = start.readNBytes(2);
      start.unread(magic);
      boolean gzip = magic.length == 2 && (magic[0] & 0xFF) == 0x1F && (magic[1] & 0xFF) == 0x8B;
      InputStream in = gzip ? new BufferedInputStream(new GZIPInputStream(start, BUFFER), BUFFER) : start;
      return new LineReader(file, raw, in);
    } catch (IOException e) {
      stream.close();
      throw e;
    }
  }

  /** Goes to the next line; false at the end. A ChemDataException names file and line, if the file breaks off. */
  boolean next() {
    length = 0;
    tooLong = false;
    fault = null;
    try {
      int next = in.read();
      if (next < 0) {
        return false;
      }
      line++;
      while (next >= 0 && next != '\n') {
        if (length < SmilesFile.MAX_LINE_BYTES) {
          if (length == bytes.length) {
            bytes = Arrays.copyOf(bytes, 2 * length);
          }
          bytes[length++] = (byte) next;
        } else {
          tooLong = true;
        }
        next = in.read();
      }
      return true;
    } catch (EOFException e) {
      throw new ChemDataException(file, "the compressed file breaks off after line " + line, e);
    } catch (ZipException e) {
      throw new ChemDataException(file, "the compressed file is damaged after line " + line + ": " + e.getMessage(), e);
    } catch (IOException e) {
      throw new ChemDataException(file, "cannot be read after line " + line + ": " + e, e);
    }
  }

  /** The line without white space around it, or null if it has a {@link #fault}. */
  String text() {
    if (tooLong) {
      fault = "longer than " + SmilesFile.MAX_LINE_BYTES + " bytes";
      return null;
    }
    String text;
    try {
      text = decoder.decode(ByteBuffer.wrap(bytes, 0, length)).toString().strip();
    } catch (CharacterCodingException e) {
      fault = "not UTF-8 text";
      return null;
    }
    // A byte order mark, as some editors write it.
    return line == 1 && !text.isEmpty() && text.charAt(0) == '\uFEFF' ? text.substring(1).strip() : text;
  }

  /** What is wrong with a line that has no text. */
  String fault() {
    return fault;
  }

  /** 1-based number of the line read last; 0 before the first. */
  long line() {
    return line;
  }

  /** Bytes of the file read so far, which is some way ahead of the line. */
  long bytesRead() {
    return raw.count;
  }

  @Override
  public void close() {
    try {
      in.close();
    } catch (IOException e) {
      throw new ChemDataException(file, "cannot be closed: " + e, e);
    }
  }
}

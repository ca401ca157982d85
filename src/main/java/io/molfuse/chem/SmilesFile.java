// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.BufferedInputStream;
import java.io.EOFException;
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
 * Reads a SMILES file line by line: a SMILES string, then optionally white space and a name. Blank lines and lines that begin with #
 * are skipped. Gzip is recognised by its first bytes, whatever the name of the file. Lines that are no text are counted in a
 * {@link BadRecordReport} and skipped; whether a SMILES is a molecule is not looked at here.
 *
 * <p>Holds one line in memory. Not thread-safe.
 */
public final class SmilesFile implements AutoCloseable {
  /** Longer lines are rejected. */
  public static final int MAX_LINE_BYTES = 1 << 20;

  private static final int BUFFER = 1 << 16;

  private final Path file;
  private final BadRecordReport report;
  private final InputStream in;
  private final CharsetDecoder decoder = StandardCharsets.UTF_8.newDecoder();
  private byte[] bytes = new byte[256];
  private int length;
  private boolean tooLong;
  private long line;

  private SmilesFile(Path file, InputStream in, BadRecordReport report) {
    this.file = file;
    this.in = in;
    this.report = report;
  }

  /**
   * Opens a file.
   *
   * @param file plain or compressed by gzip
   * @param report takes the lines that cannot be read
   * @return a reader before the first line
   * @throws ChemDataException naming the file, if it is missing or cannot be read
   */
  public static SmilesFile open(Path file, BadRecordReport report) {
    try {
      if (Files.isDirectory(file)) {
        throw new ChemDataException(file, "this is a folder, not a SMILES file", (Throwable) null);
      }
      return of(file, Files.newInputStream(file), report);
    } catch (NoSuchFileException e) {
      throw new ChemDataException(file, "there is no such file", e);
    } catch (IOException e) {
      throw new ChemDataException(file, "cannot be read: " + e, e);
    }
  }

  /** The file of a bundled data set. */
  static SmilesFile bundled(String name, BadRecordReport report) {
    Path file = Path.of(name + ".smi.gz");
    InputStream in = SmilesFile.class.getResourceAsStream(name + ".smi.gz");
    if (in == null) {
      throw new IllegalArgumentException("bundled data set must be moses-25k or moses-test-2k5, but is " + name);
    }
    try {
      return of(file, in, report);
    } catch (IOException e) {
      throw new ChemDataException(file, "the bundled data cannot be read: " + e, e);
    }
  }

  /** Reads a stream, which is closed if this fails. */
  static SmilesFile of(Path file, InputStream raw, BadRecordReport report) throws IOException {
    try {
      PushbackInputStream start = new PushbackInputStream(new BufferedInputStream(raw, BUFFER), 2);
      byte[] magic = start.readNBytes(2);
      start.unread(magic);
      boolean gzip = magic.length == 2 && (magic[0] & 0xFF) == 0x1F && (magic[1] & 0xFF) == 0x8B;
      InputStream in = gzip ? new BufferedInputStream(new GZIPInputStream(start, BUFFER), BUFFER) : start;
      return new SmilesFile(file, in, report);
    } catch (IOException e) {
      raw.close();
      throw e;
    }
  }

  /**
   * The next record.
   *
   * @return the record, or null at the end of the file
   * @throws ChemDataException naming file and line, if the file breaks off or cannot be read on
   */
  public MoleculeRecord next() {
    while (readLine()) {
      if (tooLong) {
        report.add(BadRecordReport.Reason.UNREADABLE_LINE, file, line, "", "longer than " + MAX_LINE_BYTES + " bytes");
        continue;
      }
      String text;
      try {
        text = decoder.decode(ByteBuffer.wrap(bytes, 0, length)).toString().strip();
      } catch (CharacterCodingException e) {
        report.add(BadRecordReport.Reason.UNREADABLE_LINE, file, line, "", "not UTF-8 text");
        continue;
      }
      if (line == 1 && !text.isEmpty() && text.charAt(0) == '\uFEFF') {
        // A byte order mark, as some editors write it.
        text = text.substring(1).strip();
      }
      if (text.isEmpty() || text.charAt(0) == '#') {
        continue;
      }
      int end = 0;
      while (end < text.length() && !Character.isWhitespace(text.charAt(end))) {
        end++;
      }
      return new MoleculeRecord(text.substring(0, end), text.substring(end).strip(), file, line);
    }
    return null;
  }

  /** Reads the bytes up to the next line feed; false at the end of the file. */
  private boolean readLine() {
    length = 0;
    tooLong = false;
    try {
      int next = in.read();
      if (next < 0) {
        return false;
      }
      line++;
      while (next >= 0 && next != '\n') {
        if (length < MAX_LINE_BYTES) {
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

  /** @return the file that is read */
  public Path file() {
    return file;
  }

  /** @return 1-based number of the line read last; 0 before the first */
  public long line() {
    return line;
  }

  /** Closes the file. */
  @Override
  public void close() {
    try {
      in.close();
    } catch (IOException e) {
      throw new ChemDataException(file, "cannot be closed: " + e, e);
    }
  }
}

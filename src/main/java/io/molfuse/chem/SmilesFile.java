// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Path;

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

  private final Path file;
  private final BadRecordReport report;
  private final LineReader lines;

  private SmilesFile(Path file, LineReader lines, BadRecordReport report) {
    this.file = file;
    this.lines = lines;
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
    return new SmilesFile(file, LineReader.open(file), report);
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
    return new SmilesFile(file, LineReader.of(file, raw), report);
  }

  /**
   * The next record.
   *
   * @return the record, or null at the end of the file
   * @throws ChemDataException naming file and line, if the file breaks off or cannot be read on
   */
  public MoleculeRecord next() {
    while (lines.next()) {
      String text = lines.text();
      if (text == null) {
        report.add(BadRecordReport.Reason.UNREADABLE_LINE, file, lines.line(), "", lines.fault());
        continue;
      }
      MoleculeRecord record = record(text, file, lines.line());
      if (record != null) {
        return record;
      }
    }
    return null;
  }

  /** What a line holds; null for blank lines and comments. */
  static MoleculeRecord record(String text, Path file, long line) {
    if (text.isEmpty() || text.charAt(0) == '#') {
      return null;
    }
    int end = 0;
    while (end < text.length() && !Character.isWhitespace(text.charAt(end))) {
      end++;
    }
    return new MoleculeRecord(text.substring(0, end), text.substring(end).strip(), file, line);
  }

  /** @return the file that is read */
  public Path file() {
    return file;
  }

  /** @return 1-based number of the line read last; 0 before the first */
  public long line() {
    return lines.line();
  }

  /** Closes the file. */
  @Override
  public void close() {
    lines.close();
  }
}

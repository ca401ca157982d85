// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.file.Path;
import java.util.List;
import java.util.Locale;

/**
 * The lines of a SMILES or CSV file that say something, good and bad ones in their order. A file that breaks off ends in a line that
 * says so.
 */
final class MoleculeInput implements AutoCloseable {
  private static final List<String> SMILES_COLUMNS = List.of("smiles", "canonical_smiles", "molecule", "structure");

  /** What stands on a line: a record that may be a molecule, or, with a reason, one that cannot be used. */
  record Item(MoleculeRecord at, BadRecordReport.Reason reason, String detail) {}

  private final Path file;
  private final LineReader lines;
  private final char separator;
  private int smilesColumn = -1;
  private int nameColumn = -1;
  private boolean ended;

  private MoleculeInput(Path file, LineReader lines, char separator) {
    this.file = file;
    this.lines = lines;
    this.separator = separator;
  }

  /**
   * A reader before the first molecule. A table is told by its name: .csv has commas, or semicolons if its first line has no comma, .tsv
   * has tabs.
   *
   * @param column name of the column of SMILES, or null for one of the usual names; means nothing for a SMILES file
   * @param nameColumn name of the column of names, or null for none
   * @throws ChemDataException if the file is missing, or a table has no such column
   */
  static MoleculeInput open(Path file, String column, String nameColumn) {
    String name = file.getFileName().toString().toLowerCase(Locale.ROOT);
    boolean tabs = name.endsWith(".tsv") || name.endsWith(".tsv.gz");
    boolean table = tabs || name.endsWith(".csv") || name.endsWith(".csv.gz");
    LineReader lines = LineReader.open(file);
    try {
      if (!table) {
        return new MoleculeInput(file, lines, (char) 0);
      }
      String header = lines.next() ? lines.text() : "";
      if (header == null || header.isEmpty()) {
        throw new ChemDataException(file, "the first line must name the columns, but is " + (header == null ? lines.fault() : "empty"),
            (Throwable) null);
      }
      char separator = tabs ? '\t' : header.indexOf(',') < 0 && header.indexOf(';') >= 0 ? ';' : ',';
      MoleculeInput input = new MoleculeInput(file, lines, separator);
      List<String> names = CsvLine.split(header, separator);
      input.smilesColumn = column(file, names, column == null ? SMILES_COLUMNS : List.of(column), column == null ? "--column" : null);
      input.nameColumn = nameColumn == null ? -1 : column(file, names, List.of(nameColumn), null);
      return input;
    } catch (RuntimeException e) {
      lines.close();
      throw e;
    }
  }

  private static int column(Path file, List<String> names, List<String> wanted, String option) {
    for (String name : wanted) {
      for (int i = 0; names != null && i < names.size(); i++) {
        if (names.get(i).equalsIgnoreCase(name)) {
          return i;
        }
      }
    }
    String advice = option == null ? "" : "; name the column with " + option;
    throw new ChemDataException(
        file,
        "there is no column " + String.join(" or ", wanted) + " in its first line, which has " + (names == null ? "an open quote" : names)
            + advice,
        (Throwable) null);
  }

  /** The next line that says something; null at the end. */
  Item next() {
    while (!ended) {
      try {
        if (!lines.next()) {
          break;
        }
      } catch (ChemDataException e) {
        ended = true;
        String reason = e.getMessage().substring((file + ": ").length());
        return bad(BadRecordReport.Reason.DAMAGED_FILE, "", reason);
      }
      String text = lines.text();
      if (text == null) {
        return bad(BadRecordReport.Reason.UNREADABLE_LINE, "", lines.fault());
      }
      Item item = separator == 0 ? plain(text) : row(text);
      if (item != null) {
        return item;
      }
    }
    ended = true;
    return null;
  }

  private Item plain(String text) {
    MoleculeRecord record = SmilesFile.record(text, file, lines.line());
    return record == null ? null : new Item(record, null, null);
  }

  private Item row(String text) {
    if (text.isEmpty()) {
      return null;
    }
    List<String> fields = CsvLine.split(text, separator);
    if (fields == null) {
      return bad(BadRecordReport.Reason.UNREADABLE_LINE, text, "a quote is not closed on this line");
    }
    if (fields.size() <= smilesColumn) {
      return bad(
          BadRecordReport.Reason.UNREADABLE_LINE, text, fields.size() + " fields, but SMILES are in column " + (smilesColumn + 1));
    }
    String name = nameColumn < 0 || nameColumn >= fields.size() ? "" : fields.get(nameColumn);
    // What follows white space is no part of a SMILES, as in a SMILES file.
    String smiles = fields.get(smilesColumn).split("\\s", 2)[0];
    return new Item(new MoleculeRecord(smiles, name, file, lines.line()), null, null);
  }

  private Item bad(BadRecordReport.Reason reason, String text, String detail) {
    return new Item(new MoleculeRecord(text, "", file, lines.line()), reason, detail);
  }

  /** Passes over lines up to and with one of this number. */
  void skipTo(long line) {
    while (lines.line() < line && lines.next()) {
      // What is passed over was looked at before.
    }
  }

  /** 1-based number of the line read last. */
  long line() {
    return lines.line();
  }

  /** Bytes of the file read so far. */
  long bytesRead() {
    return lines.bytesRead();
  }

  @Override
  public void close() {
    lines.close();
  }
}

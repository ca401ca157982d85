// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;

/**
 * The records that were not used: how many for each reason, and the first few in full. Nothing is dropped without being
 * counted here.
 *
 * <p>Thread-safe. "First" means first added; {@link MoleculeDataset} adds molecules in the order of the files whatever the number of
 * threads, and lines that are no text as soon as they are read, which is a little earlier.
 */
public final class BadRecordReport {
  /** Why a record was not used. */
  public enum Reason {
    /** The line is not UTF-8 text or is longer than {@link SmilesFile#MAX_LINE_BYTES}. */
    UNREADABLE_LINE("unreadable line"),
    /** The SMILES does not parse or cannot be kekulised. */
    INVALID_SMILES("invalid SMILES"),
    /** An atom has more bonds than its element and charge allow. */
    INVALID_VALENCE("forbidden valence"),
    /** The SMILES holds no atom but hydrogen. */
    NO_HEAVY_ATOM("no heavy atom"),
    /** The molecule has no SELFIES under the constraints in use. */
    NO_SELFIES("no SELFIES"),
    /** More heavy atoms than the filter allows. */
    TOO_MANY_ATOMS("too many atoms"),
    /** More tokens than the filter allows. */
    TOO_MANY_TOKENS("too many tokens"),
    /** The same canonical SMILES came before. */
    DUPLICATE("duplicate"),
    /** A file breaks off or is damaged; what came before that was used. Counted once for a file of lines. */
    DAMAGED_FILE("damaged file"),
    /** The SMILES holds the wildcard, an atom of no element. */
    WILDCARD_ATOM("wildcard atom"),
    /** No fragment of the molecule holds carbon. */
    NO_ORGANIC_FRAGMENT("no organic fragment"),
    /** An atom is of an element that the filter does not allow. */
    FORBIDDEN_ATOM("element not allowed"),
    /** The molecular weight is outside the filter's range. */
    WEIGHT_OUT_OF_RANGE("weight out of range"),
    /** A record of a record file does not have the checksum it was written with. */
    DAMAGED_RECORD("damaged record");

    private final String text;

    Reason(String text) {
      this.text = text;
    }

    /** @return the reason in words */
    public String text() {
      return text;
    }
  }

  /**
   * One record that was not used.
   *
   * @param reason why
   * @param file where it stands
   * @param line 1-based number of its line
   * @param smiles what stood there, cut to 200 characters
   * @param detail what exactly is wrong
   */
  public record Example(Reason reason, Path file, long line, String smiles, String detail) {
    @Override
    public String toString() {
      return file + ":" + line + ": " + reason.text() + ": " + detail + (smiles.isEmpty() ? "" : " [" + smiles + "]");
    }
  }

  /** How many examples are kept unless the constructor is told otherwise. */
  public static final int DEFAULT_EXAMPLES = 20;

  private static final int MAX_TEXT = 200;

  private final int maxExamples;
  private final EnumMap<Reason, Long> counts = new EnumMap<>(Reason.class);
  private final List<Example> examples = new ArrayList<>();
  private long total;

  /** An empty report that keeps {@link #DEFAULT_EXAMPLES} examples. */
  public BadRecordReport() {
    this(DEFAULT_EXAMPLES);
  }

  /** @param maxExamples how many records to keep in full, at least 0 */
  public BadRecordReport(int maxExamples) {
    if (maxExamples < 0) {
      throw new IllegalArgumentException("maxExamples must be at least 0, but is " + maxExamples);
    }
    this.maxExamples = maxExamples;
  }

  /**
   * What several reports say together.
   *
   * @param reports of different records
   * @return a new report with the examples of the first ones, as far as there is room
   */
  public static BadRecordReport of(BadRecordReport... reports) {
    BadRecordReport all = new BadRecordReport();
    for (BadRecordReport report : reports) {
      report.counts().forEach((reason, count) -> all.counts.merge(reason, count, Long::sum));
      all.total += report.total();
      report.examples().stream().limit(all.maxExamples - all.examples.size()).forEach(all.examples::add);
    }
    return all;
  }

  /**
   * Counts a record.
   *
   * @param reason why it was not used
   * @param file where it stands
   * @param line 1-based number of its line
   * @param smiles what stood there
   * @param detail what exactly is wrong
   */
  public void add(Reason reason, Path file, long line, String smiles, String detail) {
    add(reason, 1, file, line, smiles, detail);
  }

  /** Counts several records that have one fault, with one example. */
  synchronized void add(Reason reason, long records, Path file, long line, String smiles, String detail) {
    counts.merge(reason, records, Long::sum);
    total += records;
    if (examples.size() < maxExamples) {
      examples.add(new Example(reason, file, line, cut(smiles), cut(detail)));
    }
  }

  /** @return the number of records that were not used */
  public synchronized long total() {
    return total;
  }

  /**
   * @param reason a reason
   * @return the number of records not used for it
   */
  public synchronized long count(Reason reason) {
    return counts.getOrDefault(reason, 0L);
  }

  /** @return the reasons that occurred, with their counts; a copy */
  public synchronized Map<Reason, Long> counts() {
    return Collections.unmodifiableMap(new EnumMap<>(counts));
  }

  /** @return the first records added; a copy */
  public synchronized List<Example> examples() {
    return List.copyOf(examples);
  }

  /** @return one line, for example "3 records not used: invalid SMILES 2, duplicate 1" */
  public synchronized String summary() {
    if (total == 0) {
      return "no record was rejected";
    }
    StringBuilder text = new StringBuilder().append(total).append(total == 1 ? " record" : " records").append(" not used:");
    String separator = " ";
    for (Map.Entry<Reason, Long> entry : counts.entrySet()) {
      text.append(separator).append(entry.getKey().text()).append(' ').append(entry.getValue());
      separator = ", ";
    }
    return text.toString();
  }

  /** @return the summary and the examples, a line each */
  @Override
  public synchronized String toString() {
    StringBuilder text = new StringBuilder(summary());
    for (Example example : examples) {
      text.append(System.lineSeparator()).append("  ").append(example);
    }
    return text.toString();
  }

  private static String cut(String text) {
    if (text == null) {
      return "";
    }
    return text.length() <= MAX_TEXT ? text : text.substring(0, MAX_TEXT) + "...";
  }
}

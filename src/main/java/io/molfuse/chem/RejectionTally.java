// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** How many records were not used for each reason, with the first few of each reason in the order of the input. */
final class RejectionTally {
  private static final int MAX_TEXT = 200;

  /**
   * A record that was not used.
   *
   * @param input number of the input file
   * @param line 1-based
   * @param text what stood there, cut
   * @param detail what exactly is wrong, cut
   */
  record Example(
      @JsonProperty("input") int input,
      @JsonProperty("line") long line,
      @JsonProperty("text") String text,
      @JsonProperty("detail") String detail) {
    private static final Comparator<Example> ORDER = Comparator.comparingInt(Example::input).thenComparingLong(Example::line);
  }

  /**
   * The records of one reason.
   *
   * @param count all
   * @param examples the first
   */
  record Entry(@JsonProperty("count") long count, @JsonProperty("examples") List<Example> examples) {}

  private final int maxExamples;
  private final EnumMap<BadRecordReport.Reason, Long> counts = new EnumMap<>(BadRecordReport.Reason.class);
  private final EnumMap<BadRecordReport.Reason, List<Example>> examples = new EnumMap<>(BadRecordReport.Reason.class);

  RejectionTally(int maxExamples) {
    this.maxExamples = maxExamples;
  }

  void add(BadRecordReport.Reason reason, int input, long line, String text, String detail) {
    counts.merge(reason, 1L, Long::sum);
    List<Example> list = examples.computeIfAbsent(reason, r -> new ArrayList<>());
    Example example = new Example(input, line, cut(text), cut(detail));
    if (list.size() < maxExamples) {
      list.add(example);
      list.sort(Example.ORDER);
    } else if (maxExamples > 0 && Example.ORDER.compare(example, list.get(maxExamples - 1)) < 0) {
      // Duplicates are found in the order of their hashes.
      list.set(maxExamples - 1, example);
      list.sort(Example.ORDER);
    }
  }

  private static String cut(String text) {
    return text.length() <= MAX_TEXT ? text : text.substring(0, MAX_TEXT) + "...";
  }

  long total() {
    return counts.values().stream().mapToLong(Long::longValue).sum();
  }

  Map<BadRecordReport.Reason, Long> counts() {
    return counts;
  }

  List<Example> examples(BadRecordReport.Reason reason) {
    return examples.getOrDefault(reason, List.of());
  }

  /** All of it by the names of the reasons. */
  Map<String, Entry> entries() {
    Map<String, Entry> entries = new LinkedHashMap<>();
    counts.forEach((reason, count) -> entries.put(reason.name(), new Entry(count, List.copyOf(examples(reason)))));
    return entries;
  }

  /** A tally that goes on from {@link #entries}. */
  static RejectionTally of(Map<String, Entry> entries, int maxExamples) {
    RejectionTally tally = new RejectionTally(maxExamples);
    entries.forEach(
        (name, entry) -> {
          BadRecordReport.Reason reason = BadRecordReport.Reason.valueOf(name);
          tally.counts.put(reason, entry.count);
          tally.examples.put(reason, new ArrayList<>(entry.examples));
        });
    return tally;
  }
}

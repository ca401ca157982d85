// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import com.fasterxml.jackson.core.JsonProcessingException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;

/**
 * What a preparation found: how many molecules it kept, why it did not keep others, and what those it kept look like. It depends on the
 * inputs and the settings only: neither on the time nor on the number of threads.
 */
public final class PreparationReport {
  private final List<Path> inputs;
  private final PreparationState state;
  private final MoleculePreparation.Options options;
  private final RejectionTally rejected;
  private final EnumMap<MoleculeRecords.Split, Long> splits = new EnumMap<>(MoleculeRecords.Split.class);
  private final Histogram smilesLength = new Histogram(5);
  private final Histogram weight = new Histogram(20);
  private final Histogram heavyAtoms = new Histogram(1);
  private final Histogram tokens = new Histogram(4);
  private final String[] symbolNames;
  private final long[] elementCounts = new long[Elements.COUNT];
  private final long[] symbolCounts;

  PreparationReport(List<Path> inputs, PreparationState state, MoleculePreparation.Options options) {
    this.inputs = inputs;
    this.state = state;
    this.options = options;
    rejected = RejectionTally.of(state.rejected(), options.maxExamples);
    symbolNames = state.symbols().toArray(String[]::new);
    symbolCounts = new long[symbolNames.length];
    for (MoleculeRecords.Split split : MoleculeRecords.Split.values()) {
      splits.put(split, 0L);
    }
  }

  void duplicate(long place, String smiles, long kept) {
    rejected.add(
        BadRecordReport.Reason.DUPLICATE,
        PreparedEntry.input(place),
        PreparedEntry.line(place),
        smiles,
        "same molecule as " + inputs.get(PreparedEntry.input(kept)) + ":" + PreparedEntry.line(kept));
  }

  void add(MoleculeRecords.Split split, double molecularWeight, ByteBuffer record) {
    splits.merge(split, 1L, Long::sum);
    weight.add(molecularWeight);
    smilesLength.add(RecordFormat.characters(record, 0));
    int nodes = RecordFormat.nodes(record, 0);
    int heavy = 0;
    for (int i = 0; i < nodes; i++) {
      int element = record.get(RecordFormat.RECORD_HEAD + RecordFormat.NODE_BYTES * i) & 0xFF;
      heavy += element == Elements.H ? 0 : 1;
      elementCounts[element]++;
    }
    heavyAtoms.add(heavy);
    int length = RecordFormat.symbols(record, 0);
    tokens.add(length + 2);
    int at = RecordFormat.symbolsAt(record, 0);
    for (int i = 0; i < length; i++) {
      symbolCounts[RecordFormat.symbol(record, at, i)]++;
    }
  }

  /** Counts that are not 0 by name, falling; ties by name. */
  static Map<String, Long> byCount(String[] names, long[] counts) {
    Map<String, Long> byName = new TreeMap<>();
    for (int i = 0; i < counts.length; i++) {
      if (counts[i] > 0) {
        byName.put(names[i], counts[i]);
      }
    }
    Map<String, Long> sorted = new LinkedHashMap<>();
    byName.entrySet().stream()
        .sorted(Map.Entry.<String, Long>comparingByValue(Comparator.reverseOrder()).thenComparing(Map.Entry.comparingByKey()))
        .forEach(entry -> sorted.put(entry.getKey(), entry.getValue()));
    return sorted;
  }

  /** @return molecules and other records that were looked at */
  public long records() {
    return state.records();
  }

  /** @return molecules that were kept */
  public long kept() {
    return splits.values().stream().mapToLong(Long::longValue).sum();
  }

  /**
   * @param split a part
   * @return the molecules kept in it
   */
  public long kept(MoleculeRecords.Split split) {
    return splits.get(split);
  }

  /** @return records that were not kept, by reason; only reasons that occurred */
  public Map<BadRecordReport.Reason, Long> rejected() {
    return Collections.unmodifiableMap(new EnumMap<>(rejectedCounts()));
  }

  private EnumMap<BadRecordReport.Reason, Long> rejectedCounts() {
    EnumMap<BadRecordReport.Reason, Long> counts = new EnumMap<>(BadRecordReport.Reason.class);
    counts.putAll(rejected.counts());
    return counts;
  }

  /**
   * @param reason why records were not kept
   * @return the first of them
   */
  public List<BadRecordReport.Example> examples(BadRecordReport.Reason reason) {
    List<BadRecordReport.Example> examples = new ArrayList<>();
    for (RejectionTally.Example example : rejected.examples(reason)) {
      examples.add(
          new BadRecordReport.Example(reason, inputs.get(example.input()), example.line(), example.text(), example.detail()));
    }
    return examples;
  }

  /** @return molecules that lost fragments and passed the filters, copies included */
  public long desalted() {
    return state.desalted();
  }

  /** @return molecules that lost charges and passed the filters, copies included */
  public long neutralised() {
    return state.neutralised();
  }

  /** @return the preset to train with, or null if the options name none */
  public String recommendedPreset() {
    return options.recommend == null || kept() == 0 ? null : options.recommend.apply(kept(MoleculeRecords.Split.TRAIN));
  }

  /** @return one line, for example "4,990 of 5,000 records kept: train 3,992, val 499, test 499" */
  public String summary() {
    return String.format(
        Locale.ROOT,
        "%,d of %,d records kept: train %,d, val %,d, test %,d",
        kept(),
        records(),
        kept(MoleculeRecords.Split.TRAIN),
        kept(MoleculeRecords.Split.VAL),
        kept(MoleculeRecords.Split.TEST));
  }

  /** @return all of it as a JSON object */
  public String json() {
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("inputs", inputs.stream().map(Path::toString).toList());
    json.put("settings", state.settings());
    json.put("records", records());
    json.put("kept", kept());
    Map<String, Long> bySplit = new LinkedHashMap<>();
    splits.forEach((split, count) -> bySplit.put(split.toString(), count));
    json.put("splits", bySplit);
    json.put("desalted", desalted());
    json.put("neutralised", neutralised());
    json.put("recommended_preset", recommendedPreset());
    List<Map<String, Object>> reasons = new ArrayList<>();
    rejected.counts().forEach((reason, count) -> reasons.add(reason(reason, count)));
    json.put("rejected", reasons);
    json.put("smiles_length", smilesLength.json());
    json.put("weight", weight.json());
    json.put("heavy_atoms", heavyAtoms.json());
    json.put("tokens", tokens.json());
    json.put("elements", elements());
    json.put("symbols", symbols());
    try {
      return DatasetManifest.JSON.writeValueAsString(json) + "\n";
    } catch (JsonProcessingException e) {
      throw new IllegalStateException("cannot write as JSON: " + json, e);
    }
  }

  private Map<String, Object> reason(BadRecordReport.Reason reason, long count) {
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("reason", reason.text());
    json.put("count", count);
    List<Map<String, Object>> examples = new ArrayList<>();
    for (BadRecordReport.Example example : examples(reason)) {
      Map<String, Object> one = new LinkedHashMap<>();
      one.put("file", example.file().toString());
      one.put("line", example.line());
      one.put("text", example.smiles());
      one.put("detail", example.detail());
      examples.add(one);
    }
    json.put("examples", examples);
    return json;
  }

  /** @return all of it as one HTML page that needs nothing else */
  public String html() {
    return new PreparationPage(this).html();
  }

  Histogram smilesLength() {
    return smilesLength;
  }

  Histogram weight() {
    return weight;
  }

  Histogram heavyAtoms() {
    return heavyAtoms;
  }

  Histogram tokens() {
    return tokens;
  }

  /** Atoms by element, by falling count. */
  Map<String, Long> elements() {
    String[] names = new String[elementCounts.length];
    Arrays.setAll(names, Elements::symbol);
    return byCount(names, elementCounts);
  }

  /** Symbols of all splits, by falling count. */
  Map<String, Long> symbols() {
    return byCount(symbolNames, symbolCounts);
  }

  Map<String, String> settings() {
    return state.settings();
  }

  List<Path> inputs() {
    return inputs;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BooleanSupplier;

/**
 * The second stage of a preparation: from sorted runs to the files of the splits. Entries come in the order of their hashes, so that
 * copies of a molecule are neighbours, and the splits, which are ranges of hashes, come one after the other.
 */
final class PreparationWriter {
  private static final int REPORT_EVERY = 4096;

  private final MoleculePreparation.Options options;
  private final PreparationState state;
  private final List<Path> inputs;
  private final Path runs;
  private final Path target;
  private final String[] symbols;
  private final EnumMap<MoleculeRecords.Split, DatasetManifest.Split> splits = new EnumMap<>(MoleculeRecords.Split.class);
  private final PreparationReport report;

  PreparationWriter(MoleculePreparation.Options options, PreparationState state, List<Path> inputs, Path runs, Path target) {
    this.options = options;
    this.state = state;
    this.inputs = inputs;
    this.runs = runs;
    this.target = target;
    symbols = state.symbols().toArray(String[]::new);
    report = new PreparationReport(inputs, state, options);
  }

  /** Writes all files of the splits; null if it was asked to stop. */
  DatasetManifest write(MoleculePreparation.Listener listener, BooleanSupplier stop) throws IOException {
    long total = state.runs().stream().mapToLong(SortedRuns.Run::entries).sum();
    long[] trainCounts = new long[symbols.length];
    long read = 0;
    byte[] kept = null;
    SplitWriter writer = null;
    MoleculeRecords.Split current = null;
    try (SortedRuns.Merge merge = new SortedRuns(runs, PreparedEntry::compare, 0).merge(state.runs())) {
      for (byte[] entry = merge.next(); entry != null; entry = merge.next()) {
        if (read++ % REPORT_EVERY == 0) {
          if (stop.getAsBoolean()) {
            return null;
          }
          listener.progress(MoleculePreparation.Stage.WRITE, (double) read / total, state.records(), read);
        }
        ByteBuffer record = RecordFormat.little(PreparedEntry.record(entry));
        String smiles = RecordFormat.smiles(record, 0);
        if (kept != null && PreparedEntry.compareMolecules(kept, entry) == 0) {
          report.duplicate(PreparedEntry.place(entry), smiles, PreparedEntry.place(kept));
          continue;
        }
        kept = entry;
        MoleculeRecords.Split split = options.split(PreparedEntry.hash(entry));
        if (split != current) {
          finish(current, writer);
          writer = new SplitWriter(target, split.toString(), options.fileMolecules);
          current = split;
        }
        report.add(split, PreparedEntry.weight(entry), record);
        if (split == MoleculeRecords.Split.TRAIN) {
          count(record, trainCounts);
        }
        writer.add(smiles, PreparedEntry.name(entry), record.array(), symbols);
      }
      finish(current, writer);
      writer = null;
    } finally {
      if (writer != null) {
        writer.close();
      }
    }
    for (MoleculeRecords.Split split : MoleculeRecords.Split.values()) {
      if (!splits.containsKey(split)) {
        finish(split, new SplitWriter(target, split.toString(), options.fileMolecules));
      }
    }
    listener.progress(MoleculePreparation.Stage.WRITE, 1, state.records(), read);
    return manifest(trainCounts);
  }

  PreparationReport report() {
    return report;
  }

  private void finish(MoleculeRecords.Split split, SplitWriter writer) throws IOException {
    if (writer != null) {
      splits.put(split, writer.finish());
    }
  }

  private static void count(ByteBuffer record, long[] counts) {
    int at = RecordFormat.symbolsAt(record, 0);
    for (int i = 0; i < RecordFormat.symbols(record, 0); i++) {
      counts[RecordFormat.symbol(record, at, i)]++;
    }
  }

  private DatasetManifest manifest(long[] counts) {
    Map<String, DatasetManifest.Split> byName = new LinkedHashMap<>();
    splits.forEach((split, files) -> byName.put(split.toString(), files));
    long molecules = splits.values().stream().mapToLong(DatasetManifest.Split::molecules).sum();
    return new DatasetManifest(
        DatasetManifest.FORMAT, DatasetManifest.VERSION, molecules, byName, PreparationReport.byCount(symbols, counts));
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import io.molfuse.chem.MoleculeParser;
import io.molfuse.chem.MoleculeStream;
import io.molfuse.chem.Selfies;
import io.molfuse.chem.Vocabulary;
import io.molfuse.models.MoleculeBatches;
import io.molfuse.models.StagedBatch;
import io.molfuse.train.DataLoader;
import io.molfuse.train.StagingRing;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.ToIntFunction;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.global.torch.DeviceType;

/** From text to batches: SMILES and SELFIES on one thread, and the loader that parses on threads of its own. */
final class DataSuites {
  private static final int TEXTS = 500;
  private static final int BATCHES = 16;

  private final Settings settings;
  private int sink;

  DataSuites(Settings settings) {
    this.settings = settings;
  }

  List<Benchmark> all() {
    List<Benchmark> all = new ArrayList<>();
    all.add(Benchmark.of("tokeniser", "SMILES to graph", () -> {
      MoleculeParser parser = new MoleculeParser();
      return each(Molecules.smiles(TEXTS), text -> parser.parse(text).heavyAtoms());
    }));
    Selfies codec = Selfies.standard();
    all.add(Benchmark.of("tokeniser", "SMILES to SELFIES", () -> each(Molecules.smiles(TEXTS), text -> codec.encode(text).length())));
    all.add(Benchmark.of("tokeniser", "SELFIES to SMILES", () -> each(selfies(codec), text -> codec.decode(text).length())));
    all.add(Benchmark.of("tokeniser", "SELFIES to symbols", () -> each(selfies(codec), text -> Selfies.split(text).size())));
    all.add(Benchmark.of("tokeniser", "SELFIES to token numbers", () -> {
      Map<String, Long> counts = new HashMap<>();
      selfies(codec).forEach(text -> Selfies.split(text).forEach(symbol -> counts.merge(symbol, 1L, Long::sum)));
      Vocabulary vocabulary = Vocabulary.fromCounts(counts, 1024);
      return each(selfies(codec), text -> vocabulary.encode(text, Integer.MAX_VALUE).length);
    }));
    all.add(Benchmark.of("loader", "batches of " + Molecules.BATCH + ", parsed as they are needed", this::loaders));
    return all;
  }

  private static List<String> selfies(Selfies codec) {
    return Molecules.smiles(TEXTS).stream().map(codec::encode).toList();
  }

  /** All texts in a call; the sum of what comes out keeps the compiler from leaving the work out. */
  private Comparison each(List<String> texts, ToIntFunction<String> work) {
    return new Comparison()
        .add(
            Way.ours(() -> {
                  for (String text : texts) {
                    sink += work.applyAsInt(text);
                  }
                })
                .units(texts.size()));
  }

  /** A consumer that takes as long for each batch as one thread needs to make it: alone, and with 0, 1 and 2 workers. */
  private Comparison loaders() throws Exception {
    MoleculeStream molecules = MoleculeStream.bundled("moses-25k", Molecules.options());
    BitSet all = new BitSet();
    all.set(0, molecules.size());
    List<MoleculeStream.Entry> some = new ArrayList<>();
    try (MoleculeStream.Reader reader = molecules.read(all)) {
      while (some.size() < Molecules.BATCH) {
        some.add(reader.next());
      }
    }
    long making = Long.MAX_VALUE;
    for (int i = 0; i < 60; i++) {
      long start = System.nanoTime();
      sink += molecules.collate(some).size();
      making = Math.min(making, System.nanoTime() - start);
    }
    long consuming = making;
    Comparison comparison = new Comparison();
    comparison.add(
        Way.peer("consumer alone", () -> {
              for (int i = 0; i < BATCHES; i++) {
                spend(consuming);
              }
            })
            .units(BATCHES));
    comparison.add(Way.ours("0 workers", () -> unaided(molecules, all, consuming)).units(BATCHES));
    for (int workers = 1; workers <= Math.max(1, settings.threads()); workers++) {
      int threads = workers;
      comparison.add(Way.ours(workers + (workers == 1 ? " worker" : " workers"), () -> loaded(molecules, all, threads, consuming)).units(BATCHES));
    }
    return comparison;
  }

  private void unaided(MoleculeStream molecules, BitSet all, long consuming) {
    try (MoleculeStream.Reader reader = molecules.read(all)) {
      for (int i = 0; i < BATCHES; i++) {
        List<MoleculeStream.Entry> batch = new ArrayList<>(Molecules.BATCH);
        while (batch.size() < Molecules.BATCH) {
          batch.add(reader.next());
        }
        sink += molecules.collate(batch).size();
        spend(consuming);
      }
    }
  }

  private static void loaded(MoleculeStream molecules, BitSet all, int workers, long consuming) {
    try (Device cpu = new Device(DeviceType.CPU);
        StagingRing ring = new StagingRing(cpu, workers + 1);
        DataLoader<StagedBatch> loader = MoleculeBatches.streamed(molecules, all, Molecules.BATCH, 1, 1, ring).workers(workers).build()) {
      for (int i = 0; i < BATCHES; i++) {
        loader.batch(i).close();
        spend(consuming);
      }
    }
  }

  /** Computes for so long on this thread. */
  private static void spend(long nanos) {
    long end = System.nanoTime() + nanos;
    while (System.nanoTime() < end) {
      Thread.onSpinWait();
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Fills a data set. The calling thread reads lines and hands them in chunks to a fixed number of threads; it takes the results in
 * the order of the files, so that the data set does not depend on the number of threads. At most a few chunks are under way.
 */
final class DatasetLoader {
  private static final int CHUNK = 512;
  private static final AtomicInteger POOLS = new AtomicInteger();

  /** Where records come from, one after the other; null ends them. */
  interface Source {
    MoleculeRecord next();
  }

  /** Takes note of a record that passed, by its place among all that were read, in place of storing the molecule. */
  interface Notes {
    void add(long place, String canonical);
  }

  /** A record that passed, or why it did not. */
  static final class Result {
    final MoleculeRecord at;
    MoleculeParser.Molecule molecule;
    List<String> symbols;
    BadRecordReport.Reason reason;
    String detail;

    Result(MoleculeRecord at) {
      this.at = at;
    }

    Result reject(BadRecordReport.Reason why, String what) {
      reason = why;
      detail = what;
      return this;
    }
  }

  private final MoleculeDataset.Options options;
  private final Selfies selfies;
  private final MoleculeParser parser = new MoleculeParser();
  private final BadRecordReport report;
  private final Notes notes;
  private final MoleculeStore store = new MoleculeStore();
  private final KnownMolecules seen = new KnownMolecules(0);

  /** Symbols by their first occurrence; the vocabulary renumbers them at the end. */
  private final Map<String, Integer> symbolIds = new HashMap<>();

  private long[] symbolCounts = new long[64];
  private long records;
  private long taken;
  private int kept;

  DatasetLoader(MoleculeDataset.Options options, BadRecordReport report) {
    this(options, report, null);
  }

  /** @param notes gets the molecules, which are not stored then; null to store them */
  DatasetLoader(MoleculeDataset.Options options, BadRecordReport report, Notes notes) {
    this.options = options;
    this.report = report;
    this.notes = notes;
    this.selfies = Selfies.with(options.constraints);
  }

  /** Takes all records of a source, unless the limit on molecules is reached. */
  void read(Source source) {
    ExecutorService threads =
        Executors.newFixedThreadPool(
            options.threads,
            task -> {
              Thread thread = new Thread(task, "molfuse-chem-" + POOLS.incrementAndGet());
              thread.setDaemon(true);
              return thread;
            });
    ArrayDeque<Future<List<Result>>> underWay = new ArrayDeque<>();
    try {
      List<MoleculeRecord> chunk = new ArrayList<>(CHUNK);
      MoleculeRecord next;
      while (!full() && (next = source.next()) != null) {
        records++;
        chunk.add(next);
        if (chunk.size() == CHUNK) {
          List<MoleculeRecord> work = chunk;
          underWay.add(threads.submit(() -> process(work)));
          chunk = new ArrayList<>(CHUNK);
          if (underWay.size() > 2 * options.threads) {
            take(underWay.remove());
          }
        }
      }
      List<MoleculeRecord> rest = chunk;
      underWay.add(threads.submit(() -> process(rest)));
      while (!underWay.isEmpty() && !full()) {
        take(underWay.remove());
      }
    } finally {
      threads.shutdownNow();
    }
  }

  private boolean full() {
    return kept >= options.limit;
  }

  private List<Result> process(List<MoleculeRecord> chunk) {
    List<Result> results = new ArrayList<>(chunk.size());
    chunk.forEach(at -> results.add(process(at)));
    return results;
  }

  /** Any thread may call this. */
  Result process(MoleculeRecord at) {
    try {
      return process(new Result(at), at);
    } catch (RuntimeException | StackOverflowError e) {
      // Whatever is the matter with one record, the others are used.
      return new Result(at).reject(BadRecordReport.Reason.INVALID_SMILES, "cannot be read: " + e);
    }
  }

  private Result process(Result result, MoleculeRecord at) {
    MoleculeParser.Molecule molecule;
    try {
      molecule = parser.parse(at.smiles());
    } catch (MoleculeException e) {
      return result.reject(e.kind(), e.reason());
    }
    if (molecule.heavyAtoms() == 0) {
      return result.reject(BadRecordReport.Reason.NO_HEAVY_ATOM, "the molecule holds hydrogen only");
    }
    if (molecule.heavyAtoms() > options.maxHeavyAtoms) {
      return result.reject(
          BadRecordReport.Reason.TOO_MANY_ATOMS, molecule.heavyAtoms() + " heavy atoms, at most " + options.maxHeavyAtoms);
    }
    String tooLarge = MoleculeStore.fault(molecule.graph());
    if (tooLarge != null) {
      return result.reject(BadRecordReport.Reason.TOO_MANY_ATOMS, tooLarge);
    }
    try {
      result.symbols = Selfies.split(encode(molecule.canonical(), at.smiles()));
    } catch (SelfiesException e) {
      if (options.requireSelfies) {
        return result.reject(BadRecordReport.Reason.NO_SELFIES, e.reason());
      }
      result.symbols = List.of();
    }
    if (result.symbols.size() > options.maxTokens) {
      return result.reject(
          BadRecordReport.Reason.TOO_MANY_TOKENS, result.symbols.size() + " SELFIES symbols, at most " + options.maxTokens);
    }
    result.molecule = molecule;
    return result;
  }

  /** The canonical string gives one sequence for a molecule however it was written; rarely only the string given has a SELFIES. */
  private String encode(String canonical, String given) {
    try {
      return selfies.encode(canonical);
    } catch (SelfiesException e) {
      return selfies.encode(given);
    }
  }

  private void take(Future<List<Result>> chunk) {
    List<Result> results;
    try {
      results = chunk.get();
    } catch (ExecutionException e) {
      throw new IllegalStateException("reading molecules failed", e.getCause());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("reading molecules was interrupted", e);
    }
    for (Result result : results) {
      if (full()) {
        return;
      }
      BadRecordReport.Reason reason = result.reason;
      String detail = result.detail;
      if (reason == null && options.deduplicate && !seen.add(result.molecule.canonical())) {
        reason = BadRecordReport.Reason.DUPLICATE;
        detail = "same molecule as before: " + result.molecule.canonical();
      }
      if (reason != null) {
        report.add(reason, result.at.file(), result.at.line(), result.at.smiles(), detail);
      } else {
        add(result);
        kept++;
      }
      taken++;
    }
  }

  private void add(Result result) {
    int length = Math.min(result.symbols.size(), options.maxLength - 2);
    int[] ids = new int[length];
    for (int i = 0; i < result.symbols.size(); i++) {
      int id = symbolIds.computeIfAbsent(result.symbols.get(i), symbol -> symbolIds.size());
      if (id > MoleculeStore.MAX_SYMBOL) {
        throw new ChemDataException(
            result.at.file(),
            "more than " + (MoleculeStore.MAX_SYMBOL + 1) + " different SELFIES symbols up to line " + result.at.line(),
            report);
      }
      if (id == symbolCounts.length) {
        symbolCounts = Arrays.copyOf(symbolCounts, 2 * id);
      }
      symbolCounts[id]++;
      if (i < length) {
        ids[i] = id;
      }
    }
    if (notes == null) {
      store.add(result.molecule.graph(), ids, result.molecule.canonical());
    } else {
      notes.add(taken, result.molecule.canonical());
    }
  }

  /** The data set, with tokens by the vocabulary of the options or by one built from these molecules. */
  MoleculeDataset finish(List<Path> files) {
    Vocabulary vocabulary = vocabulary(files);
    int[] map = new int[symbolIds.size()];
    for (Map.Entry<String, Integer> entry : symbolIds.entrySet()) {
      map[entry.getValue()] = vocabulary.id(entry.getKey());
    }
    store.renumberTokens(map);
    store.trim();
    return new MoleculeDataset(store, vocabulary, report, options.maxLength);
  }

  /** That of the options, or one built from the molecules that were read. */
  Vocabulary vocabulary(List<Path> files) {
    Path first = files.get(0);
    if (kept == 0) {
      String where = files.size() == 1 ? "" : " nor in the " + (files.size() - 1) + " other files";
      String why = records == 0 && report.total() == 0 ? "there are no records" : report.summary();
      throw new ChemDataException(first, "no usable molecule" + where + ": " + why, report);
    }
    if (options.vocabulary != null) {
      return options.vocabulary;
    }
    Map<String, Long> counts = new HashMap<>();
    symbolIds.forEach((symbol, id) -> counts.put(symbol, symbolCounts[id]));
    return Vocabulary.fromCounts(counts, options.maxVocab);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;

/**
 * The first stage of a preparation: from lines to sorted runs of entries. The calling thread reads lines and hands them in chunks to a
 * fixed number of threads; it takes the results in the order of the files. At most a few chunks are under way.
 */
final class PreparationReader {
  private static final int CHUNK = 256;
  private static final AtomicInteger THREADS = new AtomicInteger();

  /** A molecule after cleaning. */
  private record Cleaned(MoleculeGraph graph, String canonical, double weight, MoleculeCleaner.Changes changes) {}

  /** What became of a line: an entry, or why there is none. */
  private record Outcome(MoleculeRecord at, byte[] entry, MoleculeCleaner.Changes changes, BadRecordReport.Reason reason, String detail) {}

  /** Lines of one input, and the place after them. */
  private static final class Chunk {
    final int input;
    final List<MoleculeInput.Item> items = new ArrayList<>(CHUNK);
    Future<List<Outcome>> outcomes;
    int nextInput;
    long nextLine;
    long bytes;

    Chunk(int input) {
      this.input = input;
    }
  }

  private final MoleculePreparation.Options options;
  private final List<Path> inputs;
  private final Path folder;
  private final BooleanSupplier stop;
  private final MoleculePreparation.Listener listener;
  private final Selfies selfies;
  private final SortedRuns sorter;
  private final Map<String, Integer> symbolIds = new ConcurrentHashMap<>();
  private final List<String> symbols = new ArrayList<>();
  private final List<SortedRuns.Run> runs;
  private final RejectionTally rejected;
  private final long totalBytes;
  private PreparationState state;
  private long records;
  private long accepted;
  private long desalted;
  private long neutralised;

  PreparationReader(
      MoleculePreparation.Options options,
      List<Path> inputs,
      Path folder,
      PreparationState from,
      MoleculePreparation.Listener listener,
      BooleanSupplier stop) {
    this.options = options;
    this.inputs = inputs;
    this.folder = folder;
    this.stop = stop;
    this.listener = listener;
    selfies = Selfies.with(options.constraints);
    sorter = new SortedRuns(folder, PreparedEntry::compare, options.memoryBytes);
    state = from;
    runs = new ArrayList<>(from.runs());
    rejected = RejectionTally.of(from.rejected(), options.maxExamples);
    records = from.records();
    desalted = from.desalted();
    neutralised = from.neutralised();
    accepted = runs.stream().mapToLong(SortedRuns.Run::entries).sum();
    for (String symbol : from.symbols()) {
      symbolIds.put(symbol, symbols.size());
      symbols.add(symbol);
    }
    totalBytes = Math.max(1, from.inputs().stream().mapToLong(PreparationState.Input::bytes).sum());
  }

  /** Reads to the end, or until it is asked to stop; gives the state on the disk. */
  PreparationState read() {
    ExecutorService threads =
        Executors.newFixedThreadPool(
            options.threads,
            task -> {
              Thread thread = new Thread(task, "molfuse-prepare-" + THREADS.incrementAndGet());
              thread.setDaemon(true);
              return thread;
            });
    ArrayDeque<Chunk> underWay = new ArrayDeque<>();
    Chunk last = null;
    try {
      long before = 0;
      for (int number = 0; number < state.input(); number++) {
        before += state.inputs().get(number).bytes();
      }
      for (int number = state.input(); number < inputs.size() && !stop.getAsBoolean(); number++) {
        try (MoleculeInput input = MoleculeInput.open(inputs.get(number), options.column, options.nameColumn)) {
          if (number == state.input()) {
            input.skipTo(state.line());
          }
          boolean more = true;
          while (more && !stop.getAsBoolean()) {
            Chunk chunk = new Chunk(number);
            more = fill(chunk, input);
            chunk.bytes = before + input.bytesRead();
            chunk.outcomes = threads.submit(() -> process(chunk));
            underWay.add(chunk);
            if (underWay.size() > 2 * options.threads) {
              last = take(underWay.remove());
            }
          }
        } catch (ChemDataException e) {
          if (!(e.getCause() instanceof IOException)) {
            throw e;
          }
          // Gzip that is damaged in its first bytes; the next file may be better.
          Chunk chunk = new Chunk(number);
          String reason = e.getMessage().substring((e.file() + ": ").length());
          MoleculeRecord nothing = new MoleculeRecord("", "", inputs.get(number), 0);
          chunk.items.add(new MoleculeInput.Item(nothing, BadRecordReport.Reason.DAMAGED_FILE, reason));
          chunk.nextInput = number + 1;
          chunk.outcomes = threads.submit(() -> process(chunk));
          underWay.add(chunk);
        }
        before += state.inputs().get(number).bytes();
      }
      while (!underWay.isEmpty()) {
        last = take(underWay.remove());
      }
      if (last != null) {
        save(last);
      }
      return state;
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write to " + folder + ": " + e.getMessage(), e);
    } finally {
      threads.shutdownNow();
    }
  }

  /** Takes lines for a chunk; false at the end of the input. */
  private static boolean fill(Chunk chunk, MoleculeInput input) {
    boolean more = true;
    while (more && chunk.items.size() < CHUNK) {
      MoleculeInput.Item item = input.next();
      more = item != null;
      if (more) {
        chunk.items.add(item);
        // The file ends there; whoever goes on later shall not count it again.
        more = item.reason() != BadRecordReport.Reason.DAMAGED_FILE;
      }
    }
    chunk.nextInput = more ? chunk.input : chunk.input + 1;
    chunk.nextLine = more ? input.line() : 0;
    return more;
  }

  private List<Outcome> process(Chunk chunk) {
    List<Outcome> outcomes = new ArrayList<>(chunk.items.size());
    for (MoleculeInput.Item item : chunk.items) {
      try {
        outcomes.add(item.reason() == null ? process(chunk.input, item.at()) : rejected(item.at(), item.reason(), item.detail()));
      } catch (MoleculeException e) {
        outcomes.add(rejected(item.at(), e.kind(), e.reason()));
      } catch (ChemDataException e) {
        throw e;
      } catch (RuntimeException | StackOverflowError e) {
        // Whatever is the matter with one record, the others are used.
        outcomes.add(rejected(item.at(), BadRecordReport.Reason.INVALID_SMILES, "cannot be read: " + e));
      }
    }
    return outcomes;
  }

  private static Outcome rejected(MoleculeRecord at, BadRecordReport.Reason reason, String detail) {
    return new Outcome(at, null, null, reason, detail);
  }

  private Outcome process(int input, MoleculeRecord at) {
    MoleculeCleaner cleaner = new MoleculeCleaner(at.smiles(), options.keepSalts, options.keepCharges);
    Cleaned molecule =
        MoleculeParser.parse(
            at.smiles(),
            cleaner::clean,
            (container, atoms, canonical) -> new Cleaned(atoms.graph(), canonical, MolecularWeight.of(container), cleaner.changes()));
    for (int i = 0; i < molecule.graph.nodeCount(); i++) {
      int element = (int) molecule.graph.feature(i, 0);
      if (!options.elements.get(element)) {
        return rejected(at, BadRecordReport.Reason.FORBIDDEN_ATOM, "holds " + Elements.symbol(element));
      }
    }
    if (molecule.weight < options.minWeight || molecule.weight > options.maxWeight) {
      return rejected(
          at,
          BadRecordReport.Reason.WEIGHT_OUT_OF_RANGE,
          String.format(Locale.ROOT, "weighs %.2f, not %s to %s", molecule.weight, options.minWeight, options.maxWeight));
    }
    List<String> text;
    try {
      text = Selfies.split(selfies.encode(molecule.canonical));
    } catch (SelfiesException e) {
      return rejected(at, BadRecordReport.Reason.NO_SELFIES, e.reason());
    }
    if (text.size() + 2 > options.maxLength) {
      return rejected(
          at, BadRecordReport.Reason.TOO_MANY_TOKENS, text.size() + 2 + " tokens, at most " + options.maxLength);
    }
    String fault = RecordFormat.fault(molecule.graph, text.size(), molecule.canonical);
    if (fault != null) {
      return rejected(at, BadRecordReport.Reason.TOO_MANY_ATOMS, fault);
    }
    int[] numbers = new int[text.size()];
    for (int i = 0; i < numbers.length; i++) {
      numbers[i] = symbol(text.get(i), at);
    }
    byte[] record = RecordFormat.encode(molecule.graph, numbers, molecule.canonical);
    long hash = options.hash.applyAsLong(molecule.canonical);
    byte[] entry = PreparedEntry.encode(hash, PreparedEntry.place(input, at.line()), molecule.weight, at.name(), record);
    return new Outcome(at, entry, molecule.changes, null, null);
  }

  /** Numbers depend on the threads; the record files, which have numbers of their own, do not. */
  private int symbol(String text, MoleculeRecord at) {
    Integer known = symbolIds.get(text);
    if (known != null) {
      return known;
    }
    synchronized (symbols) {
      known = symbolIds.get(text);
      if (known == null) {
        known = symbols.size();
        if (known > MoleculeStore.MAX_SYMBOL) {
          throw new ChemDataException(
              at.file(), "more than " + (MoleculeStore.MAX_SYMBOL + 1) + " different SELFIES symbols near line " + at.line(),
              (Throwable) null);
        }
        symbols.add(text);
        symbolIds.put(text, known);
      }
      return known;
    }
  }

  private Chunk take(Chunk chunk) throws IOException {
    List<Outcome> outcomes;
    try {
      outcomes = chunk.outcomes.get();
    } catch (ExecutionException e) {
      if (e.getCause() instanceof ChemDataException cause) {
        throw cause;
      }
      throw new IllegalStateException("preparing molecules failed", e.getCause());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("preparing molecules was interrupted", e);
    }
    for (Outcome outcome : outcomes) {
      records++;
      if (outcome.reason != null) {
        rejected.add(outcome.reason, chunk.input, outcome.at.line(), outcome.at.smiles(), outcome.detail);
        continue;
      }
      accepted++;
      desalted += outcome.changes.desalted ? 1 : 0;
      neutralised += outcome.changes.neutralised ? 1 : 0;
      sorter.add(outcome.entry);
    }
    if (sorter.full()) {
      save(chunk);
    }
    listener.progress(MoleculePreparation.Stage.READ, (double) chunk.bytes / totalBytes, records, accepted);
    return chunk;
  }

  /** Writes what is in memory as a run, and then the state, which only then knows of it. */
  private void save(Chunk after) throws IOException {
    if (!sorter.isEmpty()) {
      runs.add(sorter.spill(runs.size()));
    }
    List<String> known;
    synchronized (symbols) {
      known = List.copyOf(symbols);
    }
    state =
        new PreparationState(
            state.settings(),
            state.inputs(),
            after.nextInput,
            after.nextLine,
            List.copyOf(runs),
            records,
            desalted,
            neutralised,
            rejected.entries(),
            known);
    state.write(folder);
  }
}

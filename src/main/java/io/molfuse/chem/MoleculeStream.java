// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HexFormat;
import java.util.List;
import java.util.function.Function;

/**
 * Molecules that stay in their files and are read again whenever they are needed: 8 bytes a molecule are kept in memory, and a bit a
 * record. The first reading decides which records are used, and makes the vocabulary; it takes the same molecules as
 * {@link MoleculeDataset}, in the same order. A file that changes afterwards is noticed.
 *
 * <p>Immutable and thread-safe; a {@link Reader} belongs to one thread at a time.
 */
public final class MoleculeStream {
  /**
   * A molecule that was not parsed yet.
   *
   * @param entry its number among the molecules, from 0
   * @param line where it stands
   */
  public record Entry(int entry, MoleculeRecord line) {}

  /** The molecules that were chosen, one after the other. */
  public final class Reader implements AutoCloseable {
    private final SmilesFile lines;
    private final BitSet chosen;
    private long place = -1;
    private int entry = -1;

    private Reader(BitSet chosen) {
      this.chosen = chosen;
      lines = source.apply(new BadRecordReport(0));
    }

    /**
     * The next molecule.
     *
     * @return the molecule, or null at the end
     * @throws ChemDataException if the file cannot be read on, or has fewer records than at first
     */
    public Entry next() {
      while (entry + 1 < chosen.length()) {
        MoleculeRecord line = lines.next();
        if (line == null) {
          throw new ChemDataException(lines.file(), "has changed: there are fewer records than when it was first read", (Throwable) null);
        }
        if (used.get((int) ++place) && chosen.get(++entry)) {
          return new Entry(entry, line);
        }
      }
      return null;
    }

    @Override
    public void close() {
      lines.close();
    }
  }

  private final Function<BadRecordReport, SmilesFile> source;
  private final DatasetLoader parser;
  private final BadRecordReport report;
  private final Vocabulary vocabulary;
  private final int maxLength;
  /** By place of the record in the file. */
  private final BitSet used;
  /** By entry: of the canonical SMILES. */
  private final long[] hashes;

  private MoleculeStream(MoleculeStream all, int maxLength) {
    source = all.source;
    parser = all.parser;
    report = all.report;
    vocabulary = all.vocabulary;
    used = all.used;
    hashes = all.hashes;
    this.maxLength = maxLength;
  }

  private MoleculeStream(Function<BadRecordReport, SmilesFile> source, MoleculeDataset.Options options) {
    this.source = source;
    maxLength = options.maxLength;
    report = new BadRecordReport(options.maxExamples);
    used = new BitSet();
    Hashed found = new Hashed();
    parser = new DatasetLoader(options, report, found);
    try (SmilesFile lines = source.apply(report)) {
      parser.read(lines::next);
      vocabulary = parser.vocabulary(List.of(lines.file()));
    }
    hashes = Arrays.copyOf(found.hashes, found.size);
  }

  /** The hashes of the molecules that are used. */
  private final class Hashed implements DatasetLoader.Notes {
    private long[] hashes = new long[1024];
    private int size;

    @Override
    public void add(long place, String canonical) {
      used.set(Math.toIntExact(place));
      if (size == hashes.length) {
        hashes = Arrays.copyOf(hashes, Math.multiplyExact(size, 2));
      }
      hashes[size++] = Hashes.of(canonical);
    }
  }

  /**
   * Reads a file for the first time.
   *
   * @param file SMILES, see {@link SmilesFile}
   * @param options what to use; not to be changed afterwards
   * @return the molecules
   * @throws ChemDataException naming the file, if it cannot be read or holds no usable molecule
   */
  public static MoleculeStream open(Path file, MoleculeDataset.Options options) {
    return new MoleculeStream(report -> SmilesFile.open(file, report), options);
  }

  /**
   * The molecules that come with this library.
   *
   * @param name as for {@link MoleculeDataset#bundled}
   * @param options what to use; not to be changed afterwards
   * @return the molecules
   */
  public static MoleculeStream bundled(String name, MoleculeDataset.Options options) {
    return new MoleculeStream(report -> SmilesFile.bundled(name, report), options);
  }

  /** @return number of molecules */
  public int size() {
    return hashes.length;
  }

  /** @return the numbers of the tokens */
  public Vocabulary vocabulary() {
    return vocabulary;
  }

  /** @return the records that were not used */
  public BadRecordReport report() {
    return report;
  }

  /** @return as {@link MoleculeDataset#fingerprint} */
  public String fingerprint() {
    long hash = 0;
    for (long next : hashes) {
      hash = Hashes.chain(hash, next);
    }
    return HexFormat.of().toHexDigits(hash);
  }

  /**
   * The same molecules with shorter sequences.
   *
   * @param maxLength most tokens of a sequence, at least 3; no sequence gets longer
   * @return this if nothing changes
   */
  public MoleculeStream shortened(int maxLength) {
    if (maxLength < 3) {
      throw new IllegalArgumentException("maxLength must be at least 3, but is " + maxLength);
    }
    return maxLength >= this.maxLength ? this : new MoleculeStream(this, maxLength);
  }

  /**
   * The entries for validation, chosen as {@link MoleculeDataset#splitByHash} does.
   *
   * @param validationFraction 0 to 1
   * @return those entries; the others are for training
   */
  public BitSet validationByHash(double validationFraction) {
    MoleculeDataset.requireFraction(validationFraction);
    BitSet validation = new BitSet();
    for (int entry = 0; entry < hashes.length; entry++) {
      if (Hashes.unit(hashes[entry]) < validationFraction) {
        validation.set(entry);
      }
    }
    return validation;
  }

  /**
   * Some of the molecules as a set.
   *
   * @param entries which
   * @return their hashes
   */
  public KnownMolecules known(BitSet entries) {
    KnownMolecules known = new KnownMolecules(entries.cardinality());
    entries.stream().forEach(entry -> known.add(hashes[entry]));
    return known;
  }

  /**
   * Reads some of the molecules, in the order of the file.
   *
   * @param entries which; not to be changed afterwards
   * @return a reader before the first of them
   */
  public Reader read(BitSet entries) {
    return new Reader(entries);
  }

  /**
   * Loads some of the molecules, in the order of the file.
   *
   * @param entries which; at least one
   * @return in memory, with this vocabulary
   */
  public MoleculeDataset load(BitSet entries) {
    MoleculeStore store = new MoleculeStore();
    try (Reader reader = read(entries)) {
      for (Entry next = reader.next(); next != null; next = reader.next()) {
        parse(next, store);
      }
    }
    store.trim();
    return new MoleculeDataset(store, vocabulary, report, maxLength);
  }

  /**
   * Joins molecules into a batch.
   *
   * @param entries at least one
   * @return new arrays
   * @throws ChemDataException naming file and line, if there is another molecule now than at first
   */
  public GraphBatch collate(List<Entry> entries) {
    MoleculeStore store = new MoleculeStore();
    entries.forEach(entry -> parse(entry, store));
    MoleculeDataset molecules = new MoleculeDataset(store, vocabulary, report, maxLength);
    GraphBatch batch = molecules.collate(molecules.entries());
    int[] numbers = entries.stream().mapToInt(Entry::entry).toArray();
    return new GraphBatch(
        numbers, batch.features(), batch.rowPtr(), batch.source(), batch.graphPtr(), batch.tokens(), batch.maxTokens());
  }

  private void parse(Entry entry, MoleculeStore store) {
    DatasetLoader.Result result = parser.process(entry.line());
    if (result.reason != null || Hashes.of(result.molecule.canonical()) != hashes[entry.entry()]) {
      MoleculeRecord at = entry.line();
      String reason = "has changed: line " + at.line() + " is not what it was when it was first read";
      throw new ChemDataException(at.file(), reason, (Throwable) null);
    }
    int[] symbols = new int[Math.min(result.symbols.size(), maxLength - 2)];
    Arrays.setAll(symbols, i -> vocabulary.id(result.symbols.get(i)));
    store.add(result.molecule.graph(), symbols, result.molecule.canonical());
  }
}

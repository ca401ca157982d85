// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Objects;

/**
 * Molecules in memory, as graphs, token sequences and canonical SMILES, in the order of their files. The arrays are shared by all
 * molecules: about 360 bytes for a drug-like molecule, 290 MB for 800,000.
 *
 * <p>Immutable and thread-safe: {@link #collate} may run on several threads at once.
 */
public final class MoleculeDataset {
  /** What to keep of a file, and how to read it. Not thread-safe. */
  public static final class Options {
    int maxLength = 128;
    int maxTokens = Integer.MAX_VALUE;
    int maxHeavyAtoms = Integer.MAX_VALUE;
    int limit = Integer.MAX_VALUE;
    int maxVocab = 512;
    int threads = Math.min(Runtime.getRuntime().availableProcessors(), 8);
    int maxExamples = BadRecordReport.DEFAULT_EXAMPLES;
    boolean requireSelfies = true;
    boolean deduplicate;
    Vocabulary vocabulary;
    SelfiesConstraints constraints = SelfiesConstraints.standard();

    /** The defaults named at each setting. */
    public Options() {}

    /**
     * @param tokens most tokens of a sequence with {@code <sos>} and {@code <eos>}; longer ones are cut; 128 unless set
     * @return this
     */
    public Options maxLength(int tokens) {
      maxLength = atLeast("maxLength", tokens, 3);
      return this;
    }

    /**
     * @param symbols rejects molecules with more SELFIES symbols; no limit unless set
     * @return this
     */
    public Options maxTokens(int symbols) {
      maxTokens = atLeast("maxTokens", symbols, 1);
      return this;
    }

    /**
     * @param atoms rejects molecules with more heavy atoms; {@link MoleculeParser#MAX_HEAVY_ATOMS} unless set, which is the most
     * @return this
     */
    public Options maxHeavyAtoms(int atoms) {
      maxHeavyAtoms = atLeast("maxHeavyAtoms", atoms, 1);
      return this;
    }

    /**
     * @param require false keeps molecules without SELFIES, with {@code <sos> <unk> <eos>} as their sequence; true unless set
     * @return this
     */
    public Options requireSelfies(boolean require) {
      requireSelfies = require;
      return this;
    }

    /**
     * @param drop true keeps the first of several entries with one canonical SMILES; false unless set
     * @return this
     */
    public Options deduplicate(boolean drop) {
      deduplicate = drop;
      return this;
    }

    /**
     * @param given the vocabulary of the sequences; one is built from the molecules unless set
     * @return this
     */
    public Options vocabulary(Vocabulary given) {
      vocabulary = given;
      return this;
    }

    /**
     * @param size most tokens of a vocabulary that is built; 512 unless set
     * @return this
     */
    public Options maxVocab(int size) {
      maxVocab = atLeast("maxVocab", size, Vocabulary.SPECIAL + 1);
      return this;
    }

    /**
     * @param count threads that parse; the number of processors, at most 8, unless set
     * @return this
     */
    public Options threads(int count) {
      threads = atLeast("threads", count, 1);
      return this;
    }

    /**
     * @param given the constraints of SELFIES; the preset "default" unless set
     * @return this
     */
    public Options constraints(SelfiesConstraints given) {
      constraints = Objects.requireNonNull(given, "constraints");
      return this;
    }

    /**
     * @param molecules stops after so many molecules; no limit unless set
     * @return this
     */
    public Options limit(int molecules) {
      limit = atLeast("limit", molecules, 1);
      return this;
    }

    /**
     * @param examples rejected records kept in full for the report; 20 unless set
     * @return this
     */
    public Options maxExamples(int examples) {
      maxExamples = atLeast("maxExamples", examples, 0);
      return this;
    }

    private static int atLeast(String name, int value, int least) {
      if (value < least) {
        throw new IllegalArgumentException(name + " must be at least " + least + ", but is " + value);
      }
      return value;
    }
  }

  /**
   * Entries parted in two, each ascending.
   *
   * @param train entries to train on
   * @param validation entries to validate on
   */
  public record Split(int[] train, int[] validation) {}

  private final MoleculeStore store;
  private final Vocabulary vocabulary;
  private final BadRecordReport report;
  private final int maxLength;

  MoleculeDataset(MoleculeStore store, Vocabulary vocabulary, BadRecordReport report, int maxLength) {
    this.store = store;
    this.vocabulary = vocabulary;
    this.report = report;
    this.maxLength = maxLength;
  }

  /**
   * Reads a file.
   *
   * @param file SMILES, see {@link SmilesFile}
   * @param options what to keep
   * @return the molecules
   * @throws ChemDataException naming the file, if it cannot be read or holds no usable molecule
   */
  public static MoleculeDataset load(Path file, Options options) {
    return load(List.of(file), options);
  }

  /**
   * Reads files one after the other.
   *
   * @param files SMILES, see {@link SmilesFile}; at least one
   * @param options what to keep
   * @return the molecules
   * @throws ChemDataException naming the file, if one cannot be read or none holds a usable molecule
   */
  public static MoleculeDataset load(List<Path> files, Options options) {
    if (files.isEmpty()) {
      throw new IllegalArgumentException("files must not be empty");
    }
    BadRecordReport report = new BadRecordReport(options.maxExamples);
    DatasetLoader loader = new DatasetLoader(options, report);
    for (Path file : files) {
      try (SmilesFile reader = SmilesFile.open(file, report)) {
        loader.read(reader::next);
      }
    }
    return loader.finish(files);
  }

  /**
   * Reads molecules that come with this library, from the MOSES benchmark.
   *
   * @param name "moses-25k", 25,000 of its training split, or "moses-test-2k5", 2,500 of its test split
   * @param options what to keep
   * @return the molecules
   */
  public static MoleculeDataset bundled(String name, Options options) {
    BadRecordReport report = new BadRecordReport(options.maxExamples);
    DatasetLoader loader = new DatasetLoader(options, report);
    try (SmilesFile reader = SmilesFile.bundled(name, report)) {
      loader.read(reader::next);
      return loader.finish(List.of(reader.file()));
    }
  }

  /** @return number of molecules */
  public int size() {
    return store.size();
  }

  /** @return the numbers of the tokens */
  public Vocabulary vocabulary() {
    return vocabulary;
  }

  /** @return the records that were not used */
  public BadRecordReport report() {
    return report;
  }

  /**
   * @param entry 0 to size-1
   * @return the graph of a molecule
   */
  public MoleculeGraph graph(int entry) {
    return store.graph(checked(entry));
  }

  /**
   * @param entry 0 to size-1
   * @return {@code <sos>}, the symbols, {@code <eos>}
   */
  public int[] tokens(int entry) {
    int[] sequence = new int[tokenCount(entry)];
    for (int i = 0; i < sequence.length; i++) {
      sequence[i] = token(entry, i, sequence.length);
    }
    return sequence;
  }

  /**
   * @param entry 0 to size-1
   * @return the canonical SMILES of a molecule
   */
  public String smiles(int entry) {
    return store.smiles(checked(entry));
  }

  /**
   * @param entry 0 to size-1
   * @return number of nodes of its graph
   */
  public int nodeCount(int entry) {
    return store.nodeCount(checked(entry));
  }

  /**
   * @param entry 0 to size-1
   * @return number of tokens, {@code <sos>} and {@code <eos>} among them
   */
  public int tokenCount(int entry) {
    // A molecule without SELFIES is <sos> <unk> <eos>.
    return Math.min(maxLength, Math.max(1, store.symbolCount(checked(entry))) + 2);
  }

  /**
   * The same molecules with shorter sequences; the molecules are shared, not copied.
   *
   * @param maxLength most tokens of a sequence, at least 3; no sequence gets longer
   * @return this if nothing changes
   */
  public MoleculeDataset shortened(int maxLength) {
    Options.atLeast("maxLength", maxLength, 3);
    return maxLength >= this.maxLength ? this : new MoleculeDataset(store, vocabulary, report, maxLength);
  }

  /**
   * What molecules these are, and in which order: not how they were written, nor how long their sequences may be.
   *
   * @return 16 hexadecimal digits
   */
  public String fingerprint() {
    long hash = 0;
    for (int entry = 0; entry < size(); entry++) {
      hash = Hashes.chain(hash, Hashes.of(smiles(entry)));
    }
    return HexFormat.of().toHexDigits(hash);
  }

  /** @return the largest token count of all entries */
  public int maxTokenCount() {
    int most = 0;
    for (int entry = 0; entry < size(); entry++) {
      most = Math.max(most, tokenCount(entry));
    }
    return most;
  }

  /** @return the limit on the length of sequences that was in force */
  public int maxLength() {
    return maxLength;
  }

  /** @return bytes of the arrays that hold the molecules */
  public long memoryBytes() {
    return store.bytes();
  }

  /** @return all entries, 0 to size-1 */
  public int[] entries() {
    int[] entries = new int[size()];
    Arrays.setAll(entries, i -> i);
    return entries;
  }

  /**
   * Parts the entries by the hash of their canonical SMILES: the side of a molecule depends on nothing else, so that it stays when
   * the file grows, and duplicates are on one side. The fraction holds on average.
   *
   * @param validationFraction 0 to 1
   * @return the parts
   */
  public Split splitByHash(double validationFraction) {
    requireFraction(validationFraction);
    int[] train = new int[size()];
    int[] validation = new int[size()];
    int trainCount = 0;
    int validationCount = 0;
    for (int entry = 0; entry < size(); entry++) {
      if (Hashes.unit(Hashes.of(smiles(entry))) < validationFraction) {
        validation[validationCount++] = entry;
      } else {
        train[trainCount++] = entry;
      }
    }
    return new Split(Arrays.copyOf(train, trainCount), Arrays.copyOf(validation, validationCount));
  }

  static void requireFraction(double validationFraction) {
    if (!(validationFraction >= 0 && validationFraction <= 1)) {
      throw new IllegalArgumentException("validationFraction must be 0 to 1, but is " + validationFraction);
    }
  }

  /**
   * Joins molecules into a batch.
   *
   * @param entries each 0 to size-1, at least one; may repeat
   * @return new arrays
   */
  public GraphBatch collate(int[] entries) {
    if (entries.length == 0) {
      throw new IllegalArgumentException("entries must not be empty");
    }
    int nodes = 0;
    int edges = 0;
    int maxTokens = 0;
    for (int entry : entries) {
      nodes = Math.addExact(nodes, nodeCount(entry));
      edges = Math.addExact(edges, store.edgeCount(entry));
      maxTokens = Math.max(maxTokens, tokenCount(entry));
    }
    float[] features = new float[Math.multiplyExact(nodes, MoleculeGraph.FEATURES)];
    int[] rowPtr = new int[nodes + 1];
    int[] source = new int[edges];
    int[] graphPtr = new int[entries.length + 1];
    // PAD is 0, which new arrays are full of.
    long[] tokens = new long[Math.multiplyExact(entries.length, maxTokens)];
    int node = 0;
    int edge = 0;
    for (int b = 0; b < entries.length; b++) {
      int entry = entries[b];
      store.copyFeatures(entry, features, node);
      store.copyEdges(entry, rowPtr, source, node, edge);
      int length = tokenCount(entry);
      for (int i = 0; i < length; i++) {
        tokens[b * maxTokens + i] = token(entry, i, length);
      }
      node += store.nodeCount(entry);
      edge += store.edgeCount(entry);
      graphPtr[b + 1] = node;
    }
    return new GraphBatch(entries.clone(), features, rowPtr, source, graphPtr, tokens, maxTokens);
  }

  private int token(int entry, int position, int length) {
    if (position == 0) {
      return Vocabulary.SOS;
    }
    if (position == length - 1) {
      return Vocabulary.EOS;
    }
    return position <= store.symbolCount(entry) ? store.symbol(entry, position - 1) : Vocabulary.UNK;
  }

  private int checked(int entry) {
    if (entry < 0 || entry >= size()) {
      throw new IndexOutOfBoundsException("entry must be 0 to " + (size() - 1) + ", but is " + entry);
    }
    return entry;
  }
}

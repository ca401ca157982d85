// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.stream.IntStream;

/**
 * One split of prepared molecules ({@link MoleculePreparation}), read from its record files: by number from mapped files, one after the
 * other with {@link #stream}, or all at once with {@link #inMemory}. Graphs and tokens were computed when the molecules were prepared.
 *
 * <p>Files that cannot be used and blocks that do not have their checksum are left out when the data set is opened, and counted in the
 * {@link #report}, where the line of an example is the number of its record. What changes after that is an exception: molecules that come
 * and go would make runs that cannot be repeated.
 *
 * <p>Thread-safe, but for streams.
 */
public final class MoleculeRecords {
  /** The parts of a prepared data set. */
  public enum Split {
    /** To train on. */
    TRAIN,
    /** To choose between models by. */
    VAL,
    /** To judge the chosen model by. */
    TEST;

    /** @return the name in file names: train, val or test */
    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  /** How to read. Not thread-safe. */
  public static final class Options {
    private int maxLength = 128;
    private int maxVocab = 512;
    private int openFiles = 32;
    private boolean verify = true;
    private Vocabulary vocabulary;

    /** The defaults named at each setting. */
    public Options() {}

    /**
     * @param tokens most tokens of a sequence with {@code <sos>} and {@code <eos>}, at least 3; longer ones are cut; 128 unless set
     * @return this
     */
    public Options maxLength(int tokens) {
      maxLength = atLeast("maxLength", tokens, 3);
      return this;
    }

    /**
     * @param size most tokens of the vocabulary that is built from the training split; 512 unless set
     * @return this
     */
    public Options maxVocab(int size) {
      maxVocab = atLeast("maxVocab", size, Vocabulary.SPECIAL + 1);
      return this;
    }

    /**
     * @param given the vocabulary of the sequences, such as that of a checkpoint; the training split's unless set
     * @return this
     */
    public Options vocabulary(Vocabulary given) {
      vocabulary = given;
      return this;
    }

    /**
     * @param files most files whose tables are kept, and that are mapped, at a time; 32 unless set
     * @return this
     */
    public Options openFiles(int files) {
      openFiles = atLeast("openFiles", files, 1);
      return this;
    }

    /**
     * @param check false does not read all files at once to look for damaged blocks; one that is found later is an exception. True
     *     unless set.
     * @return this
     */
    public Options verify(boolean check) {
      verify = check;
      return this;
    }

    private static int atLeast(String name, int value, int least) {
      if (value < least) {
        throw new IllegalArgumentException(name + " must be at least " + least + ", but is " + value);
      }
      return value;
    }
  }

  /** A file in use, and the vocabulary's numbers of its symbols. */
  record Opened(int number, RecordFile file, int[] tokenOf) {}

  /** Blocks one behind the other in one file that are all whole. */
  private record Run(int file, int firstBlock, int blocks) {}

  private static final long CHECK_NANOS = 1_000_000_000L;

  private final Path folder;
  private final List<DatasetManifest.RecordPart> parts;
  private final List<Run> runs;
  private final BadRecordReport report;
  private final Vocabulary vocabulary;
  private final int maxLength;
  /** Molecules before each run, and all; runs and their first molecules are searched by these. */
  private final long[] runStart;
  private final Map<Integer, Opened> cache;
  private final int longest;
  private volatile long lastCheck = System.nanoTime();

  private MoleculeRecords(MoleculeRecords all, int maxLength) {
    folder = all.folder;
    parts = all.parts;
    runs = all.runs;
    report = all.report;
    vocabulary = all.vocabulary;
    runStart = all.runStart;
    cache = all.cache;
    longest = all.longest;
    this.maxLength = maxLength;
  }

  private MoleculeRecords(Path folder, Split split, Options options) {
    this.folder = folder;
    parts = new ArrayList<>();
    runs = new ArrayList<>();
    report = new BadRecordReport();
    DatasetManifest manifest = DatasetManifest.read(folder);
    vocabulary = options.vocabulary != null ? options.vocabulary : vocabulary(manifest, options.maxVocab);
    maxLength = options.maxLength;
    cache =
        new LinkedHashMap<>(16, 0.75f, true) {
          private static final long serialVersionUID = 1L;

          @Override
          protected boolean removeEldestEntry(Map.Entry<Integer, Opened> eldest) {
            return size() > options.openFiles;
          }
        };
    DatasetManifest.Split listed = manifest.splits().get(split.toString());
    if (listed == null) {
      throw new ChemDataException(folder.resolve(DatasetManifest.FILE), "names no split " + split, (Throwable) null);
    }
    int most = 0;
    for (DatasetManifest.RecordPart part : listed.files()) {
      try {
        RecordFile file = openPart(part);
        parts.add(part);
        addRuns(parts.size() - 1, file, options.verify);
        most = Math.max(most, file.longest());
      } catch (ChemDataException e) {
        String reason = e.getMessage().substring((e.file() + ": ").length()) + "; its " + part.molecules() + " molecules are left out";
        report.add(BadRecordReport.Reason.DAMAGED_FILE, folder.resolve(part.name()), 0, "", reason);
      }
    }
    longest = most;
    runStart = new long[runs.size() + 1];
    for (int i = 0; i < runs.size(); i++) {
      runStart[i + 1] = runStart[i] + recordsOf(runs.get(i));
    }
    if (size() == 0 && listed.molecules() > 0) {
      throw new ChemDataException(folder, "no usable molecule in the split " + split + ": " + report.summary(), report);
    }
  }

  /**
   * Opens a split. Reads all of its files once, unless {@link Options#verify} says otherwise.
   *
   * @param folder where the molecules were prepared
   * @param split which part
   * @param options how
   * @return the molecules; none if the split has none
   * @throws ChemDataException if the folder holds no prepared molecules, or none of the split's files can be used
   */
  public static MoleculeRecords open(Path folder, Split split, Options options) {
    return new MoleculeRecords(folder, split, options);
  }

  /**
   * Whether a folder holds prepared molecules.
   *
   * @param folder any path
   * @return true if it has a dataset.json
   */
  public static boolean isPrepared(Path folder) {
    return Files.isRegularFile(folder.resolve(DatasetManifest.FILE));
  }

  private static Vocabulary vocabulary(DatasetManifest manifest, int maxVocab) {
    return Vocabulary.fromCounts(manifest.symbols(), maxVocab);
  }

  private RecordFile openPart(DatasetManifest.RecordPart part) {
    RecordFile file = new RecordFile(folder.resolve(part.name()));
    if (file.records() != part.molecules() || !DatasetManifest.hex(file.checksum()).equals(part.checksum())) {
      throw new ChemDataException(
          file.file(), "is not the file that " + DatasetManifest.FILE + " names: its contents are others", (Throwable) null);
    }
    return file;
  }

  private void addRuns(int number, RecordFile file, boolean verify) {
    int first = 0;
    if (verify) {
      try (FileChannel channel = file.channel()) {
        for (int block = 0; block < file.blocks(); block++) {
          try {
            file.block(channel, block);
          } catch (ChemDataException e) {
            addRun(number, first, block);
            first = block + 1;
            int lost = file.recordsOf(block);
            long record = (long) block * RecordFormat.BLOCK_RECORDS;
            String detail = "records " + record + " to " + (record + lost - 1) + " do not have their checksum";
            report.add(BadRecordReport.Reason.DAMAGED_RECORD, lost, file.file(), record, "", detail);
          }
        }
      } catch (IOException e) {
        throw new ChemDataException(file.file(), "cannot be read: " + e, e);
      }
    }
    addRun(number, first, file.blocks());
  }

  private void addRun(int number, int first, int end) {
    if (end > first) {
      runs.add(new Run(number, first, end - first));
    }
  }

  private long recordsOf(Run run) {
    int end = run.firstBlock + run.blocks;
    long last = Math.min((long) end * RecordFormat.BLOCK_RECORDS, parts.get(run.file).molecules());
    return last - (long) run.firstBlock * RecordFormat.BLOCK_RECORDS;
  }

  /**
   * The same molecules with shorter sequences; the files are not read again.
   *
   * @param maxLength most tokens of a sequence, at least 3; no sequence gets longer
   * @return this if nothing changes
   */
  public MoleculeRecords shortened(int maxLength) {
    Options.atLeast("maxLength", maxLength, 3);
    return maxLength >= this.maxLength ? this : new MoleculeRecords(this, maxLength);
  }

  /** @return number of molecules */
  public long size() {
    return runStart[runStart.length - 1];
  }

  /** @return the numbers of the tokens */
  public Vocabulary vocabulary() {
    return vocabulary;
  }

  /** @return what could not be used when the data set was opened */
  public BadRecordReport report() {
    return report;
  }

  /** @return the limit on the length of sequences */
  public int maxLength() {
    return maxLength;
  }

  /** @return no sequence has more tokens than this, {@code <sos>} and {@code <eos>} among them */
  public int maxTokenCount() {
    return Math.min(maxLength, longest + 2);
  }

  /**
   * What molecules these are, and in which order.
   *
   * @return 16 hexadecimal digits
   */
  public String fingerprint() {
    long hash = 0;
    for (Run run : runs) {
      hash = Hashes.mix(hash + 0x9E3779B97F4A7C15L) ^ Hashes.of(parts.get(run.file).checksum() + " " + run.firstBlock + " " + run.blocks);
    }
    return HexFormat.of().toHexDigits(hash);
  }

  /**
   * Reads a molecule.
   *
   * @param index 0 to size-1
   * @return the molecule
   * @throws ChemDataException with file and record, if the file was changed or damaged since the data set was opened
   */
  public StoredMolecule get(long index) {
    Objects.checkIndex(index, size());
    int found = Arrays.binarySearch(runStart, index);
    int number = found >= 0 ? found : -found - 2;
    Run run = runs.get(number);
    Opened opened = open(run.file);
    long now = System.nanoTime();
    if (now - lastCheck > CHECK_NANOS) {
      lastCheck = now;
      opened.file.checkUnchanged();
    }
    int record = (int) (index - runStart[number]) + run.firstBlock * RecordFormat.BLOCK_RECORDS;
    return new StoredMolecule(index, opened.file.record(record), opened.tokenOf);
  }

  /**
   * All molecules in the order of their numbers.
   *
   * @return a stream before the first one
   */
  public RecordStream stream() {
    return new RecordStream(this, false, 0);
  }

  /**
   * All molecules, files in an order of their own and the blocks of each file, too. Molecules of one block stay together; a shuffle buffer
   * parts them.
   *
   * @param seed decides the order
   * @return a stream before the first one
   */
  public RecordStream stream(long seed) {
    return new RecordStream(this, true, seed);
  }

  /**
   * Reads all molecules into memory, about 360 bytes for a drug-like one.
   *
   * @return the same molecules by the same numbers
   * @throws IllegalStateException if they are too many for one data set in memory
   */
  public MoleculeDataset inMemory() {
    return inMemory(Long.MAX_VALUE);
  }

  /**
   * Reads the first molecules into memory. As their order is that of their hashes, they are drawn fairly from all.
   *
   * @param most how many, at least 0; if there are fewer, all
   * @return the same molecules by the same numbers
   * @throws IllegalStateException if they are too many for one data set in memory
   */
  public MoleculeDataset inMemory(long most) {
    MoleculeStore store = new MoleculeStore();
    try (RecordStream stream = stream()) {
      for (StoredMolecule molecule = stream.next(); molecule != null && molecule.index() < most; molecule = stream.next()) {
        store.add(molecule.graph(), molecule.symbols(Math.min(molecule.symbolCount(), maxLength - 2)), molecule.smiles());
      }
    }
    store.trim();
    return new MoleculeDataset(store, vocabulary, report, maxLength);
  }

  /**
   * Joins molecules into a batch, as {@link MoleculeDataset#collate} does.
   *
   * @param molecules of this data set, at least one
   * @return new arrays
   */
  public GraphBatch collate(List<StoredMolecule> molecules) {
    if (molecules.isEmpty()) {
      throw new IllegalArgumentException("molecules must not be empty");
    }
    int nodes = 0;
    int edges = 0;
    int maxTokens = 0;
    for (StoredMolecule molecule : molecules) {
      nodes = Math.addExact(nodes, molecule.nodeCount());
      edges = Math.addExact(edges, molecule.edgeCount());
      maxTokens = Math.max(maxTokens, tokenCount(molecule));
    }
    float[] features = new float[Math.multiplyExact(nodes, MoleculeGraph.FEATURES)];
    int[] indices = new int[molecules.size()];
    int[] rowPtr = new int[nodes + 1];
    int[] source = new int[edges];
    int[] graphPtr = new int[molecules.size() + 1];
    // PAD is 0, which new arrays are full of.
    long[] tokens = new long[Math.multiplyExact(molecules.size(), maxTokens)];
    for (int b = 0; b < indices.length; b++) {
      StoredMolecule molecule = molecules.get(b);
      indices[b] = Math.toIntExact(molecule.index());
      molecule.copyGraph(features, rowPtr, source, graphPtr[b], rowPtr[graphPtr[b]]);
      graphPtr[b + 1] = graphPtr[b] + molecule.nodeCount();
      int at = b * maxTokens;
      for (int token : tokens(molecule)) {
        tokens[at++] = token;
      }
    }
    return new GraphBatch(indices, features, rowPtr, source, graphPtr, tokens, maxTokens);
  }

  /**
   * The sequence of a molecule.
   *
   * @param molecule of this data set
   * @return {@code <sos>}, the symbols, {@code <eos>}; at most {@link #maxLength}
   */
  public int[] tokens(StoredMolecule molecule) {
    int[] tokens = new int[tokenCount(molecule)];
    tokens[0] = Vocabulary.SOS;
    System.arraycopy(molecule.symbols(tokens.length - 2), 0, tokens, 1, tokens.length - 2);
    tokens[tokens.length - 1] = Vocabulary.EOS;
    return tokens;
  }

  private int tokenCount(StoredMolecule molecule) {
    return Math.min(maxLength, molecule.symbolCount() + 2);
  }

  /** Number of files with molecules in use. */
  int files() {
    return parts.size();
  }

  /** Molecules of a file that are in use. */
  long recordsOf(int file) {
    long count = 0;
    for (Run run : runs) {
      count += run.file == file ? recordsOf(run) : 0;
    }
    return count;
  }

  /** The blocks of a file that are in use, ascending; a new array. */
  int[] blocks(int file) {
    return runs.stream()
        .filter(run -> run.file == file)
        .flatMapToInt(run -> IntStream.range(run.firstBlock, run.firstBlock + run.blocks))
        .toArray();
  }

  /** Number of the first molecule of a block in use. */
  long index(int file, int block) {
    for (int i = 0; i < runs.size(); i++) {
      Run run = runs.get(i);
      if (run.file == file && block >= run.firstBlock && block < run.firstBlock + run.blocks) {
        return runStart[i] + (long) (block - run.firstBlock) * RecordFormat.BLOCK_RECORDS;
      }
    }
    throw new IllegalArgumentException("block " + block + " of file " + file + " is not in use");
  }

  /** The file of a number, from the cache or opened anew. */
  Opened open(int number) {
    synchronized (cache) {
      Opened opened = cache.get(number);
      if (opened == null) {
        RecordFile file = openPart(parts.get(number));
        int[] tokenOf = file.symbols().stream().mapToInt(vocabulary::id).toArray();
        opened = new Opened(number, file, tokenOf);
        cache.put(number, opened);
      }
      return opened;
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.function.LongFunction;
import java.util.function.ToLongFunction;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * Makes a training set of SMILES and CSV files: takes off salts and charges, filters, drops copies, splits into train, val and test, and
 * writes record files ({@link MoleculeRecords}), SMILES files and a report.
 *
 * <p>Molecules are the same if their canonical SMILES are. They come out in the order of the hashes of those, which is as good as
 * shuffled; the split of a molecule depends on nothing but its canonical SMILES. What is written does not depend on the number of threads,
 * on memory, or on how often the work was stopped.
 *
 * <p>The work is kept in the folder .preparing of the output until it is done. After a stop or a kill the same call goes on where the last
 * sorted run was written. dataset.json is written last: a folder without it is not prepared.
 */
public final class MoleculePreparation {
  /** The stages, in their order. */
  public enum Stage {
    /** Looking whether the inputs are those the work was begun with. */
    CHECK,
    /** Reading, cleaning, filtering. */
    READ,
    /** Dropping copies, splitting, writing. */
    WRITE
  }

  /** Hears how the work goes, on the thread that does it. */
  @FunctionalInterface
  public interface Listener {
    /**
     * Called several times a second.
     *
     * @param stage what is done
     * @param fraction of the stage, 0 to 1
     * @param records records read so far
     * @param molecules molecules that passed so far; in the last stage, those looked at for copies
     */
    void progress(Stage stage, double fraction, long records, long molecules);
  }

  /** What to keep, and how to work. Not thread-safe. */
  public static final class Options {
    String column;
    String nameColumn;
    BitSet elements = elementSet(List.of("H", "C", "N", "O", "S", "P", "F", "Cl", "Br", "I"));
    double minWeight = 100;
    double maxWeight = 600;
    int maxLength = 128;
    double valFraction = 0.1;
    double testFraction = 0.1;
    boolean keepSalts;
    boolean keepCharges;
    boolean overwrite;
    int threads = Runtime.getRuntime().availableProcessors();
    long memoryBytes = Math.min(256L << 20, Runtime.getRuntime().maxMemory() / 8);
    int fileMolecules = 1 << 18;
    int maxExamples = 5;
    SelfiesConstraints constraints = SelfiesConstraints.standard();
    LongFunction<String> recommend;
    ToLongFunction<String> hash = Hashes::of;

    /** The defaults named at each setting. */
    public Options() {}

    /**
     * @param name column of SMILES in tables; unless set smiles, canonical_smiles, molecule or structure
     * @return this
     */
    public Options column(String name) {
      column = name;
      return this;
    }

    /**
     * @param name column of names in tables; none unless set
     * @return this
     */
    public Options nameColumn(String name) {
      nameColumn = name;
      return this;
    }

    /**
     * @param symbols elements that molecules may hold; H C N O S P F Cl Br I unless set
     * @return this
     */
    public Options elements(Iterable<String> symbols) {
      elements = elementSet(symbols);
      return this;
    }

    private static BitSet elementSet(Iterable<String> symbols) {
      BitSet set = new BitSet();
      for (String symbol : symbols) {
        int number = Elements.inSelfies(symbol);
        if (number == 0) {
          throw new IllegalArgumentException("elements: there is no element " + symbol);
        }
        set.set(number);
      }
      return set;
    }

    /**
     * @param least g/mol, 100 unless set
     * @param most g/mol, 600 unless set
     * @return this
     */
    public Options weight(double least, double most) {
      if (!(least >= 0 && least <= most)) {
        throw new IllegalArgumentException("weight must have 0 <= least <= most, but has " + least + " and " + most);
      }
      minWeight = least;
      maxWeight = most;
      return this;
    }

    /**
     * @param tokens most tokens of a sequence, {@code <sos>} and {@code <eos>} among them; 128 unless set
     * @return this
     */
    public Options maxLength(int tokens) {
      maxLength = atLeast("maxLength", tokens, 3);
      return this;
    }

    /**
     * @param val share of the molecules to choose models by, 0.1 unless set
     * @param test share of the molecules to judge the model by, 0.1 unless set
     * @return this
     */
    public Options split(double val, double test) {
      if (!(val >= 0 && test >= 0 && val + test < 1)) {
        throw new IllegalArgumentException("split: val and test must be at least 0 and below 1 together, but are " + val + " and " + test);
      }
      valFraction = val;
      testFraction = test;
      return this;
    }

    /**
     * @param keep true keeps all fragments of a molecule; false unless set
     * @return this
     */
    public Options keepSalts(boolean keep) {
      keepSalts = keep;
      return this;
    }

    /**
     * @param keep true keeps charges as they are; false unless set
     * @return this
     */
    public Options keepCharges(boolean keep) {
      keepCharges = keep;
      return this;
    }

    /**
     * @param replace true begins anew where work was begun or done before; false unless set
     * @return this
     */
    public Options overwrite(boolean replace) {
      overwrite = replace;
      return this;
    }

    /**
     * @param count threads that parse, beside the one that reads and writes; the number of processors unless set
     * @return this
     */
    public Options threads(int count) {
      threads = atLeast("threads", count, 1);
      return this;
    }

    /**
     * @param bytes molecules sorted in memory at a time; 256 MiB, at most an eighth of the heap, unless set
     * @return this
     */
    public Options memory(long bytes) {
      if (bytes < 1) {
        throw new IllegalArgumentException("memory must be at least 1, but is " + bytes);
      }
      memoryBytes = bytes;
      return this;
    }

    /**
     * @param molecules most of one record file; 262,144 unless set
     * @return this
     */
    public Options fileMolecules(int molecules) {
      fileMolecules = atLeast("fileMolecules", molecules, 1);
      return this;
    }

    /**
     * @param examples rejected records shown for each reason; 5 unless set
     * @return this
     */
    public Options maxExamples(int examples) {
      maxExamples = atLeast("maxExamples", examples, 0);
      return this;
    }

    /**
     * @param preset names the preset to recommend for a number of molecules to train on; none unless set
     * @return this
     */
    public Options recommend(LongFunction<String> preset) {
      recommend = preset;
      return this;
    }

    private static int atLeast(String name, int value, int least) {
      if (value < least) {
        throw new IllegalArgumentException(name + " must be at least " + least + ", but is " + value);
      }
      return value;
    }

    /** The split of a hash: val, test and train are ranges of it, one after the other. */
    MoleculeRecords.Split split(long hash) {
      // The upper 53 bits are a double in [0, 1).
      double position = (hash >>> 11) * 0x1.0p-53;
      if (position < valFraction) {
        return MoleculeRecords.Split.VAL;
      }
      return position < valFraction + testFraction ? MoleculeRecords.Split.TEST : MoleculeRecords.Split.TRAIN;
    }

    /** What decides the result, as text. */
    Map<String, String> settings() {
      Map<String, String> settings = new LinkedHashMap<>();
      settings.put("method", String.valueOf(METHOD));
      settings.put("column", column == null ? "by the usual names" : column);
      settings.put("name column", nameColumn == null ? "none" : nameColumn);
      settings.put("elements", elements.stream().mapToObj(Elements::symbol).collect(Collectors.joining(" ")));
      settings.put("weight", minWeight + " to " + maxWeight);
      settings.put("longest sequence", String.valueOf(maxLength));
      settings.put("val fraction", String.valueOf(valFraction));
      settings.put("test fraction", String.valueOf(testFraction));
      settings.put("keep salts", String.valueOf(keepSalts));
      settings.put("keep charges", String.valueOf(keepCharges));
      settings.put("molecules of a file", String.valueOf(fileMolecules));
      settings.put("examples of a reason", String.valueOf(maxExamples));
      return settings;
    }
  }

  /** Rises with every change of what the same input gives. */
  private static final int METHOD = 1;

  private static final String WORK = ".preparing";
  private static final String DONE = "out";
  private static final List<String> ENDINGS = List.of(".smi", ".smiles", ".csv", ".tsv");

  private final List<Path> inputs;
  private final Path output;
  private final Path work;
  private final Options options;
  private Listener listener = (stage, fraction, records, molecules) -> {};
  private volatile boolean stop;

  /**
   * A preparation.
   *
   * @param inputs files, plain or compressed by gzip; a folder stands for its .smi, .smiles, .csv and .tsv files, .gz or not, in the
   *     order of their names
   * @param output folder; made if need be
   * @param options what to keep
   * @throws ChemDataException if an input is missing or a folder has no such files
   */
  public MoleculePreparation(List<Path> inputs, Path output, Options options) {
    this.inputs = inputs.stream().flatMap(MoleculePreparation::files).toList();
    if (this.inputs.isEmpty()) {
      throw new IllegalArgumentException("inputs must not be empty");
    }
    this.output = output;
    this.work = output.resolve(WORK);
    this.options = options;
  }

  private static Stream<Path> files(Path input) {
    if (!Files.exists(input)) {
      throw new ChemDataException(input, "there is no such file", (Throwable) null);
    }
    if (!Files.isDirectory(input)) {
      return Stream.of(input);
    }
    try (Stream<Path> listed = Files.list(input)) {
      List<Path> files = listed.filter(MoleculePreparation::isInput).sorted().toList();
      if (files.isEmpty()) {
        throw new ChemDataException(input, "the folder holds no " + String.join(", ", ENDINGS) + " file", (Throwable) null);
      }
      return files.stream();
    } catch (IOException e) {
      throw new ChemDataException(input, "cannot be listed: " + e, e);
    }
  }

  private static boolean isInput(Path file) {
    String name = file.getFileName().toString().toLowerCase(Locale.ROOT);
    String plain = name.endsWith(".gz") ? name.substring(0, name.length() - 3) : name;
    return Files.isRegularFile(file) && ENDINGS.stream().anyMatch(plain::endsWith);
  }

  /**
   * Takes someone to tell.
   *
   * @param given hears how the work goes
   * @return this
   */
  public MoleculePreparation listener(Listener given) {
    listener = Objects.requireNonNull(given, "listener");
    return this;
  }

  /** Lets {@link #run} end soon, keeping what was done. Any thread may call it. */
  public void requestStop() {
    stop = true;
  }

  /** @return whether {@link #run} would go on with work that was begun before */
  public boolean resumes() {
    return !options.overwrite && Files.exists(work.resolve(PreparationState.FILE));
  }

  /**
   * Does the work, or what is left of it.
   *
   * @return what was found; null if it was asked to stop before the end
   * @throws ChemDataException if the output holds prepared molecules, or work begun with other inputs or settings, and is not to be
   *     overwritten; if an input was changed since the work was begun; if a table has no column of SMILES; if no molecule was kept
   * @throws UncheckedIOException if the output cannot be written
   */
  public PreparationReport run() {
    try {
      PreparationState state = begin();
      if (state != null) {
        state = new PreparationReader(options, inputs, work, state, listener, () -> stop).read();
      }
      if (state == null || state.input() < inputs.size()) {
        return null;
      }
      checkUnchanged(state);
      return write(state);
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write to " + output + ": " + e.getMessage(), e);
    }
  }

  /** The state to go on from; null if it was asked to stop. */
  private PreparationState begin() throws IOException {
    boolean resumes = resumes();
    if (!resumes && !options.overwrite && MoleculeRecords.isPrepared(output)) {
      throw new ChemDataException(output, "holds prepared molecules: overwrite them, or choose another folder", (Throwable) null);
    }
    for (Path input : inputs) {
      checkColumns(input);
    }
    List<PreparationState.Input> now = new ArrayList<>();
    for (Path input : inputs) {
      if (stop) {
        return null;
      }
      listener.progress(Stage.CHECK, (double) now.size() / inputs.size(), 0, 0);
      now.add(PreparationState.Input.of(input));
    }
    if (resumes) {
      PreparationState state = PreparationState.read(work);
      requireSame(state, now);
      return state;
    }
    WholeFiles.deleteTree(work);
    Files.createDirectories(work);
    PreparationState state = new PreparationState(options.settings(), now, 0, 0, List.of(), 0, 0, 0, Map.of(), List.of());
    state.write(work);
    return state;
  }

  private void checkColumns(Path input) {
    try {
      MoleculeInput.open(input, options.column, options.nameColumn).close();
    } catch (ChemDataException e) {
      // Damaged files are counted when they are read.
      if (!(e.getCause() instanceof IOException)) {
        throw e;
      }
    }
  }

  private void requireSame(PreparationState state, List<PreparationState.Input> now) {
    if (!state.settings().equals(options.settings())) {
      throw new ChemDataException(work, "was begun with other settings: use those, or overwrite it", (Throwable) null);
    }
    if (state.inputs().size() != now.size()) {
      throw new ChemDataException(
          work, "was begun with " + state.inputs().size() + " input files, not " + now.size() + ": use those, or overwrite it",
          (Throwable) null);
    }
    for (int i = 0; i < now.size(); i++) {
      PreparationState.Input before = state.inputs().get(i);
      if (!before.path().equals(now.get(i).path())) {
        throw new ChemDataException(
            work,
            "was begun with " + before.path() + " where " + now.get(i).path() + " is given: use that, or overwrite it",
            (Throwable) null);
      }
      if (!before.equals(now.get(i))) {
        throw changed(inputs.get(i), before, now.get(i));
      }
    }
  }

  /** A file that grew while it was read may have been read in part. */
  private void checkUnchanged(PreparationState state) {
    for (int i = 0; i < inputs.size(); i++) {
      PreparationState.Input now = PreparationState.Input.of(inputs.get(i));
      if (!now.equals(state.inputs().get(i))) {
        throw changed(inputs.get(i), state.inputs().get(i), now);
      }
    }
  }

  private static ChemDataException changed(Path file, PreparationState.Input before, PreparationState.Input now) {
    String how = before.bytes() == now.bytes() ? "other contents" : now.bytes() + " bytes instead of " + before.bytes();
    return new ChemDataException(
        file,
        "was changed since the preparation was begun (it has " + how + "): put it back, or overwrite what was begun",
        (Throwable) null);
  }

  private PreparationReport write(PreparationState state) throws IOException {
    Path done = work.resolve(DONE);
    WholeFiles.deleteTree(done);
    Files.createDirectories(done);
    PreparationWriter writer = new PreparationWriter(options, state, inputs, work, done);
    DatasetManifest manifest = writer.write(listener, () -> stop);
    if (manifest == null) {
      return null;
    }
    PreparationReport report = writer.report();
    if (report.kept() == 0) {
      BadRecordReport bad = new BadRecordReport();
      report.rejected().forEach(
          (reason, count) -> report.examples(reason).forEach(e -> bad.add(reason, e.file(), e.line(), e.smiles(), e.detail())));
      WholeFiles.deleteTree(work);
      throw new ChemDataException(output, "none of " + report.records() + " records was kept", bad);
    }
    Files.write(done.resolve("report.json"), report.json().getBytes(StandardCharsets.UTF_8));
    Files.write(done.resolve("report.html"), report.html().getBytes(StandardCharsets.UTF_8));
    publish(done, manifest);
    return report;
  }

  private void publish(Path done, DatasetManifest manifest) throws IOException {
    deleteEarlier();
    try (Stream<Path> files = Files.list(done)) {
      for (Path file : files.sorted().toList()) {
        WholeFiles.force(file);
        WholeFiles.move(file, output.resolve(file.getFileName()));
      }
    }
    WholeFiles.replace(output.resolve(DatasetManifest.FILE), manifest.bytes());
    WholeFiles.deleteTree(work);
  }

  /** The manifest first: without it nobody takes what is left for whole. */
  private void deleteEarlier() throws IOException {
    if (!MoleculeRecords.isPrepared(output)) {
      return;
    }
    List<DatasetManifest.RecordPart> parts = List.of();
    try {
      parts = DatasetManifest.read(output).splits().values().stream().flatMap(split -> split.files().stream()).toList();
    } catch (ChemDataException e) {
      // A manifest that cannot be read names no files to delete.
      parts = List.of();
    }
    Files.delete(output.resolve(DatasetManifest.FILE));
    for (DatasetManifest.RecordPart part : parts) {
      Files.deleteIfExists(output.resolve(Path.of(part.name()).getFileName()));
    }
  }
}

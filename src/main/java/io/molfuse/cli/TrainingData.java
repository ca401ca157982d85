// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.BadRecordReport;
import io.molfuse.chem.KnownMolecules;
import io.molfuse.chem.MolecularProperty;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeRecords;
import io.molfuse.chem.MoleculeStream;
import io.molfuse.chem.PropertyFunction;
import io.molfuse.chem.PropertyStatistics;
import io.molfuse.chem.PropertyTable;
import io.molfuse.chem.RecordStream;
import io.molfuse.chem.StoredMolecule;
import io.molfuse.chem.Vocabulary;
import io.molfuse.models.MoleculeBatches;
import io.molfuse.models.RecordBatches;
import io.molfuse.models.StagedBatch;
import io.molfuse.train.DataLoader;
import io.molfuse.train.StagingRing;
import java.util.BitSet;
import java.util.List;

/** The molecules of a run: in memory, read again each epoch, or prepared. */
interface TrainingData {
  /** Molecules that are not kept in memory from which properties are estimated. */
  int MOST_FOR_STATISTICS = 100_000;

  /** Molecules to validate with, at most. */
  int MOST_FOR_VALIDATION = 1000;

  /** Share of the molecules to validate with, of data sets that have enough. */
  double VALIDATION_SHARE = 0.02;

  /** Of fewer molecules none are kept for validation. */
  int SMALLEST_TO_SPLIT = 100;

  /** Molecules to train on. */
  interface Molecules {
    int size();

    /** Each epoch in an order of its own. */
    DataLoader.Builder<StagedBatch> shuffled(Configuration configuration, StagingRing ring);

    KnownMolecules known();

    /** How the properties that the model is conditioned on are distributed; none without conditions. */
    List<PropertyStatistics> statistics(Configuration configuration);
  }

  /**
   * The two sides of a run.
   *
   * @param train to train on
   * @param validation to validate with; may be none
   */
  record Parts(Molecules train, Loaded validation) {}

  /** Number of molecules that preset and steps go by. */
  int size();

  Vocabulary vocabulary();

  BadRecordReport report();

  String fingerprint();

  TrainingData shortened(int maxLength);

  Parts parts(Configuration configuration);

  /** The share of molecules that the hash takes for validation. */
  private static double share(int size) {
    return size < SMALLEST_TO_SPLIT ? 0 : Math.min(VALIDATION_SHARE, (double) MOST_FOR_VALIDATION / size);
  }

  /** Molecules in memory. */
  record InMemory(MoleculeDataset molecules) implements TrainingData {
    @Override
    public int size() {
      return molecules.size();
    }

    @Override
    public Vocabulary vocabulary() {
      return molecules.vocabulary();
    }

    @Override
    public BadRecordReport report() {
      return molecules.report();
    }

    @Override
    public String fingerprint() {
      return molecules.fingerprint();
    }

    @Override
    public TrainingData shortened(int maxLength) {
      return new InMemory(molecules.shortened(maxLength));
    }

    @Override
    public Parts parts(Configuration configuration) {
      MoleculeDataset.Split split = molecules.splitByHash(share(size()));
      if (split.train().length == 0) {
        // Copies of one molecule are all on one side.
        split = molecules.splitByHash(0);
      }
      Table table = new Table(molecules);
      return new Parts(new Loaded(table, split.train()), new Loaded(table, split.validation()));
    }
  }

  /** Molecules in their file; those to validate with are loaded. */
  record Streamed(MoleculeStream molecules) implements TrainingData {
    @Override
    public int size() {
      return molecules.size();
    }

    @Override
    public Vocabulary vocabulary() {
      return molecules.vocabulary();
    }

    @Override
    public BadRecordReport report() {
      return molecules.report();
    }

    @Override
    public String fingerprint() {
      return molecules.fingerprint();
    }

    @Override
    public TrainingData shortened(int maxLength) {
      return new Streamed(molecules.shortened(maxLength));
    }

    @Override
    public Parts parts(Configuration configuration) {
      BitSet validation = molecules.validationByHash(share(size()));
      if (validation.cardinality() == size()) {
        validation.clear();
      }
      BitSet train = new BitSet();
      train.set(0, size());
      train.andNot(validation);
      return new Parts(new Lines(molecules, train), validation.isEmpty() ? Loaded.NONE : Loaded.all(molecules.load(validation)));
    }
  }

  /** A folder that prepare wrote, with the validation molecules that it has. */
  record Prepared(MoleculeRecords train, MoleculeRecords validation) implements TrainingData {
    @Override
    public int size() {
      return Math.toIntExact(train.size());
    }

    @Override
    public Vocabulary vocabulary() {
      return train.vocabulary();
    }

    @Override
    public BadRecordReport report() {
      return BadRecordReport.of(train.report(), validation.report());
    }

    @Override
    public String fingerprint() {
      return train.fingerprint();
    }

    @Override
    public TrainingData shortened(int maxLength) {
      return new Prepared(train.shortened(maxLength), validation.shortened(maxLength));
    }

    @Override
    public Parts parts(Configuration configuration) {
      boolean streaming = configuration.data().access() == Configuration.Access.STREAMING;
      Molecules trained = streaming ? new Records(train) : Loaded.all(train.inMemory());
      // They are in the order of their hashes, so the first ones are as good as any.
      return new Parts(trained, validation.size() == 0 ? Loaded.NONE : Loaded.all(validation.inMemory(MOST_FOR_VALIDATION)));
    }
  }

  /** Properties of molecules in memory, computed when they are first asked for. Not thread-safe. */
  final class Table {
    private final MoleculeDataset molecules;
    private PropertyTable properties;

    Table(MoleculeDataset molecules) {
      this.molecules = molecules;
    }

    /** Null without conditions. */
    PropertyTable of(Configuration configuration) {
      List<MolecularProperty> wanted = configuration.model().condition().properties();
      if (properties == null && !wanted.isEmpty()) {
        properties = PropertyTable.of(molecules, wanted, PropertyFunction.standard(), configuration.data().threads());
      }
      return properties;
    }
  }

  /**
   * Molecules in memory.
   *
   * @param table their data set and its properties
   * @param entries which of the data set
   */
  record Loaded(Table table, int[] entries) implements Molecules {
    static final Loaded NONE = new Loaded(null, new int[0]);

    /** The data set that the entries are of. */
    MoleculeDataset molecules() {
      return table.molecules;
    }

    static Loaded all(MoleculeDataset molecules) {
      return new Loaded(new Table(molecules), molecules.entries());
    }

    @Override
    public int size() {
      return entries.length;
    }

    @Override
    public DataLoader.Builder<StagedBatch> shuffled(Configuration configuration, StagingRing ring) {
      return batches(configuration, true, ring);
    }

    /** Always in the same order. */
    DataLoader.Builder<StagedBatch> inOrder(Configuration configuration, StagingRing ring) {
      return batches(configuration, false, ring);
    }

    private DataLoader.Builder<StagedBatch> batches(Configuration configuration, boolean shuffle, StagingRing ring) {
      TrainingSettings training = configuration.training();
      return MoleculeBatches.staged(
          table.molecules, table.of(configuration), entries, training.batchSize(), shuffle, training.seed(), ring);
    }

    @Override
    public KnownMolecules known() {
      return KnownMolecules.of(table.molecules, entries);
    }

    @Override
    public List<PropertyStatistics> statistics(Configuration configuration) {
      PropertyTable properties = table.of(configuration);
      return properties == null ? List.of() : properties.statistics(entries);
    }
  }

  /**
   * Lines of a file that are read and parsed each epoch.
   *
   * @param molecules the file's
   * @param entries which of them
   */
  record Lines(MoleculeStream molecules, BitSet entries) implements Molecules {
    @Override
    public int size() {
      return entries.cardinality();
    }

    @Override
    public DataLoader.Builder<StagedBatch> shuffled(Configuration configuration, StagingRing ring) {
      TrainingSettings training = configuration.training();
      return MoleculeBatches.streamed(
          molecules,
          configuration.model().condition().properties(),
          PropertyFunction.standard(),
          entries,
          training.batchSize(),
          configuration.data().shuffleBuffer(),
          training.seed(),
          ring);
    }

    @Override
    public KnownMolecules known() {
      return molecules.known(entries);
    }

    @Override
    public List<PropertyStatistics> statistics(Configuration configuration) {
      return configuration.model().condition().any()
          ? Loaded.all(molecules.load(some())).statistics(configuration)
          : List.of();
    }

    /** Evenly spread: files are often sorted. */
    private BitSet some() {
      int size = size();
      BitSet chosen = new BitSet();
      long place = 0;
      for (int entry = entries.nextSetBit(0); entry >= 0; entry = entries.nextSetBit(entry + 1), place++) {
        if (size <= MOST_FOR_STATISTICS || place * MOST_FOR_STATISTICS / size != (place + 1) * MOST_FOR_STATISTICS / size) {
          chosen.set(entry);
        }
      }
      return chosen;
    }
  }

  /**
   * Records that are read each epoch.
   *
   * @param molecules the records
   */
  record Records(MoleculeRecords molecules) implements Molecules {
    @Override
    public int size() {
      return Math.toIntExact(molecules.size());
    }

    @Override
    public DataLoader.Builder<StagedBatch> shuffled(Configuration configuration, StagingRing ring) {
      TrainingSettings training = configuration.training();
      return RecordBatches.staged(
          molecules,
          configuration.model().condition().properties(),
          PropertyFunction.standard(),
          training.batchSize(),
          configuration.data().shuffleBuffer(),
          training.seed(),
          ring);
    }

    @Override
    public KnownMolecules known() {
      KnownMolecules known = new KnownMolecules(size());
      try (RecordStream stream = molecules.stream()) {
        for (StoredMolecule molecule = stream.next(); molecule != null; molecule = stream.next()) {
          known.add(molecule.smiles());
        }
      }
      return known;
    }

    /** Of the first ones: they are in the order of their hashes. */
    @Override
    public List<PropertyStatistics> statistics(Configuration configuration) {
      return configuration.model().condition().any()
          ? Loaded.all(molecules.inMemory(MOST_FOR_STATISTICS)).statistics(configuration)
          : List.of();
    }
  }
}

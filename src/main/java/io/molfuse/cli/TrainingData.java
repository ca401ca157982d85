// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.BadRecordReport;
import io.molfuse.chem.KnownMolecules;
import io.molfuse.chem.MolecularProperty;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeStream;
import io.molfuse.chem.PropertyFunction;
import io.molfuse.chem.PropertyStatistics;
import io.molfuse.chem.PropertyTable;
import io.molfuse.chem.Vocabulary;
import io.molfuse.models.MoleculeBatches;
import io.molfuse.models.StagedBatch;
import io.molfuse.train.DataLoader;
import io.molfuse.train.StagingRing;
import java.util.BitSet;
import java.util.List;

/** The molecules of a run, in memory or read again each epoch. */
interface TrainingData {
  /** Molecules of a file that is not kept in memory from which its properties are estimated. */
  int MOST_FOR_STATISTICS = 100_000;

  /** Parted in those to train on and those to validate with. */
  interface Parts {
    int train();

    /** How many to validate with; may be 0. */
    int validation();

    /** Batches to train on, each epoch in an order of its own. */
    DataLoader.Builder<StagedBatch> trainBatches(Configuration configuration, StagingRing ring);

    /** Batches to validate with, if there are any. */
    DataLoader.Builder<StagedBatch> validationBatches(Configuration configuration, StagingRing ring);

    /** The molecules to train on. */
    KnownMolecules known();

    /** How the properties that the model is conditioned on are distributed over the molecules to train on; none without conditions. */
    List<PropertyStatistics> statistics(Configuration configuration);
  }

  int size();

  Vocabulary vocabulary();

  BadRecordReport report();

  String fingerprint();

  TrainingData shortened(int maxLength);

  /** A share of 0 keeps all for training. */
  Parts parts(double validationShare);

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
    public Parts parts(double validationShare) {
      MoleculeDataset.Split split = molecules.splitByHash(validationShare);
      return new Parts() {
        private PropertyTable properties;

        private PropertyTable properties(Configuration configuration) {
          if (properties == null) {
            properties = table(molecules, configuration);
          }
          return properties;
        }

        @Override
        public int train() {
          return split.train().length;
        }

        @Override
        public int validation() {
          return split.validation().length;
        }

        @Override
        public DataLoader.Builder<StagedBatch> trainBatches(Configuration configuration, StagingRing ring) {
          TrainingSettings training = configuration.training();
          return MoleculeBatches.staged(
              molecules, properties(configuration), split.train(), training.batchSize(), true, training.seed(), ring);
        }

        @Override
        public DataLoader.Builder<StagedBatch> validationBatches(Configuration configuration, StagingRing ring) {
          return inOrder(molecules, properties(configuration), split.validation(), configuration, ring);
        }

        @Override
        public KnownMolecules known() {
          return KnownMolecules.of(molecules, split.train());
        }

        @Override
        public List<PropertyStatistics> statistics(Configuration configuration) {
          PropertyTable table = properties(configuration);
          return table == null ? List.of() : table.statistics(split.train());
        }
      };
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
    public Parts parts(double validationShare) {
      BitSet validation = molecules.validationByHash(validationShare);
      BitSet train = new BitSet();
      train.set(0, molecules.size());
      train.andNot(validation);
      return new Parts() {
        @Override
        public int train() {
          return train.cardinality();
        }

        @Override
        public int validation() {
          return validation.cardinality();
        }

        @Override
        public DataLoader.Builder<StagedBatch> trainBatches(Configuration configuration, StagingRing ring) {
          TrainingSettings training = configuration.training();
          return MoleculeBatches.streamed(
              molecules,
              configuration.model().condition().properties(),
              PropertyFunction.standard(),
              train,
              training.batchSize(),
              configuration.data().shuffleBuffer(),
              training.seed(),
              ring);
        }

        @Override
        public DataLoader.Builder<StagedBatch> validationBatches(Configuration configuration, StagingRing ring) {
          MoleculeDataset loaded = molecules.load(validation);
          return inOrder(loaded, table(loaded, configuration), loaded.entries(), configuration, ring);
        }

        @Override
        public KnownMolecules known() {
          return molecules.known(train);
        }

        @Override
        public List<PropertyStatistics> statistics(Configuration configuration) {
          if (!configuration.model().condition().any()) {
            return List.of();
          }
          MoleculeDataset some = molecules.load(some(train, MOST_FOR_STATISTICS));
          return table(some, configuration).statistics(some.entries());
        }
      };
    }
  }

  /** At most so many of the entries, evenly spread: files are often sorted. */
  private static BitSet some(BitSet entries, int most) {
    int size = entries.cardinality();
    BitSet chosen = new BitSet();
    long place = 0;
    for (int entry = entries.nextSetBit(0); entry >= 0; entry = entries.nextSetBit(entry + 1), place++) {
      if (size <= most || place * most / size != (place + 1) * most / size) {
        chosen.set(entry);
      }
    }
    return chosen;
  }

  /** Null without conditions. */
  private static PropertyTable table(MoleculeDataset molecules, Configuration configuration) {
    List<MolecularProperty> properties = configuration.model().condition().properties();
    return properties.isEmpty() ? null : PropertyTable.of(molecules, properties, PropertyFunction.standard(), configuration.data().threads());
  }

  private static DataLoader.Builder<StagedBatch> inOrder(
      MoleculeDataset molecules, PropertyTable properties, int[] entries, Configuration configuration, StagingRing ring) {
    return MoleculeBatches.staged(molecules, properties, entries, configuration.training().batchSize(), false, 0, ring);
  }
}

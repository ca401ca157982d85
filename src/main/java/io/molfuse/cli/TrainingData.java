// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.BadRecordReport;
import io.molfuse.chem.KnownMolecules;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeStream;
import io.molfuse.chem.Vocabulary;
import io.molfuse.models.MoleculeBatches;
import io.molfuse.models.StagedBatch;
import io.molfuse.train.DataLoader;
import io.molfuse.train.StagingRing;
import java.util.BitSet;

/** The molecules of a run, in memory or read again each epoch. */
interface TrainingData {
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
          return MoleculeBatches.staged(molecules, split.train(), training.batchSize(), true, training.seed(), ring);
        }

        @Override
        public DataLoader.Builder<StagedBatch> validationBatches(Configuration configuration, StagingRing ring) {
          return inOrder(molecules, split.validation(), configuration, ring);
        }

        @Override
        public KnownMolecules known() {
          return KnownMolecules.of(molecules, split.train());
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
              molecules, train, training.batchSize(), configuration.data().shuffleBuffer(), training.seed(), ring);
        }

        @Override
        public DataLoader.Builder<StagedBatch> validationBatches(Configuration configuration, StagingRing ring) {
          MoleculeDataset loaded = molecules.load(validation);
          return inOrder(loaded, loaded.entries(), configuration, ring);
        }

        @Override
        public KnownMolecules known() {
          return molecules.known(train);
        }
      };
    }
  }

  private static DataLoader.Builder<StagedBatch> inOrder(
      MoleculeDataset molecules, int[] entries, Configuration configuration, StagingRing ring) {
    return MoleculeBatches.staged(molecules, entries, configuration.training().batchSize(), false, 0, ring);
  }
}

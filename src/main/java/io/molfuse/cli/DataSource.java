// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeRecords;
import io.molfuse.chem.MoleculeStream;
import io.molfuse.chem.Vocabulary;
import java.nio.file.Files;
import java.nio.file.Path;

/** Opens what data.path says: a file, a folder that prepare wrote, or the bundled molecules. */
final class DataSource {
  /** The molecules of a run that is not given others. */
  static final String BUNDLED = "moses-25k";

  private final Console console;

  DataSource(Console console) {
    this.console = console;
  }

  /** Keeps the molecules in memory if the preset for so many does; those for more read them again. */
  TrainingData bySize(Configuration.Data from, int maxLength) {
    Path file = Path.of(from.path());
    if (Files.isDirectory(file)) {
      return prepared(file, from, maxLength, null);
    }
    console.say("reading    %s", file);
    MoleculeDataset some = MoleculeDataset.load(file, options(from, maxLength, null).limit(Preset.MEDIUM_DATA));
    if (some.size() < Preset.MEDIUM_DATA) {
      return reported(new TrainingData.InMemory(some));
    }
    return reported(new TrainingData.Streamed(MoleculeStream.open(file, options(from, maxLength, null))));
  }

  /** A vocabulary of null is made of the molecules. */
  TrainingData load(Configuration.Data from, Configuration.Access access, int maxLength, Vocabulary vocabulary) {
    Path data = from.path() == null ? null : Path.of(from.path());
    if (data != null && Files.isDirectory(data)) {
      return prepared(data, from, maxLength, vocabulary);
    }
    MoleculeDataset.Options how = options(from, maxLength, vocabulary);
    console.say("reading    %s", data == null ? "the bundled molecules (" + BUNDLED + ")" : data);
    if (access == Configuration.Access.STREAMING) {
      return reported(new TrainingData.Streamed(data == null ? MoleculeStream.bundled(BUNDLED, how) : MoleculeStream.open(data, how)));
    }
    return reported(new TrainingData.InMemory(data == null ? MoleculeDataset.bundled(BUNDLED, how) : MoleculeDataset.load(data, how)));
  }

  /** The preset says how they are read, and may be chosen by how many they are. */
  private TrainingData prepared(Path folder, Configuration.Data from, int maxLength, Vocabulary vocabulary) {
    if (!MoleculeRecords.isPrepared(folder)) {
      throw new FailureException(
          String.format("%s is a folder that holds no prepared molecules; molfuse prepare %s --output DIR makes one of its files", folder, folder));
    }
    console.say("reading    %s, as prepared", folder);
    MoleculeRecords.Options how =
        new MoleculeRecords.Options().maxLength(maxLength).maxVocab(from.maxVocabulary()).vocabulary(vocabulary);
    MoleculeRecords train = MoleculeRecords.open(folder, MoleculeRecords.Split.TRAIN, how);
    if (train.size() == 0) {
      throw new FailureException(folder + " has no molecules to train on");
    }
    MoleculeRecords validation = MoleculeRecords.open(folder, MoleculeRecords.Split.VAL, how.vocabulary(train.vocabulary()));
    return reported(new TrainingData.Prepared(train, validation));
  }

  private static MoleculeDataset.Options options(Configuration.Data from, int maxLength, Vocabulary vocabulary) {
    MoleculeDataset.Options how = new MoleculeDataset.Options().maxLength(maxLength).maxVocab(from.maxVocabulary());
    if (from.workers() > 0) {
      how.threads(from.workers());
    }
    return vocabulary == null ? how : how.vocabulary(vocabulary);
  }

  private TrainingData reported(TrainingData dataset) {
    if (dataset.report().total() > 0) {
      console.say("%s", dataset.report());
    }
    return dataset;
  }
}

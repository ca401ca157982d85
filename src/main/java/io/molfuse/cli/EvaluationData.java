// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.KnownMolecules;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeRecords;
import io.molfuse.models.VaeCheckpoint;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/**
 * The molecules that a model is evaluated with: those the user names, else those of its run. A run on a file has held some back for
 * validation; prepared folders have a test split; the bundled molecules have some of MOSES's test set.
 */
final class EvaluationData {
  /** Molecules of a reference set, at most. MOSES's test set has 176,000. */
  static final int MOST_REFERENCE = 200_000;

  private static final String BUNDLED_TEST = "moses-test-2k5";

  /**
   * Molecules with words for where they come from.
   *
   * @param name the words
   * @param molecules the molecules
   */
  record Named<T>(String name, T molecules) {}

  private final Console console;
  private final VaeCheckpoint.Loaded model;
  private final Configuration trained;
  private final Path given;
  private TrainingData.Parts parts;

  /**
   * Nothing is read yet.
   *
   * @param trained the run's configuration; null for a model that no run of this program made
   * @param given what the user names; null for the run's own
   */
  EvaluationData(Console console, VaeCheckpoint.Loaded model, Configuration trained, Path given) {
    this.console = console;
    this.model = model;
    this.trained = trained;
    this.given = given;
  }

  /** Molecules that the model has not been trained on, or those the user names, in the model's tokens. */
  Named<TrainingData.Loaded> heldOut() {
    Path path = path();
    if (path == null) {
      return new Named<>("the bundled " + BUNDLED_TEST, TrainingData.Loaded.all(MoleculeDataset.bundled(BUNDLED_TEST, options())));
    }
    if (Files.isDirectory(path)) {
      return split(path);
    }
    if (given != null) {
      return new Named<>(path.toString(), TrainingData.Loaded.all(reported(MoleculeDataset.load(path, options()))));
    }
    TrainingData.Loaded validation = parts().validation();
    if (validation.size() > 0) {
      return new Named<>("the validation molecules of " + path, validation);
    }
    console.say("%s has too few molecules to hold some back: these are those the model was trained on", path);
    return new Named<>(path.toString(), TrainingData.Loaded.all(MoleculeDataset.load(path, options())));
  }

  /** What is not novel. */
  Named<KnownMolecules> training() {
    Path path = path();
    if (path == null) {
      MoleculeDataset bundled = MoleculeDataset.bundled(DataSource.BUNDLED, new MoleculeDataset.Options().requireSelfies(false));
      return new Named<>("the bundled " + DataSource.BUNDLED, KnownMolecules.of(bundled));
    }
    if (Files.isDirectory(path)) {
      return new Named<>("the training split of " + path, new TrainingData.Records(open(path, MoleculeRecords.Split.TRAIN)).known());
    }
    if (given != null) {
      MoleculeDataset file = reported(MoleculeDataset.load(path, new MoleculeDataset.Options().requireSelfies(false)));
      return new Named<>(path.toString(), KnownMolecules.of(file));
    }
    return new Named<>("the training molecules of " + path, parts().train().known());
  }

  /**
   * Canonical SMILES of what generated molecules should be like.
   *
   * @param reference what the user names for it, or null
   * @return the molecules; null if there are none that the model has not been trained on
   */
  Named<List<String>> reference(Path reference) {
    if (reference == null && given != null && !Files.isDirectory(given)) {
      return null;
    }
    Named<TrainingData.Loaded> found = (reference == null ? this : new EvaluationData(console, model, trained, reference)).heldOut();
    MoleculeDataset molecules = found.molecules().molecules();
    return new Named<>(
        found.name(), Arrays.stream(found.molecules().entries()).limit(MOST_REFERENCE).mapToObj(molecules::smiles).toList());
  }

  /** Null for the bundled molecules. */
  private Path path() {
    if (given != null) {
      return given;
    }
    if (trained == null || trained.data().path() == null) {
      return null;
    }
    Path path = Path.of(trained.data().path());
    if (!Files.exists(path)) {
      throw new FailureException("the data the model was trained on, " + path + ", are gone; say with --data what to take");
    }
    return path;
  }

  private TrainingData.Parts parts() {
    if (parts == null) {
      int maxLength = model.model().config().decoder().maxLength();
      parts = new DataSource(console).load(trained.data(), trained.data().access(), maxLength, model.vocabulary()).parts(trained);
    }
    return parts;
  }

  private Named<TrainingData.Loaded> split(Path folder) {
    for (MoleculeRecords.Split split : List.of(MoleculeRecords.Split.TEST, MoleculeRecords.Split.VAL)) {
      MoleculeRecords records = open(folder, split);
      if (records.size() > 0) {
        return new Named<>("the " + split + " split of " + folder, TrainingData.Loaded.all(records.inMemory(MOST_REFERENCE)));
      }
    }
    throw new FailureException(folder + " has neither test nor validation molecules");
  }

  private MoleculeRecords open(Path folder, MoleculeRecords.Split split) {
    if (!MoleculeRecords.isPrepared(folder)) {
      throw new FailureException(folder + " is a folder that holds no prepared molecules");
    }
    MoleculeRecords.Options how =
        new MoleculeRecords.Options().vocabulary(model.vocabulary()).maxLength(model.model().config().decoder().maxLength());
    MoleculeRecords records = MoleculeRecords.open(folder, split, how);
    if (records.report().total() > 0) {
      console.say("%s", records.report());
    }
    return records;
  }

  private MoleculeDataset.Options options() {
    return new MoleculeDataset.Options().vocabulary(model.vocabulary()).maxLength(model.model().config().decoder().maxLength());
  }

  private MoleculeDataset reported(MoleculeDataset molecules) {
    if (molecules.report().total() > 0) {
      console.say("%s", molecules.report());
    }
    return molecules;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.Vocabulary;
import io.molfuse.models.MolecularVae;
import io.molfuse.models.VaeCheckpoint;
import io.molfuse.ops.Molfuse;
import io.molfuse.train.LearningRateSchedule;
import io.molfuse.train.RunDirectory;
import io.molfuse.train.TrainingConfig;
import io.molfuse.train.TrainingState;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.Callable;
import org.bytedeco.pytorch.global.torch.DeviceType;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;

/** Training from a data file, from the bundled molecules, or from where a run stopped. */
@Command(
    name = "train",
    sortOptions = false,
    description = {
      "Trains a molecular variational autoencoder and generates molecules with it.",
      "Without options: on the bundled molecules with a model sized to this machine, in a few minutes."
    })
final class TrainCommand implements Callable<Integer> {
  private static final String DEFAULT_OUTPUT = "molfuse-run";
  private static final String BUNDLED = "moses-25k";
  private static final int MAX_VOCABULARY = 512;
  private static final Map<String, Double> RATE_FACTORS = Map.of("encoder", 1.0, "decoder", 1.2, "latent", 0.8);

  private final Console console;

  @Mixin private TrainOptions options;
  @Mixin private DeviceOptions device;
  @Mixin private CommonOptions common;

  TrainCommand(Console console) {
    this.console = console;
  }

  @Override
  public Integer call() {
    checkOptions();
    DeviceType deviceType = device.select();
    return options.resume == null ? start(deviceType) : resume(deviceType);
  }

  private void checkOptions() {
    atLeast("--max-steps", options.maxSteps, 1);
    atLeast("--epochs", options.epochs, 1);
    atLeast("--batch-size", options.batchSize, 1);
    atLeast("--log-every", options.logEvery, 1);
    atLeast("--samples", options.samples, 0);
    atLeast("--beta", options.beta, 0);
    finite("--beta", options.beta);
    above0("--max-minutes", options.maxMinutes);
    above0("--learning-rate", options.learningRate);
    if (options.resume != null) {
      refuseWithResume("--data", options.data);
      refuseWithResume("--preset", options.preset);
      refuseWithResume("--batch-size", options.batchSize);
      refuseWithResume("--learning-rate", options.learningRate);
      refuseWithResume("--beta", options.beta);
      refuseWithResume("--seed", options.seed);
      refuseWithResume("--output", options.output);
      refuseWithResume("--overwrite", options.overwrite ? true : null);
    }
  }

  private static void atLeast(String name, Number value, long least) {
    if (value != null && !(value.doubleValue() >= least)) {
      throw new UsageException(name + " must be at least " + least + ", but is " + value);
    }
  }

  private static void finite(String name, Double value) {
    if (value != null && !Double.isFinite(value)) {
      throw new UsageException(name + " must be a finite number, but is " + value);
    }
  }

  private static void above0(String name, Double value) {
    if (value != null && !(value > 0)) {
      throw new UsageException(name + " must be above 0, but is " + value);
    }
    finite(name, value);
  }

  private static void refuseWithResume(String name, Object value) {
    if (value != null) {
      throw new UsageException(name + " cannot be given with --resume, which keeps the run's own");
    }
  }

  private int start(DeviceType deviceType) {
    try (RunDirectory run = output()) {
      return start(run, deviceType);
    }
  }

  private int start(RunDirectory run, DeviceType deviceType) {
    Preset.Name name = options.preset;
    if (name == null && options.data == null) {
      name = Preset.forMachine(Molfuse.capabilities().cpuThreads(), deviceType == DeviceType.CUDA);
    }
    MoleculeDataset dataset =
        load(options.data, name == null ? Preset.longestForData() : Preset.load(name).model().decoder().maxLength(), null);
    if (name == null) {
      name = Preset.forData(dataset.size());
    }
    Preset preset = Preset.load(name);
    dataset = dataset.shortened(preset.model().decoder().maxLength());
    boolean demonstration = options.preset == null && options.data == null;
    double minutes = (demonstration ? Preset.load(Preset.Name.QUICK) : preset).training().maxMinutes();
    int batchSize = options.batchSize == null ? preset.training().batchSize() : options.batchSize;
    RunSettings settings =
        new RunSettings(
            name.toString(),
            options.data == null ? null : options.data.toAbsolutePath().normalize().toString(),
            dataset.size(),
            dataset.fingerprint(),
            batchSize,
            options.beta == null ? preset.training().beta() : options.beta,
            training(preset.training(), minutes, batchSize, dataset.size()));
    if (options.overwrite) {
      run.replaceEarlier();
    }
    try (MolecularVae model = new MolecularVae(preset.model(), dataset.vocabulary().size(), seed(), deviceType)) {
      return session(run, settings, dataset, model, null).run(TrainingState.START);
    }
  }

  private long seed() {
    return options.seed == null ? 0 : options.seed;
  }

  private int resume(DeviceType deviceType) {
    Path directory = VaeCheckpoint.open(options.resume, RunDirectory.LAST).directory().toAbsolutePath().getParent();
    if (!RunDirectory.holdsRun(directory)) {
      throw new FailureException(
          String.format(
              "cannot resume %s: the folder %s it lies in holds no run, for it has no file \"%s\"",
              options.resume, directory, RunDirectory.LAST));
    }
    try (RunDirectory run = locked(directory)) {
      // Whoever had the folder until now may have moved the label on.
      return resume(run, VaeCheckpoint.open(options.resume, RunDirectory.LAST), deviceType);
    }
  }

  private int resume(RunDirectory run, VaeCheckpoint checkpoint, DeviceType deviceType) {
    RunSettings saved = checkpoint.settings(RunSettings.class);
    try (VaeCheckpoint.Loaded loaded = checkpoint.load(deviceType)) {
      Path data = saved.data() == null ? null : Path.of(saved.data());
      MoleculeDataset dataset = load(data, loaded.model().config().decoder().maxLength(), loaded.vocabulary());
      requireSameData(saved, dataset);
      RunSettings settings =
          new RunSettings(
              saved.preset(),
              saved.data(),
              saved.molecules(),
              dataset.fingerprint(),
              saved.batchSize(),
              saved.beta(),
              limits(saved.training()));
      return session(run, settings, dataset, loaded.model(), checkpoint).run(checkpoint.state());
    }
  }

  private static void requireSameData(RunSettings saved, MoleculeDataset dataset) {
    String data = saved.data() == null ? "the bundled data" : saved.data();
    if (dataset.size() != saved.molecules()) {
      throw new FailureException(
          String.format(
              "cannot resume: %s has %d molecules now, but had %d when the run was started",
              data, dataset.size(), saved.molecules()));
    }
    if (saved.dataHash() != null && !saved.dataHash().equals(dataset.fingerprint())) {
      throw new FailureException(
          "cannot resume: " + data + " has other molecules, or another order, than when the run was started");
    }
  }

  private TrainSession session(
      RunDirectory run, RunSettings settings, MoleculeDataset dataset, MolecularVae model, VaeCheckpoint from) {
    return new TrainSession(console, run, settings, dataset, model, from, options.samples, options.json);
  }

  private RunDirectory output() {
    if (options.output == null && !options.overwrite) {
      return freeDefault();
    }
    Path directory = options.output == null ? Path.of(DEFAULT_OUTPUT) : options.output;
    RunDirectory run = locked(directory);
    if (RunDirectory.holdsRun(directory) && !options.overwrite) {
      run.close();
      throw new FailureException(
          String.format(
              "%s holds an earlier run: continue it with --resume %s, delete it with --overwrite, or choose another folder",
              directory, directory));
    }
    return run;
  }

  /** The first of the default folders that neither holds a run nor is about to. */
  private static RunDirectory freeDefault() {
    for (int i = 1; ; i++) {
      Path directory = Path.of(i == 1 ? DEFAULT_OUTPUT : DEFAULT_OUTPUT + "-" + i);
      if (RunDirectory.holdsRun(directory)) {
        continue;
      }
      RunDirectory run = RunDirectory.prepare(directory);
      // Whoever had the folder until now may have saved.
      if (run.tryLock() && !RunDirectory.holdsRun(directory)) {
        return run;
      }
      run.close();
    }
  }

  private static RunDirectory locked(Path directory) {
    RunDirectory run = RunDirectory.prepare(directory);
    if (!run.tryLock()) {
      throw new FailureException(directory + " is in use by another run");
    }
    return run;
  }

  private MoleculeDataset load(Path data, int maxLength, Vocabulary vocabulary) {
    MoleculeDataset.Options how = new MoleculeDataset.Options().maxLength(maxLength).maxVocab(MAX_VOCABULARY);
    if (vocabulary != null) {
      how.vocabulary(vocabulary);
    }
    console.say("reading    %s", data == null ? "the bundled molecules (" + BUNDLED + ")" : data);
    MoleculeDataset dataset = data == null ? MoleculeDataset.bundled(BUNDLED, how) : MoleculeDataset.load(data, how);
    if (dataset.report().total() > 0) {
      console.say("%s", dataset.report());
    }
    return dataset;
  }

  private TrainingConfig training(Preset.Training preset, double usualMinutes, int batchSize, int molecules) {
    boolean bySteps = options.maxSteps != null;
    long epochs = options.epochs != null ? options.epochs : bySteps ? 0 : preset.epochs();
    // Who says how many steps or epochs means them.
    boolean limited = bySteps || options.epochs != null;
    double minutes = options.maxMinutes != null ? options.maxMinutes : limited ? 0 : usualMinutes;
    TrainingConfig config =
        config(preset, epochs, bySteps ? options.maxSteps : 0, minutes * 60, preset.warmupSteps());
    // A short run should not spend itself on warming up.
    long steps = config.totalSteps((molecules - 1) / batchSize + 1);
    return config(preset, epochs, config.maxSteps(), minutes * 60, Math.min(preset.warmupSteps(), steps / 10));
  }

  private TrainingConfig config(Preset.Training preset, long epochs, long maxSteps, double seconds, long warmupSteps) {
    return new TrainingConfig(
        epochs,
        maxSteps,
        seconds,
        options.learningRate == null ? preset.learningRate() : options.learningRate,
        RATE_FACTORS,
        new LearningRateSchedule(preset.schedule(), warmupSteps, preset.minRatio()),
        preset.weightDecay(),
        preset.clipNorm(),
        preset.accumulation(),
        options.logEvery == null ? 0 : options.logEvery,
        preset.checkpointMinutes() * 60,
        seed());
  }

  /**
   * A resumed run's training with the limits and the logging that were asked for now. As at a run's start, who says how many
   * steps or epochs means them: an earlier time limit does not hold any more.
   */
  private TrainingConfig limits(TrainingConfig saved) {
    boolean moreSteps = options.maxSteps != null;
    double savedSeconds = moreSteps || options.epochs != null ? 0 : saved.maxSeconds();
    return new TrainingConfig(
        options.epochs != null ? options.epochs : moreSteps ? 0 : saved.epochs(),
        moreSteps ? options.maxSteps : options.epochs != null ? 0 : saved.maxSteps(),
        options.maxMinutes != null ? options.maxMinutes * 60 : savedSeconds,
        saved.learningRate(),
        saved.rateFactors(),
        saved.schedule(),
        saved.weightDecay(),
        saved.clipNorm(),
        saved.accumulation(),
        options.logEvery != null ? options.logEvery : saved.logEvery(),
        saved.checkpointSeconds(),
        saved.seed(),
        saved.precision());
  }
}

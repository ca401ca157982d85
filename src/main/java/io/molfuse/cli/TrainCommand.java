// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.Vocabulary;
import io.molfuse.models.MolecularVae;
import io.molfuse.models.ModelConfig;
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
    above0("--max-minutes", options.maxMinutes);
    above0("--learning-rate", options.learningRate);
    if (options.resume != null) {
      refuseWithResume("--data", options.data);
      refuseWithResume("--preset", options.preset);
      refuseWithResume("--batch-size", options.batchSize);
      refuseWithResume("--learning-rate", options.learningRate);
      refuseWithResume("--beta", options.beta);
      refuseWithResume("--output", options.output);
      refuseWithResume("--overwrite", options.overwrite ? true : null);
    }
  }

  private static void atLeast(String name, Number value, long least) {
    if (value != null && !(value.doubleValue() >= least)) {
      throw new UsageException(name + " must be at least " + least + ", but is " + value);
    }
  }

  private static void above0(String name, Double value) {
    if (value != null && !(value > 0 && value < Double.POSITIVE_INFINITY)) {
      throw new UsageException(name + " must be above 0, but is " + value);
    }
  }

  private static void refuseWithResume(String name, Object value) {
    if (value != null) {
      throw new UsageException(name + " cannot be given with --resume, which keeps the run's own");
    }
  }

  private int start(DeviceType deviceType) {
    RunDirectory run = output();
    MoleculeDataset dataset = load(options.data, Preset.load(Preset.Name.QUICK).model(), null);
    Preset.Name name = options.preset;
    if (name == null) {
      name =
          options.data == null
              ? Preset.forMachine(Molfuse.capabilities().cpuThreads(), deviceType == DeviceType.CUDA)
              : Preset.forData(dataset.size());
    }
    Preset preset = Preset.load(name);
    boolean demonstration = options.preset == null && options.data == null;
    double minutes = (demonstration ? Preset.load(Preset.Name.QUICK) : preset).training().maxMinutes();
    int batchSize = options.batchSize == null ? preset.training().batchSize() : options.batchSize;
    RunSettings settings =
        new RunSettings(
            name.toString(),
            options.data == null ? null : options.data.toAbsolutePath().normalize().toString(),
            dataset.size(),
            batchSize,
            options.beta == null ? preset.training().beta() : options.beta,
            training(preset.training(), minutes, batchSize, dataset.size()));
    if (options.overwrite) {
      run.clear();
    }
    try (MolecularVae model = new MolecularVae(preset.model(), dataset.vocabulary().size(), options.seed, deviceType)) {
      return session(run, settings, dataset, model, null).run(TrainingState.START);
    }
  }

  private int resume(DeviceType deviceType) {
    VaeCheckpoint checkpoint = VaeCheckpoint.open(options.resume, RunDirectory.LAST);
    RunSettings saved = checkpoint.settings(RunSettings.class);
    RunDirectory run = RunDirectory.prepare(checkpoint.directory().toAbsolutePath().getParent());
    try (VaeCheckpoint.Loaded loaded = checkpoint.load(deviceType)) {
      Path data = saved.data() == null ? null : Path.of(saved.data());
      MoleculeDataset dataset = load(data, loaded.model().config(), loaded.vocabulary());
      if (dataset.size() != saved.molecules()) {
        throw new FailureException(
            String.format(
                "cannot resume: %s has %d molecules now, but had %d when the run was started",
                data, dataset.size(), saved.molecules()));
      }
      RunSettings settings =
          new RunSettings(
              saved.preset(), saved.data(), saved.molecules(), saved.batchSize(), saved.beta(), limits(saved.training()));
      return session(run, settings, dataset, loaded.model(), checkpoint).run(checkpoint.state());
    }
  }

  private TrainSession session(
      RunDirectory run, RunSettings settings, MoleculeDataset dataset, MolecularVae model, VaeCheckpoint from) {
    return new TrainSession(console, run, settings, dataset, model, from, options.samples, options.json);
  }

  private RunDirectory output() {
    Path directory = options.output;
    if (directory == null) {
      directory = Path.of(DEFAULT_OUTPUT);
      for (int i = 2; RunDirectory.holdsRun(directory) && !options.overwrite; i++) {
        directory = Path.of(DEFAULT_OUTPUT + "-" + i);
      }
    } else if (RunDirectory.holdsRun(directory) && !options.overwrite) {
      throw new FailureException(
          String.format(
              "%s holds an earlier run: continue it with --resume %s, delete it with --overwrite, or choose another folder",
              directory, directory));
    }
    return RunDirectory.prepare(directory);
  }

  private MoleculeDataset load(Path data, ModelConfig model, Vocabulary vocabulary) {
    MoleculeDataset.Options how =
        new MoleculeDataset.Options().maxLength(model.decoder().maxLength()).maxVocab(MAX_VOCABULARY);
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
    long steps = config.totalSteps(Math.max(1, (molecules + batchSize - 1) / batchSize));
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
        options.seed);
  }

  /** A resumed run's training with the limits and the logging that were asked for now. */
  private TrainingConfig limits(TrainingConfig saved) {
    boolean moreSteps = options.maxSteps != null;
    return new TrainingConfig(
        options.epochs != null ? options.epochs : moreSteps ? 0 : saved.epochs(),
        moreSteps ? options.maxSteps : options.epochs != null ? 0 : saved.maxSteps(),
        options.maxMinutes != null ? options.maxMinutes * 60 : saved.maxSeconds(),
        saved.learningRate(),
        saved.rateFactors(),
        saved.schedule(),
        saved.weightDecay(),
        saved.clipNorm(),
        saved.accumulation(),
        options.logEvery != null ? options.logEvery : saved.logEvery(),
        saved.checkpointSeconds(),
        saved.seed());
  }
}

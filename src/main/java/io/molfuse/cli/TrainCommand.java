// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.models.ModelConfig;
import io.molfuse.models.MolecularVae;
import io.molfuse.models.VaeCheckpoint;
import io.molfuse.ops.Molfuse;
import io.molfuse.train.RunDirectory;
import io.molfuse.train.TrainingState;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.function.Predicate;
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

  /** What the run on the bundled molecules has of the quick preset, whatever its size. */
  private static final List<String> LIMIT = List.of("training", "max_minutes");

  private final Console console;
  private final DataSource source;
  private final Predicate<TrainingState> pause;

  @Mixin private TrainOptions options;
  @Mixin private DeviceOptions device;
  @Mixin private CommonOptions common;

  TrainCommand(Console console) {
    this(console, state -> false);
  }

  /** Trains as long as a search wants. */
  TrainCommand(Console console, Predicate<TrainingState> pause) {
    this.console = console;
    source = new DataSource(console);
    this.pause = pause;
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
      refuseWithResume("--config", options.config);
      refuseWithResume("--batch-size", options.batchSize);
      refuseWithResume("--learning-rate", options.learningRate);
      refuseWithResume("--beta", options.beta);
      refuseWithResume("--precision", options.precision);
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
    Overrides overrides = overrides();
    Setting given = overrides.over(Preset.defaults());
    Preset.Name name = SettingBinder.part(Preset.Name.class, Configuration.class, given, "preset");
    Configuration.Data data = SettingBinder.part(Configuration.Data.class, Configuration.class, given, "data");
    boolean demonstration = name == null && data.path() == null && options.config == null;
    if (name == null && data.path() == null) {
      name = Preset.forMachine(Molfuse.capabilities().cpuThreads(), deviceType == DeviceType.CUDA);
    }
    int longest = longest(name, overrides);
    boolean chosen = name != null || overrides.has("data.access");
    Configuration.Access access = name == null ? data.access() : accessOf(overrides.over(Preset.settings(name)));
    TrainingData dataset = chosen ? source.load(data, access, longest, null) : source.bySize(data, longest);
    if (name == null) {
      name = Preset.forData(dataset.size());
    }
    Setting preset = Preset.settings(name);
    if (demonstration) {
      preset = preset.with(LIMIT, Preset.settings(Preset.Name.QUICK).at(String.join(".", LIMIT)));
    }
    Configuration configuration = effective(name, overrides, preset, dataset.size());
    dataset = dataset.shortened(configuration.model().decoder().maxLength());
    RunSettings settings = new RunSettings(dataset.size(), dataset.fingerprint());
    if (options.overwrite) {
      run.replaceEarlier();
    }
    long seed = configuration.training().seed();
    try (MolecularVae model = new MolecularVae(configuration.model(), dataset.vocabulary().size(), seed, deviceType)) {
      return session(run, configuration, settings, dataset, model, null).run();
    }
  }

  /** What the user says, from the weakest to the strongest. */
  private Overrides overrides() {
    Overrides overrides = new Overrides();
    if (options.config != null) {
      overrides.file(options.config);
    }
    overrides.option("--preset", options.preset, "preset");
    overrides.option("--data", options.data == null ? null : options.data.toAbsolutePath().normalize(), "data.path");
    // Who says how many steps or epochs means them.
    if (options.maxSteps != null || options.epochs != null) {
      String limit = options.maxSteps != null ? "--max-steps" : "--epochs";
      overrides.implied(limit, 0, "training.max_steps");
      overrides.implied(limit, 0, "training.epochs");
      overrides.implied(limit, 0, "training.max_minutes");
    }
    overrides.option("--max-steps", options.maxSteps, "training.max_steps");
    overrides.option("--epochs", options.epochs, "training.epochs");
    overrides.option("--max-minutes", options.maxMinutes, "training.max_minutes");
    overrides.option("--batch-size", options.batchSize, "training.batch_size");
    overrides.option("--learning-rate", options.learningRate, "training.learning_rate");
    overrides.option("--beta", options.beta, "training.beta");
    overrides.option("--precision", options.precision, "training.precision");
    overrides.option("--monitor", options.monitor ? true : null, "training.monitor");
    overrides.option("--seed", options.seed, "training.seed");
    overrides.option("--log-every", options.logEvery, "training.log_every");
    options.set.forEach(overrides::set);
    return overrides;
  }

  /**
   * The longest sequences that the preset, or any that may be chosen by the data, has. Mistakes in the configuration show before the
   * data are read, but for those that only one of several presets has.
   */
  private static int longest(Preset.Name name, Overrides overrides) {
    int longest = 0;
    RuntimeException refused = null;
    for (Preset.Name candidate : name == null ? Preset.BY_DATA : List.of(name)) {
      try {
        Configuration configuration = Configuration.of(overrides.over(Preset.settings(candidate)));
        longest = Math.max(longest, configuration.model().decoder().maxLength());
      } catch (UsageException | FailureException e) {
        refused = refused == null ? e : refused;
      }
    }
    if (longest == 0) {
      throw refused;
    }
    return longest;
  }

  private static Configuration effective(Preset.Name name, Overrides overrides, Setting preset, int molecules) {
    Setting setting = overrides.over(preset);
    Configuration configuration = Configuration.of(setting);
    TrainingSettings training = configuration.training();
    // A short run should not spend itself on warming up.
    long steps = training.config().totalSteps((molecules - 1) / training.batchSize() + 1);
    Overrides results = new Overrides();
    results.implied("preset", name, "preset");
    results.implied("short run", Math.min(training.warmupSteps(), steps / 10), "training.warmup_steps");
    if (configuration.data().path() != null) {
      results.implied("data", Path.of(configuration.data().path()).toAbsolutePath().normalize(), "data.path");
    }
    return Configuration.of(results.over(setting));
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
    RunSettings started = checkpoint.settings(RunSettings.class);
    Path file = checkpoint.directory().resolve(Configuration.FILE);
    Setting saved =
        YamlSettings.parse(checkpoint.text(Configuration.FILE), new Origin(Origin.Layer.FILE, file.toString(), 1));
    Overrides overrides = overrides();
    // A run of before there was a key has its default.
    Configuration configuration = Configuration.of(overrides.over(Preset.defaults().with(saved)));
    overrides.checkResumable();
    try (VaeCheckpoint.Loaded loaded = checkpoint.load(deviceType)) {
      Configuration.Data data = configuration.data();
      TrainingData dataset = source.load(data, data.access(), loaded.model().config().decoder().maxLength(), loaded.vocabulary());
      requireSameConditions(configuration, loaded.model().config(), file);
      requireSameData(configuration, started, dataset);
      RunSettings settings = new RunSettings(started.molecules(), dataset.fingerprint());
      return session(run, configuration, settings, dataset, loaded.model(), checkpoint).run();
    }
  }

  /** The loaders go by one of the two, the model by the other. */
  private static void requireSameConditions(Configuration configuration, ModelConfig model, Path file) {
    if (!configuration.model().condition().properties().equals(model.condition().properties())) {
      throw new FailureException(
          String.format(
              "cannot resume: %s has model.condition.properties %s, but the model of the same checkpoint was trained with %s",
              file, configuration.model().condition().properties(), model.condition().properties()));
    }
  }

  private static void requireSameData(Configuration configuration, RunSettings saved, TrainingData dataset) {
    String data = configuration.data().path() == null ? "the bundled data" : configuration.data().path();
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
      RunDirectory run,
      Configuration configuration,
      RunSettings settings,
      TrainingData dataset,
      MolecularVae model,
      VaeCheckpoint from) {
    return new TrainSession(console, run, configuration, settings, dataset, model, from, options.samples, options.json)
        .pauseWhen(pause);
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

  private static Configuration.Access accessOf(Setting setting) {
    return SettingBinder.part(Configuration.Data.class, Configuration.class, setting, "data").access();
  }
}

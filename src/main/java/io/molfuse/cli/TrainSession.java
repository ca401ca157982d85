// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.GenerationMetrics;
import io.molfuse.chem.Selfies;
import io.molfuse.models.GenerationOptions;
import io.molfuse.models.Generator;
import io.molfuse.models.ModelConfig;
import io.molfuse.models.MolecularVae;
import io.molfuse.models.StagedBatch;
import io.molfuse.models.VaeCheckpoint;
import io.molfuse.models.VaeTask;
import io.molfuse.ops.Capabilities;
import io.molfuse.ops.DeviceMemory;
import io.molfuse.ops.Molfuse;
import io.molfuse.train.DataLoader;
import io.molfuse.train.EarlyStopping;
import io.molfuse.train.JsonLinesListener;
import io.molfuse.train.LoopState;
import io.molfuse.train.PerformanceListener;
import io.molfuse.train.PerformanceMonitor;
import io.molfuse.train.RunDirectory;
import io.molfuse.train.StagingRing;
import io.molfuse.train.TensorBoardListener;
import io.molfuse.train.Trainer;
import io.molfuse.train.TrainingState;
import io.molfuse.train.TrainingTask;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;

/** One sitting of a training run: shows what it does, trains, saves, and tries the model out. */
@SuppressWarnings("try") // A scope does its work by being open.
final class TrainSession {
  private static final int EXAMPLES = 5;

  /** Folder of the curves, in the run's. */
  private static final String CURVES = "tensorboard";

  /** Steps in which caches and clocks warm up. */
  private static final int WARMING_UP = 10;

  private static final double SECONDS_BETWEEN_SUMMARIES = 60;

  private final Console console;
  private final RunDirectory run;
  private final Configuration configuration;
  private final RunSettings settings;
  private final TrainingData data;
  private final MolecularVae model;
  private final VaeCheckpoint resumedFrom;
  private final int samples;
  private final boolean json;
  private Predicate<TrainingState> pause = state -> false;

  TrainSession(
      Console console,
      RunDirectory run,
      Configuration configuration,
      RunSettings settings,
      TrainingData data,
      MolecularVae model,
      VaeCheckpoint resumedFrom,
      int samples,
      boolean json) {
    this.console = console;
    this.run = run;
    this.configuration = configuration;
    this.settings = settings;
    this.data = data;
    this.model = model;
    this.resumedFrom = resumedFrom;
    this.samples = samples;
    this.json = json;
  }

  /** Pauses the run as {@link Trainer#pauseWhen} does. */
  TrainSession pauseWhen(Predicate<TrainingState> reached) {
    pause = reached;
    return this;
  }

  int run() {
    TrainingData.Parts parts = data.parts(configuration);
    RunReport report = new RunReport(run.directory(), configuration).data(data, parts);
    describe(parts);
    conditions(parts);
    Trainer.Result result;
    try (Device device = model.device();
        PerformanceMonitor monitor = configuration.training().monitor() ? PerformanceMonitor.of(device) : PerformanceMonitor.off();
        StagingRing ring = new StagingRing(device, workers() + 1).monitor(monitor);
        DataLoader<StagedBatch> batches = threads(parts.train().shuffled(configuration, ring));
        DataLoader<StagedBatch> validation = parts.validation().size() == 0 ? null : threads(parts.validation().inOrder(configuration, ring));
        EarlyStopping stopping = earlyStopping(validation);
        TensorBoardListener board = new TensorBoardListener(run.directory().resolve(CURVES), configuration);
        StepDisplay display = StepDisplay.choose(console);
        Trainer<StagedBatch> trainer = new Trainer<>(task(), batches, configuration.training().config())) {
      console.say("precision  %s", trainer.precision());
      double annealed = configuration.training().kl().schedule().end();
      if (annealed > trainer.totalSteps()) {
        console.say("warning: the run ends after %d steps, before training.kl.annealing does, after %.0f", trainer.totalSteps(), annealed);
      }
      trainer.validation(validation).listener(display).pauseWhen(pause);
      report.model(model.parameters().count(), trainer.precision().toString(), device(device));
      if (stopping != null) {
        trainer.earlyStopping(stopping);
      }
      if (resumedFrom != null) {
        resume(trainer, stopping);
      } else {
        forgetCurves();
      }
      if (json) {
        trainer.listener(new JsonSteps(console, trainer::requestStop));
      }
      if (configuration.training().tensorboard()) {
        trainer.listener(board);
      }
      if (monitor.isOn()) {
        PerformanceListener.Sink sink = summaries(display, board, trainer::requestStop);
        trainer.listener(new PerformanceListener(monitor, warmingUp(trainer), SECONDS_BETWEEN_SUMMARIES, sink));
      }
      Map<String, String> texts = Map.of(Configuration.FILE, configuration.yaml());
      trainer.checkpoints(
          (now, optimizer, labels) ->
              VaeCheckpoint.save(
                  run, model, data.vocabulary(), settings, texts, now, trainer.loopState(), optimizer, labels));
      result = train(trainer, device, report);
    }
    if (result.ending() == Trainer.Ending.STOPPED) {
      write(report);
      return interrupted(result);
    }
    if (result.ending() == Trainer.Ending.PAUSED) {
      write(report);
      return Main.SUCCESS;
    }
    if (result.checkpoint() == null) {
      throw new FailureException("the run in " + run.directory() + " is finished already: " + remedy(result.ending()));
    }
    finish(result, parts, report);
    return Main.SUCCESS;
  }

  /** A run that goes on keeps the statistics that its model learned with. */
  private void conditions(TrainingData.Parts parts) {
    if (!model.config().condition().any()) {
      return;
    }
    if (resumedFrom == null) {
      try {
        model.statistics(parts.train().statistics(configuration));
      } catch (IllegalArgumentException e) {
        throw new FailureException("cannot train with model.condition.properties: " + e.getMessage());
      }
    }
    model.statistics().forEach(
        one ->
            console.say(
                "condition  %s: mean %.4g, deviation %.4g; 98 of 100 molecules have %.4g to %.4g",
                one.property().label(), one.mean(), one.deviation(), one.low(), one.high()));
  }

  private static String remedy(Trainer.Ending ending) {
    return switch (ending) {
      case TIME_UP -> "give a larger --max-minutes, or --max-steps or --epochs";
      case EARLY_STOPPED -> "validation got no better; give a larger --set training.patience=N, or 0 for no limit";
      default -> "give a larger --max-steps or --epochs";
    };
  }

  /** Those of a run that this one replaces. */
  private void forgetCurves() {
    try {
      for (String file : List.of(RunHistory.FILE, RunReport.PAGE, RunReport.DATA)) {
        Files.deleteIfExists(run.directory().resolve(file));
      }
    } catch (IOException e) {
      throw new FailureException("cannot delete the history of the earlier run: " + e);
    }
    try (DirectoryStream<Path> files = Files.newDirectoryStream(run.directory().resolve(CURVES), "events.out.tfevents.*")) {
      for (Path file : files) {
        Files.delete(file);
      }
    } catch (NoSuchFileException e) {
      return;
    } catch (IOException e) {
      throw new FailureException("cannot delete the curves of the earlier run: " + e);
    }
  }

  private TrainingTask<StagedBatch> task() {
    model.checkpointing(configuration.training().checkpointing());
    return new VaeTask(model, configuration.training().klTerm()).staged();
  }

  private int workers() {
    return configuration.data().threads();
  }

  private DataLoader<StagedBatch> threads(DataLoader.Builder<StagedBatch> builder) {
    return builder.workers(workers()).build();
  }

  /** Null without validation, or if the configuration has no patience to end. */
  private EarlyStopping earlyStopping(DataLoader<StagedBatch> validation) {
    TrainingSettings training = configuration.training();
    return validation == null || training.patience() == 0
        ? null
        : new EarlyStopping(model.parameters().tensors(), training.patience(), training.minDelta());
  }

  private void resume(Trainer<StagedBatch> trainer, EarlyStopping stopping) {
    resumedFrom.loadOptimizer(trainer.optimizer());
    LoopState loop = resumedFrom.loop();
    TrainingState state = resumedFrom.state();
    try (PointerScope scope = new PointerScope()) {
      boolean restores = stopping != null && loop.stopping() != null && loop.stopping().bestLoss() != null;
      trainer.resume(state, loop, restores ? bestWeights(loop.stopping().bestStep()) : Map.of());
    }
    resumedFrom.loadRandom(model);
  }

  private Map<String, Tensor> bestWeights(long step) {
    if (step == resumedFrom.step()) {
      // A kill between the two labels of a save leaves the older one on an older checkpoint.
      run.point(RunDirectory.BEST, resumedFrom.directory());
      return model.parameters().tensors();
    }
    VaeCheckpoint best = VaeCheckpoint.open(run.directory(), RunDirectory.BEST);
    if (best.step() != step) {
      throw new FailureException(
          String.format(
              "cannot resume: the run was best at step %d, but its checkpoint \"best\" is %s; without early stopping it can go on:"
                  + " --set training.patience=0",
              step, best.directory()));
    }
    return best.weights();
  }

  /** A short sitting has to be measured by what it has. */
  private int warmingUp(Trainer<StagedBatch> trainer) {
    long done = resumedFrom == null ? 0 : resumedFrom.step();
    return (int) Math.min(WARMING_UP, Math.max(0, trainer.totalSteps() - done) / 4);
  }

  private PerformanceListener.Sink summaries(StepDisplay display, TensorBoardListener board, Runnable unread) {
    return (step, summary) -> {
      display.text(summary.text());
      board.performance(step, summary);
      if (json) {
        new JsonSteps(console, unread).performance(step, summary);
      }
    };
  }

  /** Trains so that Ctrl-C ends the current step and saves, and that what fails is reported, too. */
  private Trainer.Result train(Trainer<StagedBatch> trainer, Device device, RunReport report) {
    Runnable before = Shutdown.stopBy(trainer::requestStop);
    Molfuse.setFused(configuration.training().fused());
    try (JsonLinesListener history = JsonLinesListener.append(run.directory().resolve(RunHistory.FILE))) {
      return trainer.listener(history.readings(() -> memory(device))).run();
    } catch (IOException e) {
      throw new FailureException("cannot write " + run.directory().resolve(RunHistory.FILE) + ": " + e);
    } catch (RuntimeException | Error e) {
      write(report);
      throw e;
    } finally {
      Molfuse.setFused(true);
      Shutdown.stopBy(before);
    }
  }

  private static Map<String, Double> memory(Device device) {
    Map<String, Double> bytes = new LinkedHashMap<>();
    bytes.put("process_memory_bytes", (double) Pointer.physicalBytes());
    if (device.is_cuda()) {
      DeviceMemory memory = Molfuse.deviceMemory(Math.max(0, device.index()));
      bytes.put("device_memory_bytes", (double) memory.allocated());
      bytes.put("device_peak_bytes", (double) memory.peakAllocated());
    }
    return bytes;
  }

  /** A report that cannot be written is no reason to call a run failed. */
  private void write(RunReport report) {
    try {
      console.say("report     %s", report.write());
    } catch (IOException e) {
      console.say("cannot write the report: %s", e);
    }
  }

  private void describe(TrainingData.Parts parts) {
    ModelConfig config = model.config();
    Capabilities machine = Molfuse.capabilities();
    console.say(
        "molecules  %,d for training, %,d for validation; vocabulary of %d tokens",
        parts.train().size(), parts.validation().size(), model.vocabularySize());
    console.say(
        "model      %s: %.1f million parameters; encoder %d layers of %d, latent %d, decoder %d layers of %d",
        configuration.preset(),
        model.parameters().count() * 1e-6,
        config.encoder().layers(),
        config.encoder().width(),
        config.latent().size(),
        config.decoder().layers(),
        config.decoder().hidden());
    console.say("machine    %d threads, %s%s", machine.cpuThreads(), machine.cpuVectorLevel(), gpu());
    console.say("output     %s", run.directory());
  }

  /** Which GPU the model is on, as the end of a line; empty on the CPU. */
  private String gpu() {
    try (Device device = model.device()) {
      return device.is_cpu() ? "" : "; trains on " + device(device);
    }
  }

  private static String device(Device device) {
    return device.is_cpu() ? "cpu" : Molfuse.cudaDevice(Math.max(0, device.index())).name();
  }

  private int interrupted(Trainer.Result result) {
    if (result.state().step() > 0) {
      console.say(
          "stopped after step %d; continue with: molfuse train --resume %s", result.state().step(), run.directory());
    } else {
      console.say("stopped before the first step; nothing was saved");
    }
    if (json) {
      Map<String, Object> line = new LinkedHashMap<>();
      line.put("event", "interrupted");
      line.put("step", result.state().step());
      line.put("checkpoint", result.checkpoint() == null ? null : result.checkpoint().toString());
      console.json(line);
    }
    return Main.INTERRUPTED;
  }

  private void finish(Trainer.Result result, TrainingData.Parts parts, RunReport report) {
    TrainingState state = result.state();
    console.say(
        "trained %,d steps on %,d molecules in %.0f s; checkpoint %s",
        state.step(), state.samples(), state.elapsedSeconds(), result.checkpoint());
    if (result.ending() == Trainer.Ending.EARLY_STOPPED) {
      console.say("ended since validation got no better; the best weights are those of step %,d", state.bestStep());
    }
    List<String> selfies =
        new Generator(model, data.vocabulary())
            .sample(samples, GenerationOptions.seeded(configuration.training().seed()));
    GenerationMetrics metrics =
        GenerationMetrics.ofSelfies(selfies, Selfies.standard(), parts.train().known());
    write(report.generated(metrics));
    if (json) {
      console.json(finishedLine(result, metrics));
    }
    if (samples > 0) {
      report(metrics, json ? console.err() : console.out());
    }
  }

  private Map<String, Object> finishedLine(Trainer.Result result, GenerationMetrics metrics) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("event", "finished");
    line.put("step", result.state().step());
    line.put("checkpoint", result.checkpoint().toString());
    line.put("validity", JsonSteps.finite(metrics.validity()));
    line.put("uniqueness", JsonSteps.finite(metrics.uniqueness()));
    line.put("novelty", JsonSteps.finite(metrics.novelty()));
    line.put("generated", samples);
    line.put("best_validation_loss", JsonSteps.finite(result.state().bestLoss()));
    line.put("seconds", result.state().elapsedSeconds());
    line.put("ending", result.ending().name().toLowerCase(java.util.Locale.ROOT));
    return line;
  }

  private void report(GenerationMetrics metrics, java.io.PrintStream to) {
    to.printf(
        java.util.Locale.ROOT,
        "generated %d molecules: validity %.3f, uniqueness %.3f, novelty %.3f%n",
        samples,
        metrics.validity(),
        metrics.uniqueness(),
        metrics.novelty());
    List<String> examples = metrics.novelExamples().isEmpty() ? metrics.validExamples() : metrics.novelExamples();
    examples.stream().limit(EXAMPLES).forEach(smiles -> to.println("  " + smiles));
    to.printf("more with: molfuse generate --checkpoint %s -n 1000%n", run.directory());
    to.flush();
  }
}

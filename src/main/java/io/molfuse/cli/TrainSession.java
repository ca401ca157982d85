// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.GenerationMetrics;
import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.KnownMolecules;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.Selfies;
import io.molfuse.models.GenerationOptions;
import io.molfuse.models.Generator;
import io.molfuse.models.MolecularVae;
import io.molfuse.models.ModelConfig;
import io.molfuse.models.MoleculeBatches;
import io.molfuse.models.VaeCheckpoint;
import io.molfuse.models.VaeTask;
import io.molfuse.ops.Capabilities;
import io.molfuse.ops.Molfuse;
import io.molfuse.train.RunDirectory;
import io.molfuse.train.Trainer;
import io.molfuse.train.TrainingState;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Device;

/** One sitting of a training run: shows what it does, trains, saves, and tries the model out. */
final class TrainSession {
  /** Share of the molecules kept for validation, of data sets that have a hundred or more. */
  private static final double VALIDATION_SHARE = 0.02;

  private static final int SMALLEST_TO_SPLIT = 100;
  private static final int MAX_VALIDATION = 1000;
  private static final int EXAMPLES = 5;

  private final Console console;
  private final RunDirectory run;
  private final Configuration configuration;
  private final RunSettings settings;
  private final MoleculeDataset dataset;
  private final MolecularVae model;
  private final VaeCheckpoint resumedFrom;
  private final int samples;
  private final boolean json;

  TrainSession(
      Console console,
      RunDirectory run,
      Configuration configuration,
      RunSettings settings,
      MoleculeDataset dataset,
      MolecularVae model,
      VaeCheckpoint resumedFrom,
      int samples,
      boolean json) {
    this.console = console;
    this.run = run;
    this.configuration = configuration;
    this.settings = settings;
    this.dataset = dataset;
    this.model = model;
    this.resumedFrom = resumedFrom;
    this.samples = samples;
    this.json = json;
  }

  int run(TrainingState state) {
    MoleculeDataset.Split split = split();
    long seed = configuration.training().seed();
    MoleculeBatches batches = new MoleculeBatches(dataset, split.train(), configuration.training().batchSize(), true, seed);
    describe(split);
    Map<String, String> texts = Map.of(Configuration.FILE, configuration.yaml());
    Trainer.Result result;
    try (Trainer<GraphBatch> trainer =
            new Trainer<>(new VaeTask(model, configuration.training().beta()), batches, configuration.training().config()).resume(state);
        StepDisplay display = StepDisplay.choose(console)) {
      if (resumedFrom != null) {
        resumedFrom.loadOptimizer(trainer.optimizer());
      }
      if (split.validation().length > 0) {
        trainer.validation(new MoleculeBatches(dataset, split.validation(), configuration.training().batchSize(), false, seed));
      }
      if (json) {
        trainer.listener(new JsonSteps(console, trainer::requestStop));
      }
      trainer
          .listener(display)
          .checkpoints(
              (now, optimizer, labels) ->
                  VaeCheckpoint.save(run, model, dataset.vocabulary(), settings, texts, now, optimizer, labels));
      result = train(trainer);
    }
    if (result.ending() == Trainer.Ending.STOPPED) {
      return interrupted(result);
    }
    if (result.checkpoint() == null) {
      throw new FailureException(
          "the run in "
              + run.directory()
              + " is finished already: give a larger "
              + (result.ending() == Trainer.Ending.TIME_UP ? "--max-minutes, or --max-steps or --epochs" : "--max-steps or --epochs"));
    }
    finish(result, split);
    return Main.SUCCESS;
  }

  /** Trains so that Ctrl-C ends the current step and saves. */
  private static Trainer.Result train(Trainer<GraphBatch> trainer) {
    Shutdown.stopBy(trainer::requestStop);
    try {
      return trainer.run();
    } finally {
      Shutdown.stopBy(null);
    }
  }

  private MoleculeDataset.Split split() {
    MoleculeDataset.Split all = new MoleculeDataset.Split(dataset.entries(), new int[0]);
    if (dataset.size() < SMALLEST_TO_SPLIT) {
      return all;
    }
    MoleculeDataset.Split split =
        dataset.splitByHash(Math.min(VALIDATION_SHARE, (double) MAX_VALIDATION / dataset.size()));
    // Copies of one molecule are all on one side.
    return split.train().length == 0 ? all : split;
  }

  private void describe(MoleculeDataset.Split split) {
    ModelConfig config = model.config();
    Capabilities machine = Molfuse.capabilities();
    console.say(
        "molecules  %,d for training, %,d for validation; vocabulary of %d tokens",
        split.train().length, split.validation().length, model.vocabularySize());
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
      return device.is_cpu() ? "" : "; trains on " + Molfuse.cudaDevice(Math.max(0, device.index())).name();
    }
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

  private void finish(Trainer.Result result, MoleculeDataset.Split split) {
    TrainingState state = result.state();
    console.say(
        "trained %,d steps on %,d molecules in %.0f s; checkpoint %s",
        state.step(), state.samples(), state.elapsedSeconds(), result.checkpoint());
    List<String> selfies =
        new Generator(model, dataset.vocabulary())
            .sample(samples, GenerationOptions.seeded(configuration.training().seed()));
    GenerationMetrics metrics =
        GenerationMetrics.ofSelfies(selfies, Selfies.standard(), KnownMolecules.of(dataset, split.train()));
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

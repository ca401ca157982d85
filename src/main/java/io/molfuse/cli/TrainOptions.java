// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.train.Precision;
import java.nio.file.Path;
import java.util.List;
import picocli.CommandLine.Option;

/** The options of training. Boxed ones have no value unless given, so that the preset's or the resumed run's holds. */
final class TrainOptions {
  @Option(
      names = "--data",
      paramLabel = "PATH",
      description =
          "SMILES file, one molecule a line, optionally gzipped, or a folder that prepare wrote (default: the bundled 25,000 molecules).")
  Path data;

  @Option(
      names = "--config",
      paramLabel = "FILE",
      description = {
        "Configuration in YAML; what it does not say is as in the preset. docs/configuration.md lists the keys.",
        "Of several places that give one key, the later one holds: preset, this file, the other options, --set."
      })
  Path config;

  @Option(
      names = "--set",
      paramLabel = "KEY=VALUE",
      description = "Set any key of the configuration, such as training.beta=0.001; the value is YAML. May be given several times.")
  List<String> set = List.of();

  @Option(
      names = "--preset",
      paramLabel = "NAME",
      description = {
        "Size of model and training: tiny (seconds), quick (minutes), small, medium, large.",
        "Default: by the number of molecules: small below 50,000, medium up to 500,000, large; for the bundled molecules"
            + " by the machine: small with a GPU or eight threads, else quick."
      })
  Preset.Name preset;

  @Option(names = "--max-steps", paramLabel = "N", description = "End after N optimiser steps, however many epochs that is.")
  Long maxSteps;

  @Option(names = "--epochs", paramLabel = "N", description = "End after N passes over the data.")
  Long epochs;

  @Option(
      names = "--max-minutes",
      paramLabel = "N",
      description = "End training after N minutes; the learning rate follows the clock if it is ahead of the steps.")
  Double maxMinutes;

  @Option(names = "--batch-size", paramLabel = "N", description = "Molecules of a batch.")
  Integer batchSize;

  @Option(names = "--learning-rate", paramLabel = "X", description = "Base learning rate.")
  Double learningRate;

  @Option(names = "--beta", paramLabel = "X", description = "Weight of the Kullback-Leibler term.")
  Double beta;

  @Option(
      names = "--precision",
      paramLabel = "NAME",
      description = "Arithmetic to train in: fp32, tf32, bf16, fp16, or auto (default: the configuration's).")
  Precision precision;

  @Option(names = "--monitor", description = "Measure where the time goes, and show it each minute and at the end.")
  boolean monitor;

  @Option(
      names = "--seed",
      paramLabel = "S",
      description = "Decides initial parameters, order of molecules, dropout and samples (default: 0).")
  Long seed;

  @Option(
      names = "--output",
      paramLabel = "DIR",
      description = "Folder for checkpoints (default: molfuse-run, or molfuse-run-2 and so on if that holds a run).")
  Path output;

  @Option(names = "--overwrite", description = "Replace the run that the output folder holds, as soon as the new one saves its first checkpoint.")
  boolean overwrite;

  @Option(
      names = "--resume",
      paramLabel = "DIR",
      description = {
        "Continue the run in this folder from its last checkpoint, with its data and configuration.",
        "Of that, the limits, --log-every, --monitor, training.checkpoint_minutes, training.patience, training.tensorboard and"
            + " data.workers can be changed."
      })
  Path resume;

  @Option(names = "--log-every", paramLabel = "N", description = "Steps between logged steps (default: by the run's length).")
  Integer logEvery;

  @Option(
      names = "--samples",
      paramLabel = "N",
      defaultValue = "100",
      description = "Molecules to generate at the end (default: ${DEFAULT-VALUE}).")
  int samples;

  @Option(
      names = "--json",
      description = {
        "Write one JSON object per logged step to standard output: step, total_loss, recon_loss, kl_loss, perplexity,"
            + " token_accuracy, learning_rate, molecules_per_second and more; the last one has event=finished and"
            + " checkpoint, validity, uniqueness, novelty. With --monitor, those of its summaries have event=performance."
      })
  boolean json;
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static io.molfuse.cli.Configuration.atLeast;
import static io.molfuse.cli.Configuration.number;

import com.fasterxml.jackson.annotation.JsonProperty;
import io.molfuse.models.KlSchedule;
import io.molfuse.models.KlTerm;
import io.molfuse.train.LearningRateSchedule;
import io.molfuse.train.Precision;
import io.molfuse.train.TrainingConfig;
import java.util.Map;

/**
 * How to train, in the units of configuration files.
 *
 * @param batchSize molecules of a batch
 * @param accumulation batches per optimiser step
 * @param epochs passes over the data, 0 for no limit
 * @param maxSteps optimiser steps, 0 for no limit
 * @param maxMinutes time limit, 0 for none
 * @param learningRate base rate
 * @param rateFactors factors on it
 * @param schedule its course after the warm-up
 * @param warmupSteps steps to reach it
 * @param minRatio its end over its base
 * @param weightDecay of matrices
 * @param clipNorm limit of the gradients' norm, 0 for none
 * @param beta full weight of the Kullback-Leibler term
 * @param kl how the term counts besides
 * @param precision arithmetic
 * @param checkpointing whether the encoder's layers are computed again in backward
 * @param fused whether the fused operators compute, or chains of libtorch's own
 * @param seed decides initialisation, order and dropout
 * @param logEvery steps between reports, 0 to choose
 * @param checkpointMinutes time between checkpoints, 0 for one after each epoch
 * @param patience validations that may get no better, 0 for no limit
 * @param minDelta what a validation loss must be smaller by to be better
 * @param tensorboard whether to write curves
 * @param monitor whether to measure where the time goes
 */
record TrainingSettings(
    @JsonProperty(value = "batch_size", required = true) int batchSize,
    @JsonProperty(value = "accumulation", required = true) int accumulation,
    @JsonProperty(value = "epochs", required = true) long epochs,
    @JsonProperty(value = "max_steps", required = true) long maxSteps,
    @JsonProperty(value = "max_minutes", required = true) double maxMinutes,
    @JsonProperty(value = "learning_rate", required = true) double learningRate,
    @JsonProperty(value = "rate_factors", required = true) RateFactors rateFactors,
    @JsonProperty(value = "schedule", required = true) LearningRateSchedule.Kind schedule,
    @JsonProperty(value = "warmup_steps", required = true) long warmupSteps,
    @JsonProperty(value = "min_lr_ratio", required = true) double minRatio,
    @JsonProperty(value = "weight_decay", required = true) double weightDecay,
    @JsonProperty(value = "clip_norm", required = true) double clipNorm,
    @JsonProperty(value = "beta", required = true) double beta,
    @JsonProperty(value = "kl", required = true) Kl kl,
    @JsonProperty(value = "precision", required = true) Precision precision,
    @JsonProperty(value = "gradient_checkpointing", required = true) boolean checkpointing,
    @JsonProperty(value = "fused", required = true) boolean fused,
    @JsonProperty(value = "seed", required = true) long seed,
    @JsonProperty(value = "log_every", required = true) int logEvery,
    @JsonProperty(value = "checkpoint_minutes", required = true) double checkpointMinutes,
    @JsonProperty(value = "patience", required = true) int patience,
    @JsonProperty(value = "min_delta", required = true) double minDelta,
    @JsonProperty(value = "tensorboard", required = true) boolean tensorboard,
    @JsonProperty(value = "monitor", required = true) boolean monitor) {

  /**
   * Factors of the model's parts on the base rate.
   *
   * @param encoder of the encoder
   * @param decoder of the decoder
   * @param latent of what is between them
   */
  record RateFactors(
      @JsonProperty(value = "encoder", required = true) double encoder,
      @JsonProperty(value = "decoder", required = true) double decoder,
      @JsonProperty(value = "latent", required = true) double latent) {
    /** Checks the values. */
    RateFactors {
      atLeast("rate_factors.encoder", encoder, 0);
      atLeast("rate_factors.decoder", decoder, 0);
      atLeast("rate_factors.latent", latent, 0);
    }

    Map<String, Double> map() {
      return Map.of("encoder", encoder, "decoder", decoder, "latent", latent);
    }
  }

  /**
   * The Kullback-Leibler term.
   *
   * @param annealing course of its weight
   * @param steps of the rise, or of one cycle
   * @param cycles how many
   * @param rise share of a cycle in which the weight rises
   * @param freeBits what each latent dimension has of it without cost, in nats
   */
  record Kl(
      @JsonProperty(value = "annealing", required = true) KlSchedule.Kind annealing,
      @JsonProperty(value = "steps", required = true) long steps,
      @JsonProperty(value = "cycles", required = true) int cycles,
      @JsonProperty(value = "rise", required = true) double rise,
      @JsonProperty(value = "free_bits", required = true) double freeBits) {
    /** Checks the values. */
    Kl {
      new KlSchedule(annealing, steps, cycles, rise);
      atLeast("kl.free_bits", freeBits, 0);
    }

    KlSchedule schedule() {
      return new KlSchedule(annealing, steps, cycles, rise);
    }
  }

  /** Checks the values. */
  TrainingSettings {
    atLeast("training.batch_size", batchSize, 1);
    atLeast("training.accumulation", accumulation, 1);
    atLeast("training.epochs", epochs, 0);
    atLeast("training.max_steps", maxSteps, 0);
    atLeast("training.max_minutes", maxMinutes, 0);
    if (epochs == 0 && maxSteps == 0 && maxMinutes == 0) {
      throw new IllegalArgumentException("training.epochs, training.max_steps or training.max_minutes must be above 0, but all are 0");
    }
    if (!(learningRate > 0) || Double.isInfinite(learningRate)) {
      throw new IllegalArgumentException("training.learning_rate must be above 0, but is " + number(learningRate));
    }
    atLeast("training.warmup_steps", warmupSteps, 0);
    boolean exponential = schedule == LearningRateSchedule.Kind.EXPONENTIAL;
    if (!(minRatio >= 0 && minRatio <= 1) || (exponential && minRatio == 0)) {
      throw new IllegalArgumentException(
          "training.min_lr_ratio must be in 0..1"
              + (exponential ? ", and above 0 for training.schedule exponential" : "")
              + ", but is "
              + number(minRatio));
    }
    atLeast("training.weight_decay", weightDecay, 0);
    atLeast("training.clip_norm", clipNorm, 0);
    atLeast("training.beta", beta, 0);
    atLeast("training.log_every", logEvery, 0);
    atLeast("training.checkpoint_minutes", checkpointMinutes, 0);
    atLeast("training.patience", patience, 0);
    atLeast("training.min_delta", minDelta, 0);
  }

  /** @return what the task needs of it */
  KlTerm klTerm() {
    return new KlTerm(beta, kl.schedule(), kl.freeBits());
  }

  /** @return what the training loop needs of it */
  TrainingConfig config() {
    return new TrainingConfig(
        epochs,
        maxSteps,
        maxMinutes * 60,
        learningRate,
        rateFactors.map(),
        new LearningRateSchedule(schedule, warmupSteps, minRatio),
        weightDecay,
        clipNorm,
        accumulation,
        logEvery,
        checkpointMinutes * 60,
        seed,
        precision);
  }
}

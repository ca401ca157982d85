// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.Map;

/**
 * How to train.
 *
 * @param epochs passes over the data, 0 for no limit; the run ends when they, maxSteps or maxSeconds are over, whichever
 *     comes first
 * @param maxSteps optimiser steps, 0 for no limit
 * @param maxSeconds time of the loop, 0 for no limit; with a limit, the learning rate follows whichever is further, so that a
 *     slow machine too ends with a small rate
 * @param learningRate base rate
 * @param rateFactors factor of each parameter group on the base rate; 1 for a group not named
 * @param schedule the rate's course
 * @param weightDecay of matrices; vectors (biases, norms) have none
 * @param clipNorm joint norm the gradients are cut to, 0 for none
 * @param accumulation batches per optimiser step
 * @param logEvery steps between reports, 0 to choose by the length of the run
 * @param checkpointSeconds time between checkpoints, 0 for one after each epoch; the best by validation and the end are always
 *     saved
 * @param seed decides initialisation, order and dropout
 * @param precision arithmetic of the model; FP32 where a configuration names none, as those of before there was a choice
 */
@JsonIgnoreProperties(ignoreUnknown = false)
public record TrainingConfig(
    @JsonProperty("epochs") long epochs,
    @JsonProperty("max_steps") long maxSteps,
    @JsonProperty("max_seconds") double maxSeconds,
    @JsonProperty("learning_rate") double learningRate,
    @JsonProperty("rate_factors") Map<String, Double> rateFactors,
    @JsonProperty("schedule") LearningRateSchedule schedule,
    @JsonProperty("weight_decay") double weightDecay,
    @JsonProperty("clip_norm") double clipNorm,
    @JsonProperty("accumulation") int accumulation,
    @JsonProperty("log_every") int logEvery,
    @JsonProperty("checkpoint_seconds") double checkpointSeconds,
    @JsonProperty("seed") long seed,
    @JsonProperty("precision") Precision precision) {

  /** Checks the values. */
  public TrainingConfig {
    atLeast("epochs", epochs, 0);
    atLeast("max_steps", maxSteps, 0);
    atLeast("max_seconds", maxSeconds, 0);
    if (epochs == 0 && maxSteps == 0 && maxSeconds == 0) {
      throw new IllegalArgumentException("one of training.epochs, training.max_steps and training.max_seconds must be above 0");
    }
    atLeast("weight_decay", weightDecay, 0);
    atLeast("clip_norm", clipNorm, 0);
    atLeast("accumulation", accumulation, 1);
    atLeast("log_every", logEvery, 0);
    atLeast("checkpoint_seconds", checkpointSeconds, 0);
    if (!(learningRate > 0) || Double.isInfinite(learningRate)) {
      throw new IllegalArgumentException("training.learning_rate must be positive, but is " + learningRate);
    }
    if (schedule == null) {
      throw new IllegalArgumentException("training.schedule must be given");
    }
    precision = precision == null ? Precision.FP32 : precision;
    rateFactors = rateFactors == null ? Map.of() : Map.copyOf(rateFactors);
    rateFactors.forEach(
        (group, factor) -> {
          if (!(factor >= 0)) {
            throw new IllegalArgumentException(
                "training.rate_factors." + group + " must be at least 0, but is " + factor);
          }
        });
  }

  /**
   * Training in FP32.
   *
   * @param epochs passes over the data, 0 for no limit
   * @param maxSteps optimiser steps, 0 for no limit
   * @param maxSeconds time of the loop, 0 for no limit
   * @param learningRate base rate
   * @param rateFactors factor of each parameter group on the base rate
   * @param schedule the rate's course
   * @param weightDecay of matrices
   * @param clipNorm joint norm the gradients are cut to, 0 for none
   * @param accumulation batches per optimiser step
   * @param logEvery steps between reports, 0 to choose by the length of the run
   * @param checkpointSeconds time between checkpoints, 0 for one after each epoch
   * @param seed decides initialisation, order and dropout
   */
  public TrainingConfig(
      long epochs,
      long maxSteps,
      double maxSeconds,
      double learningRate,
      Map<String, Double> rateFactors,
      LearningRateSchedule schedule,
      double weightDecay,
      double clipNorm,
      int accumulation,
      int logEvery,
      double checkpointSeconds,
      long seed) {
    this(
        epochs,
        maxSteps,
        maxSeconds,
        learningRate,
        rateFactors,
        schedule,
        weightDecay,
        clipNorm,
        accumulation,
        logEvery,
        checkpointSeconds,
        seed,
        Precision.FP32);
  }

  /**
   * The same in another precision.
   *
   * @param precision arithmetic of the model
   * @return a copy
   */
  public TrainingConfig with(Precision precision) {
    return new TrainingConfig(
        epochs,
        maxSteps,
        maxSeconds,
        learningRate,
        rateFactors,
        schedule,
        weightDecay,
        clipNorm,
        accumulation,
        logEvery,
        checkpointSeconds,
        seed,
        precision);
  }

  /**
   * The optimiser steps of the run if time does not end it sooner.
   *
   * @param batchesPerEpoch of the training data
   * @return at least 1; Long.MAX_VALUE if only time ends the run
   */
  public long totalSteps(long batchesPerEpoch) {
    // More batches than a long can count are no limit.
    boolean unlimited = epochs == 0 || epochs > Long.MAX_VALUE / batchesPerEpoch;
    long byEpochs = unlimited ? Long.MAX_VALUE : Math.max(1, epochs * batchesPerEpoch / accumulation);
    return maxSteps == 0 ? byEpochs : Math.min(maxSteps, byEpochs);
  }

  private static void atLeast(String name, double value, double least) {
    if (!(value >= least) || Double.isInfinite(value)) {
      throw new IllegalArgumentException(
          "training." + name + " must be at least " + number(least) + ", but is " + number(value));
    }
  }

  private static String number(double value) {
    return value == Math.rint(value) && Math.abs(value) < 1e15 ? Long.toString((long) value) : Double.toString(value);
  }
}

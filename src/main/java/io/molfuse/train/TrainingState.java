// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.annotation.JsonProperty;

/**
 * How far a run is: with the parameters, the optimiser's state and {@link LoopState} all that is needed to continue it, since batches,
 * dropout and the learning rate are functions of these numbers and the seed.
 *
 * @param step optimiser steps done
 * @param samples samples used
 * @param elapsedSeconds time spent in the loop
 * @param warmedUp whether the warm-up is over; it does not start again if a resumed run gets more time
 * @param warmupProgress progress (0..1) at the end of the warm-up, or at the latest step if it is still going on
 * @param bestLoss smallest validation loss so far; infinite if none
 * @param bestStep when it was reached
 */
public record TrainingState(
    @JsonProperty("step") long step,
    @JsonProperty("samples") long samples,
    @JsonProperty("elapsed_seconds") double elapsedSeconds,
    @JsonProperty("warmed_up") boolean warmedUp,
    @JsonProperty("warmup_progress") double warmupProgress,
    @JsonProperty("best_loss") double bestLoss,
    @JsonProperty("best_step") long bestStep) {

  /** The state before the first step. */
  public static final TrainingState START = new TrainingState(0, 0, 0, false, 0, Double.POSITIVE_INFINITY, 0);

  /** This state after a validation with the smallest loss so far. */
  TrainingState best(double loss) {
    return new TrainingState(step, samples, elapsedSeconds, warmedUp, warmupProgress, loss, step);
  }
}

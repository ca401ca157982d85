// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/**
 * The beginning of a sitting.
 *
 * @param config how is trained
 * @param precision what its precision comes to on the model's device
 * @param state how far the run is; {@link TrainingState#START} unless it is resumed
 * @param totalSteps steps of the run, Long.MAX_VALUE if only time ends it
 */
public record RunStart(TrainingConfig config, Precision.Choice precision, TrainingState state, long totalSteps) {
  /** @return whether an earlier sitting made steps */
  public boolean resumed() {
    return state.step() > 0;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.nio.file.Path;
import java.util.List;

/** Saves the state of a run. */
@FunctionalInterface
public interface CheckpointWriter {
  /**
   * Saves the model, the optimiser and the run's state.
   *
   * @param state how far the run is
   * @param optimizer its moments
   * @param labels any of {@link RunDirectory#LAST}, {@link RunDirectory#BEST} and {@link RunDirectory#EVERY}
   * @return the checkpoint's folder
   */
  Path save(TrainingState state, AdamW optimizer, List<String> labels);
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.nio.file.Path;
import java.util.Map;

/** Is told what happens in a run, on the training thread. */
public interface TrainingListener {
  /**
   * A step is done and its values were read.
   *
   * @param report the step
   */
  default void step(StepReport report) {}

  /**
   * The model was validated.
   *
   * @param step steps done
   * @param values mean losses by name
   * @param best whether no earlier validation loss was smaller
   */
  default void validated(long step, Map<String, Double> values, boolean best) {}

  /**
   * A checkpoint was saved.
   *
   * @param step steps done
   * @param checkpoint its folder
   */
  default void saved(long step, Path checkpoint) {}
}

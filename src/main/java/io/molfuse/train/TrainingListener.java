// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.nio.file.Path;
import java.util.Map;

/**
 * Is told what happens in a run, on the training thread. What a listener throws ends the run, so one that can do without its file or
 * its reader should.
 */
public interface TrainingListener {
  /**
   * A sitting begins.
   *
   * @param start what is known of it
   */
  default void started(RunStart start) {}

  /**
   * A part of a step begins. Each may come several times in a step.
   *
   * @param phase which
   */
  default void begin(PerformanceMonitor.Phase phase) {}

  /**
   * A part of a step ends: the host is done with it, a device may not be.
   *
   * @param phase which
   */
  default void end(PerformanceMonitor.Phase phase) {}

  /**
   * A step was given to the device. Unlike {@link #step} this comes in every step, and before it.
   *
   * @param step counted from 1
   * @param samples it trained on
   */
  default void issued(long step, long samples) {}

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

  /**
   * The sitting is over.
   *
   * @param result how it ended
   */
  default void ended(Trainer.Result result) {}

  /**
   * The sitting is over because something failed.
   *
   * @param failure what {@link Trainer#run()} throws next
   */
  default void failed(Throwable failure) {}
}

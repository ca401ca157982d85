// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.train.StepReport;
import io.molfuse.train.TrainingListener;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * One JSON object per logged step.
 *
 * @param console where to
 * @param unread what to do when nobody takes the objects any more
 */
record JsonSteps(Console console, Runnable unread) implements TrainingListener {
  @Override
  public void step(StepReport report) {
    if (!report.logged()) {
      return;
    }
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("step", report.step());
    line.put("epoch", report.epoch());
    report.values().forEach((name, value) -> line.put(name, finite(value)));
    line.put("learning_rate", report.learningRate());
    line.put("molecules_per_second", report.samplesPerSecond());
    line.put("elapsed_seconds", report.elapsedSeconds());
    try {
      console.json(line);
    } catch (FailureException e) {
      unread.run();
    }
  }

  /** JSON has neither infinity nor NaN. */
  static Double finite(double value) {
    return Double.isFinite(value) ? value : null;
  }
}

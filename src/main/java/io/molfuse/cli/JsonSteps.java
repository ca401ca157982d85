// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.train.PerformanceSummary;
import io.molfuse.train.StepReport;
import io.molfuse.train.TrainingListener;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * One JSON object per logged step, and per summary of a monitor.
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
    write(line);
  }

  /** Writes what was measured up to a step. */
  void performance(long step, PerformanceSummary summary) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("event", "performance");
    line.put("step", step);
    line.put("performance", summary);
    write(line);
  }

  private void write(Map<String, Object> line) {
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

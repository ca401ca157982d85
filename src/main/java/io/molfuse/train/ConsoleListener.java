// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import java.util.function.Consumer;

/** Tells people how training goes, in lines. */
public final class ConsoleListener implements TrainingListener {
  private final Consumer<String> lines;
  private final double seconds;
  private double shownAt = Double.NEGATIVE_INFINITY;

  /**
   * Lines now and then.
   *
   * @param lines takes each, without an end of line
   * @param seconds least time between two lines about steps; 0 for one per logged step
   */
  public ConsoleListener(Consumer<String> lines, double seconds) {
    this.lines = lines;
    this.seconds = seconds;
  }

  @Override
  public void started(RunStart start) {
    line("training in %s", start.precision());
    if (start.resumed()) {
      line("goes on after step %d", start.state().step());
    }
  }

  @Override
  public void step(StepReport report) {
    boolean last = report.step() == report.totalSteps();
    if (!report.logged() || !last && report.elapsedSeconds() - shownAt < seconds) {
      return;
    }
    shownAt = report.elapsedSeconds();
    StringBuilder figures = new StringBuilder();
    report.averages().forEach((name, mean) -> figures.append(String.format(Locale.ROOT, "%s %.4g, ", name, mean)));
    line(
        "%3.0f %%  step %d, epoch %d: %srate %.3g, %.0f samples/s",
        report.progress() * 100, report.step(), report.epoch(), figures, report.learningRate(), report.samplesPerSecond());
  }

  @Override
  public void validated(long step, Map<String, Double> values, boolean best) {
    StringBuilder figures = new StringBuilder();
    values.forEach((name, mean) -> figures.append(String.format(Locale.ROOT, ", %s %.4g", name, mean)));
    line("step %d: validation%s%s", step, figures, best ? " (best so far)" : "");
  }

  @Override
  public void saved(long step, Path checkpoint) {
    line("step %d: saved %s", step, checkpoint);
  }

  @Override
  public void ended(Trainer.Result result) {
    line(
        "%s after step %d, %d samples and %.0f s",
        result.ending().name().toLowerCase(Locale.ROOT).replace('_', ' '),
        result.state().step(),
        result.state().samples(),
        result.state().elapsedSeconds());
  }

  @Override
  public void failed(Throwable failure) {
    line("failed: %s", failure.getMessage());
  }

  private void line(String format, Object... values) {
    lines.accept(String.format(Locale.ROOT, format, values));
  }
}

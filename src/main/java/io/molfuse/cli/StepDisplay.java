// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.train.StepReport;
import io.molfuse.train.TrainingListener;
import java.util.Locale;
import java.util.Map;
import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/** Shows a person how training goes. */
abstract class StepDisplay implements TrainingListener, AutoCloseable {
  /** Weight of the past in the figures shown, so that they can be read. */
  private static final double SMOOTHING = 0.95;

  private double loss = Double.NaN;
  private double accuracy = Double.NaN;

  /** A bar if someone watches, else a line now and then. */
  static StepDisplay choose(Console console) {
    return console.isTerminal() ? new Bar(console) : new Lines(console);
  }

  @Override
  public void step(StepReport report) {
    loss = smooth(loss, report.values().get("total_loss"));
    accuracy = smooth(accuracy, report.values().get("token_accuracy"));
    show(report, String.format(
        Locale.ROOT, "loss %.3f, accuracy %.3f, %.0f molecules/s", loss, accuracy, report.samplesPerSecond()));
  }

  private static double smooth(double past, double now) {
    return Double.isNaN(past) ? now : SMOOTHING * past + (1 - SMOOTHING) * now;
  }

  abstract void show(StepReport report, String figures);

  @Override
  public void close() {}

  static String validation(long step, Map<String, Double> values, boolean best) {
    return String.format(
        Locale.ROOT,
        "step %d: validation loss %.4f, accuracy %.4f%s",
        step,
        values.get("total_loss"),
        values.get("token_accuracy"),
        best ? " (best so far)" : "");
  }

  /** A progress bar in per cent, since a run may be limited by steps or by time. */
  private static final class Bar extends StepDisplay {
    private static final int WIDTH = 110;

    private final ProgressBar bar;

    Bar(Console console) {
      bar =
          new ProgressBarBuilder()
              .setTaskName("training")
              .setInitialMax(1000)
              .setUnit("%", 10)
              .setStyle(ProgressBarStyle.ASCII)
              .setUpdateIntervalMillis(500)
              .setConsumer(new ConsoleProgressBarConsumer(console.err(), WIDTH))
              .build();
    }

    @Override
    void show(StepReport report, String figures) {
      bar.stepTo(Math.round(report.progress() * 1000));
      bar.setExtraMessage(" " + figures);
    }

    @Override
    public void close() {
      bar.close();
    }
  }

  /** Lines for logs. */
  private static final class Lines extends StepDisplay {
    private static final double SECONDS = 10;

    private final Console console;
    private double shownAt = Double.NEGATIVE_INFINITY;
    private double elapsed;
    private double validationShownAt = Double.NEGATIVE_INFINITY;

    Lines(Console console) {
      this.console = console;
    }

    @Override
    void show(StepReport report, String figures) {
      elapsed = report.elapsedSeconds();
      boolean last = report.step() == report.totalSteps();
      if (report.logged() && (last || report.elapsedSeconds() - shownAt >= SECONDS)) {
        shownAt = report.elapsedSeconds();
        console.say("%3.0f %%  step %d, epoch %d: %s", report.progress() * 100, report.step(), report.epoch(), figures);
      }
    }

    @Override
    public void validated(long step, Map<String, Double> values, boolean best) {
      // Epochs of small data sets are over in no time.
      if (elapsed - validationShownAt >= SECONDS) {
        validationShownAt = elapsed;
        console.say("%s", validation(step, values, best));
      }
    }
  }
}

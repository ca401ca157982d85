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
  /** Least time between lines: epochs of small data sets are over in no time. */
  private static final double SECONDS = 10;

  private double elapsed;
  private double validationShownAt = Double.NEGATIVE_INFINITY;

  /** A bar if someone watches, else a line now and then. */
  static StepDisplay choose(Console console) {
    return console.isTerminal() ? bar(console) : new Lines(console);
  }

  static StepDisplay bar(Console console) {
    return new Bar(console);
  }

  @Override
  public void step(StepReport report) {
    elapsed = report.elapsedSeconds();
    // Means, which can be read.
    show(
        report,
        String.format(
            Locale.ROOT,
            "loss %.3f, accuracy %.3f, %.0f molecules/s",
            report.averages().get("total_loss"),
            report.averages().get("token_accuracy"),
            report.samplesPerSecond()));
  }

  @Override
  public void validated(long step, Map<String, Double> values, boolean best) {
    if (elapsed - validationShownAt >= SECONDS) {
      validationShownAt = elapsed;
      line(
          String.format(
              Locale.ROOT,
              "step %d: validation loss %.4f, accuracy %.4f%s",
              step,
              values.get("total_loss"),
              values.get("token_accuracy"),
              best ? " (best so far)" : ""));
    }
  }

  abstract void show(StepReport report, String figures);

  /** Shows several lines. */
  void text(String text) {
    text.lines().forEach(this::line);
  }

  abstract void line(String text);

  @Override
  public void close() {}

  /** A progress bar in per cent, since a run may be limited by steps or by time. */
  private static final class Bar extends StepDisplay {
    private static final int WIDTH = 110;

    /** Back to the line's start, and clear it. */
    private static final String OVER_THE_BAR = "\r\033[K";

    private final Console console;
    private final ProgressBar bar;

    Bar(Console console) {
      this.console = console;
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
    void line(String text) {
      // The bar draws itself anew below.
      console.say("%s%s", OVER_THE_BAR, text);
    }

    @Override
    public void close() {
      bar.close();
    }
  }

  /** Lines for logs. */
  private static final class Lines extends StepDisplay {
    private final Console console;
    private double shownAt = Double.NEGATIVE_INFINITY;

    Lines(Console console) {
      this.console = console;
    }

    @Override
    void show(StepReport report, String figures) {
      boolean last = report.step() == report.totalSteps();
      if (report.logged() && (last || report.elapsedSeconds() - shownAt >= SECONDS)) {
        shownAt = report.elapsedSeconds();
        console.say("%3.0f %%  step %d, epoch %d: %s", report.progress() * 100, report.step(), report.epoch(), figures);
      }
    }

    @Override
    void line(String text) {
      console.say("%s", text);
    }
  }
}

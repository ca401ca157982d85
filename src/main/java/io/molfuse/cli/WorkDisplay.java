// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/** Shows a person how many molecules are done: a bar if someone watches, else a line now and then. */
final class WorkDisplay implements AutoCloseable {
  private static final int WIDTH = 110;
  private static final long NANOS_BETWEEN_LINES = 10_000_000_000L;

  private final Console console;
  private final String task;
  private final long total;
  private final ProgressBar bar;
  private long shownAt = System.nanoTime();

  WorkDisplay(Console console, String task, long total) {
    this.console = console;
    this.task = task;
    this.total = total;
    bar =
        console.isTerminal()
            ? new ProgressBarBuilder()
                .setTaskName(task)
                .setInitialMax(total)
                .setStyle(ProgressBarStyle.ASCII)
                .setUpdateIntervalMillis(500)
                .setConsumer(new ConsoleProgressBarConsumer(console.err(), WIDTH))
                .build()
            : null;
  }

  void done(long molecules) {
    if (bar != null) {
      bar.stepTo(molecules);
    } else if (System.nanoTime() - shownAt >= NANOS_BETWEEN_LINES) {
      shownAt = System.nanoTime();
      console.say("%s: %,d of %,d molecules", task, molecules, total);
    }
  }

  @Override
  public void close() {
    if (bar != null) {
      bar.close();
    }
  }
}

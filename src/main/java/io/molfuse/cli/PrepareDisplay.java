// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.MoleculePreparation;
import java.util.Locale;
import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/** Shows a person how a preparation goes: a bar if someone watches, else a line now and then. */
final class PrepareDisplay implements MoleculePreparation.Listener, AutoCloseable {
  private static final int WIDTH = 110;
  private static final double NANOS = 1e-9;
  private static final double BAR_SECONDS = 0.25;
  private static final double LINE_SECONDS = 10;

  private final Console console;
  private final boolean terminal;
  private ProgressBar bar;
  private MoleculePreparation.Stage stage;
  private long shownAt;
  private long stageBegan;
  private long recordsBefore;

  private PrepareDisplay(Console console, boolean terminal) {
    this.console = console;
    this.terminal = terminal;
  }

  static PrepareDisplay choose(Console console) {
    return new PrepareDisplay(console, console.isTerminal());
  }

  static PrepareDisplay bar(Console console) {
    return new PrepareDisplay(console, true);
  }

  @Override
  public void progress(MoleculePreparation.Stage now, double fraction, long records, long molecules) {
    long time = System.nanoTime();
    if (now != stage) {
      close();
      stage = now;
      stageBegan = time;
      shownAt = time;
      // What an earlier run read says nothing about the speed of this one.
      recordsBefore = records;
      bar = terminal ? open() : null;
    }
    if ((time - shownAt) * NANOS < (terminal ? BAR_SECONDS : LINE_SECONDS)) {
      return;
    }
    shownAt = time;
    String figures = figures(records, molecules, (time - stageBegan) * NANOS);
    if (bar != null) {
      bar.stepTo(Math.round(fraction * 1000));
      bar.setExtraMessage(" " + figures);
    } else {
      console.say("%3.0f %%  %s%s", fraction * 100, name(stage), figures.isEmpty() ? "" : ": " + figures);
    }
  }

  private String figures(long records, long molecules, double seconds) {
    if (stage != MoleculePreparation.Stage.READ) {
      return "";
    }
    return String.format(Locale.ROOT, "%,d records, %,d passed, %,.0f/s", records, molecules, (records - recordsBefore) / seconds);
  }

  private static String name(MoleculePreparation.Stage stage) {
    return switch (stage) {
      case CHECK -> "checking";
      case READ -> "reading";
      case WRITE -> "writing";
    };
  }

  private ProgressBar open() {
    return new ProgressBarBuilder()
        .setTaskName(name(stage))
        .setInitialMax(1000)
        .setUnit("%", 10)
        .setStyle(ProgressBarStyle.ASCII)
        .setUpdateIntervalMillis(500)
        .setConsumer(new ConsoleProgressBarConsumer(console.err(), WIDTH))
        .build();
  }

  @Override
  public void close() {
    if (bar != null) {
      bar.close();
      bar = null;
    }
  }
}

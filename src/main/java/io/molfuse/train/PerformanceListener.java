// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/**
 * Lets a {@link PerformanceMonitor} measure a {@link Trainer}'s steps, and hands on its summaries: now and then, and when a sitting is
 * over. The monitor stays the caller's; one that is {@linkplain PerformanceMonitor#off off} costs nothing and gives no summary.
 */
public final class PerformanceListener implements TrainingListener {
  /** Takes a summary. */
  @FunctionalInterface
  public interface Sink {
    /**
     * Takes one.
     *
     * @param step steps done
     * @param summary of all steps since the first few
     */
    void summary(long step, PerformanceSummary summary);
  }

  private final PerformanceMonitor monitor;
  private final int leaveOut;
  private final double seconds;
  private final Sink sink;
  private long issued;
  private long step;
  private double givenAt;

  /**
   * Measures from the first step on.
   *
   * @param monitor of the device that trains
   * @param leaveOut steps at the start of a sitting that do not count, since caches and clocks warm up in them
   * @param seconds least time between two summaries, which are given at logged steps only
   * @param sink takes summaries on the training thread, such as {@link TensorBoardListener#performance}
   */
  public PerformanceListener(PerformanceMonitor monitor, int leaveOut, double seconds, Sink sink) {
    this.monitor = monitor;
    this.leaveOut = leaveOut;
    this.seconds = seconds;
    this.sink = sink;
  }

  @Override
  public void started(RunStart start) {
    issued = 0;
    step = start.state().step();
    givenAt = start.state().elapsedSeconds();
    monitor.reset();
  }

  @Override
  public void begin(PerformanceMonitor.Phase phase) {
    monitor.begin(phase);
  }

  @Override
  public void end(PerformanceMonitor.Phase phase) {
    monitor.end(phase);
  }

  @Override
  public void issued(long step, long samples) {
    this.step = step;
    monitor.step(samples);
    if (++issued == leaveOut) {
      monitor.reset();
    }
  }

  @Override
  public void step(StepReport report) {
    if (report.logged() && issued > leaveOut && report.elapsedSeconds() - givenAt >= seconds) {
      givenAt = report.elapsedSeconds();
      give();
    }
  }

  @Override
  public void ended(Trainer.Result result) {
    give();
  }

  private void give() {
    if (monitor.isOn()) {
      sink.summary(step, monitor.summary());
    }
  }
}

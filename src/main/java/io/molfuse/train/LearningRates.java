// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.annotation.JsonProperty;

/**
 * A {@link LearningRateSchedule} over a run of known length, for loops of one's own: it counts the steps. The rate it gives is the base
 * of all groups, whose ratios therefore stay.
 */
public final class LearningRates {
  /**
   * How far a schedule is, for checkpoints.
   *
   * @param step steps done
   * @param totalSteps steps of the run
   * @param baseRate the full rate
   */
  public record State(
      @JsonProperty("step") long step,
      @JsonProperty("total_steps") long totalSteps,
      @JsonProperty("base_rate") double baseRate) {}

  private final LearningRateSchedule schedule;
  private double baseRate;
  private long totalSteps;
  private long step;

  /**
   * Makes a schedule at its start.
   *
   * @param schedule the rate's course
   * @param baseRate the full rate, positive
   * @param totalSteps steps of the run, at least 1
   */
  public LearningRates(LearningRateSchedule schedule, double baseRate, long totalSteps) {
    this.schedule = schedule;
    load(new State(0, totalSteps, baseRate));
  }

  /** @return the base rate of the next step; after the last one, that of the end of the run */
  public double rate() {
    if (schedule.warmingUp(step, 0)) {
      return baseRate * schedule.warmup(step, 0);
    }
    double warmup = Math.min(1, (double) schedule.warmupSteps() / totalSteps);
    return baseRate * schedule.decay(Math.min(1, (double) step / totalSteps), warmup);
  }

  /** Counts a step. */
  public void step() {
    step++;
  }

  /** @return how far it is */
  public State state() {
    return new State(step, totalSteps, baseRate);
  }

  /**
   * Continues from a state.
   *
   * @param state of a schedule of the same form
   */
  public void load(State state) {
    if (!(state.baseRate() > 0) || Double.isInfinite(state.baseRate())) {
      throw new IllegalArgumentException("base_rate must be positive, but is " + state.baseRate());
    }
    if (state.totalSteps() < 1 || state.step() < 0) {
      throw new IllegalArgumentException(
          "a run has at least 1 step, but total_steps is " + state.totalSteps() + " and step is " + state.step());
    }
    step = state.step();
    totalSteps = state.totalSteps();
    baseRate = state.baseRate();
  }
}

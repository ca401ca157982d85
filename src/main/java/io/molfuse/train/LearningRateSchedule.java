// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.Locale;

/**
 * Linear warm-up, then a decay towards {@code minRatio} of the base rate. Stepped once per optimiser step.
 *
 * @param kind the form of the decay
 * @param warmupSteps steps until the full rate; step 0 has 1/warmupSteps of it; in a run with a time limit the warm-up takes at
 *     most a tenth of the time
 * @param minRatio rate at the end of the run over the base rate, in 0..1
 */
public record LearningRateSchedule(
    @JsonProperty("kind") Kind kind,
    @JsonProperty("warmup_steps") long warmupSteps,
    @JsonProperty("min_ratio") double minRatio) {
  /** Share of a run's time after which it no longer warms up, however few steps the machine has done. */
  static final double LONGEST_WARMUP = 0.1;

  /** The form of the decay. */
  public enum Kind {
    /** Half a cosine. */
    COSINE,
    /** A straight line. */
    LINEAR,
    /** The same factor each step. */
    EXPONENTIAL,
    /** No decay. */
    CONSTANT
  }

  /** Checks the values. */
  public LearningRateSchedule {
    if (kind == null) {
      throw new IllegalArgumentException("schedule.kind must be one of cosine, linear, exponential, constant");
    }
    if (warmupSteps < 0) {
      throw new IllegalArgumentException("schedule.warmup_steps must be at least 0, but is " + warmupSteps);
    }
    if (!(minRatio >= 0 && minRatio <= 1) || (kind == Kind.EXPONENTIAL && minRatio == 0)) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "schedule.min_ratio must be in 0..1%s, but is %s",
              kind == Kind.EXPONENTIAL ? " and above 0 for exponential" : "",
              minRatio));
    }
  }

  /**
   * Whether the rate still rises.
   *
   * @param step optimiser steps done
   * @param clock how much of the run's time is over, 0 without a time limit
   * @return false once one of them ends the warm-up
   */
  public boolean warmingUp(long step, double clock) {
    return step < warmupSteps && clock < LONGEST_WARMUP;
  }

  /**
   * The factor on the base rate of every parameter group during the warm-up, so that the groups' ratios stay. It follows
   * whichever is further, the steps or the clock.
   *
   * @param step optimiser steps done
   * @param clock how much of the run's time is over, 0 without a time limit
   * @return above 0, at most 1
   */
  public double warmup(long step, double clock) {
    return Math.min(1, Math.max((step + 1.0) / warmupSteps, clock / LONGEST_WARMUP));
  }

  /**
   * The factor after the warm-up.
   *
   * @param progress how much of the run is over, 0..1; the decay spans what the warm-up leaves
   * @param warmupProgress the progress at which the warm-up ended
   * @return in minRatio..1
   */
  public double decay(double progress, double warmupProgress) {
    double span = 1 - warmupProgress;
    double done = span <= 0 ? 1 : Math.min(1, Math.max(0, (progress - warmupProgress) / span));
    return switch (kind) {
      case COSINE -> minRatio + (1 - minRatio) * 0.5 * (1 + Math.cos(Math.PI * done));
      case LINEAR -> 1 - (1 - minRatio) * done;
      case EXPONENTIAL -> Math.pow(minRatio, done);
      case CONSTANT -> 1;
    };
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import java.util.Locale;

/**
 * The course of the Kullback-Leibler term's weight. A function of the step's number alone, so that a resumed run goes on with it,
 * whatever its limits are then.
 *
 * @param kind its form
 * @param steps optimiser steps of the rise, or of one cycle; at least 1
 * @param cycles cycles, after which the weight stays; at least 1
 * @param rise share of a cycle in which the weight rises, above 0, at most 1
 */
public record KlSchedule(Kind kind, long steps, int cycles, double rise) {
  /** The form. */
  public enum Kind {
    /** The full weight from the start. */
    CONSTANT,
    /** From 0 in a straight line (Bowman et al. 2016). */
    LINEAR,
    /** Again and again from 0 in a straight line, which is held until the cycle ends (Fu et al. 2019). */
    CYCLICAL
  }

  /** The full weight from the start. */
  public static final KlSchedule FULL = new KlSchedule(Kind.CONSTANT, 1, 1, 1);

  /** Checks the values. */
  public KlSchedule {
    if (kind == null) {
      throw new IllegalArgumentException("kl.annealing must be one of constant, linear, cyclical");
    }
    if (steps < 1) {
      throw new IllegalArgumentException("kl.steps must be at least 1, but is " + steps);
    }
    if (cycles < 1) {
      throw new IllegalArgumentException("kl.cycles must be at least 1, but is " + cycles);
    }
    if (!(rise > 0 && rise <= 1)) {
      throw new IllegalArgumentException(String.format(Locale.ROOT, "kl.rise must be above 0 and at most 1, but is %s", rise));
    }
  }

  /**
   * The factor on the weight.
   *
   * @param step optimiser steps done
   * @return 0 to 1
   */
  public double factor(long step) {
    return switch (kind) {
      case CONSTANT -> 1;
      case LINEAR -> Math.min(1, (double) step / steps);
      case CYCLICAL -> step / steps >= cycles ? 1 : Math.min(1, step % steps / (rise * steps));
    };
  }

  /** @return optimiser steps until the weight no longer changes */
  public double end() {
    return switch (kind) {
      case CONSTANT -> 0;
      case LINEAR -> steps;
      case CYCLICAL -> ((double) cycles - 1 + rise) * steps;
    };
  }
}

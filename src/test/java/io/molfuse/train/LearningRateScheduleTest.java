// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.molfuse.train.LearningRateSchedule.Kind;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class LearningRateScheduleTest {
  /** The factor in a run of so many steps without a time limit. */
  private static double factor(LearningRateSchedule schedule, long step, long steps) {
    return schedule.warmingUp(step, 0)
        ? schedule.warmup(step, 0)
        : schedule.decay((double) step / steps, (double) schedule.warmupSteps() / steps);
  }

  @ParameterizedTest
  @EnumSource(Kind.class)
  void warmsUpLinearlyAndEndsAtTheMinimum(Kind kind) {
    LearningRateSchedule schedule = new LearningRateSchedule(kind, 10, 0.01);
    for (int step = 0; step < 10; step++) {
      assertThat(factor(schedule, step, 100)).isEqualTo((step + 1) / 10.0);
    }
    assertThat(factor(schedule, 10, 100)).isCloseTo(1, within(1e-12));
    assertThat(factor(schedule, 100, 100)).isCloseTo(kind == Kind.CONSTANT ? 1 : 0.01, within(1e-12));
    for (int step = 11; step <= 100; step++) {
      assertThat(factor(schedule, step, 100)).isLessThanOrEqualTo(factor(schedule, step - 1, 100));
    }
  }

  @Test
  void cosineIsHalfWayInTheMiddleOfTheDecay() {
    LearningRateSchedule schedule = new LearningRateSchedule(Kind.COSINE, 20, 0.2);
    assertThat(factor(schedule, 60, 100)).isCloseTo(0.6, within(1e-12));
  }

  @Test
  void exponentialFallsByTheSameFactor() {
    LearningRateSchedule schedule = new LearningRateSchedule(Kind.EXPONENTIAL, 0, 0.01);
    assertThat(factor(schedule, 50, 100)).isCloseTo(0.1, within(1e-12));
  }

  @Test
  void aRunOfWarmUpOnlyIsPossible() {
    LearningRateSchedule schedule = new LearningRateSchedule(Kind.COSINE, 100, 0.01);
    assertThat(factor(schedule, 99, 100)).isEqualTo(1);
    assertThat(factor(schedule, 100, 100)).isCloseTo(0.01, within(1e-12));
  }

  @Test
  void theClockCutsAWarmUpShort() {
    LearningRateSchedule schedule = new LearningRateSchedule(Kind.COSINE, 2000, 0.01);
    assertThat(schedule.warmup(9, 0.05)).isCloseTo(0.5, within(1e-12));
    assertThat(schedule.warmup(1499, 0.05)).isCloseTo(0.75, within(1e-12));
    assertThat(schedule.warmingUp(9, 0.099)).isTrue();
    assertThat(schedule.warmingUp(9, 0.1)).isFalse();
    assertThat(schedule.decay(0.1, 0.1)).isEqualTo(1);
  }

  @Test
  void badValuesAreNamed() {
    assertThatThrownBy(() -> new LearningRateSchedule(null, 0, 0.1)).hasMessageContaining("schedule.kind");
    assertThatThrownBy(() -> new LearningRateSchedule(Kind.COSINE, -1, 0.1))
        .hasMessage("schedule.warmup_steps must be at least 0, but is -1");
    assertThatThrownBy(() -> new LearningRateSchedule(Kind.COSINE, 0, 1.5))
        .hasMessage("schedule.min_ratio must be in 0..1, but is 1.5");
    assertThatThrownBy(() -> new LearningRateSchedule(Kind.EXPONENTIAL, 0, 0)).hasMessageContaining("exponential");
  }
}

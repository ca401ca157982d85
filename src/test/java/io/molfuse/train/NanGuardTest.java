// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.LongPredicate;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class NanGuardTest {
  private static final LearningRateSchedule CONSTANT = new LearningRateSchedule(LearningRateSchedule.Kind.CONSTANT, 0, 1);

  private static TrainingConfig config(long steps) {
    return new TrainingConfig(0, steps, 0, 0.05, Map.of(), CONSTANT, 0, 1, 1, 7, 0, 3);
  }

  private static BatchSource<float[]> spoiled(LongPredicate bad) {
    BatchSource<float[]> good = LineTask.batches(10);
    return new BatchSource<>() {
      @Override
      public long batchesPerEpoch() {
        return 10;
      }

      @Override
      public float[] batch(long index) {
        float[] rows = good.batch(index);
        if (bad.test(index)) {
          rows[2] = Float.NaN;
        }
        return rows;
      }
    };
  }

  /** Values after each step, by a run that leaves out bad ones. */
  private static List<float[]> course(LongPredicate bad, List<StepReport> reports) {
    List<float[]> course = new ArrayList<>();
    try (LineTask task = new LineTask(1, 0);
        NanGuard guard = NanGuard.skipping(2);
        Trainer<float[]> trainer = new Trainer<>(task, spoiled(bad), config(12))) {
      trainer
          .nanGuard(guard)
          .listener(
              new TrainingListener() {
                @Override
                public void step(StepReport report) {
                  course.add(task.values());
                  reports.add(report);
                }
              })
          .run();
      assertThat(guard.skippedSteps()).isEqualTo(reports.get(11).values().get("skipped_steps").longValue());
    }
    return course;
  }

  @Test
  void badStepsAreLeftOut() {
    List<StepReport> reports = new ArrayList<>();
    List<float[]> course = course(index -> index == 4 || index == 5, reports);
    assertThat(course.get(3)).isNotEqualTo(course.get(2));
    assertThat(course.get(4)).isEqualTo(course.get(3));
    assertThat(course.get(5)).isEqualTo(course.get(3));
    assertThat(course.get(6)).isNotEqualTo(course.get(3));
    assertThat(reports).extracting(report -> report.values().get("skipped_steps")).startsWith(0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0);
    assertThat(reports.get(5).values().get("total_loss")).isNaN();
    assertThat(reports.get(11).values()).containsOnlyKeys("total_loss", "half", "grad_norm", "skipped_steps");
    assertThat(reports.get(11).averages()).containsOnlyKeys("total_loss", "half", "grad_norm");
    assertThat(reports.get(11).averages().get("total_loss")).isFinite();
  }

  @Test
  void tooManyInARowEndTheRun() {
    assertThatThrownBy(() -> course(index -> index >= 4 && index < 7, new ArrayList<>()))
        .isInstanceOf(TrainingException.class)
        .hasMessageContaining("the loss or its gradients were not finite in 3 steps in a row at step 7");
    // With a good one between them they are not in a row.
    List<StepReport> reports = new ArrayList<>();
    course(index -> index == 1 || index == 2 || index == 4 || index == 5, reports);
    assertThat(reports.get(11).values()).containsEntry("skipped_steps", 4.0);
  }

  @Test
  void leavingNothingOutChangesNothing() {
    List<float[]> guarded = course(index -> false, new ArrayList<>());
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(12))) {
      trainer.run();
      assertThat(guarded.get(11)).isEqualTo(task.values());
    }
  }

  @Test
  void aSearchForTheScaleIsNoError() {
    try (PointerScope scope = new PointerScope();
        NanGuard guard = NanGuard.stopping();
        GradScaler usual = GradScaler.options().build();
        GradScaler tiny = GradScaler.options().initialScale(0x1p-20).build();
        GradScaler off = GradScaler.options().enabled(false).build()) {
      Map<String, Double> overflow = Map.of("total_loss", 1.0, "grad_norm", Double.POSITIVE_INFINITY);
      assertThat(guard.complaint(overflow, usual)).isEmpty();
      assertThat(guard.complaint(overflow, tiny)).hasValue("grad_norm is Infinity even at a loss scale of 9.5e-07");
      assertThat(guard.complaint(overflow, off)).hasValue("grad_norm became Infinity");
      assertThat(guard.complaint(overflow, null)).hasValue("grad_norm became Infinity");
      assertThat(guard.complaint(Map.of("total_loss", Double.NaN), usual)).hasValue("total_loss became NaN");
      assertThat(guard.complaint(Map.of("total_loss", 1.0, "perplexity", Double.POSITIVE_INFINITY), null)).isEmpty();
    }
  }

  @Test
  void serveALoopOfOnesOwn() {
    try (PointerScope scope = new PointerScope();
        NanGuard guard = NanGuard.skipping(1)) {
      Tensor good = Here.on(torch.ones(new long[0]));
      Tensor infinite = good.div(Here.on(torch.zeros(new long[0])));
      assertThat(guard.bad(good, good).item_float()).isZero();
      assertThat(guard.bad(infinite, good).item_float()).isEqualTo(1);
      assertThat(guard.complaint(Map.of("total_loss", Double.POSITIVE_INFINITY), null)).isEmpty();
      assertThat(guard.bad(good, infinite.neg()).item_float()).isEqualTo(1);
      assertThat(guard.complaint(Map.of(), null)).hasValueSatisfying(reason -> assertThat(reason).contains("2 steps in a row"));
      assertThat(guard.skippedSteps()).isEqualTo(2);
    }
    assertThatThrownBy(() -> NanGuard.skipping(0)).hasMessage("most_in_a_row: expected at least 1, got 0");
  }
}

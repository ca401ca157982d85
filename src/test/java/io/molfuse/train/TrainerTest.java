// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.LongSupplier;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@ExtendWith(OneThread.class)
class TrainerTest {
  private static final LearningRateSchedule COSINE = new LearningRateSchedule(LearningRateSchedule.Kind.COSINE, 5, 0.01);

  @TempDir Path folder;

  private static TrainingConfig config(long steps, int accumulation, double rate) {
    return new TrainingConfig(
        0, steps, 0, rate, Map.of("offset", 2.0), COSINE, 0, 1, accumulation, 7, 0, 3);
  }

  private static CheckpointWriter writer(RunDirectory run, LineTask task) {
    return (state, optimizer, labels) ->
        run.save(
            state.step(),
            new Checkpoint.Content(
                Map.of("state", state),
                Map.of("model", task.parameters().tensors(), "optimizer", optimizer.state())),
            labels);
  }

  @Test
  void findsTheLine() {
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(400, 1, 0.05))) {
      Trainer.Result result = trainer.run();
      assertThat(result.ending()).isEqualTo(Trainer.Ending.FINISHED);
      assertThat(result.state().step()).isEqualTo(400);
      assertThat(result.state().samples()).isEqualTo(3200);
      assertThat(task.values()[0]).isCloseTo(2, within(0.01f));
      assertThat(task.values()[1]).isCloseTo(-3, within(0.01f));
      assertThat(task.values()[2]).isCloseTo(1, within(0.01f));
    }
  }

  @Test
  void reportsEveryStepAndLogsSome() {
    List<StepReport> reports = new ArrayList<>();
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(20, 1, 0.05))) {
      trainer
          .listener(
              new TrainingListener() {
                @Override
                public void step(StepReport report) {
                  reports.add(report);
                }
              })
          .run();
    }
    assertThat(reports).extracting(StepReport::step).containsExactlyElementsOf(range(1, 20));
    assertThat(reports).filteredOn(StepReport::logged).extracting(StepReport::step).containsExactly(1L, 7L, 14L, 20L);
    assertThat(reports.get(10).epoch()).isEqualTo(2);
    assertThat(reports.get(9).epoch()).isEqualTo(1);
    StepReport first = reports.get(0);
    assertThat(first.learningRate()).isCloseTo(0.05 / 5, within(1e-12));
    assertThat(first.values()).containsOnlyKeys("total_loss", "half", "grad_norm");
    assertThat(first.values().get("half")).isCloseTo(first.values().get("total_loss") / 2, within(1e-6));
    assertThat(reports.get(19).progress()).isEqualTo(1);
  }

  @Test
  void resumedRunGoesOnBitForBit() {
    float[] straight;
    try (LineTask task = new LineTask(1, 0.3);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(40, 2, 0.05))) {
      trainer.run();
      straight = task.values();
    }

    RunDirectory run = RunDirectory.prepare(folder);
    try (LineTask task = new LineTask(1, 0.3);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(40, 2, 0.05))) {
      Trainer.Result result =
          trainer
              .checkpoints(writer(run, task))
              .listener(
                  new TrainingListener() {
                    @Override
                    public void step(StepReport report) {
                      if (report.step() == 17) {
                        trainer.requestStop();
                      }
                    }
                  })
              .run();
      assertThat(result.ending()).isEqualTo(Trainer.Ending.STOPPED);
      assertThat(result.state().step()).isEqualTo(17);
      assertThat(task.values()).isNotEqualTo(straight);
    }

    Checkpoint checkpoint = Checkpoint.open(RunDirectory.resolve(folder, RunDirectory.LAST));
    assertThat(checkpoint.step()).isEqualTo(17);
    try (LineTask task = new LineTask(999, 0.3);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(40, 2, 0.05))) {
      checkpoint.tensors("model", task.parameters().tensors());
      checkpoint.tensors("optimizer", trainer.optimizer().state());
      trainer.resume(checkpoint.document("state", TrainingState.class)).run();
      assertThat(task.values()).isEqualTo(straight);
    }
  }

  @Test
  void accumulationIsTheMeanOverItsBatches() {
    BatchSource<float[]> once = LineTask.batches(10);
    BatchSource<float[]> twice =
        new BatchSource<>() {
          @Override
          public long batchesPerEpoch() {
            return 20;
          }

          @Override
          public float[] batch(long index) {
            return once.batch(index / 2);
          }
        };
    float[] plain;
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, once, config(12, 1, 0.05))) {
      trainer.run();
      plain = task.values();
    }
    // The mean of a gradient and itself is the gradient, to the last bit.
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, twice, config(12, 2, 0.05))) {
      Trainer.Result result = trainer.run();
      assertThat(task.values()).isEqualTo(plain);
      assertThat(result.state().samples()).isEqualTo(2 * 12 * 8);
    }
  }

  @Test
  void keepsTheBestCheckpointByValidation() {
    RunDirectory run = RunDirectory.prepare(folder);
    List<Boolean> best = new ArrayList<>();
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(30, 1, 0.05))) {
      Trainer.Result result =
          trainer
              .validation(LineTask.batches(2))
              .checkpoints(writer(run, task))
              .listener(
                  new TrainingListener() {
                    @Override
                    public void validated(long step, Map<String, Double> values, boolean isBest) {
                      best.add(isBest);
                    }
                  })
              .run();
      assertThat(best).containsExactly(true, true, true);
      assertThat(result.state().bestStep()).isEqualTo(30);
    }
    assertThat(RunDirectory.resolve(folder.resolve("best"))).isEqualTo(RunDirectory.resolve(folder.resolve("last")));
    assertThat(folder.resolve("step-00000010")).doesNotExist();
  }

  @Test
  void theLastParametersAreValidatedThoughTheyWereSavedBefore() {
    RunDirectory run = RunDirectory.prepare(folder);
    // So short a time between checkpoints that every step is saved.
    TrainingConfig config = new TrainingConfig(0, 13, 0, 0.05, Map.of(), COSINE, 0, 1, 1, 7, 1e-9, 3);
    List<Long> validated = new ArrayList<>();
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config)) {
      Trainer.Result result =
          trainer
              .validation(LineTask.batches(2))
              .checkpoints(writer(run, task))
              .listener(
                  new TrainingListener() {
                    @Override
                    public void validated(long step, Map<String, Double> values, boolean isBest) {
                      validated.add(step);
                    }
                  })
              .run();
      assertThat(validated).containsExactly(10L, 13L);
      assertThat(result.state().bestStep()).isEqualTo(13);
    }
    Checkpoint best = Checkpoint.open(RunDirectory.resolve(folder, RunDirectory.BEST));
    assertThat(best.step()).isEqualTo(13);
    assertThat(best.document("state", TrainingState.class).bestStep()).isEqualTo(13);
  }

  @Test
  void aTimeLimitEndsALongWarmUp() {
    LearningRateSchedule slow = new LearningRateSchedule(LearningRateSchedule.Kind.CONSTANT, 1_000_000_000, 1);
    TrainingConfig config = new TrainingConfig(0, 0, 0.5, 0.01, Map.of(), slow, 0, 1, 1, 1, 0, 3);
    RunDirectory run = RunDirectory.prepare(folder);
    List<Double> rates = new ArrayList<>();
    TrainingListener listener =
        new TrainingListener() {
          @Override
          public void step(StepReport report) {
            rates.add(report.learningRate());
          }
        };
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config)) {
      trainer.checkpoints(writer(run, task)).listener(listener).clock(steady()).run();
    }
    assertThat(rates).isSorted();
    assertThat(rates.get(rates.size() - 1)).isEqualTo(0.01);

    // With more time the warm-up does not start again.
    rates.clear();
    TrainingState state =
        Checkpoint.open(RunDirectory.resolve(folder, RunDirectory.LAST)).document("state", TrainingState.class);
    assertThat(state.warmedUp()).isTrue();
    TrainingConfig more = new TrainingConfig(0, state.step() + 3, 0, 0.01, Map.of(), slow, 0, 1, 1, 1, 0, 3);
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), more)) {
      trainer.listener(listener).resume(state).run();
    }
    assertThat(rates).containsExactly(0.01, 0.01, 0.01);
  }

  @Test
  void epochsBeyondCountingAreNoLimit() {
    TrainingConfig config = new TrainingConfig(Long.MAX_VALUE / 2, 0, 0, 0.01, Map.of(), COSINE, 0, 1, 1, 1, 0, 3);
    assertThat(config.totalSteps(10)).isEqualTo(Long.MAX_VALUE);
    assertThat(config.totalSteps(1)).isEqualTo(Long.MAX_VALUE / 2);
  }

  @Test
  void lossThatIsNoNumberStopsBeforeTheParametersChange() {
    BatchSource<float[]> good = LineTask.batches(10);
    BatchSource<float[]> bad =
        new BatchSource<>() {
          @Override
          public long batchesPerEpoch() {
            return 3;
          }

          @Override
          public float[] batch(long index) {
            float[] rows = good.batch(index);
            if (index == 4) {
              rows[2] = Float.NaN;
            }
            return rows;
          }
        };
    RunDirectory run = RunDirectory.prepare(folder);
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, bad, config(30, 1, 0.05))) {
      trainer.checkpoints(writer(run, task));
      assertThatThrownBy(trainer::run)
          .isInstanceOf(TrainingException.class)
          .hasMessageContaining("total_loss became NaN at step 5")
          .hasMessageContaining("step-00000003 is kept");
      for (float value : task.values()) {
        assertThat(value).isFinite();
      }
    }
    Checkpoint kept = Checkpoint.open(RunDirectory.resolve(folder, RunDirectory.LAST));
    assertThat(kept.step()).isEqualTo(3);
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, bad, config(30, 1, 0.05))) {
      trainer.checkpoints(writer(run, task)).resume(kept.document("state", TrainingState.class));
      assertThatThrownBy(trainer::run).hasMessageContaining("checkpoint of step 3 that the run was resumed from is kept");
    }
  }

  /** A clock by which a step takes a few milliseconds, however busy the machine is. */
  private static LongSupplier steady() {
    long[] now = {0};
    return () -> now[0] += 1_000_000;
  }

  @Test
  void timeLimitEndsTheRunWithASmallRate() {
    List<StepReport> reports = new ArrayList<>();
    TrainingConfig limited = new TrainingConfig(0, 0, 0.5, 0.01, Map.of(), COSINE, 0, 1, 1, 1, 0, 3);
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), limited)) {
      Trainer.Result result =
          trainer
              .clock(steady())
              .listener(
                  new TrainingListener() {
                    @Override
                    public void step(StepReport report) {
                      reports.add(report);
                    }
                  })
              .run();
      assertThat(result.ending()).isEqualTo(Trainer.Ending.TIME_UP);
      // A step reads the clock a few times.
      assertThat(result.state().elapsedSeconds()).isBetween(0.48, 0.52);
    }
    assertThat(reports.get(reports.size() - 1).learningRate()).isLessThan(0.003);
  }

  @Test
  void failureOfTheSourceIsTheRunsFailure() {
    BatchSource<float[]> failing =
        new BatchSource<>() {
          @Override
          public long batchesPerEpoch() {
            return 3;
          }

          @Override
          public float[] batch(long index) {
            throw new IllegalStateException("the disk is gone");
          }
        };
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, failing, config(30, 1, 0.05))) {
      assertThatThrownBy(trainer::run)
          .isInstanceOf(TrainingException.class)
          .hasMessage("could not make a batch: the disk is gone");
    }
  }

  @Test
  void badConfigurationsAreNamed() {
    assertThatThrownBy(() -> config(0, 1, 0.1)).hasMessageContaining("one of training.epochs, training.max_steps");
    assertThatThrownBy(() -> config(10, 0, 0.1)).hasMessage("training.accumulation must be at least 1, but is 0");
    assertThatThrownBy(() -> config(10, 1, 0)).hasMessage("training.learning_rate must be positive, but is 0.0");
    assertThatThrownBy(() -> config(10, 1, Double.NaN)).hasMessageContaining("learning_rate");
  }

  private static List<Long> range(long from, long to) {
    List<Long> numbers = new ArrayList<>();
    for (long i = from; i <= to; i++) {
      numbers.add(i);
    }
    return numbers;
  }

  @Test
  void whatTheLoopRemembersGoesOnWithIt() {
    TrainingState half;
    LoopState loop;
    try (LineTask task = new LineTask(1, 0);
        EarlyStopping stopping = new EarlyStopping(task.parameters().tensors(), 50, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(12, 2, 0.05).with(Precision.FP16))) {
      half = trainer.validation(LineTask.batches(2)).earlyStopping(stopping).run().state();
      loop = trainer.loopState();
    }
    assertThat(loop.position()).isEqualTo(new DataLoader.Position(2, 4));
    assertThat(loop.scaler().growthTracker()).isPositive();
    assertThat(loop.stopping().bestLoss()).isPositive();
    assertThat(loop.averages().values().get("total_loss")).hasSize(12);
    try (LineTask task = new LineTask(1, 0);
        LineTask best = new LineTask(2, 0);
        EarlyStopping stopping = new EarlyStopping(task.parameters().tensors(), 50, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(12, 2, 0.05).with(Precision.FP16));
        Trainer<float[]> others = new Trainer<>(task, LineTask.batches(9), config(12, 2, 0.05))) {
      trainer.earlyStopping(stopping).resume(half, loop, best.parameters().tensors());
      assertThat(trainer.loopState()).isEqualTo(loop);
      stopping.restore();
      assertThat(task.values()).isEqualTo(best.values());
      assertThatThrownBy(() -> others.resume(half, loop, Map.of()))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessage("position: step 12 was before batch 4 of epoch 2, but with these data and settings it is before batch 6 of epoch 2");
    }
  }
}

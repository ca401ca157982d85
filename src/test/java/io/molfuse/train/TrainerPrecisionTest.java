// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class TrainerPrecisionTest {
  private static final LearningRateSchedule COSINE = new LearningRateSchedule(LearningRateSchedule.Kind.COSINE, 5, 0.01);

  private static TrainingConfig config(long steps, int accumulation, Precision precision) {
    return new TrainingConfig(
        0, steps, 0, 0.05, Map.of("offset", 2.0), COSINE, 0, 1, accumulation, 7, 0, 3, precision);
  }

  private static TrainingListener steps(List<StepReport> reports) {
    return new TrainingListener() {
      @Override
      public void step(StepReport report) {
        reports.add(report);
      }
    };
  }

  @Test
  void float32IsBitForBitAPlainLoop() {
    for (int accumulation : new int[] {1, 3, 7}) {
      TrainingConfig config = config(15, accumulation, Precision.FP32);
      BatchSource<float[]> batches = LineTask.batches(10);
      float[] plain;
      try (LineTask task = new LineTask(1, 0.2);
          AdamW optimizer = new AdamW(task.parameters(), config.rateFactors(), 0)) {
        for (long step = 0; step < 15; step++) {
          try (PointerScope scope = new PointerScope()) {
            task.parameters().dropGradients();
            for (int i = 0; i < accumulation; i++) {
              Tensor loss = task.train(batches.batch(step * accumulation + i), Seeds.mix(3, step, i)).total();
              loss.mul(new Scalar(1.0 / accumulation)).backward();
            }
            optimizer.clipGradients(1);
            double progress = step / 15.0;
            optimizer.step(
                0.05 * (COSINE.warmingUp(step, 0) ? COSINE.warmup(step, 0) : COSINE.decay(progress, 5 / 15.0)));
          }
        }
        plain = task.values();
      }
      try (LineTask task = new LineTask(1, 0.2);
          Trainer<float[]> trainer = new Trainer<>(task, batches, config)) {
        trainer.run();
        assertThat(task.values()).isEqualTo(plain);
        assertThat(trainer.scaler().enabled()).isFalse();
      }
    }
  }

  /** Notes the type that its matrix product comes out in. */
  private static final class TypedTask implements TrainingTask<float[]>, AutoCloseable {
    final LineTask line = new LineTask(1, 0);
    final List<ScalarType> types = new ArrayList<>();

    @Override
    public ParameterSet parameters() {
      return line.parameters();
    }

    private void note() {
      types.add(torch.linear(torch.ones(1, 2), parameters().parameters().get(0).tensor()).scalar_type().intern());
    }

    @Override
    public Losses train(float[] batch, long seed) {
      note();
      return line.train(batch, seed);
    }

    @Override
    public Losses evaluate(float[] batch, long seed) {
      note();
      return line.evaluate(batch, seed);
    }

    @Override
    public int samples(float[] batch) {
      return 8;
    }

    @Override
    public void close() {
      line.close();
    }
  }

  @Test
  void theModelRunsInTheConfiguredPrecision() {
    Map<Precision, ScalarType> expected =
        Map.of(
            Precision.FP32, ScalarType.Float,
            Precision.AUTO, ScalarType.Float,
            Precision.BF16, ScalarType.BFloat16,
            Precision.FP16, ScalarType.Half);
    expected.forEach(
        (precision, type) -> {
          try (TypedTask task = new TypedTask();
              Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(2), config(2, 1, precision))) {
            trainer.validation(LineTask.batches(1)).run();
            assertThat(task.types).as("%s", precision).hasSize(3).containsOnly(type);
            assertThat(task.parameters().parameters().get(0).tensor().scalar_type().intern()).isEqualTo(ScalarType.Float);
          }
        });
    try (LineTask task = new LineTask(1, 0)) {
      assertThatThrownBy(() -> new Trainer<>(task, LineTask.batches(2), config(2, 1, Precision.TF32)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("precision tf32");
    }
  }

  @Test
  void findsTheLineInBfloat16() {
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(400, 1, Precision.BF16))) {
      trainer.run();
      assertThat(task.values()[0]).isCloseTo(2, within(0.05f));
      assertThat(task.values()[1]).isCloseTo(-3, within(0.05f));
    }
  }

  @Test
  void searchesTheLossScaleAndLearns() {
    List<StepReport> reports = new ArrayList<>();
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(400, 1, Precision.FP16))) {
      float[] start = task.values();
      List<float[]> course = new ArrayList<>();
      trainer.scaler().load(new GradScaler.State(0x1p30, 2, 0.5, 2000, 0));
      trainer
          .listener(steps(reports))
          .listener(
              new TrainingListener() {
                @Override
                public void step(StepReport report) {
                  course.add(task.values());
                }
              })
          .run();
      assertThat(reports.get(0).values()).containsEntry("loss_scale", 0x1p30);
      assertThat(reports.get(0).values().get("grad_norm")).satisfies(norm -> assertThat(Double.isFinite(norm)).isFalse());
      assertThat(course.get(0)).isEqualTo(start);
      assertThat(reports.get(1).values()).containsEntry("loss_scale", 0x1p29);
      assertThat(reports.get(399).values().get("loss_scale")).isBetween(1.0, 0x1p24);
      assertThat(reports.get(399).averages().get("grad_norm")).isFinite();
      assertThat(task.values()[0]).isCloseTo(2, within(0.05f));
      assertThat(task.values()[1]).isCloseTo(-3, within(0.05f));
    }
  }

  @Test
  void resumesBitForBitWithItsScaleAndItsAverages() throws Exception {
    List<StepReport> straight = new ArrayList<>();
    float[] values;
    try (LineTask task = new LineTask(1, 0.2);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(30, 2, Precision.FP16))) {
      trainer.scaler().load(new GradScaler.State(0x1p26, 2, 0.5, 7, 0));
      trainer.listener(steps(straight)).run();
      values = task.values();
    }
    List<StepReport> pieces = new ArrayList<>();
    ObjectMapper json = new ObjectMapper();
    try (LineTask task = new LineTask(1, 0.2);
        Trainer<float[]> first = new Trainer<>(task, LineTask.batches(10), config(30, 2, Precision.FP16));
        Trainer<float[]> second = new Trainer<>(task, LineTask.batches(10), config(30, 2, Precision.FP16))) {
      first.scaler().load(new GradScaler.State(0x1p26, 2, 0.5, 7, 0));
      Trainer.Result result =
          first
              .listener(steps(pieces))
              .listener(
                  new TrainingListener() {
                    @Override
                    public void step(StepReport report) {
                      if (report.step() == 13) {
                        first.requestStop();
                      }
                    }
                  })
              .run();
      second.scaler().load(json.readValue(json.writeValueAsString(first.scaler().state()), GradScaler.State.class));
      second.averages().load(json.readValue(json.writeValueAsString(first.averages().state()), MovingAverages.State.class));
      second.optimizer().state().forEach((name, tensor) -> tensor.copy_(first.optimizer().state().get(name)));
      second.resume(result.state()).listener(steps(pieces)).run();
      assertThat(task.values()).isEqualTo(values);
    }
    assertThat(pieces).extracting(StepReport::values).isEqualTo(straight.stream().map(StepReport::values).toList());
    assertThat(pieces).extracting(StepReport::averages).isEqualTo(straight.stream().map(StepReport::averages).toList());
  }

  @Test
  void averagesAreMeansOfTheLastHundredSteps() {
    List<StepReport> reports = new ArrayList<>();
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(130, 1, Precision.FP32))) {
      trainer.listener(steps(reports)).run();
    }
    double mean =
        reports.subList(30, 130).stream().mapToDouble(report -> report.values().get("total_loss")).average().getAsDouble();
    assertThat(reports.get(129).averages().get("total_loss")).isCloseTo(mean, within(1e-9));
    assertThat(reports.get(0).averages()).isEqualTo(reports.get(0).values());
  }

  @Test
  void valuesOfStepsThatAreNotReadAreKept() {
    PendingValues pending = new PendingValues(3);
    try (PointerScope scope = new PointerScope()) {
      for (int i = 0; i < 5; i++) {
        try (PointerScope step = new PointerScope()) {
          Losses losses = new Losses(Here.on(torch.full(new long[] {1}, new Scalar(i))));
          pending.add(i == 4 ? losses.with("half", Here.on(torch.full(new long[0], new Scalar(2.0)).to(ScalarType.Half))) : losses);
        }
      }
    }
    assertThat(pending.read())
        .containsExactly(Map.of("total_loss", 2.0), Map.of("total_loss", 3.0), Map.of("total_loss", 4.0, "half", 2.0));
    pending.close();
  }

  @Test
  void memoryThatRunsOutIsNamed() {
    try (LineTask line = new LineTask(1, 0)) {
      TrainingTask<float[]> greedy =
          new TrainingTask<>() {
            @Override
            public ParameterSet parameters() {
              return line.parameters();
            }

            @Override
            public Losses train(float[] batch, long seed) {
              line.train(batch, seed).total().backward();
              throw new RuntimeException("CUDA out of memory. Tried to allocate 2.00 GiB.");
            }

            @Override
            public Losses evaluate(float[] batch, long seed) {
              return line.evaluate(batch, seed);
            }

            @Override
            public int samples(float[] batch) {
              return 8;
            }
          };
      List<Throwable> failures = new ArrayList<>();
      try (Trainer<float[]> trainer = new Trainer<>(greedy, LineTask.batches(2), config(2, 1, Precision.FP32))) {
        trainer.listener(
            new TrainingListener() {
              @Override
              public void failed(Throwable failure) {
                failures.add(failure);
              }
            });
        assertThatThrownBy(trainer::run)
            .isInstanceOfSatisfying(
                DeviceOutOfMemoryException.class, e -> assertThat(e.requested()).isEqualTo(2L << 30));
        assertThat(failures).hasSize(1).first().isInstanceOf(DeviceOutOfMemoryException.class);
        assertThat(line.parameters().parameters()).allMatch(parameter -> !parameter.tensor().grad().defined());
      }
    }
  }

  @Test
  void aConfigurationWithoutAPrecisionMeansFloat32() throws Exception {
    ObjectMapper json = new ObjectMapper();
    TrainingConfig config = config(5, 1, Precision.BF16);
    assertThat(json.readValue(json.writeValueAsString(config), TrainingConfig.class)).isEqualTo(config);
    String without = json.writeValueAsString(config).replace(",\"precision\":\"BF16\"", "");
    assertThat(without).doesNotContain("precision");
    assertThat(json.readValue(without, TrainingConfig.class)).isEqualTo(config.with(Precision.FP32));
  }
}

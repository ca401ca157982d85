// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class EarlyStoppingTest {
  private static final LearningRateSchedule CONSTANT = new LearningRateSchedule(LearningRateSchedule.Kind.CONSTANT, 0, 1);

  private static void set(Tensor weight, double value) {
    try (NoGradGuard noGrad = new NoGradGuard()) {
      weight.fill_(new Scalar(value));
    }
  }

  @Test
  void patienceCountsValidationsWithoutProgress() {
    try (PointerScope scope = new PointerScope()) {
      Map<String, Tensor> weights = Map.of("w", Here.on(torch.zeros(2)));
      try (EarlyStopping stopping = new EarlyStopping(weights, 2, 0.1)) {
        assertThat(stopping.restore()).isFalse();
        double[] losses = {1.0, 0.95, 0.85, 0.84, Double.NaN};
        List<Boolean> ends = new ArrayList<>();
        for (int i = 0; i < losses.length; i++) {
          set(weights.get("w"), i);
          ends.add(stopping.update(i + 1, losses[i]));
        }
        // 0.95 is no progress against 1.0, 0.85 is; 0.84 and NaN are none again.
        assertThat(ends).containsExactly(false, false, false, false, true);
        assertThat(stopping.state()).isEqualTo(new EarlyStopping.State(0.84, 4, 0.85, 2));
        // The smallest loss has the best weights, progress or not.
        assertThat(stopping.restore()).isTrue();
        assertThat(weights.get("w").sum().item_float()).isEqualTo(6);
      }
    }
  }

  @Test
  void stateAndWeightsAreTakenOver() throws Exception {
    try (PointerScope scope = new PointerScope()) {
      Map<String, Tensor> weights = Map.of("w", torch.zeros(2));
      try (EarlyStopping first = new EarlyStopping(weights, 3, 0);
          EarlyStopping second = new EarlyStopping(weights, 3, 0)) {
        set(weights.get("w"), 5);
        first.update(10, 1.0);
        set(weights.get("w"), 6);
        first.update(20, 2.0);
        ObjectMapper json = new ObjectMapper();
        EarlyStopping.State state = json.readValue(json.writeValueAsString(first.state()), EarlyStopping.State.class);
        second.load(state, first.bestWeights());
        assertThat(second.update(30, 3.0)).isFalse();
        assertThat(second.update(40, 3.0)).isTrue();
        second.restore();
        assertThat(weights.get("w").sum().item_float()).isEqualTo(10);

        // A state without any validation is one, too.
        EarlyStopping.State none = new EarlyStopping.State(null, 0, null, 0);
        assertThat(json.readValue(json.writeValueAsString(none), EarlyStopping.State.class)).isEqualTo(none);
        second.load(none, Map.of());
        assertThat(second.exhausted()).isFalse();

        assertThatThrownBy(() -> second.load(state, Map.of()))
            .hasMessage("best_weights: expected w of shape [2], got none");
        assertThatThrownBy(() -> second.load(state, Map.of("w", torch.zeros(3))))
            .hasMessage("best_weights: expected w of shape [2], got [3]");
      }
    }
  }

  @Test
  void badSettingsAreNamed() {
    assertThatThrownBy(() -> new EarlyStopping(Map.of(), 0, 0)).hasMessage("patience: expected at least 1, got 0");
    assertThatThrownBy(() -> new EarlyStopping(Map.of(), 1, Double.NaN)).hasMessageContaining("min_delta");
  }

  /** Targets that move away from what was learned after some batches: validation on the first gets worse. */
  private static BatchSource<float[]> turning(long atBatch) {
    BatchSource<float[]> line = LineTask.batches(5);
    return new BatchSource<>() {
      @Override
      public long batchesPerEpoch() {
        return 5;
      }

      @Override
      public float[] batch(long index) {
        float[] rows = line.batch(index);
        for (int i = 2; index >= atBatch && i < rows.length; i += 3) {
          rows[i] = -rows[i] - 20;
        }
        return rows;
      }
    };
  }

  @Test
  void endsARunWithTheBestWeights() {
    TrainingConfig config = new TrainingConfig(0, 1000, 0, 0.05, Map.of(), CONSTANT, 0, 0, 1, 7, 0, 3);
    Map<Long, float[]> validated = new HashMap<>();
    try (LineTask task = new LineTask(1, 0);
        EarlyStopping stopping = new EarlyStopping(task.parameters().tensors(), 3, 0);
        Trainer<float[]> trainer = new Trainer<>(task, turning(50), config)) {
      Trainer.Result result =
          trainer
              .validation(LineTask.batches(2))
              .earlyStopping(stopping)
              .listener(
                  new TrainingListener() {
                    @Override
                    public void validated(long step, Map<String, Double> values, boolean best) {
                      validated.put(step, task.values());
                    }
                  })
              .run();
      assertThat(result.ending()).isEqualTo(Trainer.Ending.EARLY_STOPPED);
      assertThat(result.state().bestStep()).isEqualTo(50);
      assertThat(result.state().step()).isEqualTo(65);
      assertThat(task.values()).isEqualTo(validated.get(50L)).isNotEqualTo(validated.get(65L));

      // Whoever resumes a run that ended so does not train on.
      float[] before = task.values();
      Trainer.Result again = trainer.run();
      assertThat(again.ending()).isEqualTo(Trainer.Ending.EARLY_STOPPED);
      assertThat(again.state().step()).isEqualTo(65);
      assertThat(task.values()).isEqualTo(before);
    }
  }

  @Test
  void aRunThatSomeoneStopsKeepsItsWeights() {
    TrainingConfig config = new TrainingConfig(0, 1000, 0, 0.05, Map.of(), CONSTANT, 0, 0, 1, 7, 0, 3);
    float[][] last = new float[1][];
    try (LineTask task = new LineTask(1, 0);
        EarlyStopping stopping = new EarlyStopping(task.parameters().tensors(), 30, 0);
        Trainer<float[]> trainer = new Trainer<>(task, turning(50), config)) {
      trainer
          .validation(LineTask.batches(2))
          .earlyStopping(stopping)
          .checkpoints(
              (state, optimizer, labels) -> {
                last[0] = task.values();
                return java.nio.file.Path.of("nowhere");
              })
          .listener(
              new TrainingListener() {
                @Override
                public void validated(long step, Map<String, Double> values, boolean best) {
                  if (step == 60) {
                    trainer.requestStop();
                  }
                }
              });
      assertThat(trainer.run().ending()).isEqualTo(Trainer.Ending.STOPPED);
      assertThat(stopping.state().bestStep()).isEqualTo(50);
      assertThat(task.values()).isEqualTo(last[0]);
      stopping.restore();
      assertThat(task.values()).isNotEqualTo(last[0]);
    }
  }
}

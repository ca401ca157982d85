// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@ExtendWith(OneThread.class)
@SuppressWarnings("try")
class CheckpointsTest {
  @TempDir Path folder;

  /** A loop of one's own with everything that has a state; it draws its dropout from libtorch's default generator. */
  private static final class Loop implements AutoCloseable {
    private static final int WIDTH = 6;
    private final ParameterSet parameters = new ParameterSet();
    private final Tensor weight;
    private final AdamW optimizer;
    private final WeightAverage average;
    private final GradScaler scaler = GradScaler.options().initialScale(8).growthInterval(3).build();
    private final LearningRates rates =
        new LearningRates(new LearningRateSchedule(LearningRateSchedule.Kind.COSINE, 3, 0.01), 1e-2, 12);
    private final DataLoader<float[]> loader;
    private final Checkpoints checkpoints;
    private DataLoader.Epoch<float[]> epoch;
    private long epochs;
    private double lossSum;

    Loop(Path folder, long seed) {
      Seeds.seedLibtorch(seed);
      try (PointerScope scope = new PointerScope()) {
        weight = parameters.parameter("weight", "all", Here.on(torch.randn(1, WIDTH)));
        parameters.buffer("calls", Here.on(torch.zeros(1)));
      }
      optimizer = new AdamW(parameters, Map.of(), 0.01);
      average = new WeightAverage(Map.of("weight", weight), 0.9);
      loader =
          DataLoader.of(IndexedDataset.of(rows()), Loop::join).sampler(Sampler.shuffled(40, 3)).batchSize(8).workers(1).build();
      checkpoints =
          Checkpoints.in(folder)
              .every(4, 1)
              .tensors("model", parameters.tensors())
              .tensors("optimizer", optimizer.state())
              .tensors("average", average.state())
              .state("scaler", GradScaler.State.class, scaler::state, scaler::load)
              .state("rates", LearningRates.State.class, rates::state, rates::load)
              .state("loader", DataLoader.Position.class, this::position, this::resume)
              .state("loss_sum", Double.class, () -> lossSum, sum -> lossSum = sum)
              .random(parameters.tensors().values());
    }

    private static List<float[]> rows() {
      float[][] rows = new float[40][];
      for (int i = 0; i < rows.length; i++) {
        rows[i] = new float[WIDTH];
        for (int j = 0; j < WIDTH; j++) {
          rows[i][j] = (float) Math.sin(1 + i * WIDTH + j);
        }
      }
      return Arrays.asList(rows);
    }

    private static float[] join(List<float[]> samples) {
      float[] batch = new float[samples.size() * WIDTH];
      for (int i = 0; i < samples.size(); i++) {
        System.arraycopy(samples.get(i), 0, batch, i * WIDTH, WIDTH);
      }
      return batch;
    }

    private DataLoader.Position position() {
      return epoch.position();
    }

    private void resume(DataLoader.Position position) {
      epochs = position.epoch();
      epoch = loader.resume(position);
    }

    void run(long steps) throws Exception {
      if (epoch == null) {
        epoch = loader.epoch(0);
      }
      for (long i = 0; i < steps; i++) {
        float[] batch = epoch.next();
        if (batch == null) {
          epoch = loader.epoch(++epochs);
          batch = epoch.next();
        }
        try (PointerScope scope = new PointerScope()) {
          Tensor x = Here.on(Tensor.create(batch, batch.length / WIDTH, WIDTH));
          Tensor loss = torch.linear(torch.dropout(x, 0.3, true), weight, new TensorOptional()).square().mean();
          optimizer.dropGradients();
          scaler.scale(loss).backward();
          scaler.step(optimizer, rates.rate());
          scaler.update();
          average.update();
          rates.step();
          lossSum += loss.item_float();
        }
      }
    }

    float[] values() {
      float[] values = new float[2 * WIDTH + 3];
      try (PointerScope scope = new PointerScope();
          NoGradGuard noGrad = new NoGradGuard()) {
        read(weight, values, 0);
        read(average.state().get("weight"), values, WIDTH);
        read(torch.rand(1), values, 2 * WIDTH);
      }
      values[2 * WIDTH + 1] = (float) scaler.scale();
      values[2 * WIDTH + 2] = (float) rates.rate();
      return values;
    }

    private static void read(Tensor tensor, float[] into, int at) {
      Tensor values = tensor.cpu().contiguous();
      new FloatPointer(values.data_ptr()).get(into, at, (int) values.numel());
    }

    @Override
    public void close() throws Exception {
      loader.close();
      scaler.close();
      average.close();
      optimizer.close();
      parameters.close();
    }
  }

  @Test
  void aLoopOfOnesOwnGoesOnBitForBit() throws Exception {
    float[] straight;
    double straightLoss;
    try (Loop loop = new Loop(folder.resolve("straight"), 1)) {
      loop.run(12);
      straight = loop.values();
      straightLoss = loop.lossSum;
    }
    try (Loop loop = new Loop(folder.resolve("resumed"), 1)) {
      assertThat(loop.checkpoints.restore()).isFalse();
      loop.run(7);
      loop.checkpoints.save(7, false);
    }
    // Another seed, so that whatever is not restored shows.
    try (Loop loop = new Loop(folder.resolve("resumed"), 99)) {
      loop.run(2);
      assertThat(loop.checkpoints.restore()).isTrue();
      assertThat(loop.checkpoints.step()).isEqualTo(7);
      loop.run(5);
      assertThat(loop.values()).containsExactly(straight);
      assertThat(loop.lossSum).isEqualTo(straightLoss);
    }
  }

  @Test
  void lastBestAndEveryAreKept() throws Exception {
    Path run = folder.resolve("run");
    try (Loop loop = new Loop(run, 1)) {
      for (long step = 1; step <= 9; step++) {
        loop.run(1);
        loop.checkpoints.save(step, step == 2);
      }
      loop.checkpoints.restore(run.resolve("best"));
      assertThat(loop.checkpoints.step()).isEqualTo(2);
    }
    try (var files = Files.list(run)) {
      assertThat(files.map(path -> path.getFileName().toString()))
          .containsExactlyInAnyOrder("step-00000002", "step-00000008", "step-00000009", "last", "best", "every");
    }
  }

  private static Map<String, Tensor> weights(double value, long... shape) {
    Map<String, Tensor> weights = new LinkedHashMap<>();
    weights.put("a", torch.full(new long[] {2}, new org.bytedeco.pytorch.Scalar(value)));
    weights.put("b", torch.full(shape, new org.bytedeco.pytorch.Scalar(value)));
    return weights;
  }

  @Test
  void whatDoesNotFitIsRefusedAndChangesNothing() throws IOException {
    Path run = folder.resolve("run");
    try (PointerScope scope = new PointerScope()) {
      Path saved =
          Checkpoints.in(run).tensors("model", weights(1, 3)).state("note", String.class, () -> "old", note -> {}).save(5, false);
      AtomicReference<String> note = new AtomicReference<>("new");

      Map<String, Tensor> other = weights(2, 4);
      refuses(Checkpoints.in(run).tensors("model", other).state("note", String.class, note::get, note::set),
          "holds b as F32 [3], but the model needs F32 [4]");
      assertThat(other.get("a").eq(torch.full(new long[] {2}, new org.bytedeco.pytorch.Scalar(2))).all().item_bool()).isTrue();

      Map<String, Tensor> doubles = weights(2, 3);
      doubles.replaceAll((name, tensor) -> tensor.to(ScalarType.Double));
      refuses(Checkpoints.in(run).tensors("model", doubles).state("note", String.class, note::get, note::set), "needs F64 [2]");

      Map<String, Tensor> same = weights(2, 3);
      refuses(Checkpoints.in(run).tensors("model", same), "has the state note, which nothing here takes");
      refuses(Checkpoints.in(run).tensors("weights", same).state("note", String.class, note::get, note::set),
          "lacks the file weights.safetensors and has the file model.safetensors");
      refuses(Checkpoints.in(run).tensors("model", same).state("note", Long.class, () -> 1L, value -> note.set("")),
          "has a state note that is no java.lang.Long");
      refuses(Checkpoints.in(run).tensors("model", same).state("note", String.class, note::get, note::set).random(same.values()),
          "lacks the file random.safetensors");

      byte[] model = Files.readAllBytes(saved.resolve("model.safetensors"));
      Files.write(saved.resolve("model.safetensors"), Arrays.copyOf(model, model.length - 4));
      Checkpoints fitting = Checkpoints.in(run).tensors("model", same).state("note", String.class, note::get, note::set);
      refuses(fitting, "model.safetensors is damaged: it has " + (model.length - 4) + " bytes, but " + model.length + " were saved");
      assertThat(note).hasValue("new");
      assertThat(same.get("a").sum().item_float()).isEqualTo(4);

      Files.write(saved.resolve("model.safetensors"), model);
      assertThat(fitting.restore()).isTrue();
      assertThat(note).hasValue("old");
      assertThat(same.get("a").sum().item_float()).isEqualTo(2);
    }
  }

  private static void refuses(Checkpoints checkpoints, String message) {
    assertThatThrownBy(checkpoints::restore).isInstanceOf(CheckpointException.class).hasMessageContaining(message);
  }

  @Test
  void namesAreUniqueAndSafe() {
    Checkpoints checkpoints = Checkpoints.in(folder).tensors("model", Map.of()).random(List.of());
    for (String name : List.of("model", "random", "states", "../up", "")) {
      assertThatThrownBy(() -> checkpoints.tensors(name, Map.of())).as(name).isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> checkpoints.state(name, String.class, () -> "", value -> {})).isInstanceOf(IllegalArgumentException.class);
    }
    assertThatThrownBy(() -> checkpoints.every(0, 1)).isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(() -> checkpoints.every(1, 0)).isInstanceOf(IllegalArgumentException.class);
  }
}

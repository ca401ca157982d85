// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.train.DataLoader;
import io.molfuse.train.LearningRateSchedule;
import io.molfuse.train.Losses;
import io.molfuse.train.Precision;
import io.molfuse.train.StagingRing;
import io.molfuse.train.StepReport;
import io.molfuse.train.Trainer;
import io.molfuse.train.TrainingConfig;
import io.molfuse.train.TrainingListener;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * The whole model on the device that {@code -Dmolfuse.test.device} names ("cpu" if absent, or "cuda"): loss and every gradient are those of
 * the CPU, so every operator of encoder, latent and decoder runs there.
 */
@SuppressWarnings("try")
class VaeOnDeviceTest {
  private static final DeviceType DEVICE =
      System.getProperty("molfuse.test.device", "cpu").startsWith("cuda") ? DeviceType.CUDA : DeviceType.CPU;

  @TempDir static Path folder;

  private record Step(Map<String, Double> losses, Map<String, float[]> gradients) {}

  private static Step step(MoleculeDataset drugs, DeviceType device) {
    GraphBatch batch = new MoleculeBatches(drugs, IntStream.range(0, drugs.size()).toArray(), drugs.size(), false, 1).batch(0);
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0), drugs.vocabulary().size(), 1, device);
        PointerScope scope = new PointerScope()) {
      Losses losses = new VaeTask(model, 0.01).train(batch, 7);
      losses.total().backward();
      Map<String, float[]> gradients = new LinkedHashMap<>();
      model.parameters().parameters().forEach(
          parameter -> {
            Tensor gradient = parameter.tensor().grad();
            assertThat(gradient.defined()).as(parameter.name()).isTrue();
            assertThat(gradient.is_cuda()).as(parameter.name()).isEqualTo(device == DeviceType.CUDA);
            gradients.put(parameter.name(), Tensors.toFloats(gradient));
          });
      return new Step(losses.read(), gradients);
    }
  }

  @Test
  void lossAndGradientsAreThoseOfTheCpu() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    Step expected = step(drugs, DeviceType.CPU);
    Step got = step(drugs, DEVICE);
    expected.losses().forEach((name, value) -> assertThat(got.losses().get(name)).as(name).isCloseTo(value, within(1e-4 * Math.max(1, value))));
    expected.gradients().forEach(
        (name, values) -> {
          float largest = 0;
          for (float value : values) {
            largest = Math.max(largest, Math.abs(value));
          }
          float[] others = got.gradients().get(name);
          for (int i = 0; i < values.length; i++) {
            assertThat(others[i]).as("%s[%d]", name, i).isCloseTo(values[i], within(1e-5f + 1e-3f * largest));
          }
        });
  }

  /** The whole path of bin/molfuse train: loader, ring, the device's precision with its loss scale, layers computed twice. */
  @ParameterizedTest
  @EnumSource(names = {"AUTO", "FP16"})
  void stagedBatchesTrainInThePrecisionOfTheDevice(Precision precision) {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    LearningRateSchedule constant = new LearningRateSchedule(LearningRateSchedule.Kind.CONSTANT, 0, 1);
    TrainingConfig config = new TrainingConfig(0, 60, 0, 3e-3, Map.of(), constant, 0, 1, 1, 1, 0, 3).with(precision);
    List<Double> losses = new ArrayList<>();
    try (Device device = new Device(DEVICE);
        MolecularVae model = new MolecularVae(TestMolecules.config(0), drugs.vocabulary().size(), 1, DEVICE).checkpointing(true);
        StagingRing ring = new StagingRing(device, 3);
        DataLoader<StagedBatch> batches = MoleculeBatches.staged(drugs, drugs.entries(), 16, true, 1, ring).workers(2).build();
        Trainer<StagedBatch> trainer = new Trainer<>(new VaeTask(model, 1e-3).staged(), batches, config)) {
      trainer
          .listener(
              new TrainingListener() {
                @Override
                public void step(StepReport report) {
                  losses.add(report.values().get("total_loss"));
                }
              })
          .run();
    }
    assertThat(losses).hasSize(60);
    assertThat(losses.get(59)).isLessThan(0.8 * losses.get(0));
  }
}

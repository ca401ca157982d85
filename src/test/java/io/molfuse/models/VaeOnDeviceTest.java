// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.train.Losses;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

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
}

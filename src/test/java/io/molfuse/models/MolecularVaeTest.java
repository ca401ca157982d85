// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.Vocabulary;
import io.molfuse.ops.Molfuse;
import io.molfuse.ops.VaeLoss;
import io.molfuse.train.AdamW;
import io.molfuse.train.Checkpointing;
import io.molfuse.train.OneThread;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class MolecularVaeTest {
  @TempDir static Path folder;
  private static MoleculeDataset drugs;

  @BeforeAll
  static void load() {
    drugs = TestMolecules.drugs(folder);
  }

  private static int[] all() {
    return IntStream.range(0, drugs.size()).toArray();
  }

  private static MolecularVae model(double dropout, long seed) {
    return new MolecularVae(TestMolecules.config(dropout), drugs.vocabulary().size(), seed);
  }

  private static float[] latents(int rows, int size) {
    Random random = new Random(3);
    float[] values = new float[rows * size];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  /** Gives every parameter values of its own, so that zero biases hide nothing. */
  private static void shake(MolecularVae model) {
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      model.parameters().parameters().forEach(
          parameter -> parameter.tensor().add_(
              org.bytedeco.pytorch.global.torch.randn_like(parameter.tensor()).mul(new org.bytedeco.pytorch.Scalar(0.2))));
    }
  }

  @Test
  void cachedDecodingGivesTheLogitsOfTheWholePrefix() {
    int rows = 5;
    int steps = 40;
    try (MolecularVae model = model(0.1, 1);
        PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      shake(model);
      Device cpu = new Device(DeviceType.CPU);
      Random random = new Random(8);
      long[] tokens = new long[rows * steps];
      Arrays.setAll(tokens, i -> i % steps == 0 ? Vocabulary.SOS : random.nextInt(model.vocabularySize()));
      Tensor latents = Tensors.floats(cpu, latents(rows, 24), rows, 24);
      float[] whole = Tensors.toFloats(model.logits(latents, Tensors.longs(cpu, tokens, rows, steps)));
      DecoderCache cache = model.cache(latents, steps);
      int width = model.vocabularySize();
      double largest = 0;
      for (int t = 0; t < steps; t++) {
        long[] current = new long[rows];
        for (int row = 0; row < rows; row++) {
          current[row] = tokens[row * steps + t];
        }
        float[] logits = Tensors.toFloats(model.step(Tensors.longs(cpu, current, rows), t, cache));
        for (int row = 0; row < rows; row++) {
          for (int k = 0; k < width; k++) {
            float expected = whole[(row * steps + t) * width + k];
            largest = Math.max(largest, Math.abs(expected));
            assertThat(logits[row * width + k])
                .as("row %d, position %d, token %d", row, t, k)
                .isCloseTo(expected, within(2e-5f * (1 + Math.abs(expected))));
          }
        }
      }
      assertThat(largest).isGreaterThan(0.5);
    }
  }

  @Test
  void laterTokensDoNotReachEarlierLogits() {
    try (MolecularVae model = model(0, 1);
        PointerScope scope = new PointerScope()) {
      shake(model);
      Device cpu = new Device(DeviceType.CPU);
      Tensor latents = Tensors.floats(cpu, latents(1, 24), 1, 24);
      float[] a = Tensors.toFloats(model.logits(latents, Tensors.longs(cpu, new long[] {1, 5, 6, 7}, 1, 4)));
      float[] b = Tensors.toFloats(model.logits(latents, Tensors.longs(cpu, new long[] {1, 5, 6, 8}, 1, 4)));
      int third = 3 * model.vocabularySize();
      assertThat(Arrays.copyOf(a, third)).isEqualTo(Arrays.copyOf(b, third));
      assertThat(a).isNotEqualTo(b);
    }
  }

  @Test
  void latentReachesTheLogits() {
    try (MolecularVae model = model(0, 1);
        PointerScope scope = new PointerScope()) {
      Device cpu = new Device(DeviceType.CPU);
      Tensor tokens = Tensors.longs(cpu, new long[] {1, 5}, 1, 2);
      float[] a = Tensors.toFloats(model.logits(Tensors.floats(cpu, latents(1, 24), 1, 24), tokens));
      float[] b = Tensors.toFloats(model.logits(Tensors.floats(cpu, new float[24], 1, 24), tokens));
      assertThat(a).isNotEqualTo(b);
    }
  }

  @Test
  void latentMatrixOfSeveralSlotsTrains() {
    ModelConfig config =
        new ModelConfig(
            new ModelConfig.Encoder(2, 2, 2, 8, 0),
            new ModelConfig.Latent(4, 16, 4, 0),
            new ModelConfig.Decoder(2, 2, 32, 64, 64, 64, 0));
    try (MolecularVae model = new MolecularVae(config, drugs.vocabulary().size(), 1);
        PointerScope scope = new PointerScope()) {
      VaeBatch batch = VaeBatch.of(drugs.collate(all()));
      assertThat(model.encode(batch).shape()).containsExactly(drugs.size(), 64);
      model.loss(batch, 1e-4, 1).total().backward();
      model.parameters().parameters().forEach(
          parameter -> assertThat(parameter.tensor().grad().defined()).as(parameter.name()).isTrue());
    }
  }

  @Test
  void everyParameterHasAGradientAndAGroup() {
    try (MolecularVae model = model(0.1, 1);
        PointerScope scope = new PointerScope()) {
      VaeLoss.Result loss = model.loss(VaeBatch.of(drugs.collate(all())), 1e-2, 7);
      loss.total().backward();
      model.parameters().parameters().forEach(
          parameter -> {
            float norm = parameter.tensor().grad().norm().item_float();
            assertThat(norm).as(parameter.name()).isFinite();
            // The batch norm that follows takes any constant out again, so these biases cannot matter.
            if (!parameter.name().matches("encoder.layers.\\d+.qkv_skip.bias")) {
              assertThat(norm).as(parameter.name()).isPositive();
            }
            assertThat(parameter.name()).startsWith(parameter.group());
          });
      assertThat(model.parameters().parameters()).extracting(p -> p.group()).contains("encoder", "latent", "decoder");
    }
  }

  @Test
  void seedDecidesModelLossAndGradient() {
    float[] first = firstLossAndGradient(1, 7);
    assertThat(firstLossAndGradient(1, 7)).isEqualTo(first);
    assertThat(firstLossAndGradient(1, 8)).isNotEqualTo(first);
    assertThat(firstLossAndGradient(2, 7)).isNotEqualTo(first);
  }

  private static float[] firstLossAndGradient(long modelSeed, long lossSeed) {
    try (MolecularVae model = model(0.2, modelSeed);
        PointerScope scope = new PointerScope()) {
      VaeLoss.Result loss = model.loss(VaeBatch.of(drugs.collate(all())), 1e-2, lossSeed);
      loss.total().backward();
      Tensor gradient = model.parameters().parameters().get(0).tensor().grad();
      return new float[] {loss.total().item_float(), gradient.norm().item_float()};
    }
  }

  @Test
  void orderOfTheBatchDoesNotMatter() {
    int[] forwards = {0, 1, 2, 3};
    int[] backwards = {3, 2, 1, 0};
    try (MolecularVae model = model(0.1, 1);
        PointerScope scope = new PointerScope()) {
      float a = model.evaluate(VaeBatch.of(drugs.collate(forwards)), 1e-2).total().item_float();
      float b = model.evaluate(VaeBatch.of(drugs.collate(backwards)), 1e-2).total().item_float();
      assertThat(a).isCloseTo(b, within(1e-5f));
      float[] latents = Tensors.toFloats(model.encode(VaeBatch.of(drugs.collate(forwards))));
      float[] alone = Tensors.toFloats(model.encode(VaeBatch.of(drugs.collate(new int[] {2}))));
      for (int i = 0; i < alone.length; i++) {
        assertThat(latents[2 * alone.length + i]).isCloseTo(alone[i], within(1e-4f));
      }
    }
  }

  @Test
  void learnsThirtyTwoMoleculesByHeartAndRebuildsThem() {
    Vocabulary vocabulary = drugs.vocabulary();
    assertThat(drugs.size()).isEqualTo(32);
    ModelConfig config =
        new ModelConfig(
            new ModelConfig.Encoder(3, 3, 4, 16, 0),
            new ModelConfig.Latent(1, 32, 4, 0),
            new ModelConfig.Decoder(2, 4, 64, 128, 64, 32, 0));
    try (MolecularVae model = new MolecularVae(config, vocabulary.size(), 1);
        AdamW optimizer = new AdamW(model.parameters(), Map.of(), 0)) {
      float start = 0;
      float end = 0;
      for (int step = 0; step < 300; step++) {
        try (PointerScope scope = new PointerScope()) {
          model.parameters().dropGradients();
          VaeLoss.Result loss = model.loss(VaeBatch.of(drugs.collate(all())), 1e-6, step);
          loss.total().backward();
          optimizer.clipGradients(1);
          optimizer.step(4e-3 * (1 - step / 300.0));
          end = loss.recon().item_float();
          start = step == 0 ? end : start;
        }
      }
      assertThat(end).as("loss after 300 steps, from %f", start).isLessThan(start / 20);

      try (PointerScope scope = new PointerScope()) {
        float[] latents = Tensors.toFloats(model.encode(VaeBatch.of(drugs.collate(all()))));
        List<String> rebuilt =
            new Generator(model, vocabulary).decode(latents, new GenerationOptions(0, 0, 1, 1));
        int exact = 0;
        for (int i = 0; i < drugs.size(); i++) {
          exact += rebuilt.get(i).equals(vocabulary.decode(drugs.tokens(i))) ? 1 : 0;
        }
        assertThat(exact).as("molecules rebuilt exactly").isGreaterThanOrEqualTo(28);
      }
    }
  }

  @Test
  void generationIsDecidedByTheSeed() {
    try (MolecularVae model = model(0.1, 1)) {
      Generator generator = new Generator(model, drugs.vocabulary());
      List<String> first = generator.sample(70, GenerationOptions.seeded(5));
      assertThat(first).hasSize(70).doesNotContainNull();
      assertThat(generator.sample(70, GenerationOptions.seeded(5))).isEqualTo(first);
      assertThat(generator.sample(10, GenerationOptions.seeded(5))).isEqualTo(first.subList(0, 10));
      assertThat(generator.sample(70, GenerationOptions.seeded(6))).isNotEqualTo(first);
      assertThat(first).noneMatch(selfies -> selfies.contains("<"));
      assertThat(generator.sample(0, GenerationOptions.seeded(5))).isEmpty();
      assertThatThrownBy(() -> generator.sample(-1, GenerationOptions.seeded(5))).hasMessageContaining("count");
      assertThatThrownBy(() -> generator.decode(new float[25], GenerationOptions.seeded(5)))
          .hasMessage("latents must hold rows of 24 numbers, but holds 25 numbers");
    }
  }

  /** Parameters and running statistics, and the gradients of one loss, with or without computing the layers twice. */
  private static Map<String, float[]> afterBackward(boolean checkpointing) {
    Map<String, float[]> values = new LinkedHashMap<>();
    int before = Checkpointing.pending();
    try (MolecularVae model = model(0.1, 1).checkpointing(checkpointing);
        PointerScope scope = new PointerScope()) {
      shake(model);
      Tensor loss = model.loss(VaeBatch.of(drugs.collate(all())), 0.1, 5).total();
      assertThat(Checkpointing.pending() - before).isEqualTo(checkpointing ? model.config().encoder().layers() : 0);
      Checkpointing.backward(loss);
      values.put("loss", Tensors.toFloats(loss));
      model.parameters().tensors().forEach((name, tensor) -> values.put(name, Tensors.toFloats(tensor)));
      model.parameters().parameters().forEach(each -> values.put("gradient of " + each.name(), Tensors.toFloats(each.tensor().grad())));
    }
    assertThat(Checkpointing.pending()).isEqualTo(before);
    return values;
  }

  @Test
  void layersComputedTwiceGiveTheSameGradientsAndCountTheBatchOnce() {
    Map<String, float[]> once = afterBackward(false);
    Map<String, float[]> twice = afterBackward(true);
    assertThat(twice.keySet()).isEqualTo(once.keySet()).anyMatch(name -> name.endsWith("running_mean"));
    once.forEach(
        (name, expected) -> {
          float[] found = twice.get(name);
          assertThat(found).as(name).hasSameSizeAs(expected);
          for (int i = 0; i < expected.length; i++) {
            assertThat(found[i]).as("%s[%d]", name, i).isCloseTo(expected[i], within(2e-5f * (1 + Math.abs(expected[i]))));
          }
        });
  }

  /** The whole model on libtorch's operators: loss and gradients without dropout and noise, which they draw otherwise. */
  @Test
  void chainsOfLibtorchsOperatorsGiveTheSameLossAndGradients() {
    Map<String, float[]> fused = evaluated();
    Molfuse.setFused(false);
    Map<String, float[]> chains;
    try {
      chains = evaluated();
    } finally {
      Molfuse.setFused(true);
    }
    assertThat(chains.keySet()).isEqualTo(fused.keySet()).hasSizeGreaterThan(20);
    fused.forEach(
        (name, values) -> {
          float largest = 1e-3f;
          for (float value : values) {
            largest = Math.max(largest, Math.abs(value));
          }
          assertThat(chains.get(name)).as(name).hasSameSizeAs(values);
          for (int i = 0; i < values.length; i++) {
            assertThat(chains.get(name)[i]).as(name).isCloseTo(values[i], within(2e-4f * largest));
          }
        });
  }

  private static Map<String, float[]> evaluated() {
    try (MolecularVae model = model(0, 1);
        PointerScope scope = new PointerScope()) {
      shake(model);
      Tensor loss = model.evaluate(VaeBatch.of(drugs.collate(all())), 0.1).total();
      loss.backward();
      Map<String, float[]> values = new LinkedHashMap<>();
      values.put("loss", Tensors.toFloats(loss));
      model.parameters().parameters().forEach(
          parameter -> {
            Tensor gradient = parameter.tensor().grad();
            if (gradient.defined()) {
              values.put(parameter.name(), Tensors.toFloats(gradient));
            }
          });
      return values;
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.Vocabulary;
import io.molfuse.train.OneThread;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class GeneratorTest {
  private static final List<GenerationOptions> WAYS =
      List.of(
          GenerationOptions.seeded(5),
          new GenerationOptions(0.7, 5, 0.9, 5),
          GenerationOptions.greedy(5),
          GenerationOptions.beam(1, 5),
          GenerationOptions.beam(4, 5));

  @TempDir static Path folder;
  private static MoleculeDataset drugs;
  private static MolecularVae model;

  /** Parameters far from their initial values, so that sequences differ in tokens and length. */
  @BeforeAll
  static void makeModel() {
    drugs = TestMolecules.drugs(folder);
    model = new MolecularVae(TestMolecules.config(0.1), drugs.vocabulary().size(), 1);
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      model.parameters().parameters().forEach(
          parameter -> parameter.tensor().add_(torch.randn_like(parameter.tensor()).mul(new Scalar(0.2))));
    }
  }

  @AfterAll
  static void close() {
    model.close();
  }

  private static Generator generator() {
    return new Generator(model, drugs.vocabulary());
  }

  private static float[] latents(int rows) {
    Random random = new Random(3);
    float[] values = new float[rows * model.config().latent().size()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  private static void same(List<Decoded> actual, List<Decoded> expected) {
    assertThat(actual).hasSameSizeAs(expected);
    for (int i = 0; i < actual.size(); i++) {
      assertThat(actual.get(i).tokens()).as("sequence %d", i).containsExactly(expected.get(i).tokens());
      assertThat(actual.get(i).logProbability()).isCloseTo(expected.get(i).logProbability(), within(1e-3));
    }
  }

  @Test
  void theCacheChangesNoToken() {
    float[] latents = latents(12);
    for (GenerationOptions way : WAYS) {
      List<Decoded> cached = generator().decodeScored(latents, way);
      same(cached, generator().cached(false).decodeScored(latents, way));
      assertThat(new HashSet<>(cached.stream().map(Decoded::selfies).toList())).as("%s", way).hasSizeGreaterThan(3);
    }
  }

  @Test
  void someSequencesEndEarly() {
    List<Decoded> drawn = generator().decodeScored(latents(64), GenerationOptions.seeded(5));
    assertThat(drawn.stream().filter(Decoded::ended).count()).isBetween(8L, 64L);
    assertThat(drawn.stream().map(one -> one.tokens().length).distinct().count()).isGreaterThan(8);
  }

  @Test
  void batchesOfAnySizeGiveTheSameMolecules() {
    float[] latents = latents(11);
    for (GenerationOptions way : WAYS) {
      List<Decoded> one = generator().batch(1).decodeScored(latents, way);
      for (int size : new int[] {3, 8, 64}) {
        same(generator().batch(size).decodeScored(latents, way), one);
      }
    }
    List<String> whole = generator().sample(11, GenerationOptions.seeded(2));
    assertThat(generator().batch(4).sample(11, GenerationOptions.seeded(2))).isEqualTo(whole);
    assertThat(generator().sample(5, GenerationOptions.seeded(2))).isEqualTo(whole.subList(0, 5));
    assertThat(generator().sample(11, GenerationOptions.seeded(3))).isNotEqualTo(whole);
  }

  @Test
  void aBeamOfOneIsGreedyAndAWiderOneFindsMoreLikelySequences() {
    float[] latents = latents(24);
    List<Decoded> greedy = generator().decodeScored(latents, GenerationOptions.greedy(0));
    same(generator().decodeScored(latents, GenerationOptions.beam(1, 0)), greedy);
    List<Decoded> wide = generator().decodeScored(latents, GenerationOptions.beam(8, 0));
    double gain = 0;
    for (int i = 0; i < 24; i++) {
      assertThat(wide.get(i).logProbability()).isGreaterThanOrEqualTo(greedy.get(i).logProbability() - 1e-3);
      gain += wide.get(i).logProbability() - greedy.get(i).logProbability();
    }
    assertThat(gain).isPositive();
  }

  @Test
  void aVocabularyOfAnotherSizeIsRefused() {
    Vocabulary other = Vocabulary.of(List.of("<pad>", "<sos>", "<eos>", "<unk>", "[C]"));
    assertThatThrownBy(() -> new Generator(model, other))
        .hasMessage("vocabulary must have the model's " + drugs.vocabulary().size() + " tokens, but has 5");
    assertThatThrownBy(() -> generator().decode(new float[25], GenerationOptions.greedy(0))).hasMessageContaining("rows of 24");
    assertThatThrownBy(() -> generator().batch(0)).hasMessage("batch must be at least 1, but is 0");
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.ObjectMapper;
import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MolecularProperty;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.PropertyFunction;
import io.molfuse.chem.PropertyStatistics;
import io.molfuse.chem.PropertyTable;
import io.molfuse.chem.Selfies;
import io.molfuse.chem.Vocabulary;
import io.molfuse.train.LearningRateSchedule;
import io.molfuse.train.OneThread;
import io.molfuse.train.RunDirectory;
import io.molfuse.train.StagingRing;
import io.molfuse.train.Trainer;
import io.molfuse.train.TrainingConfig;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class ConditionalVaeTest {
  private static final List<MolecularProperty> PROPERTIES = List.of(MolecularProperty.WEIGHT, MolecularProperty.RINGS);
  private static final float UNKNOWN = Float.NaN;

  @TempDir static Path folder;
  private static MoleculeDataset drugs;
  private static PropertyTable table;

  @BeforeAll
  static void load() {
    drugs = TestMolecules.drugs(folder);
    table = PropertyTable.of(drugs, PROPERTIES, PropertyFunction.standard(), 1);
  }

  private static MolecularVae model(double dropout) {
    ModelConfig config = TestMolecules.config(0).with(new ModelConfig.Condition(PROPERTIES, 16, dropout));
    MolecularVae model = new MolecularVae(config, drugs.vocabulary().size(), 1);
    model.statistics(table.statistics(drugs.entries()));
    return model;
  }

  private static GraphBatch batch() {
    return drugs.collate(drugs.entries()).with(table.rows(drugs.entries()));
  }

  private static float[] logits(MolecularVae model, float... properties) {
    try (PointerScope scope = new PointerScope()) {
      Device cpu = new Device(DeviceType.CPU);
      Tensor latents = Tensors.floats(cpu, new float[24], 1, 24);
      Tensor given = properties.length == 0 ? null : Tensors.floats(cpu, properties, 1, properties.length);
      return Tensors.toFloats(model.logits(latents, given, Tensors.longs(cpu, new long[] {Vocabulary.SOS, 5}, 1, 2)));
    }
  }

  @Test
  void everyPropertyReachesTheLogitsAndNoneIsTheDefault() {
    try (MolecularVae model = model(0.1)) {
      float[] usual = logits(model, 200, 2);
      assertThat(logits(model, 250, 2)).isNotEqualTo(usual);
      assertThat(logits(model, 200, 3)).isNotEqualTo(usual);
      assertThat(logits(model, UNKNOWN, 2)).isNotEqualTo(usual);
      assertThat(logits(model)).isEqualTo(logits(model, UNKNOWN, UNKNOWN)).isNotEqualTo(usual).doesNotContain(UNKNOWN);
    }
  }

  @Test
  void propertiesReachTheLatent() {
    try (MolecularVae model = model(0.1);
        PointerScope scope = new PointerScope()) {
      GraphBatch batch = batch();
      float[] known = Tensors.toFloats(model.encode(VaeBatch.of(batch)));
      float[] unknown = Tensors.toFloats(model.encode(VaeBatch.of(drugs.collate(drugs.entries()))));
      assertThat(known).isNotEqualTo(unknown).hasSameSizeAs(unknown);
    }
  }

  @Test
  void unitsDoNotMatter() {
    try (MolecularVae model = model(0);
        MolecularVae other = model(0)) {
      List<PropertyStatistics> thousandths =
          model.statistics().stream()
              .map(s -> new PropertyStatistics(s.property(), 1e-3 * s.mean(), 1e-3 * s.deviation(), 1e-3 * s.low(), 1e-3 * s.high()))
              .toList();
      other.statistics(thousandths);
      float[] expected = logits(model, 200, 2);
      float[] found = logits(other, 0.2f, 0.002f);
      for (int i = 0; i < expected.length; i++) {
        assertThat(found[i]).isCloseTo(expected[i], within(1e-4f));
      }
    }
  }

  @Test
  void allParametersLearnAndUnknownValuesHarmNoGradient() {
    try (MolecularVae model = model(0.5);
        PointerScope scope = new PointerScope()) {
      GraphBatch plain = batch();
      float[] properties = plain.properties().clone();
      properties[0] = UNKNOWN;
      model.loss(VaeBatch.of(plain.with(properties)), 0.1, 5).total().backward();
      model.parameters().parameters().forEach(
          parameter -> {
            float[] gradient = Tensors.toFloats(parameter.tensor().grad());
            double sum = 0;
            for (float value : gradient) {
              sum += Math.abs(value);
            }
            assertThat(sum).as(parameter.name()).isFinite();
            if (parameter.name().startsWith("latent.condition")) {
              assertThat(sum).as(parameter.name()).isPositive();
            }
          });
    }
  }

  /** Without dropout what stands for unknown values is not used, and so has no gradient but 0. */
  @Test
  void dropoutHidesPropertiesInTrainingOnly() {
    for (double dropout : new double[] {0, 0.5}) {
      try (MolecularVae model = model(dropout);
          PointerScope scope = new PointerScope()) {
        model.loss(VaeBatch.of(batch()), 0.1, 5).total().backward();
        Tensor absent = model.parameters().tensors().get("latent.condition.absent");
        assertThat(absent.grad().abs().sum().item_float() > 0).isEqualTo(dropout > 0);
        float first = model.evaluate(VaeBatch.of(batch()), 0.1).total().item_float();
        torch.manual_seed(99);
        assertThat(model.evaluate(VaeBatch.of(batch()), 0.1).total().item_float()).isEqualTo(first);
      }
    }
  }

  @Test
  void whatTheModelDoesNotKnowIsRefused() {
    try (MolecularVae model = model(0.1);
        MolecularVae plain = new MolecularVae(TestMolecules.config(0), drugs.vocabulary().size(), 1);
        PointerScope scope = new PointerScope()) {
      assertThat(model.condition(Map.of(MolecularProperty.RINGS, 3.0))).containsExactly(UNKNOWN, 3);
      assertThatThrownBy(() -> model.condition(Map.of(MolecularProperty.QED, 0.5)))
          .hasMessage("the model was trained without a condition on QED; it has weight, rings");
      assertThatThrownBy(() -> model.condition(Map.of(MolecularProperty.RINGS, Double.NaN)))
          .hasMessage("a condition must be a finite number, but rings is NaN");
      assertThatThrownBy(() -> plain.condition(Map.of(MolecularProperty.QED, 0.5)))
          .hasMessage("the model was trained without a condition on QED, and has no other");
      assertThatThrownBy(() -> model.loss(VaeBatch.of(drugs.collate(drugs.entries())), 0.1, 1))
          .hasMessage("a batch to train on needs the properties [weight, rings]");
      assertThatThrownBy(() -> logits(model, 1, 2, 3)).hasMessageContaining("properties must be [B,2]");
      assertThatThrownBy(() -> model.statistics(model.statistics().subList(0, 1)))
          .hasMessage("statistics must be of [weight, rings], but are of [weight]");
      assertThat(plain.statistics()).isEmpty();
      assertThatThrownBy(() -> TestMolecules.config(0).with(
              new ModelConfig.Condition(List.of(MolecularProperty.QED, MolecularProperty.QED), 8, 0)))
          .hasMessage("condition.properties must differ, but are [QED, QED]");
    }
  }

  @Test
  void stagedBatchesCarryTheProperties() throws Exception {
    int[] entries = {3, 1, 4};
    try (PointerScope scope = new PointerScope();
        Device cpu = new Device(DeviceType.CPU);
        StagingRing ring = new StagingRing(cpu, 2);
        var loader = MoleculeBatches.staged(drugs, table, entries, 3, false, 0, ring).build();
        StagedBatch staged = loader.batch(0)) {
      VaeBatch batch = VaeBatch.of(staged.transfer().take());
      assertThat(Tensors.toFloats(batch.properties())).isEqualTo(table.rows(entries));
    }
  }

  @Test
  void theCheckpointKeepsConditionsAndStatistics() {
    RunDirectory run = RunDirectory.prepare(folder.resolve("run"));
    try (MolecularVae model = model(0.1);
        Trainer<GraphBatch> trainer = trainer(model, new MoleculeBatches(drugs, drugs.entries(), 16, true, 1).properties(table), 3, 1e-3)) {
      trainer
          .checkpoints(
              (state, optimizer, labels) ->
                  VaeCheckpoint.save(run, model, drugs.vocabulary(), Map.of(), Map.of(), state, trainer.loopState(), optimizer, labels))
          .run();
      try (VaeCheckpoint.Loaded loaded = VaeCheckpoint.open(folder.resolve("run"), RunDirectory.LAST).load(DeviceType.CPU)) {
        assertThat(loaded.model().config()).isEqualTo(model.config());
        assertThat(loaded.model().statistics()).isEqualTo(model.statistics());
        assertThat(logits(loaded.model(), 200, 2)).isEqualTo(logits(model, 200, 2));
      }
    }
  }

  @Test
  void filesOfBeforeThereWereConditionsAreModelsWithoutAny() throws Exception {
    ObjectMapper json = new ObjectMapper();
    String now = json.writeValueAsString(TestMolecules.config(0));
    String before = now.substring(0, now.indexOf(",\"condition\"")) + "}";
    assertThat(json.readValue(before, ModelConfig.class)).isEqualTo(TestMolecules.config(0));
    ModelConfig conditional = TestMolecules.config(0).with(new ModelConfig.Condition(PROPERTIES, 16, 0.2));
    String written = json.writeValueAsString(conditional);
    assertThat(written).contains("\"properties\":[\"weight\",\"rings\"]");
    assertThat(json.readValue(written, ModelConfig.class)).isEqualTo(conditional);
    assertThatThrownBy(() -> json.readValue(written.replace("rings", "colour"), ModelConfig.class))
        .hasMessageContaining("unknown property colour; known are weight, logP, QED, TPSA, rings");
  }

  private static Trainer<GraphBatch> trainer(MolecularVae model, MoleculeBatches batches, long steps, double rate) {
    LearningRateSchedule schedule = new LearningRateSchedule(LearningRateSchedule.Kind.COSINE, 10, 0.1);
    TrainingConfig config = new TrainingConfig(0, steps, 0, rate, Map.of(), schedule, 0.01, 1, 1, 0, 0, 11);
    return new Trainer<>(new VaeTask(model, 0.5), batches, config);
  }

  @Test
  void generatedMoleculesAreAsHeavyAsAskedFor() {
    MoleculeDataset molecules = MoleculeDataset.bundled("moses-test-2k5", new MoleculeDataset.Options().limit(1000).maxLength(64));
    List<MolecularProperty> weight = List.of(MolecularProperty.WEIGHT);
    PropertyTable weights = PropertyTable.of(molecules, weight, PropertyFunction.standard(), 1);
    ModelConfig config = TestMolecules.config(0).with(new ModelConfig.Condition(weight, 16, 0.1));
    try (MolecularVae model = new MolecularVae(config, molecules.vocabulary().size(), 2)) {
      model.statistics(weights.statistics(molecules.entries()));
      MoleculeBatches batches = new MoleculeBatches(molecules, molecules.entries(), 32, true, 3).properties(weights);
      try (Trainer<GraphBatch> trainer = trainer(model, batches, 400, 5e-3)) {
        trainer.run();
      }
      PropertyStatistics trained = model.statistics().get(0);
      double light = meanWeight(model, molecules.vocabulary(), trained.low());
      double heavy = meanWeight(model, molecules.vocabulary(), trained.high());
      // A third of what was asked for, at the least.
      assertThat(heavy - light).isGreaterThan((trained.high() - trained.low()) / 3);
    }
  }

  private static double meanWeight(MolecularVae model, Vocabulary vocabulary, double wanted) {
    List<String> selfies =
        new Generator(model, vocabulary)
            .condition(Map.of(MolecularProperty.WEIGHT, wanted))
            .sample(100, GenerationOptions.seeded(5));
    List<String> smiles = selfies.stream().map(Selfies.standard()::decode).filter(text -> !text.isEmpty()).toList();
    float[] weights = PropertyTable.rows(smiles, List.of(MolecularProperty.WEIGHT), PropertyFunction.standard());
    assertThat(weights).hasSizeGreaterThan(80);
    double sum = 0;
    int count = 0;
    for (float value : weights) {
      if (Float.isFinite(value)) {
        sum += value;
        count++;
      }
    }
    assertThat(count).isGreaterThan(80);
    return sum / count;
  }
}

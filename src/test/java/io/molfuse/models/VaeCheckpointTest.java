// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.train.Checkpoint;
import io.molfuse.train.CheckpointException;
import io.molfuse.train.LearningRateSchedule;
import io.molfuse.train.OneThread;
import io.molfuse.train.RunDirectory;
import io.molfuse.train.StepReport;
import io.molfuse.train.Trainer;
import io.molfuse.train.TrainingConfig;
import io.molfuse.train.TrainingListener;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class VaeCheckpointTest {
  @TempDir Path folder;

  private static TrainingConfig config() {
    return new TrainingConfig(
        0,
        20,
        0,
        2e-3,
        Map.of("decoder", 1.2, "latent", 0.8),
        new LearningRateSchedule(LearningRateSchedule.Kind.COSINE, 4, 0.01),
        0.01,
        1,
        1,
        1,
        0,
        11);
  }

  private Trainer<GraphBatch> trainer(MolecularVae model, MoleculeDataset drugs, RunDirectory run) {
    int[] all = IntStream.range(0, drugs.size()).toArray();
    Trainer<GraphBatch> trainer = new Trainer<>(new VaeTask(model, 1e-3), new MoleculeBatches(drugs, all, 7, true, 11), config());
    Map<String, String> texts = Map.of("note.yaml", "note: mine\n");
    return trainer.checkpoints(
        (state, optimizer, labels) ->
            VaeCheckpoint.save(
                run, model, drugs.vocabulary(), Map.of("note", "mine"), texts, state, trainer.loopState(), optimizer, labels));
  }

  private static Map<String, float[]> values(MolecularVae model) {
    Map<String, float[]> values = new LinkedHashMap<>();
    try (PointerScope scope = new PointerScope()) {
      model.parameters().tensors().forEach((name, tensor) -> values.put(name, Tensors.toFloats(tensor)));
    }
    return values;
  }

  @Test
  void resumedTrainingOfTheModelGoesOnBitForBit() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    Map<String, float[]> straight;
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0.1), drugs.vocabulary().size(), 5);
        Trainer<GraphBatch> trainer = trainer(model, drugs, RunDirectory.prepare(folder.resolve("straight")))) {
      trainer.run();
      straight = values(model);
    }
    RunDirectory run = RunDirectory.prepare(folder.resolve("resumed"));
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0.1), drugs.vocabulary().size(), 5);
        Trainer<GraphBatch> trainer = trainer(model, drugs, run)) {
      trainer.listener(
          new TrainingListener() {
            @Override
            public void step(StepReport report) {
              if (report.step() == 8) {
                trainer.requestStop();
              }
            }
          });
      assertThat(trainer.run().ending()).isEqualTo(Trainer.Ending.STOPPED);
    }
    VaeCheckpoint checkpoint = VaeCheckpoint.open(folder.resolve("resumed"), "last");
    assertThat(checkpoint.settings(JsonNode.class).path("note").asText()).isEqualTo("mine");
    assertThat(checkpoint.text("note.yaml")).isEqualTo("note: mine\n");
    try (VaeCheckpoint.Loaded loaded = checkpoint.load(DeviceType.CPU);
        Trainer<GraphBatch> trainer = trainer(loaded.model(), drugs, run)) {
      checkpoint.loadOptimizer(trainer.optimizer());
      assertThat(trainer.resume(checkpoint.state()).run().state().step()).isEqualTo(20);
      Map<String, float[]> resumed = values(loaded.model());
      assertThat(resumed.keySet()).isEqualTo(straight.keySet());
      straight.forEach((name, expected) -> assertThat(resumed.get(name)).as(name).isEqualTo(expected));
    }
  }

  @Test
  void loadedModelGeneratesWhatTheSavedOneDoes() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0.1), drugs.vocabulary().size(), 5);
        Trainer<GraphBatch> trainer = trainer(model, drugs, RunDirectory.prepare(folder.resolve("run")))) {
      trainer.run();
      try (VaeCheckpoint.Loaded loaded = VaeCheckpoint.open(folder.resolve("run"), "last").load(DeviceType.CPU)) {
        assertThat(loaded.vocabulary().tokens()).isEqualTo(drugs.vocabulary().tokens());
        assertThat(loaded.model().config()).isEqualTo(model.config());
        assertThat(new Generator(loaded.model(), loaded.vocabulary()).sample(20, GenerationOptions.seeded(1)))
            .isEqualTo(new Generator(model, drugs.vocabulary()).sample(20, GenerationOptions.seeded(1)));
      }
    }
  }

  @Test
  void wellFormedFilesOfAnotherModelAreRefused() throws IOException {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0.1), drugs.vocabulary().size(), 5);
        Trainer<GraphBatch> trainer = trainer(model, drugs, RunDirectory.prepare(folder.resolve("run")))) {
      trainer.run();
    }
    Path saved = RunDirectory.resolve(folder.resolve("run"), "last");
    Path config = saved.resolve("config.json");
    Path manifest = saved.resolve("manifest.json");
    String text = Files.readString(config);
    // As many bytes and a fitting manifest: only the meaning is wrong.
    replace(config, manifest, text, text.replace("\"width\" : 24", "\"width\" : 25"));
    assertThatThrownBy(() -> VaeCheckpoint.open(saved).load(DeviceType.CPU))
        .isInstanceOf(CheckpointException.class)
        .hasMessageContaining("model.safetensors holds latent.mean.weight as F32 [24, 64]");
    replace(config, manifest, Files.readString(config), text.replace("\"layers\" : 3", "\"layers\" : 0"));
    assertThatThrownBy(() -> VaeCheckpoint.open(saved).load(DeviceType.CPU))
        .isInstanceOf(CheckpointException.class)
        .hasMessageContaining("config.json")
        .hasMessageContaining("layers must be at least 1");
    assertThat(Checkpoint.open(saved).step()).isEqualTo(20);
  }

  private static void replace(Path file, Path manifest, String old, String text) throws IOException {
    String list = Files.readString(manifest);
    Files.writeString(file, text);
    // The manifests of format 1 had no checksum of their own.
    Files.writeString(manifest, list.replace(sha256(old), sha256(text)).replace("\"format\" : 2", "\"format\" : 1"));
  }

  private static String sha256(String text) {
    try {
      return java.util.HexFormat.of()
          .formatHex(
              java.security.MessageDigest.getInstance("SHA-256")
                  .digest(text.getBytes(java.nio.charset.StandardCharsets.UTF_8)));
    } catch (java.security.NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }
}

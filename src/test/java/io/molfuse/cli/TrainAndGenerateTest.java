// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.models.TestMolecules;
import io.molfuse.train.OneThread;
import io.molfuse.train.Precision;
import io.molfuse.train.RunDirectory;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.GZIPOutputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@ExtendWith(OneThread.class)
class TrainAndGenerateTest {
  @TempDir Path folder;

  private Path drugs() {
    return TestMolecules.file(folder, TestMolecules.DRUGS);
  }

  private Program train(Object... more) {
    List<Object> args =
        new ArrayList<>(List.of("train", "--data", drugs(), "--preset", "tiny", "--device", "cpu", "--seed", 7));
    args.addAll(List.of(more));
    return Program.run(args.toArray());
  }

  @Test
  void writesOneObjectPerLoggedStepAndAFinishedOne() throws JsonProcessingException {
    Path output = folder.resolve("run");
    Program program = train("--max-steps", 60, "--output", output, "--json", "--samples", 20);
    assertThat(program.code()).as(program.err()).isZero();
    List<JsonNode> lines = program.json();
    JsonNode last = lines.get(lines.size() - 1);
    List<JsonNode> steps = lines.subList(0, lines.size() - 1);
    assertThat(steps).hasSize(60);
    for (JsonNode step : steps) {
      for (String key :
          List.of(
              "step",
              "total_loss",
              "recon_loss",
              "kl_loss",
              "perplexity",
              "token_accuracy",
              "learning_rate",
              "molecules_per_second")) {
        assertThat(step.path(key).isNumber()).as("%s in %s", key, step).isTrue();
      }
      assertThat(step.path("token_accuracy").asDouble()).isBetween(0.0, 1.0);
      assertThat(step.path("total_loss").asDouble())
          .isCloseTo(step.path("recon_loss").asDouble() + 1e-4 * step.path("kl_loss").asDouble(), within(1e-4));
      assertThat(step.path("perplexity").asDouble())
          .isCloseTo(Math.exp(step.path("recon_loss").asDouble()), within(0.05));
    }
    assertThat(steps.get(59).path("step").asInt()).isEqualTo(60);
    assertThat(steps.get(59).path("recon_loss").asDouble())
        .isLessThan(0.85 * steps.get(0).path("recon_loss").asDouble());
    assertThat(last.path("event").asText()).isEqualTo("finished");
    assertThat(Path.of(last.path("checkpoint").asText())).isDirectory().hasParent(output);
    for (String key : List.of("validity", "uniqueness", "novelty")) {
      assertThat(last.path(key).asDouble(-1)).as(key).isBetween(0.0, 1.0);
    }
    assertThat(program.err()).contains("32 for training");
  }

  @Test
  void sameSeedTrainsTheSameModel() throws JsonProcessingException {
    List<JsonNode> first = train("--max-steps", 8, "--output", folder.resolve("a"), "--json", "--samples", 0).json();
    List<JsonNode> second = train("--max-steps", 8, "--output", folder.resolve("b"), "--json", "--samples", 0).json();
    for (int i = 0; i < 8; i++) {
      assertThat(second.get(i).path("total_loss")).isEqualTo(first.get(i).path("total_loss"));
    }
    assertThat(first.get(8).path("validity").isNull()).isTrue();
  }

  @Test
  void generatesFromTheRunsFolderTheSameForTheSameSeed() throws JsonProcessingException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 30, "--output", output, "--samples", 5).code()).isZero();
    Program first = Program.run("generate", "--checkpoint", output, "-n", 12, "--seed", 3, "--temperature", 0.8, "--json");
    assertThat(first.code()).as(first.err()).isZero();
    List<JsonNode> lines = first.json();
    assertThat(lines).hasSize(13);
    assertThat(lines.get(0).has("smiles")).isTrue();
    assertThat(lines.get(0).has("selfies")).isTrue();
    assertThat(lines.get(12).path("event").asText()).isEqualTo("finished");
    assertThat(lines.get(12).path("novelty").isNull()).isTrue();
    Program again = Program.run("generate", "--checkpoint", output, "-n", 12, "--seed", 3, "--temperature", 0.8, "--json");
    assertThat(again.out()).isEqualTo(first.out());
    Program other = Program.run("generate", "--checkpoint", output, "-n", 12, "--seed", 4, "--temperature", 0.8, "--json");
    assertThat(other.out()).isNotEqualTo(first.out());

    Program plain = Program.run("generate", "--checkpoint", output, "-n", 12, "--seed", 3, "--known", drugs());
    assertThat(plain.code()).as(plain.err()).isZero();
    assertThat(plain.out().lines()).hasSize(12);
    assertThat(plain.err()).contains("novelty");
  }

  @Test
  void resumedRunGoesOnAndEndsWhereAStraightOneDoes() throws JsonProcessingException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 10, "--output", output, "--samples", 0).code()).isZero();
    Program finished = Program.run("train", "--resume", output, "--samples", 0);
    assertThat(finished.code()).isEqualTo(1);
    assertThat(finished.err()).contains("is finished already");
    Program more = Program.run("train", "--resume", output, "--max-steps", 15, "--json", "--samples", 0);
    assertThat(more.code()).as(more.err()).isZero();
    assertThat(more.json().get(0).path("step").asInt()).isEqualTo(11);
    assertThat(more.json()).hasSize(6);
  }

  @Test
  void readsGzippedFilesAndReportsBadLines() throws IOException {
    Path file = folder.resolve("some.smi.gz");
    try (OutputStream out = new GZIPOutputStream(Files.newOutputStream(file))) {
      List<String> lines = new ArrayList<>(TestMolecules.DRUGS);
      lines.add(2, "this is not a molecule");
      lines.add(5, "C1CC(");
      out.write(String.join("\n", lines).getBytes(StandardCharsets.UTF_8));
    }
    Program program =
        Program.run(
            "train", "--data", file, "--preset", "tiny", "--max-steps", 2, "--output", folder.resolve("run"), "--samples", 0);
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(program.err()).contains("2 records not used", "some.smi.gz:3", "some.smi.gz:6", "32 for training");
  }

  @Test
  void anEarlierRunIsNotOverwrittenUnasked() throws IOException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 2, "--output", output, "--samples", 0).code()).isZero();
    Program again = train("--max-steps", 3, "--output", output, "--samples", 0);
    assertThat(again.code()).isEqualTo(1);
    assertThat(again.err()).contains("holds an earlier run", "--resume", "--overwrite");
    assertThat(Files.readString(output.resolve("last"))).startsWith("step-00000002");
    assertThat(train("--max-steps", 3, "--output", output, "--overwrite", "--samples", 0).code()).isZero();
    assertThat(Files.readString(output.resolve("last"))).startsWith("step-00000003");
  }

  @Test
  void usersMistakesGetAMessageAndNoStackTrace() throws IOException {
    Path nothing = folder.resolve("nothing.smi");
    fails(1, "nothing.smi", "train", "--data", nothing, "--output", folder.resolve("r0"));
    Path rubbish = Files.writeString(folder.resolve("rubbish.smi"), "not a molecule\n???\n");
    fails(1, "rubbish.smi:1: invalid SMILES", "train", "--data", rubbish, "--output", folder.resolve("r1"));
    Path empty = Files.writeString(folder.resolve("empty.smi"), "");
    fails(1, "empty.smi", "train", "--data", empty, "--output", folder.resolve("r2"));
    Path file = Files.createFile(folder.resolve("file"));
    fails(1, "cannot write to the output folder", "train", "--data", drugs(), "--output", file.resolve("run"));
    fails(1, "no checkpoint at", "generate", "--checkpoint", nothing);
    fails(1, "no checkpoint at", "train", "--resume", folder.resolve("nowhere"));
    fails(2, "--max-steps must be at least 1, but is 0", "train", "--max-steps", 0);
    fails(2, "--learning-rate must be above 0", "train", "--learning-rate", -1);
    fails(2, "--batch-size", "train", "--batch-size", "many");
    fails(2, "--preset", "train", "--preset", "huge");
    fails(2, "--device", "train", "--device", "tpu");
    fails(2, "--unknown", "train", "--unknown");
    fails(2, "--temperature must be at least 0", "generate", "--checkpoint", nothing, "--temperature", -1);
    fails(2, "--top-p must be above 0", "generate", "--checkpoint", nothing, "--top-p", 0);
    fails(2, "-n must be at least 1", "generate", "--checkpoint", nothing, "-n", 0);
    fails(2, "--data cannot be given with --resume", "train", "--resume", folder, "--data", nothing);
  }

  @Test
  void aMissingGpuIsSaid() {
    if (!io.molfuse.ops.Molfuse.capabilities().cudaUsable()) {
      fails(1, "--device cuda: no GPU can be used: ", "train", "--device", "cuda", "--data", drugs());
    }
  }

  @Test
  void damagedCheckpointIsNamed() throws IOException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 2, "--output", output, "--samples", 0).code()).isZero();
    Path model = output.resolve("step-00000002/model.safetensors");
    byte[] bytes = Files.readAllBytes(model);
    bytes[bytes.length / 2] ^= 64;
    Files.write(model, bytes);
    fails(1, model + " is damaged", "generate", "--checkpoint", output);
    fails(1, model + " is damaged", "train", "--resume", output);
  }

  @Test
  void divergingTrainingStopsAndKeepsTheCheckpoint() throws IOException {
    Path output = folder.resolve("run");
    Program program = train("--epochs", 400, "--learning-rate", 1e30, "--output", output, "--samples", 0);
    assertThat(program.code()).as(program.err()).isEqualTo(1);
    assertThat(program.err()).contains("training was stopped", "smaller learning rate").doesNotContain("\tat ");
    Program generated = Program.run("generate", "--checkpoint", output, "-n", 1);
    assertThat(generated.err()).doesNotContain("\tat ");
  }

  private static void fails(int code, String message, Object... args) {
    Program program = Program.run(args);
    assertThat(program.code()).as(program.err()).isEqualTo(code);
    assertThat(program.err()).contains(message).doesNotContain("\tat ");
    assertThat(program.out()).isEmpty();
  }

  @Test
  void foldersOfAKilledSaveAreNotTakenForNewCheckpoints() throws IOException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 2, "--output", output, "--samples", 0).code()).isZero();
    Files.delete(output.resolve("last"));
    Files.deleteIfExists(output.resolve("best"));
    assertThat(trainSeed8("--max-steps", 2, "--output", output, "--samples", 0).code()).isZero();
    Path clean = folder.resolve("clean");
    assertThat(trainSeed8("--max-steps", 2, "--output", clean, "--samples", 0).code()).isZero();
    String model = "step-00000002/model.safetensors";
    assertThat(Files.readAllBytes(output.resolve(model))).isEqualTo(Files.readAllBytes(clean.resolve(model)));
  }

  private Program trainSeed8(Object... more) {
    List<Object> args =
        new ArrayList<>(List.of("train", "--data", drugs(), "--preset", "tiny", "--device", "cpu", "--seed", 8));
    args.addAll(List.of(more));
    return Program.run(args.toArray());
  }

  @Test
  void aCheckpointOutsideARunIsNotResumed() throws IOException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 2, "--output", output, "--samples", 0).code()).isZero();
    Path kept = Files.createDirectory(folder.resolve("kept"));
    Files.createDirectory(kept.resolve("step-00000001"));
    Path copy = Files.move(output.resolve("step-00000002"), kept.resolve("step-00000002"));
    fails(1, "holds no run", "train", "--resume", copy, "--max-steps", 4);
    assertThat(kept.resolve("step-00000001")).isDirectory();
    assertThat(Program.run("generate", "--checkpoint", copy, "-n", 1).code()).isZero();
  }

  @Test
  void aRunThatTimeEndedCanBeExtendedBySteps() throws IOException {
    Path output = folder.resolve("run");
    assertThat(train("--epochs", 10_000_000, "--max-minutes", 0.005, "--output", output, "--samples", 0).code()).isZero();
    Program finished = Program.run("train", "--resume", output, "--samples", 0);
    assertThat(finished.err()).contains("is finished already", "--max-minutes");
    long step = Long.parseLong(Files.readString(output.resolve("last")).strip().substring("step-".length()));
    Program more = Program.run("train", "--resume", output, "--max-steps", step + 3, "--samples", 0, "--json");
    assertThat(more.code()).as(more.err()).isZero();
    assertThat(Files.readString(output.resolve("last")).strip()).isEqualTo(String.format("step-%08d", step + 3));
  }

  @Test
  void resumingNeedsTheSameMoleculesAndSeed() throws IOException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 2, "--output", output, "--samples", 0).code()).isZero();
    fails(2, "--seed cannot be given with --resume", "train", "--resume", output, "--seed", 7);
    List<String> other = new ArrayList<>(TestMolecules.DRUGS);
    other.set(3, "CCO ethanol");
    TestMolecules.file(folder, other);
    Program changed = Program.run("train", "--resume", output, "--max-steps", 4);
    assertThat(changed.code()).isEqualTo(1);
    assertThat(changed.err()).contains("cannot resume", "molecules.smi has other molecules");
  }

  @Test
  void aFolderInUseIsRefused() {
    Path output = folder.resolve("run");
    try (RunDirectory other = RunDirectory.prepare(output)) {
      assertThat(other.tryLock()).isTrue();
      fails(1, output + " is in use by another run", "train", "--data", drugs(), "--output", output);
    }
    assertThat(train("--max-steps", 2, "--output", output, "--samples", 0).code()).isZero();
    try (RunDirectory other = RunDirectory.prepare(output)) {
      assertThat(other.tryLock()).isTrue();
      fails(1, output + " is in use by another run", "train", "--resume", output, "--max-steps", 4);
    }
  }

  @Test
  void anOverwrittenRunStaysUntilItsReplacementIsSaved() throws IOException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 2, "--output", output, "--samples", 0).code()).isZero();
    fails(2, "--beta must be a finite number", "train", "--data", drugs(), "--output", output, "--overwrite", "--beta", "Infinity");
    assertThat(train("--epochs", 400, "--learning-rate", 1e30, "--output", output, "--overwrite").code()).isEqualTo(1);
    assertThat(Program.run("generate", "--checkpoint", output, "-n", 1).code()).isZero();
  }

  @Test
  void aReaderThatGoesAwayEndsTheRunWithACheckpoint() throws IOException {
    Path output = folder.resolve("run");
    Object[] args = {
      "train", "--data", drugs(), "--preset", "tiny", "--device", "cpu", "--max-steps", 50_000, "--output", output,
      "--log-every", 1, "--json"
    };
    Program program = Program.withStreams(InputStream.nullInputStream(), Program.closedAfter(1000), args);
    assertThat(program.code()).isEqualTo(1);
    assertThat(program.err()).contains("cannot write to standard output").doesNotContain("\tat ");
    assertThat(output.resolve("last")).isRegularFile();
    Program generated =
        Program.withStreams(
            InputStream.nullInputStream(), Program.closedAfter(0), "generate", "--checkpoint", output, "-n", 3);
    assertThat(generated.code()).isEqualTo(1);
    assertThat(generated.err()).contains("cannot write to standard output").doesNotContain("\tat ");
  }

  @Test
  void knownMoleculesAreReadFirstAndReportedOn() throws IOException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 2, "--output", output, "--samples", 0).code()).isZero();
    fails(1, "nothing.smi", "generate", "--checkpoint", output, "--known", folder.resolve("nothing.smi"));
    Path some = Files.writeString(folder.resolve("some.smi"), "CCO\nC1CC(\n");
    Program program = Program.run("generate", "--checkpoint", output, "--known", some, "-n", 2);
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(program.err()).contains("1 record not used", "some.smi:2");
  }

  @Test
  void metricsThatAreNoNumbersAreNull() throws JsonProcessingException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 1, "--output", output, "--samples", 0).code()).isZero();
    // A model that learned nothing sometimes ends a sequence at once; of one empty string nothing can be unique.
    for (int seed = 0; seed < 300; seed++) {
      Program program = Program.run("generate", "--checkpoint", output, "-n", 1, "--seed", seed, "--json");
      JsonNode last = program.json().get(1);
      if (last.path("validity").asDouble() == 0) {
        assertThat(last.path("uniqueness").isNull()).as(program.out()).isTrue();
        return;
      }
    }
    throw new AssertionError("no seed gave an empty string");
  }

  @Test
  void copiesOfOneMoleculeCanBeTrainedOn() throws IOException {
    // The hash of a molecule decides its side; this finds one that is for validation.
    String held = "C";
    Path file = folder.resolve("same.smi");
    while (true) {
      Files.writeString(file, held + "\n");
      if (MoleculeDataset.load(file, new MoleculeDataset.Options()).splitByHash(0.02).train().length == 0) {
        break;
      }
      held += "C";
    }
    Files.writeString(file, (held + "\n").repeat(120));
    Program program =
        Program.run(
            "train", "--data", file, "--preset", "tiny", "--max-steps", 2, "--output", folder.resolve("run"), "--samples", 0);
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(program.err()).contains("120 for training, 0 for validation");
  }

  @Test
  void hugeNumbersDoNotOverflow() {
    Program program =
        train(
            "--batch-size", Integer.MAX_VALUE, "--epochs", Long.MAX_VALUE / 2, "--max-steps", 2, "--output",
            folder.resolve("run"), "--samples", 0);
    assertThat(program.code()).as(program.err()).isZero();
  }

  private Configuration saved(Path output) throws IOException {
    Path file = output.resolve(Files.readString(output.resolve("last")).strip()).resolve("configuration.yaml");
    return Configuration.of(YamlSettings.parse(Files.readString(file), new Origin(Origin.Layer.FILE, file.toString(), 1)));
  }

  @Test
  void configurationsComeFromAFileOptionsAndSetAndAreSaved() throws IOException {
    Path config =
        Files.writeString(
            folder.resolve("run.yaml"),
            "preset: tiny\ndata:\n  path: " + drugs() + "\ntraining:\n  beta: 0.5\n  seed: 3\n  max_steps: 4\n  batch_size: 16\n");
    Path output = folder.resolve("run");
    Program program =
        Program.run(
            "train", "--config", config, "--device", "cpu", "--output", output, "--samples", 0, "--seed", 4, "--beta", 0.25,
            "--set", "training.beta=0.125", "--set", "model.decoder.layers=1", "--precision", "fp32");
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(program.err()).contains("tiny: ", "decoder 1 layers", "precision  fp32: as asked for");
    Configuration first = saved(output);
    assertThat(first.preset()).isEqualTo(Preset.Name.TINY);
    assertThat(first.data().path()).isEqualTo(drugs().toString());
    assertThat(first.training().beta()).isEqualTo(0.125);
    assertThat(first.training().seed()).isEqualTo(4);
    assertThat(first.training().batchSize()).isEqualTo(16);
    assertThat(first.training().precision()).isEqualTo(Precision.FP32);
    assertThat(first.training().warmupSteps()).isZero();
    assertThat(Files.readString(output.resolve("last"))).startsWith("step-00000004");

    Program resumed =
        Program.run(
            "train", "--resume", output, "--device", "cpu", "--samples", 0, "--set", "training.max_steps=6", "--monitor", "--set",
            "training.checkpoint_minutes=2");
    assertThat(resumed.code()).as(resumed.err()).isZero();
    assertThat(resumed.err()).contains("2 steps of ", "ms, backward ");
    assertThat(Files.readString(output.resolve("last"))).startsWith("step-00000006");
    Configuration second = saved(output);
    assertThat(second.training().beta()).isEqualTo(0.125);
    assertThat(second.training().monitor()).isTrue();
    assertThat(second.training().checkpointMinutes()).isEqualTo(2);
    assertThat(second.training().maxSteps()).isEqualTo(6);
    fails(2, "--set training.beta=1: training.beta cannot be changed with --resume", "train", "--resume", output, "--set", "training.beta=1");
    fails(2, "--set training.bata=1: unknown key training.bata; the nearest", "train", "--resume", output, "--set", "training.bata=1");
    fails(2, "--config cannot be given with --resume", "train", "--resume", output, "--config", config);
    fails(2, "--precision cannot be given with --resume", "train", "--resume", output, "--precision", "fp16");
  }

  @Test
  void aSavedConfigurationStartsTheSameRunAgain() throws IOException {
    Path output = folder.resolve("run");
    assertThat(train("--max-steps", 4, "--output", output, "--samples", 0).code()).isZero();
    Path file = output.resolve("step-00000004/configuration.yaml");
    Path again = folder.resolve("again");
    Program program = Program.run("train", "--config", file, "--device", "cpu", "--output", again, "--samples", 0);
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(saved(again)).isEqualTo(saved(output));
    String model = "step-00000004/model.safetensors";
    assertThat(Files.readAllBytes(again.resolve(model))).isEqualTo(Files.readAllBytes(output.resolve(model)));
  }

  @Test
  void mistakesInConfigurationsShowBeforeAnythingIsRead() throws IOException {
    Path config = Files.writeString(folder.resolve("run.yaml"), "training:\n  bata: 1\n");
    Path nothing = folder.resolve("nothing.smi");
    String message = config + ", line 2: unknown key training.bata; the nearest known one is training.beta";
    fails(1, message, "train", "--config", config, "--data", nothing);
    fails(1, message, "train", "--config", config, "--output", folder.resolve("r1"));
    fails(2, "--set training.beta=-1: training.beta must be at least 0", "train", "--data", nothing, "--set", "training.beta=-1");
    fails(2, "--set preset=huge: preset must be one of tiny", "train", "--data", nothing, "--set", "preset=huge");
    fails(2, "--precision", "train", "--precision", "fp8");
    fails(1, "nothing.yaml: no such file", "train", "--config", folder.resolve("nothing.yaml"));
  }

  @Test
  void thePresetIsChosenByTheDataUnlessNamed() throws IOException {
    String little = "model={encoder: {layers: 1, selected: 1, heads: 1, channels: 8}, decoder: {layers: 1, heads: 1, hidden: 8}}";
    Path output = folder.resolve("run");
    Object[] args = {"train", "--data", drugs(), "--device", "cpu", "--max-steps", 1, "--samples", 0, "--set", little};
    Program chosen = Program.run(with(args, "--output", output));
    assertThat(chosen.code()).as(chosen.err()).isZero();
    assertThat(saved(output).preset()).isEqualTo(Preset.Name.SMALL);
    assertThat(saved(output).training().batchSize()).isEqualTo(64);
    Path named = folder.resolve("named");
    Program medium = Program.run(with(args, "--output", named, "--set", "preset=medium"));
    assertThat(medium.code()).as(medium.err()).isZero();
    assertThat(saved(named).preset()).isEqualTo(Preset.Name.MEDIUM);
    assertThat(saved(named).training().batchSize()).isEqualTo(32);
    assertThat(saved(named).training().epochs()).isZero();
  }

  private static Object[] with(Object[] args, Object... more) {
    List<Object> all = new ArrayList<>(List.of(args));
    all.addAll(List.of(more));
    return all.toArray();
  }

  @Test
  void verboseShowsTheStackTrace() {
    Program program = Program.run("generate", "--checkpoint", folder.resolve("none"), "--verbose");
    assertThat(program.code()).isEqualTo(1);
    assertThat(program.err()).contains("\tat io.molfuse");
  }
}

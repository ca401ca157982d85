// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.models.TestMolecules;
import io.molfuse.train.EventFile;
import io.molfuse.train.OneThread;
import io.molfuse.train.RunDirectory;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** That bin/molfuse train does what its configuration asks for. */
@ExtendWith(OneThread.class)
class TrainingRunTest {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final int MOLECULES = 240;

  @TempDir Path folder;

  /** Enough molecules to keep some for validation. */
  private Path molecules() throws IOException {
    Path file = folder.resolve("molecules.smi");
    if (!Files.exists(file)) {
      MoleculeDataset test = MoleculeDataset.bundled("moses-test-2k5", new MoleculeDataset.Options().limit(MOLECULES));
      Files.write(file, IntStream.range(0, test.size()).mapToObj(test::smiles).toList());
    }
    return file;
  }

  private List<Object> command(Path data, Object... more) {
    List<Object> args =
        new ArrayList<>(
            List.of("train", "--data", data, "--preset", "tiny", "--device", "cpu", "--threads", 1, "--seed", 7, "--samples", 0, "--json"));
    args.addAll(List.of(more));
    return args;
  }

  private Program train(Object... more) throws IOException {
    Program program = Program.run(command(molecules(), more).toArray());
    assertThat(program.code()).as(program.err()).isZero();
    return program;
  }

  private static List<JsonNode> steps(List<JsonNode> lines) {
    return lines.stream().filter(line -> !line.has("event")).toList();
  }

  private static JsonNode finished(Program program) throws JsonProcessingException {
    return program.json().stream().filter(line -> line.path("event").asText().equals("finished")).findFirst().orElseThrow();
  }

  /** What a step's line says that does not depend on the machine's speed. */
  private static JsonNode values(JsonNode step) {
    return ((com.fasterxml.jackson.databind.node.ObjectNode) step.deepCopy()).without(List.of("elapsed_seconds", "molecules_per_second"));
  }

  /** All that has a state, in one run: a loss scale, accumulation, streaming, layers computed twice, validation, patience. */
  private static final List<String> EVERYTHING =
      List.of(
          "--max-steps", "24", "--log-every", "1", "--precision", "fp16", "--set", "training.accumulation=2", "--set",
          "training.gradient_checkpointing=true", "--set", "data={access: streaming, shuffle_buffer: 64, workers: 2}", "--set",
          "training.checkpoint_minutes=0.004", "--set", "model.encoder.dropout=0.1");

  @Test
  @Timeout(value = 10, unit = TimeUnit.MINUTES)
  void aKilledRunGoesOnWithIdenticalLosses() throws Exception {
    Path straight = folder.resolve("straight");
    List<JsonNode> expected = steps(train(with(EVERYTHING, "--output", straight)).json());
    assertThat(expected).hasSize(24);
    assertThat(expected.get(0).path("loss_scale").asDouble()).isEqualTo(65536);

    Path killed = folder.resolve("killed");
    killed(killed, command(molecules(), with(EVERYTHING, "--output", killed)));
    long from = step(killed);
    assertThat(from).isBetween(1L, 23L);
    Program resumed = Program.run("train", "--resume", killed, "--device", "cpu", "--threads", 1, "--samples", 0, "--json");
    assertThat(resumed.code()).as(resumed.err()).isZero();
    List<JsonNode> rest = steps(resumed.json());
    assertThat(rest).hasSize((int) (24 - from));
    for (int i = 0; i < rest.size(); i++) {
      assertThat(values(rest.get(i))).isEqualTo(values(expected.get((int) from + i)));
    }
    for (String file : List.of("model.safetensors", "optimizer.safetensors", "random.safetensors", "loop.json")) {
      assertThat(last(killed).resolve(file)).as(file).hasSameBinaryContentAs(last(straight).resolve(file));
    }
    JsonNode loop = JSON.readTree(last(killed).resolve("loop.json").toFile());
    assertThat(loop.at("/scaler/growth_tracker").asInt()).isPositive();
    assertThat(loop.at("/averages/values/total_loss")).hasSize(24);
    assertThat(loop.at("/stopping/best_step").asInt()).isPositive();
    assertThat(loop.at("/position/epoch").asInt()).isPositive();
  }

  private static Object[] with(List<String> some, Object... more) {
    return Stream.concat(some.stream(), Stream.of(more)).toArray();
  }

  private static Path last(Path run) {
    return RunDirectory.resolve(run, RunDirectory.LAST);
  }

  private static long step(Path run) {
    return Long.parseLong(last(run).getFileName().toString().substring("step-".length()));
  }

  /** Starts the program and kills it, unasked, some steps after it has saved for the first time. */
  private static void killed(Path run, List<Object> args) throws IOException, InterruptedException {
    List<String> java = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin", "java").toString(), "-Xmx512m", "-cp"));
    java.add(System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")));
    java.add(Main.class.getName());
    args.forEach(arg -> java.add(arg.toString()));
    Process process = new ProcessBuilder(java).redirectError(ProcessBuilder.Redirect.DISCARD).start();
    try (BufferedReader out = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
      int since = 0;
      while (since < 3) {
        assertThat(out.readLine()).as("a step").isNotNull();
        since += RunDirectory.holdsRun(run) ? 1 : 0;
      }
    } finally {
      process.destroyForcibly();
      assertThat(process.waitFor(1, TimeUnit.MINUTES)).isTrue();
    }
  }

  @Test
  void theBestCheckpointIsFoundAgainWhenAKillLeftItsLabelBehind() throws IOException {
    Path run = folder.resolve("run");
    train("--max-steps", 16, "--output", run);
    assertThat(Files.readString(run.resolve("best"))).startsWith("step-00000016");
    // As if the save had been cut off before its last rename.
    Files.writeString(run.resolve("best"), "step-00000001\n");
    Program more = Program.run("train", "--resume", run, "--max-steps", 17, "--device", "cpu", "--samples", 0);
    assertThat(more.code()).as(more.err()).isZero();
    String best = Files.readString(run.resolve("best")).strip();
    assertThat(run.resolve(best)).isDirectory();
    assertThat(best).isIn("step-00000016", "step-00000017");
  }

  @ParameterizedTest
  @ValueSource(strings = {"bf16", "fp16"})
  void precisionIsInEffect(String precision) throws IOException {
    List<JsonNode> full = steps(train("--max-steps", 6, "--log-every", 1, "--output", folder.resolve("fp32")).json());
    Program program = train("--max-steps", 6, "--log-every", 1, "--precision", precision, "--output", folder.resolve(precision));
    List<JsonNode> half = steps(program.json());
    assertThat(program.err()).contains("precision  " + precision);
    assertThat(half.get(0).has("loss_scale")).isEqualTo(precision.equals("fp16"));
    for (int i = 0; i < 6; i++) {
      double expected = full.get(i).path("total_loss").asDouble();
      double loss = half.get(i).path("total_loss").asDouble();
      assertThat(loss).isNotEqualTo(expected).isBetween(0.95 * expected, 1.05 * expected);
    }
  }

  @Test
  void tf32NeedsAGpuAndAutoSaysWhatItChose() throws IOException {
    Program refused = Program.run(command(molecules(), "--max-steps", 1, "--precision", "tf32", "--output", folder.resolve("a")).toArray());
    assertThat(refused.code()).isEqualTo(1);
    assertThat(refused.err()).contains("error: precision tf32: needs a CUDA device").doesNotContain("\tat ");
    assertThat(folder.resolve("a")).doesNotExist();
    assertThat(train("--max-steps", 1, "--output", folder.resolve("b")).err()).contains("precision  fp32: chosen because");
  }

  @Test
  void layersComputedTwiceTrainTheSame() throws IOException {
    String dropout = "model.encoder.dropout=0.1";
    List<JsonNode> once = steps(train("--max-steps", 6, "--log-every", 1, "--set", dropout, "--output", folder.resolve("a")).json());
    Path run = folder.resolve("b");
    Object[] twice = {
      "--max-steps", 6, "--log-every", 1, "--set", dropout, "--set", "training.gradient_checkpointing=true", "--output", run
    };
    List<JsonNode> again = steps(train(twice).json());
    for (int i = 0; i < 6; i++) {
      double expected = once.get(i).path("total_loss").asDouble();
      assertThat(again.get(i).path("total_loss").asDouble()).isBetween(expected - 1e-4, expected + 1e-4);
    }
  }

  @Test
  void streamingTrainsOnTheSameMoleculesInAnotherOrder() throws IOException {
    Object[] memory = {"--max-steps", 16, "--log-every", 1, "--output", folder.resolve("memory")};
    Object[] streaming = {
      "--max-steps", 16, "--log-every", 1, "--output", folder.resolve("streaming"), "--set", "data.access=streaming", "--set",
      "data.shuffle_buffer=32"
    };
    Program kept = train(memory);
    Program read = train(streaming);
    // Vocabulary and parts are the same, and so are the first parameters.
    assertThat(read.err().lines().filter(line -> line.startsWith("molecules")).toList())
        .isEqualTo(kept.err().lines().filter(line -> line.startsWith("molecules")).toList());
    assertThat(last(folder.resolve("streaming")).resolve("vocabulary.json"))
        .hasSameTextualContentAs(last(folder.resolve("memory")).resolve("vocabulary.json"));
    double first = steps(kept.json()).get(0).path("total_loss").asDouble();
    List<JsonNode> steps = steps(read.json());
    assertThat(steps.get(0).path("total_loss").asDouble()).isNotEqualTo(first).isBetween(0.9 * first, 1.1 * first);
    assertThat(steps.get(15).path("total_loss").asDouble()).isLessThan(steps.get(0).path("total_loss").asDouble());
    // Other workers, the same batches.
    Path other = folder.resolve("other");
    Object[] workers = {
      "--max-steps", 16, "--log-every", 1, "--output", other, "--set", "data={access: streaming, shuffle_buffer: 32, workers: 3}"
    };
    assertThat(steps(train(workers).json()).stream().map(TrainingRunTest::values).toList())
        .isEqualTo(steps.stream().map(TrainingRunTest::values).toList());
    // Another buffer mixes otherwise.
    Object[] buffer = {
      "--max-steps", 1, "--log-every", 1, "--output", folder.resolve("buffer"), "--set", "data={access: streaming, shuffle_buffer: 64}"
    };
    assertThat(values(steps(train(buffer).json()).get(0))).isNotEqualTo(values(steps.get(0)));
  }

  @Test
  void aRunThatGetsNoBetterEndsWithItsBestWeights() throws IOException {
    Path run = folder.resolve("run");
    // No loss gets better by so much, so that patience ends after the first validation and two more.
    Program program =
        train("--epochs", 50, "--output", run, "--set", "training.patience=2", "--set", "training.min_delta=100", "--log-every", 1);
    JsonNode finished = finished(program);
    long batches = steps(program.json()).stream().filter(step -> step.path("epoch").asInt() == 1).count();
    assertThat(finished.path("ending").asText()).isEqualTo("early_stopped");
    assertThat(finished.path("step").asLong()).isEqualTo(3 * batches);
    assertThat(program.err()).contains("ended since validation got no better");
    Program again = Program.run("train", "--resume", run, "--device", "cpu", "--samples", 0);
    assertThat(again.code()).isEqualTo(1);
    assertThat(again.err()).contains("validation got no better; give a larger --set training.patience");
    Program more =
        Program.run("train", "--resume", run, "--device", "cpu", "--samples", 0, "--set", "training.patience=3");
    assertThat(more.code()).as(more.err()).isZero();
    assertThat(step(run)).isEqualTo(4 * batches);
  }

  @Test
  void curvesAreWrittenAndGoOnAndTheMonitorsAmongThem() throws IOException {
    Path run = folder.resolve("run");
    Program program = train("--max-steps", 8, "--log-every", 1, "--output", run, "--monitor");
    assertThat(program.err()).contains("6 steps of ", "forward ");
    // Two of the eight were for warming up.
    JsonNode performance =
        program.json().stream().filter(line -> line.path("event").asText().equals("performance")).findFirst().orElseThrow();
    assertThat(performance.at("/performance/steps").asInt()).isEqualTo(6);
    assertThat(performance.at("/performance/forward_millis").asDouble()).isPositive();
    // The ring's threads time their copies.
    assertThat(performance.at("/performance/transfer_millis").asDouble()).isPositive();
    Program resumed = Program.run("train", "--resume", run, "--max-steps", 10, "--device", "cpu", "--samples", 0, "--log-every", 1);
    assertThat(resumed.code()).as(resumed.err()).isZero();
    List<Path> files = files(run.resolve("tensorboard"));
    assertThat(files).hasSize(2);
    Set<String> tags = new HashSet<>(EventFile.tags(files.get(0)));
    assertThat(tags)
        .contains("train/total_loss", "average/total_loss", "run/config", "performance/forward_millis", "validation/total_loss");
    assertThat(train("--max-steps", 2, "--output", run, "--overwrite").code()).isZero();
    assertThat(files(run.resolve("tensorboard"))).hasSize(1);
    Path quiet = folder.resolve("quiet");
    train("--max-steps", 2, "--output", quiet, "--set", "training.tensorboard=false");
    assertThat(quiet.resolve("tensorboard")).doesNotExist();
  }

  private static List<Path> files(Path folder) throws IOException {
    try (Stream<Path> files = Files.list(folder)) {
      return files.sorted().toList();
    }
  }

  @Test
  void aRunThatDoesNotBeginLeavesNoFolder() throws IOException {
    Path output = folder.resolve("a/b/run");
    Program mistyped = Program.run("train", "--data", folder.resolve("nothing.smi"), "--output", output);
    assertThat(mistyped.code()).isEqualTo(1);
    assertThat(folder.resolve("a")).doesNotExist();
    Path mine = Files.createDirectory(folder.resolve("mine"));
    assertThat(Program.run("train", "--data", folder.resolve("nothing.smi"), "--output", mine).code()).isEqualTo(1);
    assertThat(mine).isDirectory();
    assertThat(Program.run("train", "--data", TestMolecules.file(folder, List.of("?")), "--output", output).code()).isEqualTo(1);
    assertThat(folder.resolve("a")).doesNotExist();
  }
}

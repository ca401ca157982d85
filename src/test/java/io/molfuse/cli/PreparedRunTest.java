// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.train.OneThread;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.assertj.core.data.Percentage;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** From prepare to train and evaluate on what it wrote. */
@ExtendWith(OneThread.class)
class PreparedRunTest {
  private static final int MOLECULES = 600;

  @TempDir static Path shared;
  @TempDir Path folder;
  private static Path data;

  @BeforeAll
  static void prepare() throws IOException {
    MoleculeDataset bundled = MoleculeDataset.bundled("moses-25k", new MoleculeDataset.Options().limit(MOLECULES));
    Path file = shared.resolve("some.smi");
    Files.write(file, Arrays.stream(bundled.entries()).mapToObj(bundled::smiles).toList());
    data = shared.resolve("data");
    Program program = Program.run("prepare", file, "--output", data, "--val", 0.1, "--test", 0.1);
    assertThat(program.code()).as(program.err()).isZero();
  }

  private static Program train(Path data, Path output, Object... more) {
    List<Object> args =
        new ArrayList<>(
            List.of("train", "--data", data, "--preset", "tiny", "--device", "cpu", "--threads", 1, "--batch-size", 32, "--samples", 4,
                "--json", "--log-every", 1, "--output", output));
    args.addAll(List.of(more));
    return Program.run(args.toArray());
  }

  private static List<Double> losses(Program program) throws IOException {
    return program.json().stream()
        .filter(line -> line.has("total_loss") && !line.has("event"))
        .map(line -> line.path("total_loss").asDouble())
        .toList();
  }

  private static long records(String split) throws IOException {
    return Files.readAllLines(data.resolve(split + ".smi")).size();
  }

  @ParameterizedTest
  @ValueSource(strings = {"memory", "streaming"})
  void aRunTakesTheSplitsThatWerePrepared(String access) throws IOException {
    String reading = "data.access=" + access;
    String small = "data.shuffle_buffer=100";
    Path whole = folder.resolve("whole");
    Program once = train(data, whole, "--max-steps", 8, "--set", reading, "--set", small, "--set", "model.condition.properties=[weight]");
    assertThat(once.code()).as(once.err()).isZero();
    assertThat(once.err()).contains(records("train") + " for training, " + records("val") + " for validation", "condition  weight: mean ");
    assertThat(losses(once)).hasSize(8);
    Program longer = Program.run("train", "--resume", whole, "--max-steps", 12, "--json", "--samples", 0, "--device", "cpu", "--threads", 1);
    assertThat(longer.code()).as(longer.err()).isZero();
    assertThat(losses(longer)).hasSize(4);
  }

  @Test
  void evaluationFindsTheDataOfTheRun() throws IOException {
    Path run = folder.resolve("run");
    assertThat(train(data, run, "--max-steps", 5).code()).isZero();
    JsonNode back = evaluate(run, "reconstruction");
    assertThat(back.path("data").asText()).isEqualTo("the test split of " + data);
    assertThat(back.path("molecules").asInt()).isEqualTo((int) Math.min(20, records("test")));
    JsonNode generated = evaluate(run, "generation");
    assertThat(generated.path("novel_against").asText()).isEqualTo("the training split of " + data);
    assertThat(generated.path("reference").asText()).isEqualTo("the test split of " + data);
    for (String figure :
        List.of("validity", "uniqueness", "novelty", "internal_diversity", "nearest_neighbour_similarity", "fragment_similarity",
            "weight_distance", "logP_distance", "QED_distance", "synthetic_accessibility_distance", "passing_filters")) {
      assertThat(generated.path(figure).isNumber()).as(figure).isTrue();
    }
    Path file = Files.writeString(folder.resolve("mine.smi"), "CCO\nc1ccccc1\n");
    JsonNode own = evaluate(run, "generation", "--data", file);
    assertThat(own.path("reference").asText()).startsWith("none");
    assertThat(own.has("weight_distance")).isFalse();
    JsonNode both = evaluate(run, "generation", "--data", file, "--reference", file);
    assertThat(both.path("reference").asText()).isEqualTo(file.toString());
    assertThat(both.path("weight_distance").isNumber()).isTrue();
  }

  private static JsonNode evaluate(Path run, String mode, Object... more) throws IOException {
    List<Object> args =
        new ArrayList<>(List.of("evaluate", "--checkpoint", run, "--mode", mode, "-n", 20, "--json", "--device", "cpu", "--threads", 1));
    args.addAll(List.of(more));
    Program program = Program.run(args.toArray());
    assertThat(program.code()).as(program.err()).isZero();
    return program.json().get(0);
  }

  @Test
  void aRunOnAFileIsEvaluatedOnWhatItHeldBack() throws IOException {
    Path run = folder.resolve("run");
    Path file = shared.resolve("some.smi");
    assertThat(train(file, run, "--max-steps", 3).code()).isZero();
    JsonNode back = evaluate(run, "reconstruction");
    assertThat(back.path("data").asText()).isEqualTo("the validation molecules of " + file);
    assertThat(back.path("molecules").asInt()).isBetween(1, 20);
    Path copy = Files.copy(file, folder.resolve("copy.smi"));
    Path gone = folder.resolve("gone");
    assertThat(train(copy, gone, "--max-steps", 1).code()).isZero();
    Files.delete(copy);
    Program program = Program.run("evaluate", "--checkpoint", gone, "--mode", "latent");
    assertThat(program.code()).isEqualTo(1);
    assertThat(program.err()).contains("are gone; say with --data what to take");
  }

  @Test
  void damageIsCountedAndTheRestIsTrainedOn() throws IOException {
    Path damaged = folder.resolve("damaged");
    Files.createDirectory(damaged);
    try (var files = Files.list(data)) {
      for (Path file : files.filter(Files::isRegularFile).toList()) {
        Files.copy(file, damaged.resolve(file.getFileName()));
      }
    }
    try (RandomAccessFile file = new RandomAccessFile(damaged.resolve("train-00000.molrec").toFile(), "rw")) {
      file.seek(100);
      file.write(file.read() ^ 1);
    }
    Program program = train(damaged, folder.resolve("run"), "--max-steps", 2);
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(program.err()).contains("train-00000.molrec").contains(records("train") - 256 + " for training");
    Program resumed = Program.run("train", "--resume", folder.resolve("run"), "--max-steps", 3, "--samples", 0);
    assertThat(resumed.code()).as(resumed.err()).isZero();
    Files.delete(damaged.resolve("train-00000.molrec"));
    Program none = train(damaged, folder.resolve("none"));
    assertThat(none.code()).isEqualTo(1);
    assertThat(none.err()).contains("no usable molecule in the split train").doesNotContain("\tat ");
  }

  @Test
  void dataThatChangeDuringTrainingEndTheRunWithTheirName() throws IOException {
    Path changing = folder.resolve("changing");
    Files.createDirectory(changing);
    try (var files = Files.list(data)) {
      for (Path file : files.filter(Files::isRegularFile).toList()) {
        Files.copy(file, changing.resolve(file.getFileName()));
      }
    }
    Path records = changing.resolve("train-00000.molrec");
    OutputStream changer =
        new OutputStream() {
          private boolean done;

          @Override
          public void write(int b) throws IOException {
            if (!done) {
              done = true;
              Files.write(records, new byte[1000]);
            }
          }
        };
    Path run = folder.resolve("run");
    Program program =
        Program.withStreams(
            InputStream.nullInputStream(), changer, "train", "--data", changing, "--preset", "tiny", "--device", "cpu", "--threads", 1,
            "--batch-size", 32, "--json", "--log-every", 1, "--max-steps", 500, "--output", run, "--set", "data.access=streaming", "--set",
            "data.shuffle_buffer=64");
    assertThat(program.code()).isEqualTo(1);
    assertThat(program.err()).contains(records.toString()).doesNotContain("\tat ");
    assertThat(Files.readString(run.resolve("report.json"))).contains("train-00000.molrec");
  }

  @Test
  void aFolderOfFilesIsNotAPreparedOne() throws IOException {
    Program program = train(Files.createDirectory(folder.resolve("files")), folder.resolve("run"));
    assertThat(program.code()).isEqualTo(1);
    assertThat(program.err()).contains("holds no prepared molecules; molfuse prepare ");
  }

  @Test
  void fusedOperatorsCanBeSwitchedOff() throws IOException {
    List<Double> fused = losses(train(data, folder.resolve("fused"), "--max-steps", 6));
    Program program = train(data, folder.resolve("chains"), "--max-steps", 6, "--set", "training.fused=false");
    assertThat(program.code()).as(program.err()).isZero();
    List<Double> unfused = losses(program);
    assertThat(unfused).hasSize(6).isNotEqualTo(fused);
    // Dropout and noise are drawn otherwise, so the losses are only alike.
    assertThat(unfused.get(0)).isCloseTo(fused.get(0), Percentage.withPercentage(10));
    assertThat(losses(train(data, folder.resolve("again"), "--max-steps", 6))).isEqualTo(fused);
  }
}

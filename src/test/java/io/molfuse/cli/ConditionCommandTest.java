// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import io.molfuse.models.TestMolecules;
import io.molfuse.train.OneThread;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Conditions and the Kullback-Leibler term's options from the command line. */
@ExtendWith(OneThread.class)
class ConditionCommandTest {
  @TempDir Path folder;

  private Program train(Path output, Object... more) {
    List<Object> args =
        new ArrayList<>(
            List.of("train", "--data", TestMolecules.file(folder, TestMolecules.DRUGS), "--preset", "tiny", "--device", "cpu", "--threads", 1,
                "--batch-size", 16, "--samples", 0, "--json", "--log-every", 1, "--output", output));
    args.addAll(List.of(more));
    return Program.run(args.toArray());
  }

  private static Program generate(Path run, Object... more) {
    List<Object> args = new ArrayList<>(List.of("generate", "--checkpoint", run, "-n", 4, "--device", "cpu", "--threads", 1));
    args.addAll(List.of(more));
    return Program.run(args.toArray());
  }

  @ParameterizedTest
  @ValueSource(strings = {"memory", "streaming"})
  void aConditionalModelTrainsResumesAndGenerates(String access) {
    Path run = folder.resolve("run");
    Program trained =
        train(run, "--max-steps", 4, "--set", "model.condition.properties=[weight, rings]", "--set", "data.access=" + access);
    assertThat(trained.code()).as(trained.err()).isZero();
    assertThat(trained.err()).contains("condition  weight: mean ").contains("condition  rings: mean ");
    Program resumed = Program.run("train", "--resume", run, "--max-steps", 6, "--samples", 0, "--device", "cpu", "--threads", 1);
    assertThat(resumed.code()).as(resumed.err()).isZero();
    assertThat(lines(resumed, "condition ")).isEqualTo(lines(trained, "condition ")).hasSize(2);

    Program asked = generate(run, "--condition", "weight=200,rings=2");
    assertThat(asked.code()).as(asked.err()).isZero();
    assertThat(asked.err()).doesNotContain("warning");
    assertThat(generate(run, "--condition", "weight=200").out()).isNotEqualTo(asked.out());
    Program outside = generate(run, "--condition", "weight=900");
    assertThat(outside.code()).isZero();
    assertThat(outside.err()).containsPattern("warning: weight=900 is outside what the model was trained on: 98 of 100 molecules had 1\\d\\d\\.?\\d* to 3");
    Program unknown = generate(run, "--condition", "QED=0.5");
    assertThat(unknown.code()).isEqualTo(2);
    assertThat(unknown.err()).contains("--condition: the model was trained without a condition on QED; it has weight, rings");
  }

  private static List<String> lines(Program program, String start) {
    return program.err().lines().filter(line -> line.startsWith(start)).toList();
  }

  @Test
  void aModelWithoutConditionsRefusesThem() {
    Path run = folder.resolve("run");
    assertThat(train(run, "--max-steps", 2).code()).isZero();
    Program program = generate(run, "--condition", "weight=300");
    assertThat(program.code()).isEqualTo(2);
    assertThat(program.err()).contains("--condition: the model was trained without a condition on weight, and has no other");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "mass=3|--condition: unknown property mass; known are weight, logP, QED, TPSA, rings",
        "weight|--condition must be NAME=VALUE,..., such as logP=2.5,weight=300, but has \"weight\"",
        "weight=300,|--condition must be NAME=VALUE,..., such as logP=2.5,weight=300, but has \"\"",
        "weight=heavy|--condition: weight must be a finite number, but is \"heavy\"",
        "weight=NaN|--condition: weight must be a finite number, but is \"NaN\"",
        "weight=1,Weight=2|--condition names weight twice"
      })
  void mistypedConditionsAreRefused(String condition, String message) {
    Program program = generate(folder.resolve("none"), "--condition", condition);
    assertThat(program.code()).isEqualTo(2);
    assertThat(program.err()).contains(message);
  }

  @Test
  void anUnknownPropertyIsRefusedBeforeTraining() {
    Program program = train(folder.resolve("run"), "--max-steps", 2, "--set", "model.condition.properties=[colour]");
    assertThat(program.code()).isEqualTo(2);
    assertThat(program.err()).contains("model.condition.properties.0 must be one of weight, logp, qed, tpsa, rings, but is \"colour\"");
  }

  @Test
  void annealingIsReportedAndGoesOnAfterResuming() throws Exception {
    Path run = folder.resolve("run");
    Program first =
        train(run, "--max-steps", 3, "--beta", 0.4, "--set", "training.kl={annealing: cyclical, steps: 4, cycles: 2, rise: 0.5, free_bits: 0.1}");
    assertThat(first.code()).as(first.err()).isZero();
    assertThat(first.err()).contains("warning: the run ends after 3 steps, before training.kl.annealing does, after 6");
    assertThat(betas(first)).containsExactly(0f, 0.2f, 0.4f);
    Program rest = Program.run("train", "--resume", run, "--max-steps", 7, "--samples", 0, "--json", "--device", "cpu", "--threads", 1);
    assertThat(rest.code()).as(rest.err()).isZero();
    assertThat(betas(rest)).containsExactly(0.4f, 0f, 0.2f, 0.4f);
  }

  private static List<Float> betas(Program program) throws Exception {
    List<Float> betas = new ArrayList<>();
    for (JsonNode line : program.json()) {
      if (line.has("beta")) {
        betas.add((float) line.path("beta").asDouble());
      }
    }
    return betas;
  }
}

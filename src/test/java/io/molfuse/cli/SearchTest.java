// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
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
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@ExtendWith(OneThread.class)
class SearchTest {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final String RATE = "training.learning_rate: {min: 1e-4, max: 1e-2, log: true}\n";

  @TempDir Path folder;

  private Path space(String text) throws IOException {
    return Files.writeString(folder.resolve("space.yaml"), text);
  }

  private List<Object> command(String space, Object... more) throws IOException {
    List<Object> args =
        new ArrayList<>(
            List.of(
                "search", space(space), "--data", RunReportTest.molecules(folder), "--preset", "tiny", "--device", "cpu", "--threads", 1));
    args.addAll(List.of(more));
    return args;
  }

  private Program search(String space, Object... more) throws IOException {
    return Program.run(command(space, more).toArray());
  }

  private static JsonNode results(Path search) throws IOException {
    return JSON.readTree(search.resolve("results.json").toFile());
  }

  private static List<String> column(Path search, String key) throws IOException {
    return results(search).path("trials").findValuesAsText(key);
  }

  private static Path model(Path run) {
    return RunDirectory.resolve(run, RunDirectory.LAST).resolve("model.safetensors");
  }

  @Test
  void halvingGoesOnWithTheBetterHalfAndItsBestCanBeTrainedAlone() throws IOException {
    Path output = folder.resolve("search");
    Program program = search(RATE, "--method", "halving", "--trials", 4, "--eta", 2, "--trial-steps", 12, "--output", output);
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(column(output, "status")).containsExactlyInAnyOrder("finished", "dropped", "dropped", "dropped");
    assertThat(column(output, "step")).containsExactlyInAnyOrder("12", "6", "3", "3");
    JsonNode best = results(output).path("trials").get(results(output).path("best").asInt() - 1);
    assertThat(best.path("values")).hasSize(3);
    double[] first = new double[4];
    for (int i = 0; i < 4; i++) {
      first[i] = results(output).at("/trials/" + i + "/values/0").asDouble();
    }
    java.util.Arrays.sort(first);
    assertThat(best.at("/values/0").asDouble()).isLessThanOrEqualTo(first[1]);

    assertThat(program.out().lines().findFirst().orElseThrow()).contains("trial", "total_loss", "training.learning_rate");
    List<String> table = Files.readAllLines(output.resolve("results.csv"));
    assertThat(table).hasSize(5);
    assertThat(table.get(1)).startsWith(best.path("trial").asText() + ",finished,12,");
    assertThat(Files.readString(output.resolve("results.html"))).contains("<caption>", "Rounds").doesNotContain("<script", "http");

    Path alone = folder.resolve("alone");
    Program trained =
        Program.run("train", "--config", output.resolve("best.yaml"), "--output", alone, "--device", "cpu", "--threads", 1, "--samples", 0);
    assertThat(trained.code()).as(trained.err()).isZero();
    // Pauses leave no trace: the winner is what its configuration makes.
    Path winner = output.resolve(String.format("trials/%04d", best.path("trial").asInt()));
    assertThat(model(winner)).hasSameBinaryContentAs(model(alone));
    assertThat(winner.resolve("report.html")).exists();
  }

  @Test
  void aBudgetEndsASearchAndALargerOneGoesOn() throws IOException {
    Path output = folder.resolve("search");
    Program program = search(RATE, "--method", "random", "--trials", 2, "--trial-steps", 5, "--max-steps", 7, "--output", output);
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(program.err()).contains("the budget is used");
    assertThat(column(output, "status")).containsExactly("finished", "unfinished");
    assertThat(column(output, "step")).containsExactly("5", "2");
    String log = Files.readString(output.resolve("trials/0001/log.txt"));

    assertThat(search(RATE, "--trial-steps", 5, "--output", output).err()).contains("holds an earlier search");
    Program other = Program.run("search", "--resume", output, "--trials", 9);
    assertThat(other.code()).isEqualTo(2);
    Program more = Program.run("search", "--resume", output, "--device", "cpu", "--threads", 1, "--json");
    assertThat(more.code()).as(more.err()).isZero();
    assertThat(column(output, "status")).containsExactly("finished", "finished");
    assertThat(output.resolve("trials/0001/log.txt")).hasContent(log);
    List<JsonNode> lines = more.json();
    assertThat(lines.get(lines.size() - 1).path("ending").asText()).isEqualTo("finished");
    assertThat(lines.get(lines.size() - 1).at("/best/status").asText()).isEqualTo("finished");

    Path alone = folder.resolve("alone");
    Object[] train = {"train", "--config", output.resolve("trials/0002/trial.yaml"), "--output", alone, "--device", "cpu", "--samples", 0};
    assertThat(Program.run(train).code()).isZero();
    assertThat(model(output.resolve("trials/0002"))).hasSameBinaryContentAs(model(alone));
  }

  @Test
  void aFailedTrialIsRecordedAndTheSearchGoesOn() throws IOException {
    Path output = folder.resolve("search");
    Program program =
        search("training.learning_rate: [1e30, 1e-3]\n", "--method", "random", "--trials", 4, "--trial-steps", 4, "--output", output);
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(new HashSet<>(column(output, "status"))).isEqualTo(Set.of("failed", "finished"));
    for (JsonNode trial : results(output).path("trials")) {
      boolean diverges = trial.at("/settings/training.learning_rate").asText().equals("1e30");
      assertThat(trial.path("status").asText()).isEqualTo(diverges ? "failed" : "finished");
      assertThat(trial.path("reason").asText("").contains("so training was stopped")).isEqualTo(diverges);
    }
    assertThat(Files.readString(output.resolve("best.yaml"))).contains("learning_rate: 0.001");
  }

  @Test
  @Timeout(value = 10, unit = TimeUnit.MINUTES)
  void aSearchThatWasStoppedAndKilledGoesOn() throws Exception {
    Path output = folder.resolve("search");
    List<Object> args = command(RATE, "--method", "random", "--trials", 2, "--trial-steps", 60, "--output", output);
    args.addAll(List.of("--set", "training.checkpoint_minutes=1e-5", "--set", "training.log_every=1"));
    Process asked = start(args);
    await(asked, "trial 1 running");
    awaitSteps(output.resolve("trials/0001"), 2);
    asked.destroy();
    assertThat(asked.waitFor(2, TimeUnit.MINUTES)).isTrue();
    assertThat(asked.exitValue()).isEqualTo(130);
    assertThat(column(output, "status")).containsExactly("unfinished", "planned");
    assertThat(results(output).at("/trials/0/step").asLong()).isBetween(1L, 59L);

    Process killed = start(List.of("search", "--resume", output, "--device", "cpu", "--threads", 1));
    await(killed, "trial 2 running");
    awaitSteps(output.resolve("trials/0002"), 3);
    killed.destroyForcibly();
    assertThat(killed.waitFor(1, TimeUnit.MINUTES)).isTrue();
    assertThat(column(output, "status")).containsExactly("finished", "running");

    Program resumed = Program.run("search", "--resume", output, "--device", "cpu", "--threads", 1);
    assertThat(resumed.code()).as(resumed.err()).isZero();
    assertThat(column(output, "status")).containsExactly("finished", "finished");
    assertThat(resumed.err()).doesNotContain("trial 1 running");
    // It went on from a checkpoint.
    assertThat(Files.readString(output.resolve("trials/0002/history.jsonl"))).contains("\"resumed\":true");
    assertThat(RunHistory.read(output.resolve("trials/0002"), 1000).curve("train/total_loss")).hasSize(60);
  }

  private static Process start(List<Object> args) throws IOException {
    List<String> java = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin", "java").toString(), "-Xmx512m", "-cp"));
    java.add(System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")));
    java.add(Main.class.getName());
    args.forEach(arg -> java.add(arg.toString()));
    return new ProcessBuilder(java).redirectErrorStream(true).start();
  }

  private static void await(Process process, String text) throws IOException {
    BufferedReader out = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
    StringBuilder all = new StringBuilder();
    for (String line = out.readLine(); line != null; line = out.readLine()) {
      all.append(line).append('\n');
      if (line.contains(text)) {
        return;
      }
    }
    throw new AssertionError("ended without \"" + text + "\": " + all);
  }

  private static void awaitSteps(Path run, int steps) throws IOException, InterruptedException {
    for (int i = 0; i < 6000; i++) {
      if (RunDirectory.holdsRun(run) && RunHistory.read(run, 100).step() >= steps) {
        return;
      }
      Thread.sleep(10);
    }
    throw new AssertionError("no step " + steps + " in " + run);
  }

  @Test
  void mistakesAreRefusedBeforeTheFirstTrial() throws IOException {
    refused(
        "training.learning_rat: {min: 1e-4, max: 1e-2}",
        "line 1: unknown key training.learning_rat; the nearest known one is training.learning_rate");
    refused(
        "model:\n  encoder:\n    layer: {min: 1, max: 2}",
        "line 3: unknown key model.encoder.layer; the nearest known one is model.encoder.layers");
    refused(RATE + "model.encoder.dropout: {min: 0, max: 1.5}", "line 2: ", "model.encoder.dropout must be");
    refused("training.batch_size: [16, 0]", "training.batch_size must be at least 1, but is 0");
    refused("training.batch_size: {min: 8.5, max: 16}", "min of training.batch_size must be an integer, but is \"8.5\"");
    refused("training.learning_rate: {min: 1, max: 1e-4}", "max of training.learning_rate must be above min");
    refused("training.learning_rate: {min: 0, max: 1, log: true}", "min of training.learning_rate must be above 0 for log");
    refused("training.learning_rate: {min: 0, mux: 1}", "unknown key mux", "nearest known one is max");
    refused("training.schedule: {min: 0, max: 1}", "has no range; give {choices: [...]}");
    refused("training.schedule: [cosine, sine]", "training.schedule must be one of", "sine");
    refused("training.max_steps: [4, 5]", "cannot be searched together with --trial-steps");
    refused("training.beta: {min: 1e-5, max: 1e-2, log: true}", "give --metric recon_loss");
    refused("preset: [tiny, quick]", "preset cannot be searched");
    refused("data.path: [a, b]", "changes the data");
    refused("", "a search space must be a mapping");
    assertThat(Program.run("search", "--trial-steps", 4).code()).isEqualTo(2);
    assertThat(Program.run("search", space(RATE)).err()).contains("halving needs --trial-steps or --trial-minutes");
  }

  private void refused(String space, String... parts) throws IOException {
    Program program = search(space, "--trial-steps", 4, "--output", folder.resolve("nowhere"));
    assertThat(program.code()).as(program.err()).isEqualTo(1);
    assertThat(program.err()).contains(parts).doesNotContain("trial 1", "\tat ");
    assertThat(folder.resolve("nowhere")).doesNotExist();
  }

  @Test
  void drawsAreValidSeededAndWithinTheirRanges() {
    SearchSpace space =
        SearchSpace.parse(
            "model.encoder.layers: {min: 1, max: 3}\nmodel.encoder.selected: {min: 1, max: 3}\n"
                + "training.batch_size: {min: 16, max: 70, step: 16}\n" + RATE,
            "space");
    Setting base = Preset.settings(Preset.Name.TINY);
    space.check(base, 5);
    Set<String> sizes = new HashSet<>();
    Set<String> rates = new HashSet<>();
    int small = 0;
    for (int i = 1; i <= 300; i++) {
      Map<String, String> values = space.draw(base, 5, i);
      assertThat(values).isEqualTo(space.draw(base, 5, i));
      int layers = Integer.parseInt(values.get("model.encoder.layers"));
      assertThat(Integer.parseInt(values.get("model.encoder.selected"))).isBetween(1, layers);
      double rate = Double.parseDouble(values.get("training.learning_rate"));
      assertThat(rate).isBetween(1e-4, 1e-2);
      small += rate < 1e-3 ? 1 : 0;
      sizes.add(values.get("training.batch_size"));
      rates.add(values.get("training.learning_rate"));
    }
    assertThat(sizes).containsExactlyInAnyOrder("16", "32", "48", "64");
    assertThat(rates).hasSizeGreaterThan(280);
    // Evenly by logarithm: half of them in the lower decade.
    assertThat(small).isBetween(110, 190);
    assertThat(space.draw(base, 6, 1)).isNotEqualTo(space.draw(base, 5, 1));
  }

  @Test
  void roundsAreThoseOfHyperbandsBracket() {
    SearchPlan plan = new SearchPlan(1, SearchPlan.Method.HALVING, 0, 27, 3, 81, 0, "total_loss", "", "", "");
    assertThat(plan.rungs()).extracting(SearchPlan.Rung::trials).containsExactly(27, 9, 3, 1);
    assertThat(plan.rungs()).extracting(SearchPlan.Rung::steps).containsExactly(3L, 9L, 27L, 81L);
    SearchPlan minutes = new SearchPlan(1, SearchPlan.Method.HALVING, 0, 5, 2, 0, 8, "total_loss", "", "", "");
    assertThat(minutes.rungs()).extracting(SearchPlan.Rung::seconds).containsExactly(120.0, 240.0, 480.0);
    SearchPlan random = new SearchPlan(1, SearchPlan.Method.RANDOM, 0, 27, 3, 81, 0, "total_loss", "", "", "");
    assertThat(random.rungs()).hasSize(1);
    assertThatThrownBy(() -> SearchSpace.parse("a: 1", "space")).isInstanceOf(FailureException.class);
  }
}

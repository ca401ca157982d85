// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.abort;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@ExtendWith(OneThread.class)
class TensorBoardTest {
  private static final LearningRateSchedule COSINE = new LearningRateSchedule(LearningRateSchedule.Kind.COSINE, 5, 0.01);

  /** What TensorBoard itself makes of a folder, as JSON. */
  private static final String READER =
      """
      import json, sys
      from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
      from tensorboard.util import tensor_util
      folder = sys.argv[1]
      plain = event_accumulator.EventAccumulator(folder, size_guidance={"scalars": 0})
      plain.Reload()
      shown = plugin_event_accumulator.EventAccumulator(folder, size_guidance={"tensors": 0})
      shown.Reload()
      plugins = {tag: shown.SummaryMetadata(tag).plugin_data.plugin_name for tag in shown.Tags()["tensors"]}
      print(json.dumps({
          "scalars": {tag: [[e.step, e.value] for e in plain.Scalars(tag)] for tag in plain.Tags()["scalars"]},
          "plugins": plugins,
          "texts": {tag: [tensor_util.make_ndarray(e.tensor_proto).item().decode() for e in shown.Tensors(tag)]
                    for tag, plugin in plugins.items() if plugin == "text"}}))
      """;

  @TempDir Path folder;

  private static TrainingState train(long steps, TrainingState from, List<StepReport> reports, TensorBoardListener board) {
    TrainingConfig config = new TrainingConfig(0, steps, 0, 0.05, Map.of(), COSINE, 0, 1, 1, 1, 0, 3);
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config)) {
      return trainer
          .validation(LineTask.batches(2))
          .listener(board)
          .listener(
              new TrainingListener() {
                @Override
                public void step(StepReport report) {
                  reports.add(report);
                }
              })
          .resume(from)
          .run()
          .state();
    }
  }

  private List<Path> files() throws IOException {
    try (Stream<Path> files = Files.list(folder)) {
      return files.sorted().toList();
    }
  }

  /** A run of 20 steps that is resumed from step 10, since what came after was lost. */
  private List<StepReport> twoSittings() {
    List<StepReport> lost = new ArrayList<>();
    List<StepReport> reports = new ArrayList<>();
    try (TensorBoardListener board = new TensorBoardListener(folder, null)) {
      train(13, TrainingState.START, lost, board);
      TrainingState at10 = new TrainingState(10, 80, 1, true, 0.5, Double.POSITIVE_INFINITY, 0);
      train(20, at10, reports, board);
    }
    List<StepReport> all = new ArrayList<>(lost.subList(0, 10));
    all.addAll(reports);
    return all;
  }

  @Test
  void checksumIsCrc32c() {
    // The check value of this polynomial.
    assertThat(EventFile.crc32c("123456789".getBytes(StandardCharsets.US_ASCII))).isEqualTo(0xe3069283);
  }

  @Test
  void filesAreSequencesOfCheckedEvents() throws IOException {
    List<StepReport> reports = twoSittings();
    List<Path> files = files();
    assertThat(files).hasSize(2);
    assertThat(files).allMatch(file -> file.getFileName().toString().matches("events\\.out\\.tfevents\\.\\d{10}\\.molfuse\\.\\d+"));

    List<EventFile.Message> first = EventFile.read(files.get(0));
    assertThat(first.get(0).text(3)).isEqualTo("brain.Event:2");
    assertThat((Double) first.get(0).only(1)).isCloseTo(System.currentTimeMillis() * 1e-3, within(600.0));
    assertThat(first).noneMatch(event -> event.has(7));

    List<EventFile.Message> second = EventFile.read(files.get(1));
    assertThat(second.get(0).text(3)).isEqualTo("brain.Event:2");
    // SessionLog.START at the first step that is made again.
    assertThat(second.get(1).only(2)).isEqualTo(11L);
    assertThat(second.get(1).message(7).only(1)).isEqualTo(1L);

    EventFile.Message text = second.get(2).message(5).message(1);
    assertThat(text.text(1)).isEqualTo("run/config");
    assertThat(text.message(9).message(1).text(1)).isEqualTo("text");
    assertThat(text.message(8).text(8)).contains("\"learning_rate\" : 0.05");

    List<Double> losses = new ArrayList<>();
    List<Long> steps = new ArrayList<>();
    for (EventFile.Message event : second) {
      if (event.has(5) && event.message(5).message(1).text(1).equals("train/total_loss")) {
        steps.add((Long) event.only(2));
        losses.add((double) (Float) event.message(5).message(1).only(2));
      }
    }
    assertThat(steps).containsExactly(11L, 12L, 13L, 14L, 15L, 16L, 17L, 18L, 19L, 20L);
    assertThat(losses).isEqualTo(reports.subList(10, 20).stream().map(report -> report.values().get("total_loss")).toList());
  }

  @Test
  void readersSeeEachStepAtOnce() throws IOException {
    try (TensorBoardWriter writer = TensorBoardWriter.open(folder)) {
      writer.scalar("run/odd", Double.NaN, Long.MAX_VALUE);
      writer.flush();
      EventFile.Message event = EventFile.read(writer.file()).get(1);
      assertThat(event.only(2)).isEqualTo(Long.MAX_VALUE);
      assertThat((Float) event.message(5).message(1).only(2)).isNaN();
      // Whatever the clock says, later files sort behind earlier ones.
      try (TensorBoardWriter later = TensorBoardWriter.open(folder)) {
        assertThat(later.file().getFileName().toString()).isGreaterThan(writer.file().getFileName().toString());
      }
    }
  }

  @Test
  void performanceBecomesCurves() throws IOException {
    TensorBoardListener board = new TensorBoardListener(folder, Map.of("note", "mine"));
    try (board;
        PerformanceMonitor monitor = new PerformanceMonitor(new CpuSide())) {
      board.started(
          new RunStart(
              new TrainingConfig(0, 1, 0, 0.05, Map.of(), COSINE, 0, 1, 1, 1, 0, 3),
              Precision.FP32.on(null),
              TrainingState.START,
              1));
      monitor.step(8);
      board.performance(1, monitor.summary());
    }
    List<EventFile.Message> events = EventFile.read(files().get(0));
    assertThat(events.get(1).message(5).message(1).message(8).text(8)).contains("\"note\" : \"mine\"");
    assertThat(events.subList(2, events.size()))
        .extracting(event -> event.message(5).message(1).text(1))
        .contains("performance/step_millis", "performance/process_memory_bytes", "performance/samples_per_second")
        .doesNotContain("performance/bottleneck", "performance/device_allocated_bytes");
  }

  @Test
  void tensorBoardItselfReadsThem() throws Exception {
    List<StepReport> reports = twoSittings();
    JsonNode seen = new ObjectMapper().readTree(reader(folder));
    JsonNode losses = seen.get("scalars").get("train/total_loss");
    assertThat(losses).hasSize(20);
    for (int i = 0; i < 20; i++) {
      assertThat(losses.get(i).get(0).asLong()).isEqualTo(i + 1);
      assertThat(losses.get(i).get(1).asDouble()).isEqualTo(reports.get(i).values().get("total_loss"));
    }
    JsonNode validation = seen.get("scalars").get("validation/total_loss");
    // That of step 13 was purged.
    assertThat(validation).extracting(point -> point.get(0).asLong()).containsExactly(10L, 20L);
    assertThat(seen.get("scalars").has("run/learning_rate")).isTrue();
    assertThat(seen.get("scalars").has("average/grad_norm")).isTrue();
    assertThat(seen.get("plugins").get("train/total_loss").asText()).isEqualTo("scalars");
    assertThat(seen.get("plugins").get("run/config").asText()).isEqualTo("text");
    assertThat(seen.get("texts").get("run/config").get(0).asText()).contains("\"max_steps\" : 13");
  }

  private static String reader(Path events) throws Exception {
    if (System.getProperty("os.name").startsWith("Windows")) {
      abort("TensorBoard is fetched by a script for Unix");
    }
    Output found = run(null, "python3", "scripts/build/bootstrap.py", "tensorboard");
    if (found.status != 0) {
      skip("TensorBoard's package cannot be had: " + found.errors);
    }
    String packages = found.text.strip().replaceFirst("MOLFUSE_TENSORBOARD=", "");
    Output read = run(packages, "python3", "-c", READER, events.toString());
    assertThat(read.status).as("%s", read.errors).isZero();
    return read.text;
  }

  private static void skip(String reason) {
    System.out.println("TensorBoardTest.tensorBoardItselfReadsThem is skipped: " + reason);
    abort(reason);
  }

  private record Output(int status, String text, String errors) {}

  private static Output run(String pythonPath, String... command) throws Exception {
    File text = File.createTempFile("output", ".txt");
    File errors = File.createTempFile("errors", ".txt");
    try {
      ProcessBuilder builder = new ProcessBuilder(command).redirectOutput(text).redirectError(errors);
      if (pythonPath != null) {
        builder.environment().put("PYTHONPATH", pythonPath);
      }
      Process process;
      try {
        process = builder.start();
      } catch (IOException e) {
        return new Output(127, "", e.getMessage());
      }
      if (!process.waitFor(5, TimeUnit.MINUTES)) {
        process.destroyForcibly();
        return new Output(124, "", "no answer in five minutes");
      }
      return new Output(process.exitValue(), Files.readString(text.toPath()), Files.readString(errors.toPath()));
    } finally {
      Files.delete(text.toPath());
      Files.delete(errors.toPath());
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@ExtendWith(OneThread.class)
class ListenersTest {
  private static final LearningRateSchedule COSINE = new LearningRateSchedule(LearningRateSchedule.Kind.COSINE, 5, 0.01);

  @TempDir Path folder;

  private static TrainingConfig config(long steps) {
    return new TrainingConfig(0, steps, 0, 0.05, Map.of(), COSINE, 0, 1, 2, 7, 0, 3);
  }

  private static Trainer.Result train(long steps, TrainingState from, TrainingListener... listeners) {
    try (LineTask task = new LineTask(1, 0);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config(steps))) {
      for (TrainingListener listener : listeners) {
        trainer.listener(listener);
      }
      return trainer
          .validation(LineTask.batches(2))
          .checkpoints((state, optimizer, labels) -> Path.of("saved-" + state.step()))
          .resume(from)
          .run();
    }
  }

  @Test
  void aListenerHearsAllInOrder() {
    List<String> heard = new ArrayList<>();
    train(
        5,
        TrainingState.START,
        new TrainingListener() {
          @Override
          public void started(RunStart start) {
            heard.add("started " + start.totalSteps() + " " + start.resumed() + " " + start.precision().precision());
          }

          @Override
          public void begin(PerformanceMonitor.Phase phase) {
            heard.add("+" + phase);
          }

          @Override
          public void end(PerformanceMonitor.Phase phase) {
            heard.add("-" + phase);
          }

          @Override
          public void issued(long step, long samples) {
            heard.add("issued " + step + " " + samples);
          }

          @Override
          public void step(StepReport report) {
            heard.add("step " + report.step());
          }

          @Override
          public void validated(long step, Map<String, Double> values, boolean best) {
            heard.add("validated " + step + " " + best);
          }

          @Override
          public void saved(long step, Path checkpoint) {
            heard.add("saved " + checkpoint);
          }

          @Override
          public void ended(Trainer.Result result) {
            heard.add("ended " + result.ending());
          }

          @Override
          public void failed(Throwable failure) {
            heard.add("failed");
          }
        });
    List<String> micro = List.of("+LOAD", "-LOAD", "+FORWARD", "-FORWARD", "+BACKWARD", "-BACKWARD");
    List<String> expected = new ArrayList<>(List.of("started 5 false FP32"));
    for (int step = 1; step <= 5; step++) {
      expected.addAll(micro);
      expected.addAll(micro);
      expected.addAll(List.of("+OPTIMIZER", "-OPTIMIZER", "issued " + step + " 16", "step " + step));
    }
    expected.addAll(List.of("validated 5 true", "saved saved-5", "ended FINISHED"));
    assertThat(heard).isEqualTo(expected);
  }

  @Test
  void whatAListenerThrowsEndsTheRunAndIsTold() {
    List<Throwable> told = new ArrayList<>();
    TrainingListener listener =
        new TrainingListener() {
          @Override
          public void step(StepReport report) {
            throw new IllegalStateException("no more");
          }

          @Override
          public void failed(Throwable failure) {
            told.add(failure);
            throw new IllegalStateException("and again");
          }
        };
    assertThatThrownBy(() -> train(5, TrainingState.START, listener))
        .hasMessage("no more")
        .satisfies(failure -> assertThat(failure.getSuppressed()).extracting(Throwable::getMessage).containsExactly("and again"));
    assertThat(told).hasSize(1);
  }

  @Test
  void linesForPeople() {
    List<String> lines = new ArrayList<>();
    train(20, TrainingState.START, new ConsoleListener(lines::add, 0));
    assertThat(lines.get(0)).isEqualTo("training in fp32: as asked for, on the CPU");
    assertThat(lines).filteredOn(line -> line.contains("%")).hasSize(4);
    assertThat(lines.get(1)).matches("  5 %  step 1, epoch 1: total_loss \\S+, half \\S+, grad_norm \\S+, rate 0\\.0100, \\d+ samples/s");
    assertThat(lines).anyMatch(line -> line.matches("step 10: validation, total_loss \\S+, half \\S+( \\(best so far\\))?"));
    assertThat(lines).contains("step 20: saved saved-20");
    assertThat(lines.get(lines.size() - 1)).matches("finished after step 20, 320 samples and \\d+ s");

    // With a long pause between them there are the first, and the last.
    lines.clear();
    train(20, TrainingState.START, new ConsoleListener(lines::add, 1e6));
    assertThat(lines).filteredOn(line -> line.contains("%")).hasSize(2);
  }

  @Test
  void oneJsonObjectALine() throws IOException {
    Path file = folder.resolve("steps.jsonl");
    Files.writeString(file, "{\"event\":\"started\",\"st");
    TrainingState middle;
    try (JsonLinesListener listener = JsonLinesListener.append(file)) {
      middle = train(10, TrainingState.START, listener).state();
    }
    try (JsonLinesListener listener = JsonLinesListener.append(file)) {
      train(20, middle, listener);
      Map<String, Double> odd = new LinkedHashMap<>();
      odd.put("perplexity", Double.POSITIVE_INFINITY);
      listener.validated(20, odd, false);
      listener.failed(new IllegalStateException("said \"no\"\nand went"));
    }
    List<String> lines = Files.readAllLines(file);
    ObjectMapper json = new ObjectMapper();
    List<JsonNode> events = new ArrayList<>();
    for (String line : lines.subList(1, lines.size())) {
      events.add(json.readTree(line));
    }
    assertThat(events)
        .extracting(event -> event.get("event").asText() + " " + event.get("step").asLong())
        .containsSubsequence("started 0", "step 1", "step 7", "validated 10", "saved 10", "ended 10", "started 10", "step 14", "ended 20");
    assertThat(events.get(0).get("config").get("learning_rate").asDouble()).isEqualTo(0.05);
    assertThat(events.get(1).get("values").get("total_loss").asDouble()).isPositive();
    assertThat(events.get(1).get("averages")).isEqualTo(events.get(1).get("values"));
    JsonNode odd = events.get(events.size() - 2);
    assertThat(odd.get("values").get("perplexity").isNull()).isTrue();
    assertThat(events.get(events.size() - 1).get("message").asText()).isEqualTo("said \"no\"\nand went");
  }

  @Test
  void aFullDiskDoesNotEndTraining() throws IOException {
    Writer full =
        new Writer() {
          @Override
          public void write(char[] text, int offset, int length) throws IOException {
            throw new IOException("No space left on device");
          }

          @Override
          public void flush() {}

          @Override
          public void close() {}
        };
    Path file = Files.writeString(folder.resolve("file"), "in the way");
    try (JsonLinesListener lines = new JsonLinesListener(full);
        TensorBoardListener board = new TensorBoardListener(file, null)) {
      assertThat(train(5, TrainingState.START, lines, board).ending()).isEqualTo(Trainer.Ending.FINISHED);
    }
  }

  @Test
  void theMonitorMeasuresAllButTheFirstSteps() {
    List<Long> at = new ArrayList<>();
    List<PerformanceSummary> summaries = new ArrayList<>();
    try (PerformanceMonitor monitor = new PerformanceMonitor(new CpuSide())) {
      PerformanceListener listener =
          new PerformanceListener(
              monitor,
              8,
              0,
              (step, summary) -> {
                at.add(step);
                summaries.add(summary);
              });
      train(20, TrainingState.START, listener);
    }
    assertThat(at).containsExactly(14L, 20L, 20L);
    PerformanceSummary last = summaries.get(2);
    assertThat(last.steps()).isEqualTo(12);
    assertThat(last.samples()).isEqualTo(12 * 16);
    assertThat(last.forwardMillis()).isPositive();
    assertThat(last.backwardMillis()).isPositive();
    assertThat(last.optimizerMillis()).isPositive();
    assertThat(last.forwardMillis() + last.backwardMillis() + last.optimizerMillis()).isLessThanOrEqualTo(last.stepMillis());

    summaries.clear();
    train(5, TrainingState.START, new PerformanceListener(PerformanceMonitor.off(), 0, 0, (step, summary) -> summaries.add(summary)));
    assertThat(summaries).isEmpty();
  }
}

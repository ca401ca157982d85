// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Writes one JSON object a line: "event" is started, step (logged ones), validated, saved, performance, ended or failed, and "step" the
 * steps done. Values that are not finite, which JSON does not have, are null. Each line is there for readers at once. If a line cannot be
 * written, a warning says so once and training goes on without.
 */
public final class JsonLinesListener implements TrainingListener, AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(JsonLinesListener.class);
  private static final ObjectMapper JSON = new ObjectMapper();

  private final Writer out;
  private Supplier<Map<String, Double>> readings;
  private long step;
  private boolean failed;

  /** @param out gets the lines and is flushed after each; closed with this */
  public JsonLinesListener(Writer out) {
    this.out = out;
  }

  /**
   * Appends to a file. A line that an earlier process could not finish stays alone.
   *
   * @param file made if need be
   * @return to be closed
   * @throws IOException if it cannot be written
   */
  public static JsonLinesListener append(Path file) throws IOException {
    boolean torn = false;
    if (Files.exists(file) && Files.size(file) > 0) {
      try (RandomAccessFile bytes = new RandomAccessFile(file.toFile(), "r")) {
        bytes.seek(bytes.length() - 1);
        torn = bytes.read() != '\n';
      }
    }
    Writer out = Files.newBufferedWriter(file, StandardCharsets.UTF_8, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    if (torn) {
      out.write('\n');
    }
    return new JsonLinesListener(out);
  }

  /**
   * Writes readings of the machine with each logged step, as "readings".
   *
   * @param source asked on the training thread; by name
   * @return this
   */
  public JsonLinesListener readings(Supplier<Map<String, Double>> source) {
    readings = source;
    return this;
  }

  @Override
  public void started(RunStart start) {
    step = start.state().step();
    Map<String, Object> line = line("started", step);
    line.put("resumed", start.resumed());
    line.put("total_steps", start.totalSteps() == Long.MAX_VALUE ? null : start.totalSteps());
    line.put("precision", word(start.precision().precision()));
    line.put("config", start.config());
    write(line);
  }

  @Override
  public void step(StepReport report) {
    step = report.step();
    if (!report.logged()) {
      return;
    }
    Map<String, Object> line = line("step", step);
    line.put("epoch", report.epoch());
    line.put("values", report.values());
    line.put("averages", report.averages());
    line.put("learning_rate", report.learningRate());
    line.put("samples_per_second", report.samplesPerSecond());
    line.put("elapsed_seconds", report.elapsedSeconds());
    if (readings != null) {
      line.put("readings", readings.get());
    }
    write(line);
  }

  @Override
  public void validated(long step, Map<String, Double> values, boolean best) {
    Map<String, Object> line = line("validated", step);
    line.put("values", values);
    line.put("best", best);
    write(line);
  }

  @Override
  public void saved(long step, Path checkpoint) {
    Map<String, Object> line = line("saved", step);
    line.put("checkpoint", checkpoint.toString());
    write(line);
  }

  /**
   * Writes a summary, as a {@link PerformanceListener} gives them.
   *
   * @param step steps done
   * @param summary what was measured
   */
  public void performance(long step, PerformanceSummary summary) {
    Map<String, Object> line = line("performance", step);
    line.put("summary", JSON.valueToTree(summary));
    write(line);
  }

  @Override
  public void ended(Trainer.Result result) {
    Map<String, Object> line = line("ended", result.state().step());
    line.put("ending", word(result.ending()));
    line.put("samples", result.state().samples());
    line.put("elapsed_seconds", result.state().elapsedSeconds());
    line.put("best_loss", finite(result.state().bestLoss()));
    line.put("best_step", result.state().bestStep());
    line.put("checkpoint", result.checkpoint() == null ? null : result.checkpoint().toString());
    write(line);
  }

  @Override
  public void failed(Throwable failure) {
    Map<String, Object> line = line("failed", step);
    line.put("message", String.valueOf(failure.getMessage()));
    write(line);
  }

  private static Map<String, Object> line(String event, long step) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("event", event);
    line.put("step", step);
    return line;
  }

  private static String word(Enum<?> value) {
    return value.name().toLowerCase(Locale.ROOT);
  }

  private static Object finite(Object value) {
    if (value instanceof Double number) {
      return Double.isFinite(number) ? number : null;
    }
    if (value instanceof Map<?, ?> values) {
      Map<Object, Object> copy = new LinkedHashMap<>();
      values.forEach((name, each) -> copy.put(name, finite(each)));
      return copy;
    }
    return value;
  }

  private void write(Map<String, Object> line) {
    if (failed) {
      return;
    }
    try {
      out.write(JSON.writeValueAsString(finite(line)) + "\n");
      out.flush();
    } catch (IOException e) {
      failed = true;
      LOG.warn("the log of steps ends here: {}", e.toString());
    }
  }

  @Override
  public void close() throws IOException {
    out.close();
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Writes event files for TensorBoard, one for each sitting; a resumed run's curves go on where it was resumed. Curves are train/NAME,
 * average/NAME, validation/NAME, performance/NAME, and run/learning_rate, run/epoch and run/samples_per_second; the text is run/config.
 * Only logged steps are written. If a file cannot be written, a warning says so once and training goes on without.
 */
public final class TensorBoardListener implements TrainingListener, AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(TensorBoardListener.class);
  private static final ObjectMapper JSON = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

  private final Path folder;
  private final Object settings;
  private TensorBoardWriter writer;

  /**
   * Writes nothing before a run begins.
   *
   * @param folder of the run, made if need be
   * @param settings what the run was started with, shown as JSON; null for its {@link TrainingConfig}
   */
  public TensorBoardListener(Path folder, Object settings) {
    this.folder = folder;
    this.settings = settings;
  }

  @Override
  public void started(RunStart start) {
    close();
    attempt(
        () -> {
          long step = start.state().step();
          writer = start.resumed() ? TensorBoardWriter.resume(folder, step + 1) : TensorBoardWriter.open(folder);
          String config = json(settings == null ? start.config() : settings);
          writer.text("run/config", "    " + config.replace("\n", "\n    "), step);
          writer.flush();
        });
  }

  private static String json(Object value) {
    try {
      return JSON.writeValueAsString(value);
    } catch (JsonProcessingException e) {
      throw new IllegalArgumentException("settings cannot be shown as JSON: " + e.getOriginalMessage(), e);
    }
  }

  @Override
  public void step(StepReport report) {
    if (!report.logged()) {
      return;
    }
    write(
        () -> {
          long step = report.step();
          scalars("train/", report.values(), step);
          scalars("average/", report.averages(), step);
          writer.scalar("run/learning_rate", report.learningRate(), step);
          writer.scalar("run/epoch", report.epoch(), step);
          writer.scalar("run/samples_per_second", report.samplesPerSecond(), step);
        });
  }

  @Override
  public void validated(long step, Map<String, Double> values, boolean best) {
    write(() -> scalars("validation/", values, step));
  }

  /**
   * Writes a summary, as a {@link PerformanceListener} gives them.
   *
   * @param step steps done
   * @param summary what was measured
   */
  public void performance(long step, PerformanceSummary summary) {
    write(
        () -> {
          for (Map.Entry<String, JsonNode> value : JSON.valueToTree(summary).properties()) {
            if (value.getValue().isNumber()) {
              writer.scalar("performance/" + value.getKey(), value.getValue().asDouble(), step);
            }
          }
        });
  }

  @Override
  public void ended(Trainer.Result result) {
    write(() -> {});
  }

  private void scalars(String group, Map<String, Double> values, long step) {
    values.forEach((name, value) -> writer.scalar(group + name, value, step));
  }

  private void write(Runnable what) {
    if (writer != null) {
      attempt(
          () -> {
            what.run();
            writer.flush();
          });
    }
  }

  private void attempt(Runnable what) {
    try {
      what.run();
    } catch (UncheckedIOException e) {
      LOG.warn("events for TensorBoard end here: {}", e.getMessage());
      TensorBoardWriter broken = writer;
      writer = null;
      release(broken);
    }
  }

  private static void release(TensorBoardWriter broken) {
    try {
      if (broken != null) {
        broken.close();
      }
    } catch (UncheckedIOException e) {
      LOG.debug("closing what could not be written", e);
    }
  }

  @Override
  public void close() {
    TensorBoardWriter last = writer;
    writer = null;
    release(last);
  }
}

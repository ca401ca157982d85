// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.DisabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

@DisabledOnOs(value = OS.WINDOWS, disabledReason = "a process there is not asked to end, but ended")
class StopOnExitTest {
  @TempDir Path folder;

  /** A run that only a signal ends. */
  static final class Program {
    private Program() {}

    public static void main(String[] args) {
      Threads.set(1);
      RunDirectory run = RunDirectory.prepare(Path.of(args[0]));
      LearningRateSchedule constant = new LearningRateSchedule(LearningRateSchedule.Kind.CONSTANT, 0, 1);
      TrainingConfig config = new TrainingConfig(0, Long.MAX_VALUE, 0, 1e-3, Map.of(), constant, 0, 1, 1, 1, 1e9, 3);
      try (StopOnExit onExit = StopOnExit.begin();
          LineTask task = new LineTask(1, 0);
          Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(10), config)) {
        onExit.stop(trainer::requestStop);
        Trainer.Result result =
            trainer
                .checkpoints(
                    (state, optimizer, labels) ->
                        run.save(
                            state.step(),
                            new Checkpoint.Content(Map.of("state", state), Map.of("model", task.parameters().tensors())),
                            labels))
                .listener(
                    new TrainingListener() {
                      @Override
                      public void step(StepReport report) {
                        if (report.step() == 10) {
                          say("training");
                        }
                      }
                    })
                .run();
        say(result.ending() + " " + result.state().step());
      }
    }

    private static void say(String line) {
      System.out.println(line);
      System.out.flush();
    }
  }

  private Process start() throws IOException {
    String classpath = System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));
    Path java = Path.of(System.getProperty("java.home"), "bin", "java");
    return new ProcessBuilder(java.toString(), "-Xmx512m", "-cp", classpath, Program.class.getName(), folder.toString())
        .redirectError(ProcessBuilder.Redirect.INHERIT)
        .start();
  }

  @Test
  @Timeout(value = 10, unit = TimeUnit.MINUTES)
  void aSignalEndsARunWithACheckpoint() throws Exception {
    Process process = start();
    List<String> said = new ArrayList<>();
    try (BufferedReader out =
        new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
      for (String line = out.readLine(); line != null; line = out.readLine()) {
        said.add(line);
        if (line.equals("training")) {
          // SIGTERM goes the same way as Ctrl-C's SIGINT, which a build in the background may have to ignore. Unlike the process's own
          // method this leaves its output open.
          process.toHandle().destroy();
        }
      }
      assertThat(process.waitFor(2, TimeUnit.MINUTES)).isTrue();
    } finally {
      process.destroyForcibly();
    }
    assertThat(process.exitValue()).isEqualTo(128 + 15);
    Checkpoint last = Checkpoint.open(RunDirectory.resolve(folder, RunDirectory.LAST));
    assertThat(last.step()).isGreaterThanOrEqualTo(10);
    assertThat(said).filteredOn(line -> line.startsWith("STOPPED")).containsExactly("STOPPED " + last.step());
    try (LineTask task = new LineTask(2, 0)) {
      float[] before = task.values();
      last.tensors("model", task.parameters().tensors());
      assertThat(task.values()).isNotEqualTo(before);
      assertThat(last.document("state", TrainingState.class).step()).isEqualTo(last.step());
    }
  }
}

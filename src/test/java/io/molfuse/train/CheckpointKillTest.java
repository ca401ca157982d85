// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Stream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A process that saves in a loop is killed 50 times, each time in another moment, and started again on the same folder. */
@SuppressWarnings("try")
class CheckpointKillTest {
  private static final int KILLS = 50;

  /** Two of the processes save tensors as well; the order of renames is the same without. */
  private static final int TENSORS_EVERY = 25;

  @TempDir Path folder;

  @Test
  void theLastCheckpointLoadsAfterEveryKill() throws IOException, InterruptedException {
    Path run = folder.resolve("run");
    Random random = new Random(20);
    for (int kill = 0; kill < KILLS; kill++) {
      boolean tensors = kill % TENSORS_EVERY == 0;
      long finished = savedBeforeKill(run, tensors, random);
      Checkpoint last = Checkpoint.open(RunDirectory.resolve(run, RunDirectory.LAST));
      // The save after the last one that was reported may or may not have come to its end.
      assertThat(last.step()).as("kill %d", kill).isBetween(finished, finished + 1);
      requireWhole(last);
      for (String label : List.of(RunDirectory.BEST, RunDirectory.EVERY)) {
        if (Files.exists(run.resolve(label))) {
          requireWhole(Checkpoint.open(RunDirectory.resolve(run.resolve(label))));
        }
      }
      if (tensors && last.step() == finished) {
        requireWeights(last);
      }
    }
    // One save more removes whatever the killed ones left: last, best and two of EVERY stay.
    try (RunDirectory finish = RunDirectory.prepare(run)) {
      finish.keepEvery(2);
      finish.save(1_000_000, new Checkpoint.Content(Map.of("state", List.of(1)), Map.of()), List.of("last", "every"));
    }
    try (Stream<Path> files = Files.list(run)) {
      List<String> names = files.map(path -> path.getFileName().toString()).toList();
      assertThat(names).contains("last", "step-01000000").doesNotContain(".pending", ".saving");
      assertThat(names.stream().filter(name -> name.startsWith("step-")).count()).isBetween(1L, 3L);
    }
  }

  private static void requireWhole(Checkpoint checkpoint) {
    checkpoint.verify();
    JsonNode values = checkpoint.document("state", JsonNode.class);
    assertThat(values).hasSize(SavingProcess.VALUES).allMatch(value -> value.asLong() == checkpoint.step());
  }

  private static void requireWeights(Checkpoint checkpoint) {
    try (PointerScope scope = new PointerScope()) {
      Tensor expected = torch.full(new long[] {SavingProcess.VALUES}, new Scalar((double) checkpoint.step()));
      assertThat(checkpoint.tensors("model").get("weight").equal(expected)).isTrue();
    }
  }

  /** The latest step that the process reported before it was killed. */
  private static long savedBeforeKill(Path run, boolean tensors, Random random) throws IOException, InterruptedException {
    String classpath = System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));
    Path java = Path.of(System.getProperty("java.home"), "bin", "java");
    Process process =
        new ProcessBuilder(java.toString(), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
                "-cp", classpath, SavingProcess.class.getName(), run.toString(), String.valueOf(tensors))
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    long reported = -1;
    try (BufferedReader output = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
      int saves = 1 + random.nextInt(3);
      for (int i = 0; i < saves; i++) {
        String line = output.readLine();
        assertThat(line).as("the process ended by itself").isNotNull();
        reported = Long.parseLong(line);
      }
      // A save takes some milliseconds, so this falls into any part of the next ones.
      LockSupport.parkNanos(random.nextInt(20_000_000));
      // Unlike the process's own method this leaves its output open.
      process.toHandle().destroyForcibly();
      assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
      // What it printed before the kill and nobody has read yet; a line that was cut off is no report.
      for (int next = output.read(); next >= 0; ) {
        StringBuilder line = new StringBuilder();
        while (next >= 0 && next != '\n') {
          line.append((char) next);
          next = output.read();
        }
        if (next == '\n') {
          reported = Long.parseLong(line.toString().strip());
          next = output.read();
        }
      }
    } finally {
      process.destroyForcibly();
    }
    return reported;
  }
}

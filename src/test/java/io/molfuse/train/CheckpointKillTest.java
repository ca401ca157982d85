// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.jar.JarEntry;
import java.util.jar.JarOutputStream;
import java.util.stream.Stream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Processes that save in a loop are killed 50 times in all, each time in another moment, and started again on the same folder. */
@SuppressWarnings("try")
class CheckpointKillTest {
  private static final int KILLS = 50;

  /** Folders in which processes are killed at the same time: much of a short process's life is waiting. */
  private static final int FOLDERS = 2;

  /** How many of the processes of a folder save tensors as well; the order of renames is the same without. */
  private static final int WITH_TENSORS = 1;

  @TempDir Path folder;

  /** Memory where there is a file system of it: a killed process has no need of a disk, whose waits would take most of the time. */
  private static Path runs(Path otherwise) throws IOException {
    Path memory = Path.of("/dev/shm");
    return Files.createTempDirectory(Files.isWritable(memory) ? memory : otherwise, "molfuse-kill");
  }

  @Test
  void theLastCheckpointLoadsAfterEveryKill() throws Exception {
    List<String> java = java();
    Path runs = runs(folder);
    ExecutorService threads = Executors.newFixedThreadPool(FOLDERS);
    try {
      List<Future<?>> folders = new ArrayList<>();
      for (int i = 0; i < FOLDERS; i++) {
        Path run = runs.resolve("run-" + i);
        Random random = new Random(20 + i);
        folders.add(
            threads.submit(
                () -> {
                  killOften(java, run, random);
                  return null;
                }));
      }
      for (Future<?> each : folders) {
        each.get();
      }
    } finally {
      threads.shutdownNow();
      DurableFiles.deleteTree(runs);
    }
  }

  private static void killOften(List<String> java, Path run, Random random) throws IOException, InterruptedException {
    for (int kill = 0; kill < KILLS / FOLDERS; kill++) {
      boolean tensors = kill < WITH_TENSORS;
      long finished = savedBeforeKill(java, run, tensors, random);
      Checkpoint last = Checkpoint.open(RunDirectory.resolve(run, RunDirectory.LAST));
      // The save after the last one that was reported may or may not have come to its end.
      assertThat(last.step()).as("kill %d", kill).isBetween(finished, finished + 1);
      requireWhole(last);
      for (String label : List.of(RunDirectory.BEST, RunDirectory.EVERY)) {
        if (Files.exists(run.resolve(label))) {
          requireWhole(Checkpoint.open(RunDirectory.resolve(run.resolve(label))));
        }
      }
      if (tensors) {
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

  /** The program and options of a process that starts fast: what it loads is put into an archive once, which works with jars only. */
  private List<String> java() throws IOException, InterruptedException {
    Path jar = folder.resolve("train.jar");
    String separator = File.pathSeparator;
    List<String> classpath = new ArrayList<>(List.of(jar.toString()));
    try (JarOutputStream output = new JarOutputStream(Files.newOutputStream(jar))) {
      String given = System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));
      Set<String> entries = new HashSet<>();
      for (String entry : given.split(separator)) {
        if (!Files.isDirectory(Path.of(entry))) {
          classpath.add(entry);
          continue;
        }
        Path root = Path.of(entry);
        Path classes = root.resolve("io/molfuse/train");
        try (Stream<Path> files = Files.isDirectory(classes) ? Files.list(classes) : Stream.empty()) {
          for (Path file : files.filter(path -> path.toString().endsWith(".class")).toList()) {
            if (entries.add(file.getFileName().toString())) {
              output.putNextEntry(new JarEntry(root.relativize(file).toString()));
              Files.copy(file, output);
            }
          }
        }
      }
    }
    List<String> command = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin", "java").toString()));
    command.addAll(List.of("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xlog:disable"));
    command.addAll(List.of("-cp", String.join(separator, classpath)));
    Path archive = folder.resolve("train.jsa");
    List<String> first = new ArrayList<>(command);
    first.add("-XX:ArchiveClassesAtExit=" + archive);
    first.addAll(List.of(SavingProcess.class.getName(), folder.resolve("first").toString(), "false", "3"));
    Process process = new ProcessBuilder(first).redirectErrorStream(true).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as(output).isZero();
    // Without an archive the processes merely start more slowly.
    command.add("-XX:SharedArchiveFile=" + archive);
    return command;
  }

  /** The latest step that the process reported before it was killed. */
  private static long savedBeforeKill(List<String> java, Path run, boolean tensors, Random random)
      throws IOException, InterruptedException {
    List<String> command = new ArrayList<>(java);
    command.addAll(List.of(SavingProcess.class.getName(), run.toString(), String.valueOf(tensors)));
    Process process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
    long reported = -1;
    try (BufferedReader output = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
      int saves = 1 + random.nextInt(3);
      for (int i = 0; i < saves; i++) {
        String line = output.readLine();
        assertThat(line).as("the process ended by itself").isNotNull();
        reported = Long.parseLong(line);
      }
      // A save takes some milliseconds, so this falls into any part of the next ones.
      LockSupport.parkNanos(random.nextInt(10_000_000));
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

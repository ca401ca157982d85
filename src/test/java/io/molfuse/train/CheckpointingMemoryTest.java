// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.stream.Stream;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;

/** What checkpointing saves, and that it keeps nothing: in processes whose heap is resident from the start, so that the rest is native. */
@SuppressWarnings("try")
class CheckpointingMemoryTest {
  private static final int SEGMENTS = 16;
  private static final int RESULTS = 6;
  private static final long MIB_OF_A_RESULT = 4;

  @Test
  void keepsTheInputsOfAllSegmentsAndTheResultsOfOne() throws IOException, InterruptedException {
    long plain = run(Peak.class, "plain")[0];
    long checkpointed = run(Peak.class, "checkpointed")[0];
    // Plain: 384 MiB of results. Checkpointed: 64 MiB of inputs, 24 MiB of results, and a few gradients.
    assertThat(plain).as("MiB of the plain pass").isGreaterThan((SEGMENTS * RESULTS - 6) * MIB_OF_A_RESULT);
    assertThat(checkpointed)
        .as("MiB of the checkpointed pass")
        .isGreaterThan((SEGMENTS - 3) * MIB_OF_A_RESULT)
        .isLessThan((SEGMENTS + RESULTS + 20) * MIB_OF_A_RESULT)
        .isLessThan(plain / 2);
  }

  /** Prints the most MiB by which a forward and backward pass raised anonymous memory, read after each intermediate result. */
  static final class Peak {
    private static long most;

    public static void main(String[] args) {
      Threads.set(1);
      try (PointerScope scope = new PointerScope()) {
        Tensor warm = torch.ones(8).set_requires_grad(true);
        pass(warm, args[0].equals("checkpointed"));
        Tensor input = torch.ones(MIB_OF_A_RESULT << 18).set_requires_grad(true);
        long before = anonymousKib();
        most = 0;
        pass(input, args[0].equals("checkpointed"));
        System.out.println((most - before) >> 10);
      }
    }

    /** As a training step does it: one scope for all. */
    private static void pass(Tensor input, boolean checkpointed) {
      try (PointerScope scope = new PointerScope()) {
        Tensor x = input;
        for (int i = 0; i < SEGMENTS; i++) {
          x = checkpointed ? Checkpointing.run(x, Peak::segment) : segment(x);
        }
        x.sum().backward();
      }
    }

    private static Tensor segment(Tensor x) {
      Tensor y = x;
      for (int i = 0; i < RESULTS; i++) {
        y = y.sigmoid();
        most = Math.max(most, anonymousKib());
      }
      return y;
    }
  }

  @Test
  void memoryIsFlatOverThousandsOfSteps() throws IOException, InterruptedException {
    long[] grown = run(Steps.class);
    // A segment kept by each step would be 8000 objects and, with the state of the generator, 20 MiB between the halves.
    assertThat(grown[0]).as("growth of native objects held by Java").isLessThan(100);
    assertThat(grown[1]).as("growth of anonymous memory in KiB").isLessThan(12 * 1024);
    assertThat(grown[2]).as("segments left").isLessThan(5);
  }

  /** Prints the growth of native objects, that of anonymous memory in KiB from half to half, and the segments left. */
  static final class Steps {
    public static void main(String[] args) {
      Threads.set(1);
      try (PointerScope scope = new PointerScope()) {
        Tensor weight = torch.randn(16, 16).set_requires_grad(true);
        steps(weight, 2000);
        long objects = Pointer.totalCount();
        // Maxima of halves: single readings contain whatever the allocator has not given back yet.
        long early = most(weight);
        long late = most(weight);
        System.out.println((Pointer.totalCount() - objects) + " " + (late - early) + " " + Checkpointing.pending());
      }
    }

    private static long most(Tensor weight) {
      long most = 0;
      for (int i = 0; i < 40; i++) {
        steps(weight, 100);
        most = Math.max(most, anonymousKib());
      }
      return most;
    }

    private static void steps(Tensor weight, int count) {
      for (int i = 0; i < count; i++) {
        try (PointerScope scope = new PointerScope()) {
          Tensor x = torch.randn(4, 16);
          Tensor out =
              Checkpointing.run(
                  x,
                  y -> Checkpointing.run(torch.dropout(y, 0.1, true), z -> torch.linear(z, weight, new TensorOptional()).tanh()));
          // Every third graph goes without a backward, every seventh backward fails.
          if (i % 3 != 0) {
            out.sum().backward();
          }
          if (i % 7 == 0) {
            fail(x);
          }
          weight.mutable_grad().reset();
        }
      }
    }

    private static void fail(Tensor x) {
      Tensor out =
          Checkpointing.run(
              x,
              y -> {
                if (Checkpointing.recomputing()) {
                  throw new IllegalStateException("as planned");
                }
                return y.tanh();
              });
      try {
        Checkpointing.backward(out.sum());
      } catch (RuntimeException e) {
        if (!"as planned".equals(e.getCause().getMessage())) {
          throw e;
        }
      }
    }
  }

  /** Memory that is no file's: pages of libraries come and go as the machine pleases. */
  private static long anonymousKib() {
    try {
      return Files.readAllLines(Path.of("/proc/self/status")).stream()
          .filter(line -> line.startsWith("RssAnon:"))
          .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")))
          .findFirst()
          .orElseThrow();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static long[] run(Class<?> program, String... arguments) throws IOException, InterruptedException {
    List<String> command = new ArrayList<>(List.of(
        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
        "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms96m", "-Xmx96m", "-XX:+AlwaysPreTouch", "-Dorg.bytedeco.javacpp.nopointergc=true",
        "-cp", System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")), program.getName()));
    Collections.addAll(command, arguments);
    ProcessBuilder builder = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT);
    // So that what libtorch frees leaves the process at once.
    builder.environment().put("MALLOC_MMAP_THRESHOLD_", "1048576");
    Process process = builder.start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as("exit code; output: %s", output).isZero();
    return Stream.of(output.strip().split(" ")).mapToLong(Long::parseLong).toArray();
  }
}

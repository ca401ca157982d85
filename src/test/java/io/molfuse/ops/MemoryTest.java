// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;

/** Everything an operator allocates is released with its scope: nothing waits for the garbage collector. */
class MemoryTest {
  @Test
  void fiveThousandForwardAndBackwardPassesLeaveMemoryFlat() throws IOException, InterruptedException {
    // In a JVM of its own, whose heap is resident from the start: then only native memory can grow.
    Process process = new ProcessBuilder(
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "-XX:+UseSerialGC", "-Xms96m", "-Xmx96m", "-XX:+AlwaysPreTouch", "-Dorg.bytedeco.javacpp.nopointergc=true",
            "-cp", System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")), Passes.class.getName())
        .redirectError(ProcessBuilder.Redirect.INHERIT)
        .start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as("exit code; output: %s", output).isZero();
    long[] grown = Stream.of(output.strip().split(" ")).mapToLong(Long::parseLong).toArray();
    // One small tensor kept by each pass would make 5000 objects and, with its storage, about 5 MiB.
    assertThat(grown[0]).as("growth of native objects held by Java").isLessThan(100);
    assertThat(grown[1]).as("growth of resident memory in KiB").isLessThan(4 * 1024);
  }

  /** Prints by how many native objects and by how many KiB of resident memory the process grew. */
  static final class Passes {
    public static void main(String[] args) {
      try (PointerScope outer = new PointerScope()) {
        Tensor[][] leaves = new Tensor[Operators.values().length][];
        for (Operators operator : Operators.values()) {
          leaves[operator.ordinal()] = Acceptance.leaves(operator.inputs(ScalarType.Float), ScalarType.Float);
        }
        iterate(leaves, 1500);
        long memory = ResidentMemory.nowKiB();
        long pointers = Pointer.totalCount();
        iterate(leaves, 5000);
        System.out.println((Pointer.totalCount() - pointers) + " " + (ResidentMemory.nowKiB() - memory));
      }
    }
  }

  @Test
  void aRefusedCallLeavesNothingBehind() {
    try (PointerScope outer = new PointerScope()) {
      Tensor x = Tensors.full(1, ScalarType.Float, 2, 3, 4, 8);
      Tensor bias = Tensors.full(1, ScalarType.Float, 3, 3);
      long before = Pointer.totalCount();
      for (int i = 0; i < 500; i++) {
        try (PointerScope scope = new PointerScope()) {
          Attention.apply(x, x, x, Attention.options().bias(bias));
        } catch (IllegalArgumentException e) {
          assertThat(e).hasMessageContaining("bias");
        }
      }
      assertThat(Pointer.totalCount() - before).isLessThan(10);
    }
  }

  @Test
  void withoutAScopeOnlyTheResultsAreLeftToClose() {
    try (PointerScope outer = new PointerScope()) {
      Tensor[] in = Operators.ATTENTION.inputs(ScalarType.Float);
      Tensor[] layers = Operators.LATENT_CONCAT.inputs(ScalarType.Float);
      Tensor ptr = Tensors.longs(0, 5, 25);
      Attention.Options options = Attention.options().bias(in[3]).relativeBias(in[4]).scale(0.5).dropout(0.1, 3);
      Runnable inNewThread = () -> {
        long before = Pointer.totalCount();
        for (int i = 0; i < 200; i++) {
          Attention.apply(in[0], in[1], in[2], options).close();
          LatentConcat.apply(List.of(layers), ptr).close();
          try (TensorVector grads = new TensorVector(layers)) {
            StepOps.clipGradNorm(grads, 1e9).close();
          }
          Graph.of(new int[] {0, 1}, new int[] {0}).close();
        }
        left = Pointer.totalCount() - before;
      };
      // A scope is per thread, so another thread has none.
      Thread thread = new Thread(inNewThread);
      thread.start();
      try {
        thread.join();
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
      assertThat(left).isLessThan(10);
    }
  }

  private volatile long left = Long.MAX_VALUE;

  private static void iterate(Tensor[][] leaves, int count) {
    Operators[] operators = Operators.values();
    for (int i = 0; i < count; i++) {
      try (PointerScope scope = new PointerScope()) {
        Operators operator = operators[i % operators.length];
        Tensor[] outputs = operator.apply(leaves[operator.ordinal()]);
        outputs[0].sum().backward();
        for (Tensor leaf : leaves[operator.ordinal()]) {
          if (leaf.grad().defined()) {
            leaf.mutable_grad().reset();
          }
        }
      }
    }
  }
}

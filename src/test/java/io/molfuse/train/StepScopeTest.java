// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.LinearImpl;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class StepScopeTest {
  private static final int STEPS = 10_000;
  /** Until then the JVM's compilers need memory of their own. */
  private static final int WARM_UP = 4_000;

  @Test
  void whatIsKeptBelongsToTheScopeAround() {
    Map<String, Integer> before = LiveObjects.now();
    Tensor kept;
    Tensor dropped;
    try (PointerScope around = new PointerScope()) {
      try (StepScope step = new StepScope()) {
        dropped = torch.ones(2);
        kept = step.keep(dropped.add(new Scalar(1)));
      }
      assertThat(dropped.isNull()).isTrue();
      assertThat(kept.sum().item_float()).isEqualTo(4);
    }
    assertThat(kept.isNull()).isTrue();
    assertThat(LiveObjects.grownSince(before)).isEmpty();
  }

  @Test
  void withoutAScopeAroundTheCallerCloses() {
    Map<String, Integer> before = LiveObjects.now();
    Tensor kept;
    try (StepScope step = new StepScope()) {
      kept = step.keep(torch.ones(3));
    }
    assertThat(kept.numel()).isEqualTo(3);
    kept.close();
    assertThat(LiveObjects.grownSince(before)).isEmpty();
  }

  /** Counts without what earlier tests forgot, which the garbage collector would release at any time. */
  private static Map<String, Integer> settled() throws InterruptedException {
    Map<String, Integer> last = null;
    Map<String, Integer> now = LiveObjects.now();
    while (!now.equals(last)) {
      last = now;
      System.gc();
      Thread.sleep(100);
      now = LiveObjects.now();
    }
    return now;
  }

  @Test
  void theDetectorNamesWhatLeaks() throws InterruptedException {
    Map<String, Integer> before = settled();
    List<Pointer> leaked = new ArrayList<>();
    try {
      for (int i = 0; i < 100; i++) {
        leaked.addAll(List.of(torch.ones(2), new TensorVector()));
      }
      assertThat(LiveObjects.grownSince(before)).containsEntry("Tensor", 100).containsEntry("TensorVector", 100);
    } finally {
      leaked.forEach(Pointer::close);
    }
    assertThat(LiveObjects.grownSince(before)).isEmpty();
  }

  /** Memory of the process that is not the Java heap, which the build has the JVM touch at its start. */
  private static long nativeKib() throws IOException {
    return Files.readAllLines(Path.of("/proc/self/status")).stream()
            .filter(line -> line.startsWith("RssAnon:"))
            .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")))
            .sum()
        - Runtime.getRuntime().totalMemory() / 1024;
  }

  @Test
  void tenThousandStepsOfAWholeLoopLeaveMemoryAsItIs() throws IOException {
    try (PointerScope run = new PointerScope()) {
      LinearImpl hidden = new LinearImpl(32, 64);
      LinearImpl last = new LinearImpl(64, 8);
      ParameterGroups groups =
          new ParameterGroups()
              .add("hidden", 1, 0.01, ParameterGroups.named("hidden.", hidden))
              .add("last", 1, 0.01, ParameterGroups.named("last.", last));
      try (AdamW optimizer = new AdamW(groups, AdamW.Settings.USUAL);
          GradScaler scaler = GradScaler.options().build()) {
        Map<String, Integer> early = null;
        List<Long> resident = new ArrayList<>();
        for (int i = 1; i <= WARM_UP + STEPS; i++) {
          try (StepScope step = new StepScope()) {
            Tensor x = torch.randn(16, 32);
            Tensor loss;
            try (Autocast half = Autocast.on(DeviceType.CPU, ScalarType.BFloat16)) {
              Tensor features = Checkpointing.run(x, input -> hidden.forward(input).relu());
              loss = torch.mse_loss(last.forward(features).to(ScalarType.Float), x.narrow(1, 0, 8));
            }
            optimizer.dropGradients();
            Checkpointing.backward(scaler.scale(loss));
            scaler.unscale(optimizer);
            optimizer.clipGradients(1);
            scaler.step(optimizer, 1e-3);
            scaler.update();
          }
          if (i == WARM_UP) {
            early = LiveObjects.now();
          }
          if (i > WARM_UP && i % 250 == 0) {
            resident.add(nativeKib());
          }
        }
        assertThat(LiveObjects.grownSince(early)).isEmpty();
        // Maxima of halves: a single reading has what the allocator has not given back yet.
        long first = resident.subList(0, resident.size() / 2).stream().mapToLong(Long::longValue).max().orElseThrow();
        long second = resident.subList(resident.size() / 2, resident.size()).stream().mapToLong(Long::longValue).max().orElseThrow();
        long whole = second + Runtime.getRuntime().totalMemory() / 1024;
        assertThat(second - first).as("growth in KiB: %s", resident).isLessThan(whole / 100);
      }
    }
  }
}

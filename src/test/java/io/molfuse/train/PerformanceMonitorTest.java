// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.molfuse.train.PerformanceMonitor.Phase;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import jdk.jfr.Recording;
import jdk.jfr.consumer.RecordedEvent;
import jdk.jfr.consumer.RecordingFile;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

@SuppressWarnings("try")
class PerformanceMonitorTest {
  private static final Phase[] PHASES = Phase.values();

  @TempDir Path folder;

  /** What every clock of these tests shows, but for those of streams: it moves when a test moves it. */
  private final AtomicLong now = new AtomicLong(1_000_000_000);

  private PerformanceMonitor cpu() {
    return new PerformanceMonitor(new CpuSide(now::get), now::get);
  }

  private void pass(long millis) {
    now.addAndGet(millis * 1_000_000);
  }

  private void phase(PerformanceMonitor monitor, Phase phase, long millis) {
    monitor.begin(phase);
    pass(millis);
    monitor.end(phase);
  }

  private void steps(PerformanceMonitor monitor, int count, long load, long transfer, long forward, long backward) {
    for (int i = 0; i < count; i++) {
      phase(monitor, Phase.LOAD, load);
      phase(monitor, Phase.TRANSFER, transfer);
      phase(monitor, Phase.FORWARD, forward);
      phase(monitor, Phase.BACKWARD, backward);
      phase(monitor, Phase.OPTIMIZER, 1);
      pass(2);
      monitor.step(32);
    }
  }

  private PerformanceSummary measured(long load, long transfer, long forward, long backward) {
    try (PerformanceMonitor monitor = cpu()) {
      steps(monitor, 5, load, transfer, forward, backward);
      return monitor.summary();
    }
  }

  @Test
  void hintsFitTheWorkload() {
    assertThat(measured(20, 2, 3, 3).bottleneck()).isEqualTo(Bottleneck.INPUT_BOUND);
    assertThat(measured(1, 60, 3, 3).bottleneck()).isEqualTo(Bottleneck.TRANSFER_BOUND);
    assertThat(measured(1, 2, 30, 30).bottleneck()).isEqualTo(Bottleneck.COMPUTE_BOUND);
    try (PerformanceMonitor monitor = cpu()) {
      assertThat(monitor.summary().bottleneck()).isEqualTo(Bottleneck.UNKNOWN);
    }
  }

  @Test
  void hintsCountWhatHappensBesideTheModel() {
    // Batches made beside the model: the loop waits a little for slow input, not at all for fast.
    assertThat(Bottleneck.of(13, 4, 1, 9)).isEqualTo(Bottleneck.INPUT_BOUND);
    assertThat(Bottleneck.of(10, 0.1, 4, 9.8)).isEqualTo(Bottleneck.COMPUTE_BOUND);
    // Copies that take all the time: the host waits for slots, so it seems to wait for batches.
    assertThat(Bottleneck.of(10, 6, 9.9, 4)).isEqualTo(Bottleneck.TRANSFER_BOUND);
    // The host waits for nothing, the device does.
    assertThat(Bottleneck.of(10, 0, 9.9, 4)).isEqualTo(Bottleneck.TRANSFER_BOUND);
    assertThat(Bottleneck.of(10, 9, 3, 1)).isEqualTo(Bottleneck.INPUT_BOUND);
    assertThat(Bottleneck.of(0, 0, 0, 0)).isEqualTo(Bottleneck.UNKNOWN);
  }

  @Test
  void timesAddUp() {
    PerformanceSummary summary = measured(5, 3, 8, 4);
    assertThat(summary.steps()).isEqualTo(5);
    assertThat(summary.samples()).isEqualTo(160);
    assertThat(summary.loadMillis()).isCloseTo(5, within(1e-9));
    assertThat(summary.transferMillis()).isCloseTo(3, within(1e-9));
    assertThat(summary.forwardMillis()).isCloseTo(8, within(1e-9));
    assertThat(summary.backwardMillis()).isCloseTo(4, within(1e-9));
    assertThat(summary.optimizerMillis()).isCloseTo(1, within(1e-9));
    // With what belongs to no phase.
    assertThat(summary.stepMillis()).isCloseTo(23, within(1e-9));
    assertThat(summary.samplesPerSecond()).isCloseTo(32 / 23e-3, within(1e-6));
    assertThat(summary.processMemoryBytes()).isGreaterThan(1 << 20);
    assertThat(summary.processCpu()).isNotNegative();
    assertThat(summary.deviceAllocatedBytes()).isNull();
    assertThat(summary.deviceUtilization()).isNull();
  }

  @Test
  void aPhaseMayComeSeveralTimesInAStepOrNotAtAll() {
    try (PerformanceMonitor monitor = cpu()) {
      monitor.begin(Phase.FORWARD);
      pass(500);
      // Begun again, as after a failure: what was before does not count.
      phase(monitor, Phase.FORWARD, 5);
      phase(monitor, Phase.FORWARD, 5);
      monitor.step(1);
      PerformanceSummary summary = monitor.summary();
      assertThat(summary.forwardMillis()).isCloseTo(10, within(1e-9));
      assertThat(summary.stepMillis()).isCloseTo(510, within(1e-9));
      assertThat(summary.backwardMillis()).isZero();
      assertThatThrownBy(() -> monitor.end(Phase.BACKWARD)).isInstanceOf(IllegalStateException.class);
      monitor.reset();
      assertThat(monitor.summary().steps()).isZero();
    }
  }

  @Test
  @Timeout(60)
  void neverWaitsForTheDevice() throws Exception {
    try (SlowSide side = new SlowSide(0, true);
        PerformanceMonitor monitor = new PerformanceMonitor(side)) {
      // The device is held up, and the host runs ahead.
      CountDownLatch held = new CountDownLatch(1);
      side.holdUntil(held);
      for (int i = 0; i < 20; i++) {
        monitor.begin(Phase.FORWARD);
        monitor.end(Phase.FORWARD);
        monitor.step(8);
      }
      assertThat(monitor.summary().steps()).isZero();
      held.countDown();
      while (monitor.summary().steps() < 20) {
        Thread.sleep(1);
      }
      assertThat(monitor.summary().samples()).isEqualTo(160);
      assertThat(side.waits).hasValue(0);
      // Events are used again: 20 steps ahead took 20 pairs, the next 20 none.
      int before = side.openEvents.get();
      assertThat(before).isEqualTo(40);
      for (int i = 0; i < 20; i++) {
        monitor.begin(Phase.FORWARD);
        monitor.end(Phase.FORWARD);
        monitor.step(8);
      }
      assertThat(side.openEvents).hasValue(before);
      while (monitor.summary().steps() < 40) {
        Thread.sleep(1);
      }
    }
  }

  @Test
  @Timeout(60)
  void aRingTimesItsCopies() throws InterruptedException {
    try (SlowSide side = new SlowSide(5, true);
        PerformanceMonitor monitor = cpu();
        StagingRing ring = new StagingRing(side, 2).monitor(monitor)) {
      for (int i = 0; i < 4; i++) {
        StagingRing.Slot slot = ring.acquire();
        slot.tensor(ScalarType.Float, 10);
        slot.tensor(ScalarType.Float, 10);
        try (PointerScope scope = new PointerScope()) {
          slot.submit().take();
        }
        pass(11);
        monitor.step(1);
      }
      while (monitor.summary().steps() < 4) {
        Thread.sleep(1);
      }
      // Two copies of 5 ms each.
      assertThat(monitor.summary().transferMillis()).isCloseTo(10, within(1e-9));
      assertThat(monitor.summary().bottleneck()).isEqualTo(Bottleneck.TRANSFER_BOUND);
    }
  }

  @Test
  @Timeout(60)
  void aRingThatOutlivesItsMonitorKeepsNoEvents() throws InterruptedException {
    try (SlowSide side = new SlowSide(0, true);
        StagingRing ring = new StagingRing(side, 2)) {
      int own = side.openEvents.get();
      PerformanceMonitor monitor = cpu();
      ring.monitor(monitor);
      transfers(ring, 3);
      assertThat(side.openEvents.get()).isGreaterThan(own);
      // One copy is begun before the monitor is closed, and ends after.
      PerformanceMonitor.Span begun = monitor.beginCopy(side);
      monitor.close();
      monitor.endCopy(begun);
      assertThat(side.openEvents).hasValue(own);
      transfers(ring, 3);
      assertThat(monitor.beginCopy(side)).isNull();
      assertThat(side.openEvents).hasValue(own);
      monitor.begin(Phase.FORWARD);
      monitor.end(Phase.FORWARD);
      monitor.step(1);
      monitor.close();
      assertThat(monitor.summary().steps()).isZero();
    }
  }

  private static void transfers(StagingRing ring, int count) throws InterruptedException {
    for (int i = 0; i < count; i++) {
      StagingRing.Slot slot = ring.acquire();
      slot.tensor(ScalarType.Float, 10);
      try (PointerScope scope = new PointerScope()) {
        slot.submit().take();
      }
    }
  }

  @Test
  @Timeout(60)
  void copiesWithoutStepsDoNotPileUp() throws InterruptedException {
    try (SlowSide side = new SlowSide(0, true);
        PerformanceMonitor monitor = cpu();
        StagingRing ring = new StagingRing(side, 2).monitor(monitor)) {
      transfers(ring, 1500);
      int events = side.openEvents.get();
      transfers(ring, 1500);
      assertThat(side.openEvents).hasValue(events);
    }
  }

  @Test
  void theSummaryIsTextAndJson() throws Exception {
    PerformanceSummary summary = measured(20, 1, 1, 1);
    JsonNode json = new ObjectMapper().readTree(summary.json());
    TreeSet<String> names = new TreeSet<>();
    json.fieldNames().forEachRemaining(names::add);
    assertThat(names)
        .containsExactlyInAnyOrder(
            "steps", "samples", "samples_per_second", "step_millis", "load_millis", "transfer_millis", "forward_millis",
            "backward_millis", "optimizer_millis", "device_allocated_bytes", "device_reserved_bytes", "device_peak_bytes",
            "device_utilization", "process_memory_bytes", "process_cpu", "bottleneck");
    assertThat(json.get("steps").asLong()).isEqualTo(5);
    assertThat(json.get("load_millis").asDouble()).isEqualTo(summary.loadMillis());
    assertThat(json.get("device_allocated_bytes").isNull()).isTrue();
    assertThat(json.get("bottleneck").asText()).isEqualTo("INPUT_BOUND");
    assertThat(summary.text())
        .startsWith("5 steps of ")
        .contains("load ", "forward ", "process memory ", "the loop waits for batches")
        .doesNotContain("device memory", "device busy");
    PerformanceSummary gpu =
        new PerformanceSummary(
            2, 64, 100, 320, 1, 2, 100, 200, 10, 1L << 30, 3L << 29, 5L << 28, 87.5, 1L << 31, 0.25, Bottleneck.COMPUTE_BOUND);
    assertThat(gpu.text().lines())
        .containsExactly(
            "2 steps of 320.00 ms, 100.0 samples/s",
            "load 1.00 ms, transfer 2.00 ms, forward 100.00 ms, backward 200.00 ms, optimizer 10.00 ms",
            "device memory 1.00 GiB allocated, 1.50 GiB reserved, 1.25 GiB peak",
            "device busy 88 % of the time",
            "process memory 2.00 GiB, processors 25 % used",
            Bottleneck.COMPUTE_BOUND.hint());
  }

  @Test
  void everyStepIsAnEventOfAFlightRecording() throws Exception {
    Path file = folder.resolve("steps.jfr");
    try (Recording recording = new Recording();
        PerformanceMonitor monitor = cpu()) {
      recording.enable("io.molfuse.TrainingStep");
      recording.start();
      steps(monitor, 3, 2, 1, 6, 3);
      recording.stop();
      recording.dump(file);
    }
    List<RecordedEvent> events = stepsIn(file);
    assertThat(events).extracting(event -> event.getLong("step")).containsExactly(1L, 2L, 3L);
    for (RecordedEvent event : events) {
      assertThat(event.getLong("samples")).isEqualTo(32);
      assertThat(event.getDuration("load").toNanos()).isEqualTo(2_000_000);
      assertThat(event.getDuration("forward").toNanos()).isEqualTo(6_000_000);
      assertThat(event.getLong("optimizer")).isEqualTo(1_000_000);
      assertThat(event.getLong("time")).isEqualTo(15_000_000);
      assertThat(event.getLong("deviceMemory")).isEqualTo(-1);
      assertThat(event.getLong("processMemory")).isPositive();
    }
  }

  private static List<RecordedEvent> stepsIn(Path file) throws IOException {
    List<RecordedEvent> events = new ArrayList<>();
    for (RecordedEvent event : RecordingFile.readAllEvents(file)) {
      if (event.getEventType().getName().equals("io.molfuse.TrainingStep")) {
        events.add(event);
      }
    }
    events.sort((a, b) -> Long.compare(a.getLong("step"), b.getLong("step")));
    return events;
  }

  @Test
  void offMeasuresNothingAndAllocatesNothing() {
    PerformanceMonitor off = PerformanceMonitor.off();
    assertThat(off.isOn()).isFalse();
    com.sun.management.ThreadMXBean threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
    long thread = Thread.currentThread().getId();
    long used = Long.MAX_VALUE;
    // The first rounds load classes.
    for (int round = 0; round < 5; round++) {
      long before = threads.getThreadAllocatedBytes(thread);
      for (int i = 0; i < 100_000; i++) {
        for (Phase phase : PHASES) {
          off.begin(phase);
          off.end(phase);
        }
        off.endCopy(off.beginCopy(null));
        off.step(32);
      }
      used = Math.min(used, threads.getThreadAllocatedBytes(thread) - before);
    }
    // Asking for the count may itself take a few bytes; one object a step would be 1.6 MB.
    assertThat(used).isLessThan(1000);
    assertThat(off.summary().steps()).isZero();
    assertThat(off.summary().bottleneck()).isEqualTo(Bottleneck.UNKNOWN);
    off.reset();
    off.close();
  }
}

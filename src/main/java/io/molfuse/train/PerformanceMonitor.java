// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.DeviceMemory;
import io.molfuse.ops.Molfuse;
import java.lang.management.ManagementFactory;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.LongSupplier;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Device;

/**
 * Measures where a training loop's time goes. On a GPU by events on its streams, which are read when they have come to pass: nothing
 * waits for the device. Each step becomes an event {@code io.molfuse.TrainingStep} of a running flight recording. One that is
 * {@linkplain #off off} does nothing and allocates nothing.
 *
 * <p>{@link #begin}, {@link #end}, {@link #step} and {@link #summary} belong to the thread that trains.
 */
public final class PerformanceMonitor implements AutoCloseable {
  /** Parts of a step. Each may come several times in one, and none has to. */
  public enum Phase {
    /** Waiting for a batch, on the host. */
    LOAD,
    /** Copying to the device. A {@link StagingRing} times its own copies. */
    TRANSFER,
    /** Computing the loss. */
    FORWARD,
    /** Computing the gradients. */
    BACKWARD,
    /** Changing the parameters. */
    OPTIMIZER
  }

  private static final Phase[] PHASES = Phase.values();
  private static final long READING_NANOS = 1_000_000_000;
  /** Copies that no step has counted yet. Beyond, as where steps are never ended, they are not counted. */
  private static final int MOST_COPIES = 1024;
  private static final PerformanceMonitor OFF = new PerformanceMonitor();

  /** A piece of work between two events of a device. */
  static final class Span {
    final DeviceSide side;
    final DeviceSide.Event from;
    final DeviceSide.Event to;
    private Phase phase;

    private Span(DeviceSide side) {
      this.side = side;
      from = side.newEvent(true);
      to = side.newEvent(true);
    }

    private void close() {
      from.close();
      to.close();
    }
  }

  /** A step whose events may still lie ahead of the device. */
  private record Step(long number, long samples, long nanos, List<Span> spans) {}

  private final boolean on;
  private final LongSupplier clock;
  private final DeviceSide host;
  private final DeviceSide device;
  private final Map<DeviceSide, Queue<Span>> unused = new ConcurrentHashMap<>();
  private final Queue<Span> copies = new LinkedBlockingQueue<>(MOST_COPIES);
  private final Span[] open = new Span[PHASES.length];
  private final ArrayDeque<Step> ahead = new ArrayDeque<>();
  private final double[] millis = new double[PHASES.length];
  private final double[] stepMillis = new double[PHASES.length];
  private List<Span> spans = new ArrayList<>();
  private long started;
  private long steps;
  private long measured;
  private long samples;
  private long nanos;
  private long readAt;
  private long cpuAt;
  private double cpuNanos;
  private double cpuOfNanos;
  private double utilization;
  private long utilizations;
  private DeviceMemory memory;
  private long processMemory;
  /** A ring may go on with copies on any thread when its monitor is gone. */
  private volatile boolean closed;

  private PerformanceMonitor() {
    on = false;
    clock = null;
    host = null;
    device = null;
  }

  PerformanceMonitor(DeviceSide device) {
    this(device, System::nanoTime);
  }

  /** @param clock of the host, in nanoseconds */
  PerformanceMonitor(DeviceSide device, LongSupplier clock) {
    on = true;
    this.clock = clock;
    host = new CpuSide(clock);
    this.device = device;
    reset();
  }

  /** @return a monitor that does nothing */
  public static PerformanceMonitor off() {
    return OFF;
  }

  /**
   * Begins to measure.
   *
   * @param device what trains; one without a number is the calling thread's current one
   * @return a monitor; close it
   * @throws TrainingException if there is no such device
   */
  public static PerformanceMonitor of(Device device) {
    return new PerformanceMonitor(DeviceSide.of(device));
  }

  /** @return whether this monitor measures anything */
  public boolean isOn() {
    return on;
  }

  /**
   * Begins a phase. One that was begun and not ended is forgotten.
   *
   * @param phase which
   */
  public void begin(Phase phase) {
    if (idle()) {
      return;
    }
    Span span = open[phase.ordinal()];
    if (span == null) {
      span = span(phase == Phase.LOAD ? host : device, phase);
      open[phase.ordinal()] = span;
    }
    span.side.recordWork(span.from);
  }

  /**
   * Ends a phase.
   *
   * @param phase which
   * @throws IllegalStateException if it was not begun
   */
  public void end(Phase phase) {
    if (idle()) {
      return;
    }
    Span span = open[phase.ordinal()];
    if (span == null) {
      throw new IllegalStateException(phase + " was not begun");
    }
    open[phase.ordinal()] = null;
    span.side.recordWork(span.to);
    spans.add(span);
  }

  /**
   * Ends a step.
   *
   * @param stepSamples samples it trained on
   */
  public void step(long stepSamples) {
    if (idle()) {
      return;
    }
    long now = clock.getAsLong();
    for (Span copy = copies.poll(); copy != null; copy = copies.poll()) {
      spans.add(copy);
    }
    ahead.add(new Step(++steps, stepSamples, now - started, spans));
    spans = new ArrayList<>();
    started = now;
    long reading = System.nanoTime();
    if (reading - readAt >= READING_NANOS) {
      read(reading);
    }
    settle();
  }

  private boolean idle() {
    return !on || closed;
  }

  /** For copies on any thread: begins to time what the side stream is given. Null if this is off or closed. */
  Span beginCopy(DeviceSide side) {
    if (idle()) {
      return null;
    }
    Span span = span(side, Phase.TRANSFER);
    side.recordCopies(span.from);
    return span;
  }

  void endCopy(Span span) {
    if (span == null) {
      return;
    }
    if (closed) {
      span.close();
      return;
    }
    span.side.recordCopies(span.to);
    if (!copies.offer(span)) {
      putBack(span);
    }
    if (closed) {
      // Closed in between, perhaps before this span was back.
      release();
    }
  }

  private void putBack(Span span) {
    unused.computeIfAbsent(span.side, key -> new ConcurrentLinkedQueue<>()).add(span);
  }

  private Span span(DeviceSide side, Phase phase) {
    Queue<Span> queue = unused.computeIfAbsent(side, key -> new ConcurrentLinkedQueue<>());
    Span span = queue.poll();
    if (span == null) {
      span = new Span(side);
    }
    span.phase = phase;
    return span;
  }

  /** Takes the times of steps that the device is done with. */
  private void settle() {
    while (!ahead.isEmpty() && ahead.peek().spans.stream().allMatch(span -> span.to.done())) {
      Step step = ahead.remove();
      Arrays.fill(stepMillis, 0);
      for (Span span : step.spans) {
        stepMillis[span.phase.ordinal()] += span.side.milliseconds(span.from, span.to);
        putBack(span);
      }
      for (int i = 0; i < millis.length; i++) {
        millis[i] += stepMillis[i];
      }
      measured++;
      samples += step.samples;
      nanos += step.nanos;
      commit(step);
    }
  }

  private void commit(Step step) {
    StepEvent event = new StepEvent();
    if (!event.isEnabled()) {
      return;
    }
    event.step = step.number;
    event.samples = step.samples;
    event.time = step.nanos;
    event.load = nanos(Phase.LOAD);
    event.transfer = nanos(Phase.TRANSFER);
    event.forward = nanos(Phase.FORWARD);
    event.backward = nanos(Phase.BACKWARD);
    event.optimizer = nanos(Phase.OPTIMIZER);
    event.deviceMemory = memory == null ? -1 : memory.allocated();
    event.processMemory = processMemory;
    event.commit();
  }

  private long nanos(Phase phase) {
    return Math.round(stepMillis[phase.ordinal()] * 1e6);
  }

  private void read(long now) {
    long cpu = cpuTime();
    if (cpu >= 0 && now > readAt) {
      cpuNanos += cpu - cpuAt;
      cpuOfNanos += (double) (now - readAt) * Runtime.getRuntime().availableProcessors();
    }
    cpuAt = cpu;
    readAt = now;
    processMemory = Pointer.physicalBytes();
    if (device.index() >= 0) {
      memory = Molfuse.deviceMemory(device.index());
      Integer percent = Molfuse.deviceUtilization(device.index());
      if (percent != null) {
        utilization += percent;
        utilizations++;
      }
    }
  }

  /** Processor time of the process in nanoseconds, -1 if this JVM does not tell. */
  private static long cpuTime() {
    return ManagementFactory.getOperatingSystemMXBean() instanceof com.sun.management.OperatingSystemMXBean system
        ? system.getProcessCpuTime()
        : -1;
  }

  /** Forgets the steps so far, such as those in which caches warmed up. */
  public void reset() {
    if (idle()) {
      return;
    }
    recycle();
    Arrays.fill(millis, 0);
    steps = 0;
    measured = 0;
    samples = 0;
    nanos = 0;
    cpuNanos = 0;
    cpuOfNanos = 0;
    utilization = 0;
    utilizations = 0;
    started = clock.getAsLong();
    cpuAt = cpuTime();
    readAt = System.nanoTime();
    processMemory = Pointer.physicalBytes();
  }

  /**
   * Sums up the steps whose times are known, without waiting for others, and reads the machine.
   *
   * @return means and readings; all zero or null from a monitor that is off
   */
  public PerformanceSummary summary() {
    if (on) {
      settle();
      read(System.nanoTime());
    }
    double perStep = measured == 0 ? 0 : 1.0 / measured;
    double step = nanos * 1e-6 * perStep;
    double load = mean(Phase.LOAD, perStep);
    double transfer = mean(Phase.TRANSFER, perStep);
    double forward = mean(Phase.FORWARD, perStep);
    double backward = mean(Phase.BACKWARD, perStep);
    double optimizer = mean(Phase.OPTIMIZER, perStep);
    return new PerformanceSummary(
        measured,
        samples,
        nanos == 0 ? 0 : samples / (nanos * 1e-9),
        step,
        load,
        transfer,
        forward,
        backward,
        optimizer,
        memory == null ? null : (Long) memory.allocated(),
        memory == null ? null : (Long) memory.reserved(),
        memory == null ? null : (Long) memory.peakAllocated(),
        utilizations == 0 ? null : (Double) (utilization / utilizations),
        processMemory,
        cpuOfNanos == 0 ? 0 : cpuNanos / cpuOfNanos,
        Bottleneck.of(step, load, transfer, forward + backward + optimizer));
  }

  private double mean(Phase phase, double perStep) {
    return millis[phase.ordinal()] * perStep;
  }

  private void recycle() {
    for (Span copy = copies.poll(); copy != null; copy = copies.poll()) {
      spans.add(copy);
    }
    ahead.forEach(step -> spans.addAll(step.spans));
    ahead.clear();
    spans.forEach(this::putBack);
    spans.clear();
    for (int i = 0; i < open.length; i++) {
      if (open[i] != null) {
        putBack(open[i]);
        open[i] = null;
      }
    }
  }

  /** Each span is taken by one thread only, so several may release at once. */
  private void release() {
    for (Span copy = copies.poll(); copy != null; copy = copies.poll()) {
      copy.close();
    }
    for (Queue<Span> queue : unused.values()) {
      for (Span span = queue.poll(); span != null; span = queue.poll()) {
        span.close();
      }
    }
  }

  /** Releases the events. From here on this measures nothing: a ring that still has it goes on without. A second call does nothing. */
  @Override
  public void close() {
    if (!idle()) {
      closed = true;
      recycle();
      release();
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.function.LongSupplier;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** The CPU does everything at once: a copy is done when it returns, and an event is the time at which it was recorded. */
final class CpuSide implements DeviceSide {
  private final LongSupplier clock;

  CpuSide() {
    this(System::nanoTime);
  }

  /** @param clock in nanoseconds */
  CpuSide(LongSupplier clock) {
    this.clock = clock;
  }

  private static final class Moment implements Event {
    private volatile long nanos;

    @Override
    public boolean done() {
      return true;
    }

    @Override
    public void await() {}

    @Override
    public void close() {}
  }

  @Override
  public boolean isCpu() {
    return true;
  }

  @Override
  public int index() {
    return -1;
  }

  @Override
  public Tensor hostMemory(long bytes) {
    try (TensorOptions options = new TensorOptions(ScalarType.Byte)) {
      return torch.empty(new long[] {bytes}, options, null);
    }
  }

  @Override
  public Tensor copy(Tensor host) {
    return host.clone();
  }

  @Override
  public Event newEvent(boolean timed) {
    return new Moment();
  }

  @Override
  public void recordCopies(Event event) {
    ((Moment) event).nanos = clock.getAsLong();
  }

  @Override
  public void recordWork(Event event) {
    ((Moment) event).nanos = clock.getAsLong();
  }

  @Override
  public void waitFor(Event event) {}

  @Override
  public void keepForWork(Tensor copy) {}

  @Override
  public double milliseconds(Event from, Event to) {
    return (((Moment) to).nanos - ((Moment) from).nanos) * 1e-6;
  }

  @Override
  public void close() {}
}

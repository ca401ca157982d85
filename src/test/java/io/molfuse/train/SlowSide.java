// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/**
 * A device whose side stream is a thread that copies late, as a busy bus does: each copy takes the delay by the stream's own clock, which
 * nothing else moves. For the host to be ahead of it for sure, hold it.
 */
@SuppressWarnings("try")
final class SlowSide implements DeviceSide {
  /** A point in the work of the thread. */
  final class Marker implements Event {
    private volatile CountDownLatch reached = new CountDownLatch(0);
    private volatile long nanos;

    @Override
    public boolean done() {
      return reached.getCount() == 0;
    }

    @Override
    public void await() throws InterruptedException {
      if (!honest) {
        return;
      }
      if (!done()) {
        waits.incrementAndGet();
      }
      reached.await();
    }

    @Override
    public void close() {
      openEvents.decrementAndGet();
    }
  }

  final AtomicInteger waits = new AtomicInteger();
  final AtomicInteger kept = new AtomicInteger();
  final AtomicInteger openEvents = new AtomicInteger();
  final AtomicInteger copies = new AtomicInteger();
  /** A copy with this number fails; none unless set. */
  volatile int failAt = -1;

  private final ExecutorService stream = Executors.newSingleThreadExecutor(task -> new Thread(task, "slow-stream"));
  private final CpuSide cpu = new CpuSide();
  private final long delayMillis;
  /** Of the stream's thread. */
  private long streamNanos;
  private final boolean honest;

  /**
   * @param delayMillis of each copy
   * @param honest false: its events claim that all is done, as if the ring did not wait for them
   */
  SlowSide(long delayMillis, boolean honest) {
    this.delayMillis = delayMillis;
    this.honest = honest;
  }

  /** Waits until a thread waits for something, or fails if it ends without. */
  static void awaitBlocked(Thread thread) throws InterruptedException {
    while (thread.getState() != Thread.State.WAITING) {
      if (thread.getState() == Thread.State.TERMINATED) {
        throw new AssertionError(thread.getName() + " ended instead of waiting");
      }
      Thread.sleep(1);
    }
  }

  /** Lets the stream do nothing until the latch is down. */
  void holdUntil(CountDownLatch latch) {
    enqueue(
        () -> {
          try {
            latch.await();
          } catch (InterruptedException e) {
            // Let go.
          }
        });
  }

  private void enqueue(Runnable work) {
    stream.execute(work);
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
    return cpu.hostMemory(bytes);
  }

  @Override
  public Tensor copy(Tensor host) {
    if (copies.getAndIncrement() == failAt) {
      throw new IllegalStateException("the bus is broken");
    }
    Tensor target = torch.empty_like(host);
    Tensor from = new Tensor(host);
    Tensor to = new Tensor(target);
    from.retainReference();
    to.retainReference();
    enqueue(
        () -> {
          try (PointerScope scope = new PointerScope()) {
            streamNanos += TimeUnit.MILLISECONDS.toNanos(delayMillis);
            to.copy_(from);
          } finally {
            from.releaseReference();
            to.releaseReference();
          }
        });
    return target;
  }

  @Override
  public Event newEvent(boolean timed) {
    openEvents.incrementAndGet();
    return new Marker();
  }

  @Override
  public void recordCopies(Event event) {
    CountDownLatch latch = new CountDownLatch(1);
    ((Marker) event).reached = latch;
    enqueue(
        () -> {
          ((Marker) event).nanos = streamNanos;
          latch.countDown();
        });
  }

  @Override
  public void recordWork(Event event) {
    recordCopies(event);
  }

  @Override
  public void waitFor(Event event) {
    // The thread that takes is also the stream that computes.
    try {
      ((Marker) event).reached.await();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  @Override
  public void keepForWork(Tensor copy) {
    kept.incrementAndGet();
  }

  @Override
  public double milliseconds(Event from, Event to) {
    return (((Marker) to).nanos - ((Marker) from).nanos) * 1e-6;
  }

  @Override
  public void close() {
    stream.shutdown();
    try {
      if (!stream.awaitTermination(60, TimeUnit.SECONDS)) {
        throw new IllegalStateException("the slow stream does not end");
      }
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }
}

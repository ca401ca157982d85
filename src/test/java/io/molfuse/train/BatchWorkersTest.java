// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A plan that reads from something that hangs, as a mounted disk may, and reacts to no interrupt. */
class BatchWorkersTest {
  private static final long PATIENCE_MILLIS = 50;

  private static final class BlockedPlan implements BatchWorkers.Plan<String> {
    final CountDownLatch reading = new CountDownLatch(1);
    final Semaphore data = new Semaphore(0);
    final CountDownLatch closed = new CountDownLatch(1);
    final AtomicInteger readers = new AtomicInteger();
    volatile boolean closedWhileRead;

    @Override
    public BatchWorkers.Job<String> next() {
      readers.incrementAndGet();
      reading.countDown();
      data.acquireUninterruptibly();
      readers.decrementAndGet();
      return new BatchWorkers.Job<>(0, 0, () -> "late");
    }

    @Override
    public void close() {
      closedWhileRead |= readers.get() > 0;
      closed.countDown();
    }
  }

  private static List<Thread> threads(String name) {
    return Thread.getAllStackTraces().keySet().stream().filter(thread -> thread.getName().startsWith(name)).toList();
  }

  @Test
  @Timeout(60)
  void closingLeavesOnlyWhoeverReadsFromABlockedStreamAndThenTheyCloseIt() throws InterruptedException {
    BlockedPlan plan = new BlockedPlan();
    AtomicInteger released = new AtomicInteger();
    BatchWorkers<String> workers =
        new BatchWorkers<>("blocked-close", 3, 6, true, batch -> released.incrementAndGet(), PATIENCE_MILLIS);
    workers.start(plan);
    plan.reading.await();
    assertThat(threads("blocked-close")).hasSize(3);
    workers.close();
    // The two that waited for their turn to read end, too, though nobody waits for them longer than for the one that reads.
    while (threads("blocked-close").size() > 1) {
      Thread.sleep(1);
    }
    assertThat(plan.closed.getCount()).isEqualTo(1);
    plan.data.release();
    plan.closed.await();
    while (!threads("blocked-close").isEmpty()) {
      Thread.sleep(1);
    }
    assertThat(plan.closedWhileRead).isFalse();
    assertThat(released).hasValue(1);
  }

  @Test
  @Timeout(60)
  void aPassThatIsLeftDoesNotWaitForABlockedStreamForEver() throws Throwable {
    BlockedPlan plan = new BlockedPlan();
    AtomicInteger released = new AtomicInteger();
    try (BatchWorkers<String> workers =
        new BatchWorkers<>("blocked-stop", 2, 4, true, batch -> released.incrementAndGet(), PATIENCE_MILLIS)) {
      BatchWorkers.Pass<String> left = workers.start(plan);
      plan.reading.await();
      AtomicInteger next = new AtomicInteger();
      BatchWorkers.Pass<String> pass =
          workers.start(
              () -> {
                int number = next.getAndIncrement();
                return number >= 5 ? null : new BatchWorkers.Job<>(1, number, () -> "batch " + number);
              });
      assertThat(plan.closed.getCount()).isEqualTo(1);
      assertThatThrownBy(() -> workers.take(left)).isInstanceOf(IllegalStateException.class);
      plan.data.release(4);
      plan.closed.await();
      assertThat(workers.take(pass).value()).isEqualTo("batch 0");
    }
    while (released.get() == 0 || !threads("blocked-stop").isEmpty()) {
      Thread.sleep(1);
    }
    assertThat(plan.closedWhileRead).isFalse();
  }
}

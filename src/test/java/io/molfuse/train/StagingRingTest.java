// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.LongStream;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.ExtendWith;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class StagingRingTest {
  private static final int WIDTH = 1000;

  private static void fill(Tensor tensor, long value) {
    long[] values = new long[(int) tensor.numel()];
    Arrays.fill(values, value);
    if (values.length > 0) {
      new LongPointer(tensor.data_ptr()).put(values);
    }
  }

  private static long[] values(Tensor tensor) {
    long[] values = new long[(int) tensor.numel()];
    new LongPointer(tensor.data_ptr()).get(values);
    return values;
  }

  /** Writes batches first to last-1 and starts their copies. */
  private static void submit(StagingRing ring, int first, int last, List<Transfer> transfers) throws InterruptedException {
    for (int i = first; i < last; i++) {
      StagingRing.Slot slot = ring.acquire();
      fill(slot.tensor(ScalarType.Long, WIDTH), i);
      fill(slot.tensor(ScalarType.Long, 2, 3), -i);
      transfers.add(slot.submit());
    }
  }

  private static List<long[]> arrived(List<Transfer> transfers) {
    List<long[]> arrived = new ArrayList<>();
    for (Transfer transfer : transfers) {
      assertThat(transfer.bytes()).isEqualTo((WIDTH + 6) * 8);
      List<Tensor> tensors = transfer.take();
      assertThat(tensors.get(1).shape()).containsExactly(2, 3);
      arrived.add(new long[] {values(tensors.get(0))[0], values(tensors.get(0))[WIDTH - 1], values(tensors.get(1))[5]});
    }
    return arrived;
  }

  /** A thread that ends with a failure of the test instead of its own. */
  private static Thread started(Callable<?> action, List<Throwable> thrown) {
    Thread thread =
        new Thread(
            () -> {
              try {
                action.call();
              } catch (Throwable e) {
                thrown.add(e);
              }
            });
    thread.start();
    return thread;
  }

  @Test
  @Timeout(60)
  void aSlotIsNotWrittenWhileASlowStreamReadsIt() throws InterruptedException {
    List<Throwable> thrown = Collections.synchronizedList(new ArrayList<>());
    try (SlowSide side = new SlowSide(3, true);
        PointerScope scope = new PointerScope()) {
      try (StagingRing ring = new StagingRing(side, 3)) {
        CountDownLatch held = new CountDownLatch(1);
        side.holdUntil(held);
        List<Transfer> transfers = Collections.synchronizedList(new ArrayList<>());
        submit(ring, 0, 3, transfers);
        assertThat(side.waits).hasValue(0);
        // Three fit at once; whoever wants a fourth waits for the stream.
        Thread other =
            started(
                () -> {
                  try (PointerScope own = new PointerScope()) {
                    submit(ring, 3, 12, transfers);
                  }
                  return null;
                },
                thrown);
        SlowSide.awaitBlocked(other);
        assertThat(side.waits).hasValue(1);
        assertThat(transfers).hasSize(3);
        held.countDown();
        other.join();
        assertThat(thrown).isEmpty();
        List<long[]> arrived = arrived(transfers);
        assertThat(arrived).hasSize(12);
        for (int i = 0; i < arrived.size(); i++) {
          assertThat(arrived.get(i)).containsExactly(i, i, -i);
        }
      }
      assertThat(side.kept).hasValue(24);
      assertThat(side.openEvents).hasValue(0);
    }
  }

  /** The test above can fail: without the wait, later batches overwrite earlier ones. */
  @Test
  @Timeout(60)
  void withoutTheWaitBatchesWouldBeOverwritten() throws InterruptedException {
    try (SlowSide side = new SlowSide(3, false);
        StagingRing ring = new StagingRing(side, 3);
        PointerScope scope = new PointerScope()) {
      CountDownLatch held = new CountDownLatch(1);
      side.holdUntil(held);
      List<Transfer> transfers = new ArrayList<>();
      submit(ring, 0, 12, transfers);
      held.countDown();
      // Each slot holds the last of its four batches when the stream reads it.
      assertThat(arrived(transfers)).extracting(batch -> batch[0]).containsExactly(9L, 10L, 11L, 9L, 10L, 11L, 9L, 10L, 11L, 9L, 10L, 11L);
    }
  }

  @Test
  @Timeout(60)
  void whoeverWantsASlotThatIsBeingFilledWaits() throws InterruptedException {
    try (StagingRing ring = new StagingRing(new Device(DeviceType.CPU), 1)) {
      StagingRing.Slot slot = ring.acquire();
      AtomicBoolean got = new AtomicBoolean();
      Thread other =
          new Thread(
              () -> {
                try {
                  ring.acquire().release();
                  got.set(true);
                } catch (InterruptedException e) {
                  // Not got.
                }
              });
      other.start();
      SlowSide.awaitBlocked(other);
      assertThat(got).isFalse();
      slot.release();
      other.join();
      assertThat(got).isTrue();
      assertThatThrownBy(slot::submit).isInstanceOf(IllegalStateException.class);
      assertThatThrownBy(() -> slot.tensor(ScalarType.Float, 1)).isInstanceOf(IllegalStateException.class);
    }
  }

  @Test
  @Timeout(60)
  void waitingForASlotCanBeInterruptedOrEndedByClose() throws InterruptedException {
    StagingRing ring = new StagingRing(new Device(DeviceType.CPU), 1);
    StagingRing.Slot slot = ring.acquire();
    List<Throwable> thrown = new ArrayList<>();
    CountDownLatch begun = new CountDownLatch(1);
    Runnable wait =
        () -> {
          begun.countDown();
          try {
            ring.acquire();
          } catch (InterruptedException | IllegalStateException e) {
            thrown.add(e);
          }
        };
    Thread interrupted = new Thread(wait);
    interrupted.start();
    begun.await();
    interrupted.interrupt();
    interrupted.join();
    Thread refused = new Thread(wait);
    refused.start();
    Thread closing = new Thread(ring::close);
    closing.start();
    refused.join();
    assertThat(thrown.get(0)).isInstanceOf(InterruptedException.class);
    assertThat(thrown.get(1)).hasMessage("the staging ring is closed");
    // The slot that is being filled is waited for.
    SlowSide.awaitBlocked(closing);
    try (PointerScope scope = new PointerScope()) {
      fill(slot.tensor(ScalarType.Long, 5), 7);
      Transfer transfer = slot.submit();
      closing.join();
      assertThat(values(transfer.take().get(0))).containsOnly(7);
    }
  }

  @Test
  @Timeout(60)
  void aFailedCopyGivesTheSlotBack() throws InterruptedException {
    try (SlowSide side = new SlowSide(1, true);
        StagingRing ring = new StagingRing(side, 1)) {
      side.failAt = 1;
      StagingRing.Slot slot = ring.acquire();
      slot.tensor(ScalarType.Long, 3);
      slot.tensor(ScalarType.Long, 3);
      assertThatThrownBy(slot::submit).hasMessage("the bus is broken");
      ring.acquire().release();
    }
  }

  @Test
  @Timeout(60)
  void collateWritesStraightIntoASlot() throws InterruptedException {
    List<Pointer> written = Collections.synchronizedList(new ArrayList<>());
    List<Long> samples = LongStream.range(0, 64).boxed().toList();
    try (SlowSide side = new SlowSide(1, true);
        StagingRing ring = new StagingRing(side, 3)) {
      StagedCollate<Long> collate =
          (batch, slot) -> {
            Tensor tensor = slot.tensor(ScalarType.Long, batch.size(), 2);
            try (LongPointer memory = new LongPointer(tensor.data_ptr())) {
              written.add(tensor.data_ptr());
              for (int i = 0; i < batch.size(); i++) {
                memory.put(2L * i, batch.get(i)).put(2L * i + 1, -batch.get(i));
              }
            }
          };
      try (DataLoader<Transfer> loader =
          DataLoader.of(IndexedDataset.of(samples), ring.staging(collate)).batchSize(5).workers(2).prefetch(4).build()) {
        for (long number = 0; number < 3; number++) {
          DataLoader.Epoch<Transfer> epoch = loader.epoch(number);
          long expected = 0;
          for (Transfer batch = epoch.next(); batch != null; batch = epoch.next()) {
            try (PointerScope scope = new PointerScope()) {
              long[] values = values(batch.take().get(0));
              for (int i = 0; i < values.length; i += 2) {
                assertThat(values[i]).isEqualTo(expected);
                assertThat(values[i + 1]).isEqualTo(-expected++);
              }
            }
          }
          assertThat(expected).isEqualTo(64);
        }
        loader.epoch(9).next().close();
      }
      // 3 x 13 batches went through the memory of three slots: nothing was copied on the host.
      assertThat(written.stream().map(Pointer::address).distinct().count()).isBetween(1L, 3L);
      assertThat(written.size()).isGreaterThanOrEqualTo(39);
    }
  }

  @Test
  @Timeout(60)
  void aPinningStageCopiesWhatACollateMade() throws InterruptedException {
    IndexedDataset<Long> numbers = IndexedDataset.of(LongStream.range(0, 10).boxed().toList());
    try (StagingRing ring = new StagingRing(new Device(DeviceType.CPU), 2)) {
      Collate<Long, long[]> collate = samples -> samples.stream().mapToLong(Long::longValue).toArray();
      StagedCollate<long[]> pin =
          (batch, slot) -> {
            if (batch.get(0)[0] == 6) {
              throw new IllegalArgumentException("no memory can be pinned");
            }
            new LongPointer(slot.tensor(ScalarType.Long, batch.get(0).length).data_ptr()).put(batch.get(0));
          };
      DataLoader<Transfer> loader = DataLoader.of(numbers, ring.staging(collate, pin)).batchSize(3).workers(2).build();
      DataLoader.Epoch<Transfer> epoch = loader.epoch(0);
      try (PointerScope scope = new PointerScope()) {
        assertThat(values(epoch.next().take().get(0))).containsExactly(0, 1, 2);
        assertThat(values(epoch.next().take().get(0))).containsExactly(3, 4, 5);
      }
      assertThatThrownBy(epoch::next)
          .isInstanceOf(DataLoaderException.class)
          .hasMessage("could not make batch 2 of epoch 0: no memory can be pinned");
    }
  }

  @Test
  void copiesTensorsThatChangeAfterwards() throws InterruptedException {
    try (StagingRing ring = new StagingRing(new Device(DeviceType.CPU), 1);
        PointerScope scope = new PointerScope()) {
      Tensor host = Tensor.create(new float[] {1, 2, 3, 4, 5, 6}, 2, 3);
      Transfer transfer = ring.to(List.of(host.t(), Tensor.create(new long[0], 0, 4)));
      host.zero_();
      assertThat(transfer.done()).isTrue();
      List<Tensor> copies = transfer.take();
      assertThat(copies.get(0).shape()).containsExactly(3, 2);
      assertThat(copies.get(0).createIndexer().toString()).contains("1.0").contains("6.0");
      assertThat(copies.get(1).shape()).containsExactly(0, 4);
      assertThatThrownBy(transfer::take).isInstanceOf(IllegalStateException.class);
    }
  }

  @Test
  void nativeMemoryIsFlatOverManyEpochs() throws InterruptedException {
    List<Long> samples = LongStream.range(0, 200).boxed().toList();
    List<Long> counts = new ArrayList<>();
    try (StagingRing ring = new StagingRing(new Device(DeviceType.CPU), 3)) {
      // 80 kB a batch: 400 epochs that leaked one batch each would show as 32 MB.
      StagedCollate<Long> collate = (batch, slot) -> fill(slot.tensor(ScalarType.Long, batch.size(), 1000), batch.get(0));
      try (DataLoader<Transfer> loader =
          DataLoader.of(IndexedDataset.of(samples), ring.staging(collate)).batchSize(10).workers(2).build()) {
        for (long number = 0; number < 400; number++) {
          // Left in the middle as often as not.
          try (DataLoader.Epoch<Transfer> epoch = loader.epoch(number)) {
            for (int i = 0; i < 10 + number % 10; i++) {
              try (PointerScope scope = new PointerScope()) {
                assertThat(epoch.next().take().get(0).numel()).isEqualTo(10_000);
              }
            }
          }
          if (number >= 100 && number % 20 == 0) {
            counts.add(Pointer.totalCount());
          }
        }
      }
    }
    // A pass that ends leaves at most what its two threads have under way, a few objects each.
    assertThat(counts).as("JavaCPP objects").allSatisfy(count -> assertThat(count - counts.get(0)).isLessThan(60));
  }

  @Test
  void buffersAreViewsOfTheirMemory() {
    try (PinnedBuffer buffer = new PinnedBuffer(new Device(DeviceType.CPU), 64);
        PointerScope scope = new PointerScope()) {
      assertThat(buffer.pinned()).isFalse();
      assertThat(buffer.bytes()).isEqualTo(64);
      fill(buffer.tensor(ScalarType.Long, 2, 4), 5);
      assertThat(values(buffer.tensor(ScalarType.Long, 3))).containsOnly(5);
      assertThat(buffer.tensor(ScalarType.Half, 32).numel()).isEqualTo(32);
      assertThatThrownBy(() -> buffer.tensor(ScalarType.Long, 9)).hasMessage("72 bytes do not fit into a buffer of 64");
      assertThatThrownBy(() -> buffer.tensor(ScalarType.Long, -1)).hasMessageContaining("negative");
      assertThatThrownBy(() -> new PinnedBuffer(new Device(DeviceType.CPU), -1)).hasMessageContaining("bytes");
    }
  }

  @Test
  void aDeviceThatIsNotThereIsNamed() {
    assertThatThrownBy(() -> new StagingRing(new Device("cuda:99"), 2)).isInstanceOf(TrainingException.class);
    assertThatThrownBy(() -> new StagingRing(new Device(DeviceType.CPU), 0)).hasMessageContaining("slots");
  }

  @Test
  @Timeout(60)
  void closeWaitsForASlowStream() throws InterruptedException {
    try (SlowSide side = new SlowSide(30, true)) {
      StagingRing ring = new StagingRing(side, 2);
      CountDownLatch held = new CountDownLatch(1);
      side.holdUntil(held);
      StagingRing.Slot slot = ring.acquire();
      fill(slot.tensor(ScalarType.Long, 4), 3);
      Transfer transfer = slot.submit();
      Thread closing = new Thread(ring::close);
      closing.start();
      SlowSide.awaitBlocked(closing);
      assertThat(transfer.done()).isFalse();
      held.countDown();
      closing.join();
      assertThat(transfer.done()).isTrue();
      try (PointerScope scope = new PointerScope()) {
        assertThat(values(transfer.take().get(0))).containsOnly(3);
      }
    }
  }
}

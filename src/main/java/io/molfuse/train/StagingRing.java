// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * A few slots of page-locked host memory through which batches go to a device, on a stream of their own beside the one that computes.
 * A slot is written again only when the device has read it; until then, whoever wants one waits, for an event and not for the device.
 * For the CPU the slots are plain memory, and a transfer is a copy.
 *
 * <p>Thread-safe; each slot belongs to one thread at a time.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class StagingRing implements AutoCloseable {
  private static final long SMALLEST = 4096;

  /** Memory for one batch. What is acquired must be submitted or released. */
  public final class Slot {
    private final List<PinnedBuffer> buffers = new ArrayList<>();
    private final List<Tensor> tensors = new ArrayList<>();
    private final DeviceSide.Event read = side.newEvent(false);
    private boolean mine;

    private Slot() {}

    /**
     * The next tensor of the batch, to be written by the caller. Its contents are not defined.
     *
     * @param type of its elements
     * @param shape any
     * @return on the CPU, the slot's: it goes when the slot is submitted
     */
    public Tensor tensor(ScalarType type, long... shape) {
      requireMine();
      int number = tensors.size();
      long bytes = PinnedBuffer.bytes(type, shape);
      if (number == buffers.size()) {
        buffers.add(new PinnedBuffer(side, roomFor(bytes)));
      } else if (buffers.get(number).bytes() < bytes) {
        buffers.set(number, new PinnedBuffer(side, roomFor(bytes))).close();
      }
      try (PointerScope scope = new PointerScope()) {
        Tensor tensor = buffers.get(number).tensor(type, shape);
        tensor.retainReference();
        tensors.add(tensor);
        return tensor;
      }
    }

    /**
     * Starts the copies of all tensors and gives the slot back. Does not wait for them.
     *
     * @return the copies
     */
    public Transfer submit() {
      requireMine();
      List<Tensor> copies = new ArrayList<>(tensors.size());
      DeviceSide.Event arrived = side.newEvent(false);
      long bytes = 0;
      boolean complete = false;
      PerformanceMonitor watching = monitor;
      PerformanceMonitor.Span timed = watching.beginCopy(side);
      try (PointerScope scope = new PointerScope()) {
        for (Tensor tensor : tensors) {
          Tensor copy = side.copy(tensor);
          copy.retainReference();
          copies.add(copy);
          bytes += tensor.nbytes();
        }
        side.recordCopies(arrived);
        complete = true;
      } finally {
        watching.endCopy(timed);
        if (!complete) {
          copies.forEach(Tensor::releaseReference);
          arrived.close();
        }
        // Also after a failure: the copies before it may be under way.
        side.recordCopies(read);
        giveBack();
      }
      return new Transfer(side, copies, arrived, bytes);
    }

    /** Gives the slot back without a transfer. */
    public void release() {
      requireMine();
      giveBack();
    }

    private void giveBack() {
      tensors.forEach(Tensor::releaseReference);
      tensors.clear();
      mine = false;
      StagingRing.this.giveBack(this);
    }

    private void requireMine() {
      if (!mine) {
        throw new IllegalStateException("the slot was submitted or released before");
      }
    }

    private void free() {
      buffers.forEach(PinnedBuffer::close);
      buffers.clear();
      read.close();
    }
  }

  private final DeviceSide side;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition returned = lock.newCondition();
  private final ArrayDeque<Slot> waiting = new ArrayDeque<>();
  private final int slots;
  private volatile PerformanceMonitor monitor = PerformanceMonitor.off();
  private boolean closed;

  /**
   * Makes a ring. Slots take memory as they need it and keep it.
   *
   * @param device where to; one without a number is the calling thread's current one
   * @param slots batches that may be written or read at once, at least 1: as many as threads that write, and one or two more
   * @throws TrainingException if there is no such device
   */
  public StagingRing(Device device, int slots) {
    this(DeviceSide.of(device), slots);
  }

  StagingRing(DeviceSide side, int slots) {
    if (slots < 1) {
      throw new IllegalArgumentException("slots must be at least 1, but is " + slots);
    }
    this.side = side;
    this.slots = slots;
    for (int i = 0; i < slots; i++) {
      waiting.add(new Slot());
    }
  }

  /**
   * Times the copies.
   *
   * @param given what to tell
   * @return this
   */
  public StagingRing monitor(PerformanceMonitor given) {
    monitor = given;
    return this;
  }

  /**
   * Takes the slot that was submitted longest ago; waits until the device has read it.
   *
   * @return a slot, the caller's
   * @throws IllegalStateException if the ring is closed
   * @throws InterruptedException if the thread was interrupted
   */
  public Slot acquire() throws InterruptedException {
    Slot slot;
    lock.lockInterruptibly();
    try {
      while (waiting.isEmpty() && !closed) {
        returned.await();
      }
      if (closed) {
        throw new IllegalStateException("the staging ring is closed");
      }
      slot = waiting.remove();
    } finally {
      lock.unlock();
    }
    boolean free = false;
    try {
      slot.read.await();
      free = true;
    } finally {
      if (!free) {
        giveBack(slot);
      }
    }
    slot.mine = true;
    return slot;
  }

  /** Batches differ in size: twice the memory at most, instead of new memory for every one that is larger than all before. */
  private static long roomFor(long bytes) {
    return bytes <= SMALLEST ? SMALLEST : Math.multiplyExact(Long.highestOneBit(bytes - 1), 2L);
  }

  private void giveBack(Slot slot) {
    lock.lock();
    try {
      waiting.add(slot);
      returned.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /**
   * Copies tensors to the device by way of a slot. They may be changed at once.
   *
   * @param host dense tensors on the CPU
   * @return the copies
   * @throws InterruptedException if the thread was interrupted
   */
  public Transfer to(List<Tensor> host) throws InterruptedException {
    Collate<Tensor, Transfer> copy =
        staging(
            (tensors, slot) -> {
              for (Tensor tensor : tensors) {
                slot.tensor(tensor.scalar_type(), tensor.shape()).copy_(tensor);
              }
            });
    try {
      return copy.collate(host);
    } catch (InterruptedException | RuntimeException e) {
      throw e;
    } catch (Exception e) {
      throw new IllegalStateException(e);
    }
  }

  /**
   * Makes batches of a {@link DataLoader} in the slots: its threads write them, start their copies and go on.
   *
   * @param collate writes a batch
   * @param <S> a sample
   * @return a collate function whose batches are under way to the device
   */
  public <S> Collate<S, Transfer> staging(StagedCollate<S> collate) {
    return samples -> {
      Slot slot = acquire();
      try (PointerScope scope = new PointerScope()) {
        collate.collate(samples, slot);
        return slot.submit();
      } finally {
        if (slot.mine) {
          slot.release();
        }
      }
    };
  }

  /**
   * Stages batches that were made elsewhere in host memory, such as by a collate function of a library.
   *
   * @param collate makes a batch
   * @param pin writes the only element of its list into a slot
   * @param <S> a sample
   * @param <H> a batch in host memory
   * @return a collate function whose batches are under way to the device
   */
  public <S, H> Collate<S, Transfer> staging(Collate<S, H> collate, StagedCollate<H> pin) {
    Collate<H, Transfer> staged = staging(pin);
    return samples -> staged.collate(Collections.singletonList(collate.collate(samples)));
  }

  /** Waits until all slots are back and read, and releases them. Transfers stay good. */
  @Override
  public void close() {
    boolean interrupted = false;
    lock.lock();
    try {
      if (closed) {
        return;
      }
      closed = true;
      returned.signalAll();
      while (waiting.size() < slots) {
        returned.awaitUninterruptibly();
      }
      for (Slot slot : waiting) {
        interrupted |= !readToTheEnd(slot);
        slot.free();
      }
    } finally {
      lock.unlock();
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  /** Memory that is still read must not go, even if someone wants this thread to stop. */
  private static boolean readToTheEnd(Slot slot) {
    boolean calm = true;
    while (true) {
      try {
        slot.read.await();
        return calm;
      } catch (InterruptedException e) {
        calm = false;
      }
    }
  }
}

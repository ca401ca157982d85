// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.Arrays;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * Host memory that a GPU copies from without the help of the CPU: page-locked, by libtorch's caching allocator for such memory. Plain
 * memory for the CPU. Not thread-safe.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class PinnedBuffer implements AutoCloseable {
  private final Tensor memory;
  private final long bytes;
  private final boolean pinned;

  /**
   * Allocates memory; its contents are not defined.
   *
   * @param device where copies will go
   * @param bytes at least 0
   * @throws TrainingException if there is no such device
   */
  public PinnedBuffer(Device device, long bytes) {
    if (bytes < 0) {
      throw new IllegalArgumentException("bytes must be at least 0, but is " + bytes);
    }
    try (DeviceSide side = DeviceSide.of(device)) {
      memory = allocate(side, bytes);
      pinned = !side.isCpu();
    }
    this.bytes = bytes;
  }

  PinnedBuffer(DeviceSide side, long bytes) {
    memory = allocate(side, bytes);
    pinned = !side.isCpu();
    this.bytes = bytes;
  }

  private static Tensor allocate(DeviceSide side, long bytes) {
    try (PointerScope scope = new PointerScope()) {
      Tensor memory = side.hostMemory(bytes);
      memory.retainReference();
      return memory;
    }
  }

  /** @return size */
  public long bytes() {
    return bytes;
  }

  /** @return whether the memory is page-locked */
  public boolean pinned() {
    return pinned;
  }

  /**
   * The beginning of the memory as a tensor, without a copy: what is written to it is what a transfer reads.
   *
   * @param type of its elements
   * @param shape of at most as many elements as fit
   * @return a view on the CPU, in the caller's scope; must not be used once the buffer is closed
   */
  public Tensor tensor(ScalarType type, long... shape) {
    long needed = bytes(type, shape);
    if (needed > bytes) {
      throw new IllegalArgumentException(needed + " bytes do not fit into a buffer of " + bytes);
    }
    Tensor view;
    try (PointerScope scope = new PointerScope()) {
      view = memory.narrow(0, 0, needed).view(type).view(shape);
      view.retainReference();
    }
    PointerScope outer = PointerScope.getInnerScope();
    if (outer != null) {
      outer.attach(view);
      view.releaseReference();
    }
    return view;
  }

  static long bytes(ScalarType type, long... shape) {
    long count = torch.elementSize(type);
    for (long size : shape) {
      if (size < 0) {
        throw new IllegalArgumentException("shape must not be negative, but is " + Arrays.toString(shape));
      }
      count = Math.multiplyExact(count, size);
    }
    return count;
  }

  /** Gives the memory back. A copy from it that is under way still ends well. */
  @Override
  public void close() {
    if (!memory.isNull()) {
      memory.releaseReference();
    }
  }
}

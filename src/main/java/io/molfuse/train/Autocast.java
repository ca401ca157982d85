// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * A region in which libtorch runs matrix products and the like in a 16-bit type and leaves what needs range or precision in float32
 * (Micikevicius et al. 2018). It holds for operators on one kind of device that this thread calls, until it is closed; regions nest,
 * and the inner one decides.
 *
 * <pre>{@code
 * try (Autocast region = Autocast.on(DeviceType.CUDA, ScalarType.BFloat16)) {
 *   loss = model.forward(batch);
 * }
 * loss.backward();
 * }</pre>
 *
 * <p>Backward belongs outside: it uses the types of the forward pass by itself. Within a region libtorch keeps the cast copy of each
 * parameter for its next use; with the outermost region the copies go, so change parameters outside regions only.
 */
public final class Autocast implements AutoCloseable {
  private final AutocastState before;
  private final boolean typeChanged;
  private final Thread thread = Thread.currentThread();
  private final int depth;
  private boolean closed;

  private Autocast(DeviceType device, boolean enabled, ScalarType type) {
    if (device != DeviceType.CPU && device != DeviceType.CUDA) {
      throw new IllegalArgumentException("device: expected CPU or CUDA, got " + device);
    }
    before = AutocastState.current();
    ScalarType chosen = type == null ? before.type(device) : type;
    typeChanged = chosen != before.type(device);
    before.with(device, enabled, chosen).apply();
    depth = torch.increment_nesting();
    dropCopiesOfAnotherType();
  }

  /**
   * Begins a region.
   *
   * @param device CPU or CUDA
   * @param type BFloat16 or Half
   * @return the region, to be closed by the same thread
   */
  public static Autocast on(DeviceType device, ScalarType type) {
    if (type != ScalarType.BFloat16 && type != ScalarType.Half) {
      throw new IllegalArgumentException("type: expected BFloat16 or Half, got " + type);
    }
    return new Autocast(device, true, type);
  }

  /**
   * Begins a region, usually within another, in which operators use the types of their arguments.
   *
   * @param device CPU or CUDA
   * @return the region, to be closed by the same thread
   */
  public static Autocast off(DeviceType device) {
    return new Autocast(device, false, null);
  }

  /**
   * Ends the region: the settings of before it hold again. A second call does nothing.
   *
   * @throws IllegalStateException in another thread than the one that began it, or while a region within it is open
   */
  @Override
  public void close() {
    if (closed) {
      return;
    }
    if (Thread.currentThread() != thread) {
      throw new IllegalStateException("an autocast region belongs to the thread that began it, " + thread.getName());
    }
    int left = torch.decrement_nesting();
    if (left != depth - 1) {
      torch.increment_nesting();
      throw new IllegalStateException("an autocast region within this one is still open");
    }
    closed = true;
    before.apply();
    if (left == 0) {
      torch.clear_cache();
    } else {
      dropCopiesOfAnotherType();
    }
  }

  /** libtorch looks a parameter's copy up without asking for its type. */
  private void dropCopiesOfAnotherType() {
    if (typeChanged) {
      torch.clear_cache();
    }
  }
}

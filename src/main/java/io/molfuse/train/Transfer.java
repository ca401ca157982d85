// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.List;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/** Tensors on their way to a device. Owns them until they are taken; closed without that, it releases them. Not thread-safe. */
public final class Transfer implements AutoCloseable {
  private final DeviceSide side;
  private final DeviceSide.Event arrived;
  private final long bytes;
  private List<Tensor> tensors;

  /** @param tensors with a reference that passes to this */
  Transfer(DeviceSide side, List<Tensor> tensors, DeviceSide.Event arrived, long bytes) {
    this.side = side;
    this.tensors = tensors;
    this.arrived = arrived;
    this.bytes = bytes;
  }

  /** @return size of all tensors */
  public long bytes() {
    return bytes;
  }

  /** @return whether the copies are done; does not wait */
  public boolean done() {
    return tensors == null || arrived.done();
  }

  /**
   * Gives the tensors to the caller's scope; without one, the caller closes them. The calling thread does not wait: its current stream
   * waits for the copies on the device, and the memory is not used again before what that stream does with it is done.
   *
   * @return the tensors on the device, in the order in which they were staged
   * @throws IllegalStateException if they were taken or released before
   */
  public List<Tensor> take() {
    if (tensors == null) {
      throw new IllegalStateException("the tensors of this transfer were taken or released before");
    }
    side.waitFor(arrived);
    List<Tensor> given = tensors;
    PointerScope scope = PointerScope.getInnerScope();
    for (Tensor tensor : given) {
      side.keepForWork(tensor);
      if (scope != null) {
        scope.attach(tensor);
        tensor.releaseReference();
      }
    }
    tensors = null;
    arrived.close();
    return given;
  }

  /** Releases tensors that were not taken. */
  @Override
  public void close() {
    if (tensors != null) {
      tensors.forEach(Tensor::releaseReference);
      tensors = null;
      arrived.close();
    }
  }
}

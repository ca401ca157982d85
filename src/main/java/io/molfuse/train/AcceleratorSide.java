// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.MolfuseException;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.DeviceGuardImplInterface;
import org.bytedeco.pytorch.Stream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.EventFlag;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * A GPU through libtorch's device-generic guard interface, which its CPU build has, too: nothing of CUDA is named, loaded or needed
 * to compile this.
 */
@SuppressWarnings("try") // A scope does its work by being open.
final class AcceleratorSide implements DeviceSide {
  private final class GuardEvent implements Event {
    private final EventFlag flag;
    private final PointerPointer<Pointer> handle;
    private boolean recorded;

    GuardEvent(boolean timed) {
      flag = timed ? EventFlag.BACKEND_DEFAULT : EventFlag.PYTORCH_DEFAULT;
      try (PointerScope scope = new PointerScope()) {
        handle = new PointerPointer<>(1);
        handle.put(0, (Pointer) null);
        handle.retainReference();
      }
    }

    synchronized void record(Stream stream) {
      guard.record(handle, stream, device.index(), flag);
      recorded = true;
    }

    synchronized Pointer get() {
      return recorded ? handle.get(Pointer.class, 0) : null;
    }

    @Override
    public boolean done() {
      try (PointerScope scope = new PointerScope()) {
        Pointer event = get();
        return event == null || guard.queryEvent(event);
      }
    }

    @Override
    public void await() {
      try (PointerScope scope = new PointerScope()) {
        Pointer event = get();
        if (event != null) {
          guard.synchronizeEvent(event);
        }
      }
    }

    @Override
    public synchronized void close() {
      try (PointerScope scope = new PointerScope()) {
        if (!handle.isNull()) {
          Pointer event = get();
          if (event != null) {
            guard.destroyEvent(event, device.index());
          }
          handle.releaseReference();
        }
        recorded = false;
      }
    }
  }

  private final DeviceGuardImplInterface guard;
  private final Device device;
  private final Stream copies;

  AcceleratorSide(Device wanted) {
    try (PointerScope scope = new PointerScope()) {
      guard = torch.getDeviceGuardImpl(wanted.type());
      guard.retainReference();
      byte index = wanted.has_index() ? wanted.index() : guard.getDevice().index();
      if (index >= guard.deviceCount()) {
        throw new TrainingException("there is no device " + wanted.str().getString());
      }
      device = new Device(wanted.type(), index);
      device.retainReference();
      copies = guard.getStreamFromGlobalPool(device);
      copies.retainReference();
    } catch (TrainingException e) {
      throw e;
    } catch (RuntimeException e) {
      throw new TrainingException("the device cannot be used: " + MolfuseException.reason(e), e);
    }
  }

  @Override
  public boolean isCpu() {
    return false;
  }

  @Override
  public int index() {
    return device.index();
  }

  @Override
  public Tensor hostMemory(long bytes) {
    try (TensorOptions options = new TensorOptions(ScalarType.Byte);
        BoolOptional yes = new BoolOptional(true);
        TensorOptions pinned = options.pinned_memory(yes)) {
      return torch.empty(new long[] {bytes}, pinned, null);
    }
  }

  @Override
  public Tensor copy(Tensor host) {
    Stream before = guard.exchangeStream(copies);
    try {
      return host.to(device, host.scalar_type(), true, true, null);
    } finally {
      guard.exchangeStream(before);
    }
  }

  @Override
  public Event newEvent(boolean timed) {
    return new GuardEvent(timed);
  }

  @Override
  public void recordCopies(Event event) {
    ((GuardEvent) event).record(copies);
  }

  @Override
  public void recordWork(Event event) {
    try (PointerScope scope = new PointerScope()) {
      ((GuardEvent) event).record(guard.getStream(device));
    }
  }

  @Override
  public void waitFor(Event event) {
    try (PointerScope scope = new PointerScope()) {
      Pointer recorded = ((GuardEvent) event).get();
      if (recorded != null) {
        guard.block(recorded, guard.getStream(device));
      }
    }
  }

  @Override
  public void keepForWork(Tensor copy) {
    try (PointerScope scope = new PointerScope()) {
      copy.record_stream(guard.getStream(device));
    }
  }

  @Override
  public double milliseconds(Event from, Event to) {
    try (PointerScope scope = new PointerScope()) {
      return guard.elapsedTime(((GuardEvent) from).get(), ((GuardEvent) to).get(), device.index());
    }
  }

  @Override
  public void close() {
    device.releaseReference();
    copies.releaseReference();
  }
}

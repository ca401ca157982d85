// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;

/**
 * What transfers and measurements need of a device: a side stream that copies, events on it and on the stream that computes. What it
 * returns belongs to the caller's scope, and there must be one, but for events, which are closed.
 */
interface DeviceSide extends AutoCloseable {
  /** A point in the work of a stream; recording it again moves it. Never recorded, it is done. */
  interface Event extends AutoCloseable {
    boolean done();

    /** Waits on the host. */
    void await() throws InterruptedException;

    @Override
    void close();
  }

  /**
   * The side of a device.
   *
   * @throws TrainingException if there is no such device
   */
  static DeviceSide of(Device device) {
    return device.is_cpu() ? new CpuSide() : new AcceleratorSide(device);
  }

  boolean isCpu();

  /** Number of the device, -1 for the CPU. */
  int index();

  /** Uninitialised host memory, uint8 [bytes], page-locked where that speeds copies up. */
  Tensor hostMemory(long bytes);

  /** Copies host memory to the device on the side stream; may return before that is done. */
  Tensor copy(Tensor host);

  /** Timed events can be told apart in milliseconds. */
  Event newEvent(boolean timed);

  /** Records what the side stream was given so far. */
  void recordCopies(Event event);

  /** Records what the calling thread's current stream was given so far. */
  void recordWork(Event event);

  /** Makes the calling thread's current stream, not the thread, wait for an event. */
  void waitFor(Event event);

  /** Keeps a copy's memory, once it is released, from new copies until the work given to the calling thread's current stream is done. */
  void keepForWork(Tensor copy);

  /** Time between two timed events that are done. */
  double milliseconds(Event from, Event to);

  @Override
  void close();
}

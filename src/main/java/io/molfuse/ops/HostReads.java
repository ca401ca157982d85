// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

/**
 * Counts how often operators that this thread calls take values of tensors to the host, until it is closed: readings of a number,
 * copies from a device to the CPU, comparisons of whole tensors. On a CUDA device each makes the host wait until the device has
 * caught up, so a training step should have none. Readings of tensors on the CPU count, too, so that a machine without a device can
 * tell, but for those that operators do within their CPU code. Memory read through a data pointer does not count.
 */
public final class HostReads implements AutoCloseable {
  private final long before;
  private boolean closed;

  private HostReads() {
    Native.countHostReads(true);
    before = Native.hostReads();
  }

  /** @return a count that begins at 0; to be closed by the same thread */
  public static HostReads count() {
    return new HostReads();
  }

  /** @return reads since this was made */
  public long soFar() {
    return Native.hostReads() - before;
  }

  /** Ends counting. A second call does nothing. */
  @Override
  public void close() {
    if (!closed) {
      closed = true;
      Native.countHostReads(false);
    }
  }
}

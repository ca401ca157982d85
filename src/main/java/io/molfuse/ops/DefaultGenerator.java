// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import org.bytedeco.pytorch.Tensor;

/**
 * The states of libtorch's default generators, on which dropout and the operators without a seed draw. Both calls take the lock that
 * libtorch's draws hold, so that a draw of another thread comes before or after them, not half. That nothing is drawn between two calls
 * is the caller's affair.
 */
public final class DefaultGenerator {
  /** The CPU, instead of the number of a CUDA device. */
  public static final int CPU = -1;

  private DefaultGenerator() {}

  /**
   * A generator's state. That of a CUDA device is known to the host: nothing waits for the device.
   *
   * @param device number of a CUDA device, or {@link #CPU}
   * @return uint8 on the CPU, to be passed to {@link #restore}; belongs to the caller's innermost scope
   * @throws IllegalArgumentException for another negative number
   * @throws MolfuseException where there is no such device
   */
  public static Tensor state(int device) {
    return Native.generatorState(device);
  }

  /**
   * Sets a generator's state.
   *
   * @param device as for {@link #state}
   * @param state what {@link #state} gave for a generator of the same kind
   * @throws IllegalArgumentException for another negative number
   * @throws MolfuseException where there is no such device, or if this is not a state
   */
  public static void restore(int device, Tensor state) {
    Native.setGeneratorState(device, Checks.defined("state", state, "[bytes]"));
  }
}

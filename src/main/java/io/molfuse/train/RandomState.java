// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeSet;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Generator;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;

/**
 * Where libtorch's default generators stand, on which dropout and the operators of molfuse without a seed draw: the CPU's, and those
 * of the CUDA devices that the given tensors are on.
 */
@SuppressWarnings("try") // A scope does its work by being open.
final class RandomState implements AutoCloseable {
  private static final int CPU = -1;

  /** By number of the CUDA device. */
  private final Map<Integer, Tensor> states = new LinkedHashMap<>();

  private RandomState() {}

  static RandomState capture(Iterable<Tensor> tensors) {
    TreeSet<Integer> devices = new TreeSet<>();
    devices.add(CPU);
    RandomState state = new RandomState();
    try (PointerScope scope = new PointerScope()) {
      for (Tensor tensor : tensors) {
        if (tensor.defined() && tensor.is_cuda()) {
          devices.add((int) tensor.device().index());
        }
      }
      for (int device : devices) {
        Tensor values = generator(device).get_state();
        values.retainReference();
        state.states.put(device, values);
      }
    }
    return state;
  }

  void restore() {
    try (PointerScope scope = new PointerScope()) {
      states.forEach((device, values) -> generator(device).set_state(values));
    }
  }

  private static Generator generator(int device) {
    return device == CPU
        ? torch.getDefaultCPUGenerator()
        : torch.globalContext().defaultGenerator(new Device(DeviceType.CUDA, (byte) device));
  }

  @Override
  public void close() {
    states.values().forEach(Tensor::releaseReference);
    states.clear();
  }
}

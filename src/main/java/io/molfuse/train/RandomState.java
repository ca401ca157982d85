// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.DefaultGenerator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeSet;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/**
 * Where libtorch's default generators stand, on which dropout and the operators of molfuse without a seed draw: the CPU's, and those
 * of the CUDA devices that the given tensors are on.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class RandomState implements AutoCloseable {
  private static final String CPU = "cpu";
  private static final String CUDA = "cuda:";

  /** By number of the CUDA device. */
  private final Map<Integer, Tensor> states = new LinkedHashMap<>();

  private RandomState() {}

  /**
   * Takes the present states.
   *
   * @param tensors such as all parameters
   * @return the states; close them
   */
  public static RandomState capture(Iterable<Tensor> tensors) {
    TreeSet<Integer> devices = new TreeSet<>();
    devices.add(DefaultGenerator.CPU);
    RandomState state = new RandomState();
    try (PointerScope scope = new PointerScope()) {
      for (Tensor tensor : tensors) {
        if (tensor.defined() && tensor.is_cuda()) {
          devices.add((int) tensor.device().index());
        }
      }
      for (int device : devices) {
        Tensor values = DefaultGenerator.state(device);
        values.retainReference();
        state.states.put(device, values);
      }
    }
    return state;
  }

  /**
   * The states, to be saved or overwritten.
   *
   * @return uint8 on the CPU by "cpu", "cuda:0" and so on; they stay this object's
   */
  public Map<String, Tensor> named() {
    Map<String, Tensor> named = new LinkedHashMap<>();
    states.forEach((device, values) -> named.put(device == DefaultGenerator.CPU ? CPU : CUDA + device, values));
    return named;
  }

  /** Sets the generators to the states. */
  public void restore() {
    states.forEach(DefaultGenerator::restore);
  }

  /** Releases the states. */
  @Override
  public void close() {
    states.values().forEach(Tensor::releaseReference);
    states.clear();
  }
}

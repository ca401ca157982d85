// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/**
 * The named parameters and buffers of a model, in the order they were added. The set owns its tensors: they outlive every
 * {@link PointerScope} and go when the set is closed.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class ParameterSet implements AutoCloseable {
  /**
   * A trainable tensor.
   *
   * @param name unique within the set
   * @param group which learning rate it has
   * @param tensor a leaf that requires gradients
   */
  public record Parameter(String name, String group, Tensor tensor) {}

  private final Map<String, Parameter> parameters = new LinkedHashMap<>();
  private final Map<String, Tensor> buffers = new LinkedHashMap<>();

  /**
   * Adds a parameter and takes ownership of its tensor.
   *
   * @param name unique within the set
   * @param group name of the parameter group, such as "encoder"
   * @param tensor floating-point, without a history
   * @return the tensor
   */
  public Tensor parameter(String name, String group, Tensor tensor) {
    checkNew(name);
    own(tensor);
    try (PointerScope scope = new PointerScope()) {
      tensor.set_requires_grad(true);
    }
    parameters.put(name, new Parameter(name, group, tensor));
    return tensor;
  }

  /**
   * Adds a tensor that is saved with the model but not trained, and takes ownership of it.
   *
   * @param name unique within the set
   * @param tensor any
   * @return the tensor
   */
  public Tensor buffer(String name, Tensor tensor) {
    checkNew(name);
    buffers.put(name, own(tensor));
    return tensor;
  }

  /** @return the parameters in order */
  public List<Parameter> parameters() {
    return Collections.unmodifiableList(new ArrayList<>(parameters.values()));
  }

  /** @return parameters and buffers by name, parameters first */
  public Map<String, Tensor> tensors() {
    Map<String, Tensor> all = new LinkedHashMap<>();
    parameters.forEach((name, parameter) -> all.put(name, parameter.tensor()));
    all.putAll(buffers);
    return all;
  }

  /** @return the number of trainable scalars */
  public long count() {
    long count = 0;
    for (Parameter parameter : parameters.values()) {
      count += parameter.tensor().numel();
    }
    return count;
  }

  /** Drops all gradients, so that the next backward writes instead of adds. */
  public void dropGradients() {
    try (PointerScope scope = new PointerScope()) {
      Tensor none = new Tensor();
      for (Parameter parameter : parameters.values()) {
        parameter.tensor().mutable_grad().put(none);
      }
    }
  }

  /** Releases all tensors. */
  @Override
  public void close() {
    for (Tensor tensor : tensors().values()) {
      tensor.releaseReference();
    }
    parameters.clear();
    buffers.clear();
  }

  private void checkNew(String name) {
    if (parameters.containsKey(name) || buffers.containsKey(name)) {
      throw new IllegalArgumentException("there is already a tensor named " + name);
    }
  }

  private static Tensor own(Tensor tensor) {
    // A reference count above zero keeps the tensor alive when the scope it was made in closes.
    tensor.retainReference();
    return tensor;
  }
}

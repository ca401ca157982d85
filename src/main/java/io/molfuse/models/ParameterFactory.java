// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.train.ParameterSet;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.GeneratorOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * Makes initialised parameters of one parameter group, with names under one prefix. Draws on libtorch's default generator, so
 * the same seed and order of calls give the same model.
 */
@SuppressWarnings("try") // A scope does its work by being open.
final class ParameterFactory {
  private final ParameterSet set;
  private final Device device;
  private final String group;
  private final String prefix;

  private ParameterFactory(ParameterSet set, Device device, String group, String prefix) {
    this.set = set;
    this.device = device;
    this.group = group;
    this.prefix = prefix;
  }

  /** The factory of a parameter group, whose name also starts its parameters' names. */
  static ParameterFactory of(ParameterSet set, Device device, String group) {
    return new ParameterFactory(set, device, group, group);
  }

  ParameterFactory under(String name) {
    return new ParameterFactory(set, device, group, prefix + "." + name);
  }

  Tensor uniform(String name, double bound, long... shape) {
    try (PointerScope scope = new PointerScope()) {
      Tensor tensor = torch.empty(shape);
      tensor.uniform_(-bound, bound, new GeneratorOptional());
      return add(name, tensor);
    }
  }

  Tensor normal(String name, double deviation, long... shape) {
    try (PointerScope scope = new PointerScope()) {
      Tensor tensor = torch.empty(shape);
      tensor.normal_(0, deviation, new GeneratorOptional());
      return add(name, tensor);
    }
  }

  Tensor constant(String name, double value, long... shape) {
    try (PointerScope scope = new PointerScope()) {
      return add(name, torch.full(shape, new Scalar(value), new TensorOptions(ScalarType.Float)));
    }
  }

  Tensor buffer(String name, double value, long... shape) {
    try (PointerScope scope = new PointerScope()) {
      Tensor tensor = torch.full(shape, new Scalar(value), new TensorOptions(ScalarType.Float));
      return set.buffer(prefix + "." + name, tensor.to(device, ScalarType.Float));
    }
  }

  /** @param shape one dimension if left out */
  Tensor buffer(String name, float[] values, long... shape) {
    try (PointerScope scope = new PointerScope()) {
      Tensor tensor = Tensors.floats(device, values, shape.length == 0 ? new long[] {values.length} : shape);
      return set.buffer(prefix + "." + name, tensor);
    }
  }

  /** Values are drawn on the CPU, so that a seed gives the same model on every device. */
  private Tensor add(String name, Tensor tensor) {
    return set.parameter(prefix + "." + name, group, tensor.to(device, ScalarType.Float));
  }
}

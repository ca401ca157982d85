// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.Arrays;
import java.util.Random;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** Tensors of tests. Random values come from Java, so that they depend neither on libtorch's generator nor on its version. */
final class Tensors {
  private Tensors() {}

  static Tensor of(double[] values, long... shape) {
    Tensor tensor = torch.empty(shape, new TensorOptions(ScalarType.Double), null);
    if (values.length > 0) {
      tensor.data_ptr_double().put(values);
    }
    return tensor;
  }

  static Tensor longs(long[] values, long... shape) {
    Tensor tensor = torch.empty(shape, new TensorOptions(ScalarType.Long), null);
    if (values.length > 0) {
      tensor.data_ptr_long().put(values);
    }
    return tensor;
  }

  static Tensor longs(long... values) {
    return longs(values, values.length);
  }

  static Tensor ints(int... values) {
    return Native.intTensor(values);
  }

  /** The tensor on the device of another, if that is a GPU. */
  static Tensor beside(Tensor other, Tensor tensor) {
    return other.is_cuda() ? tensor.to(other.device(), Checks.type(tensor)) : tensor;
  }

  static Tensor bools(boolean[] values, long... shape) {
    double[] numbers = new double[values.length];
    for (int i = 0; i < values.length; i++) {
      numbers[i] = values[i] ? 1 : 0;
    }
    return of(numbers, shape).to(ScalarType.Bool);
  }

  static Tensor normal(Random random, double deviation, ScalarType type, long... shape) {
    double[] values = new double[count(shape)];
    for (int i = 0; i < values.length; i++) {
      values[i] = deviation * random.nextGaussian();
    }
    return of(values, shape).to(type);
  }

  static Tensor normal(Random random, ScalarType type, long... shape) {
    return normal(random, 1, type, shape);
  }

  static Tensor full(double value, ScalarType type, long... shape) {
    double[] values = new double[count(shape)];
    Arrays.fill(values, value);
    return of(values, shape).to(type);
  }

  static Tensor zeros(ScalarType type, long... shape) {
    return full(0, type, shape);
  }

  static int count(long... shape) {
    long product = 1;
    for (long size : shape) {
      product *= size;
    }
    return Math.toIntExact(product);
  }

  /** A copy without history that gradients are asked for. */
  static Tensor leaf(Tensor tensor, ScalarType type) {
    return tensor.detach().to(type).clone().set_requires_grad(true);
  }

  static Tensor leaf(Tensor tensor) {
    return leaf(tensor, Checks.type(tensor));
  }

  /** All elements in row-major order. */
  static double[] values(Tensor tensor) {
    double[] values = new double[Math.toIntExact(tensor.numel())];
    if (values.length > 0) {
      tensor.detach().cpu().to(ScalarType.Double).contiguous().data_ptr_double().get(values);
    }
    return values;
  }

  static double item(Tensor tensor) {
    return tensor.detach().to(ScalarType.Double).item_double();
  }

  static double maxAbs(double[] values) {
    double max = 0;
    for (double value : values) {
      max = Math.max(max, Math.abs(value));
    }
    return max;
  }

  /** NaN if any difference is NaN. */
  static double maxDifference(double[] left, double[] right) {
    double max = 0;
    for (int i = 0; i < left.length; i++) {
      double difference = left[i] == right[i] ? 0 : Math.abs(left[i] - right[i]);
      max = Math.max(max, difference);
    }
    return max;
  }

  static boolean anyNaN(Tensor tensor) {
    return Arrays.stream(values(tensor)).anyMatch(Double::isNaN);
  }

  static boolean allFinite(Tensor tensor) {
    return Arrays.stream(values(tensor)).allMatch(Double::isFinite);
  }

  static Tensor multiply(Tensor tensor, double factor) {
    return tensor.mul(new Scalar(factor));
  }

  /** Distance from 1 to the next number of the type. */
  static double epsilon(ScalarType type) {
    return switch (type) {
      case Double -> 0x1p-52;
      case Float -> 0x1p-23;
      case Half -> 0x1p-10;
      case BFloat16 -> 0x1p-7;
      default -> throw new IllegalArgumentException("no floating-point type: " + type);
    };
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** Whole arrays to tensors and back, each with one copy a call. */
final class Tensors {
  private Tensors() {}

  static Tensor floats(Device device, float[] values, long... shape) {
    Tensor tensor = empty(ScalarType.Float, shape);
    put(tensor, values);
    return on(device, tensor);
  }

  static Tensor ints(Device device, int[] values) {
    Tensor tensor = empty(ScalarType.Int, values.length);
    put(tensor, values);
    return on(device, tensor);
  }

  static Tensor longs(Device device, long[] values, long... shape) {
    Tensor tensor = empty(ScalarType.Long, shape);
    put(tensor, values);
    return on(device, tensor);
  }

  static void put(Tensor tensor, float[] values) {
    if (values.length > 0) {
      new FloatPointer(data(tensor, values.length)).put(values);
    }
  }

  static void put(Tensor tensor, int[] values) {
    if (values.length > 0) {
      new IntPointer(data(tensor, values.length)).put(values);
    }
  }

  static void put(Tensor tensor, long[] values) {
    if (values.length > 0) {
      new LongPointer(data(tensor, values.length)).put(values);
    }
  }

  /** All values of a float32 tensor, row by row. */
  static float[] toFloats(Tensor tensor) {
    Tensor dense = tensor.detach().cpu().contiguous();
    float[] values = new float[Math.toIntExact(dense.numel())];
    if (values.length > 0) {
      new FloatPointer(dense.data_ptr()).get(values);
    }
    return values;
  }

  private static Tensor empty(ScalarType type, long... shape) {
    return torch.empty(shape, new TensorOptions(type), null);
  }

  private static Pointer data(Tensor tensor, int count) {
    if (tensor.numel() != count) {
      throw new IllegalArgumentException("a shape of " + tensor.numel() + " elements does not fit " + count + " values");
    }
    return tensor.data_ptr();
  }

  private static Tensor on(Device device, Tensor tensor) {
    return device.is_cpu() ? tensor : tensor.to(device, tensor.scalar_type());
  }
}

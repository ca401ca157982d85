// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.util.Arrays;
import java.util.Random;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** Random tensors of one type on one device, the same ones at each run. */
final class Inputs {
  private final Device device;
  private final ScalarType type;
  private final Random random = new Random(1);

  Inputs(Settings settings, Dtype dtype) {
    device = settings.device();
    type = dtype.type;
    torch.manual_seed(1);
  }

  /** Element types that are measured. */
  enum Dtype {
    F32("f32", ScalarType.Float, 4),
    BF16("bf16", ScalarType.BFloat16, 2);

    final String label;
    final ScalarType type;
    final int size;

    Dtype(String label, ScalarType type, int size) {
      this.label = label;
      this.type = type;
      this.size = size;
    }
  }

  Random random() {
    return random;
  }

  Tensor normal(long... shape) {
    return torch.randn(shape).to(device, type);
  }

  Tensor zeros(long... shape) {
    return torch.zeros(shape).to(device, type);
  }

  Tensor filled(double value, long... shape) {
    return torch.full(shape, new Scalar(value)).to(device, type);
  }

  /** What needs a gradient. */
  Tensor leaf(long... shape) {
    return leaf(normal(shape));
  }

  Tensor leaf(Tensor values) {
    return values.detach().set_requires_grad(true);
  }

  /** A gradient of the result of a loss. */
  Tensor one() {
    return torch.ones(new long[0]).to(device, ScalarType.Float);
  }

  Tensor longs(long[] values, long... shape) {
    Tensor tensor = torch.empty(shape.length == 0 ? new long[] {values.length} : shape, new TensorOptions(ScalarType.Long), null);
    tensor.data_ptr_long().put(values);
    return tensor.to(device, ScalarType.Long);
  }

  Tensor ints(int... values) {
    Tensor tensor = torch.empty(new long[] {values.length}, new TensorOptions(ScalarType.Int), null);
    tensor.data_ptr_int().put(values);
    return tensor.to(device, ScalarType.Int);
  }

  /** Sequences of tokens 1..k-1 that fill a third to all of their t places, padded with 0. */
  Tensor tokens(int b, int t, int k) {
    long[] values = new long[b * t];
    for (int row = 0; row < b; row++) {
      int length = t / 3 + random.nextInt(t - t / 3);
      for (int n = 0; n < length; n++) {
        values[row * t + n] = 1 + random.nextInt(k - 1);
      }
    }
    return longs(values, b, t);
  }

  /** Where each of equally large graphs starts, and the end. */
  Tensor starts(int graphs, int nodes) {
    int[] values = new int[graphs + 1];
    Arrays.setAll(values, g -> g * nodes);
    return ints(values);
  }

  /** The graph of each node. */
  Tensor owners(int graphs, int nodes) {
    long[] values = new long[graphs * nodes];
    Arrays.setAll(values, n -> n / nodes);
    return longs(values);
  }
}

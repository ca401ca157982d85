// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.util.function.Function;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/**
 * One operator at one size, done by molfuse and by libtorch's own operators on the same inputs: forward, then the gradients of every
 * input that needs one. bytes is the least memory traffic forward and backward together need, 0 where arithmetic is the bound; operations
 * are multiplications plus additions, 0 where memory is.
 */
record Workload(
    String name,
    Tensor[] inputs,
    Tensor upstream,
    double bytes,
    double operations,
    Function<Tensor[], Tensor> molfuse,
    Function<Tensor[], Tensor> libtorch) {

  void run(boolean ours) {
    try (PointerScope scope = new PointerScope()) {
      gradients(ours);
    }
  }

  private TensorVector gradients(boolean ours) {
    Tensor result = (ours ? molfuse : libtorch).apply(inputs);
    TensorVector leaves = new TensorVector();
    for (Tensor input : inputs) {
      if (input.requires_grad()) {
        leaves.push_back(input);
      }
    }
    return torch.grad(new TensorVector(result), leaves, new TensorVector(upstream), new BoolOptional(false), false, false);
  }

  /** The largest difference between the two ways' gradients, over the largest gradient: whether they do the same work at all. */
  double disagreement() {
    try (PointerScope scope = new PointerScope()) {
      TensorVector ours = gradients(true);
      TensorVector theirs = gradients(false);
      double worst = 0;
      for (long n = 0; n < ours.size(); n++) {
        double difference = ours.get(n).sub(theirs.get(n)).abs().max().item_double();
        worst = Math.max(worst, difference / Math.max(1e-30, theirs.get(n).abs().max().item_double()));
      }
      return worst;
    }
  }
}

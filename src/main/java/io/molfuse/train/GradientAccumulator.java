// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.StepOps;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * Makes one step of several micro-batches, with the gradient of their mean loss. The last group of an epoch may be shorter than the
 * others; it is divided by the micro-batches it has.
 *
 * <pre>{@code
 * accumulator.share(loss).backward();
 * if (accumulator.full() || last) {
 *   accumulator.finish(optimizer);
 *   optimizer.step(learningRate);
 *   optimizer.dropGradients();
 * }
 * }</pre>
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class GradientAccumulator {
  private final int size;
  private int count;

  /** @param size micro-batches of a full group, at least 1 */
  public GradientAccumulator(int size) {
    if (size < 1) {
      throw new IllegalArgumentException("accumulation must be at least 1, but is " + size);
    }
    this.size = size;
  }

  /**
   * A micro-batch's share of the loss of a full group.
   *
   * @param loss mean over the micro-batch
   * @return loss / size, to call backward on
   * @throws IllegalStateException if the group is full
   */
  public Tensor share(Tensor loss) {
    if (full()) {
      throw new IllegalStateException("the group has its " + size + " micro-batches already: call finish first");
    }
    count++;
    if (size == 1) {
      return loss;
    }
    try (Scalar divisor = new Scalar((double) size)) {
      return loss.div(divisor);
    }
  }

  /** @return micro-batches of the present group so far */
  public int count() {
    return count;
  }

  /** @return whether the group has all its micro-batches */
  public boolean full() {
    return count == size;
  }

  /**
   * Ends the group, before gradients are unscaled or clipped: gradients of a short one are multiplied by size / count. Does not wait for
   * a device.
   *
   * @param optimizers whose gradients: all that the losses reach, each parameter with one of them
   * @return micro-batches the group had
   * @throws IllegalArgumentException without an optimizer
   * @throws IllegalStateException if the group had no micro-batch
   */
  public int finish(ScalableOptimizer... optimizers) {
    if (optimizers.length == 0) {
      throw new IllegalArgumentException("optimizers: expected at least one, got none");
    }
    if (count == 0) {
      throw new IllegalStateException("the group has no micro-batch: call share first");
    }
    int had = count;
    count = 0;
    if (had < size) {
      try (PointerScope scope = new PointerScope()) {
        for (ScalableOptimizer optimizer : optimizers) {
          multiply(optimizer.gradients(), (double) size / had);
        }
      }
    }
    return had;
  }

  private static void multiply(TensorVector gradients, double factor) {
    for (long i = 0; i < gradients.size(); i++) {
      if (gradients.get(i).defined()) {
        TensorOptions options = new TensorOptions(ScalarType.Float).device(gradients.get(i).options().device_opt());
        // A multi-tensor product; that it looks for infinities, too, is of no use here.
        StepOps.unscale(gradients, torch.full(new long[0], new Scalar(factor), options));
        return;
      }
    }
  }
}

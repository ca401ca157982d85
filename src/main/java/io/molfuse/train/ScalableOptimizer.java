// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;

/** An optimizer that can undo a loss scale and skip a step on the device itself, so that the host need not wait to know. */
public interface ScalableOptimizer {
  /** @return the gradients of all parameters, undefined for none; a vector in the caller's innermost scope */
  TensorVector gradients();

  /**
   * One step.
   *
   * @param learningRate the base rate
   * @param gradScale float32 [] or [1] that the gradients are to be divided by; null for 1
   * @param foundInf float32 [] or [1]: with 1 nothing changes, neither parameters nor state; null for 0
   */
  void step(double learningRate, Tensor gradScale, Tensor foundInf);
}

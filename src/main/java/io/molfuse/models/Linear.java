// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;

/** y = x . weight^T + bias; weight [out, in], bias [out]. */
final class Linear {
  private final Tensor weight;
  private final Tensor bias;

  private Linear(Tensor weight, Tensor bias) {
    this.weight = weight;
    this.bias = bias;
  }

  /** Xavier uniform weight (Glorot &amp; Bengio 2010), zero bias. */
  static Linear xavier(ParameterFactory parameters, int in, int out) {
    return fused(parameters, in, out, 1, 1);
  }

  /**
   * Several linear maps of one input as one matrix product; each part is initialised as a map of its own.
   *
   * @param gain factor on the initial weights
   */
  static Linear fused(ParameterFactory parameters, int in, int outOfEach, int parts, double gain) {
    double bound = gain * Math.sqrt(6.0 / (in + outOfEach));
    long out = (long) parts * outOfEach;
    return new Linear(parameters.uniform("weight", bound, out, in), parameters.constant("bias", 0, out));
  }

  Tensor apply(Tensor input) {
    return torch.linear(input, weight, new TensorOptional(bias));
  }

  Tensor weight() {
    return weight;
  }

  Tensor bias() {
    return bias;
  }
}

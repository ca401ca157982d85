// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;

/** Layer normalisation over the last dimension (Ba et al. 2016). */
final class LayerNorm {
  private static final double EPSILON = 1e-5;

  private final Tensor weight;
  private final Tensor bias;
  private final long[] shape;

  LayerNorm(ParameterFactory parameters, int width) {
    weight = parameters.constant("weight", 1, width);
    bias = parameters.constant("bias", 0, width);
    shape = new long[] {width};
  }

  Tensor apply(Tensor input) {
    return torch.layer_norm(input, shape, new TensorOptional(weight), new TensorOptional(bias), EPSILON, false);
  }
}

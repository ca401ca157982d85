// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;

/** Batch normalisation over rows (Ioffe &amp; Szegedy 2015); evaluation uses the running statistics, which are saved. */
final class BatchNorm {
  private static final double MOMENTUM = 0.1;
  private static final double EPSILON = 1e-5;

  private final Tensor weight;
  private final Tensor bias;
  private final Tensor runningMean;
  private final Tensor runningVariance;

  BatchNorm(ParameterFactory parameters, int width) {
    weight = parameters.constant("weight", 1, width);
    bias = parameters.constant("bias", 0, width);
    runningMean = parameters.buffer("running_mean", 0, width);
    runningVariance = parameters.buffer("running_var", 1, width);
  }

  Tensor apply(Tensor input, boolean training) {
    return torch.batch_norm(
        input,
        new TensorOptional(weight),
        new TensorOptional(bias),
        new TensorOptional(runningMean),
        new TensorOptional(runningVariance),
        // One row has no variance.
        training && input.size(0) > 1,
        MOMENTUM,
        EPSILON,
        false);
  }
}

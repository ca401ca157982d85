// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.ops.EncoderEpilogue;
import io.molfuse.train.Checkpointing;
import org.bytedeco.pytorch.Tensor;

/** The parameters of a batch normalisation over rows; evaluation uses the running statistics, which are saved. */
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

  /** What an encoder layer ends in, normalising `rows` rows. */
  EncoderEpilogue.Options epilogue(long rows, boolean training) {
    EncoderEpilogue.Options options = EncoderEpilogue.options().affine(weight, bias);
    // Backward computes a checkpointed layer again, but the batch counts once.
    if (!(training && rows > 1 && Checkpointing.recomputing())) {
      options.running(runningMean, runningVariance);
    }
    return options
        // One row has no variance.
        .training(training && rows > 1)
        .momentum(MOMENTUM)
        .epsilon(EPSILON);
  }
}

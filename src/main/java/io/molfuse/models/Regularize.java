// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/** Whether and how a forward pass is randomised: dropout is on in training only, and drawn from the step's seed. */
record Regularize(boolean training, long seed) {
  static final Regularize OFF = new Regularize(false, 0);

  double probability(double dropout) {
    return training ? dropout : 0;
  }

  Tensor dropout(Tensor input, double dropout) {
    return training && dropout > 0 ? torch.dropout(input, dropout, true) : input;
  }
}

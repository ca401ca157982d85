// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarOptional;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * Free bits (Kingma et al. 2016, eq. 15): of the loss's term
 *
 * <pre>
 *   kl = 1/L sum over j of KL[j],    KL[j] = mean over the batch of -1/2 (1 + lv - mean^2 - exp(lv)),  lv = clamp(log_var, -20, 10)
 * </pre>
 *
 * each KL[j] is replaced by max(KL[j], threshold). The fused loss knows no dimensions, so it is told of them by its inputs: what belongs
 * to dimensions that are not above the threshold has no history, hence no gradient through kl, and the excess is the constant that the
 * loss's value misses then.
 *
 * @param mean T [B,L] for the loss
 * @param logVar T [B,L] for the loss
 * @param excess f32 []: 1/L sum over j of max(threshold - KL[j], 0), without a history
 */
@SuppressWarnings("try") // The guard does its work by being open.
record FreeBits(Tensor mean, Tensor logVar, Tensor excess) {
  static FreeBits of(Tensor mean, Tensor logVar, double threshold) {
    Tensor missing;
    try (NoGradGuard noGrad = new NoGradGuard()) {
      missing = divergence(mean, logVar).neg().add(new Scalar(threshold)).clamp_min(new Scalar(0.0));
    }
    Tensor counts = missing.le(new Scalar(0.0));
    return new FreeBits(
        torch.where(counts, mean, mean.detach()), torch.where(counts, logVar, logVar.detach()), missing.mean());
  }

  /** [L] in nats, in float32: low types would lose it beside the 1. */
  static Tensor divergence(Tensor mean, Tensor logVar) {
    Tensor m = mean.to(ScalarType.Float);
    Tensor lv = logVar.to(ScalarType.Float).clamp(new ScalarOptional(new Scalar(-20.0)), new ScalarOptional(new Scalar(10.0)));
    Tensor terms = m.mul(m).add(lv.exp()).sub(lv).sub(new Scalar(1.0)).mul(new Scalar(0.5));
    return terms.mean(new long[] {0}, false, new ScalarTypeOptional());
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import io.molfuse.ops.VaeLoss.Reduction;
import java.util.Random;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** One loss, run through the operator and through the formula. Inputs: logits [B,T,K], mean, log_var. beta is 0.3. */
final class VaeLossCase {
  private final int b;
  private final int t;
  private final int k;
  private final int latent;
  private Reduction reduction = Reduction.MEAN;
  private boolean classSecond;
  private long padIndex;
  private long dataSeed = 3;
  boolean inPlace;

  VaeLossCase(int b, int t, int k, int latent) {
    this.b = b;
    this.t = t;
    this.k = k;
    this.latent = latent;
  }

  VaeLossCase reduction(Reduction reduction) {
    this.reduction = reduction;
    return this;
  }

  VaeLossCase classSecond() {
    classSecond = true;
    return this;
  }

  VaeLossCase padIndex(long padIndex) {
    this.padIndex = padIndex;
    return this;
  }

  VaeLossCase dataSeed(long seed) {
    dataSeed = seed;
    return this;
  }

  void check(ScalarType type) {
    Acceptance.check(this::fused, this::formula, type, inputs(type));
  }

  Tensor[] inputs(ScalarType type) {
    Random random = new Random(dataSeed);
    return new Tensor[] {
      Tensors.normal(random, 2, type, logitsShape()),
      Tensors.normal(random, type, b, latent),
      Tensors.normal(random, type, b, latent)
    };
  }

  /** About a third is padding. */
  Tensor targets() {
    Random random = new Random(dataSeed + 1);
    long[] targets = new long[b * t];
    for (int i = 0; i < targets.length; i++) {
      targets[i] = random.nextInt(3) == 0 ? padIndex : random.nextInt(k);
    }
    return Tensors.longs(targets, b, t);
  }

  VaeLoss.Result result(Tensor[] in) {
    return VaeLoss.apply(
        in[0], Tensors.beside(in[0], targets()), in[1], in[2],
        VaeLoss.options().beta(0.3).padIndex(padIndex).reduction(reduction).classSecond(classSecond).inPlaceBackward(inPlace));
  }

  Tensor[] fused(Tensor[] in) {
    return outputs(result(in), reduction);
  }

  static Tensor[] outputs(VaeLoss.Result result, Reduction reduction) {
    return reduction == Reduction.NONE
        ? new Tensor[] {result.nll(), result.klPerSample()}
        : reduction == Reduction.SUM
            ? new Tensor[] {result.total(), result.recon(), result.kl()}
            : new Tensor[] {result.total(), result.recon(), result.kl(), result.perplexity()};
  }

  Tensor[] formula(Tensor[] in) {
    Tensor logits = classSecond ? in[0].transpose(1, 2) : in[0];
    Tensor[] all = Formulas.vaeLoss(logits, targets(), in[1], in[2], 0.3, padIndex, reduction);
    // The exponential of a sum over all tokens overflows; it is a perplexity for the mean only.
    return reduction == Reduction.SUM ? new Tensor[] {all[0], all[1], all[2]} : all;
  }

  private long[] logitsShape() {
    return classSecond ? new long[] {b, k, t} : new long[] {b, t, k};
  }
}

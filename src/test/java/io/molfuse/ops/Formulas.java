// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.Arrays;
import java.util.List;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarOptional;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * The operators' formulas in unfused libtorch operators, in whatever type the inputs have: in f64 they are the reference, in
 * the operator's own type they are what a user of libtorch has today.
 */
final class Formulas {
  private Formulas() {}

  /** Which weights dropout keeps; p = 0 keeps all. */
  record Keep(double p, long seed, long offset) {
    static final Keep ALL = new Keep(0, 0, 0);
  }

  /** visible[(b*N + i)*M + j] says whether query i of batch b sees key j. */
  static Tensor attention(
      Tensor q, Tensor k, Tensor v, Tensor bias, Tensor relativeBias, boolean[] visible, double scale, Keep keep) {
    long b = q.size(0);
    long h = q.size(1);
    long n = q.size(2);
    long m = k.size(2);
    Tensor scores = Tensors.multiply(q.matmul(k.transpose(2, 3)), scale);
    if (bias != null) {
      scores = scores.add(bias.to(Checks.type(q)));
    }
    if (relativeBias != null) {
      long r = relativeBias.size(1) / 2;
      long[] index = new long[(int) (n * m)];
      for (int i = 0; i < n; i++) {
        for (int j = 0; j < m; j++) {
          index[(int) (i * m + j)] = Math.max(-r, Math.min(r, j - i - (m - n))) + r;
        }
      }
      scores = scores.add(relativeBias.to(Checks.type(q)).index_select(1, Tensors.longs(index)).view(1, h, n, m));
    }
    boolean[] hidden = new boolean[visible.length];
    for (int i = 0; i < hidden.length; i++) {
      hidden[i] = !visible[i];
    }
    Tensor mask = Tensors.bools(hidden, b, 1, n, m);
    Tensor weights =
        scores.masked_fill(mask, new Scalar(Double.NEGATIVE_INFINITY)).softmax(-1).masked_fill(mask, new Scalar(0.0));
    if (keep.p > 0) {
      double[] factor = new double[(int) (b * h * n * m)];
      int at = 0;
      for (long bh = 0; bh < b * h; bh++) {
        for (long i = 0; i < n; i++) {
          for (long j = 0; j < m; j++) {
            factor[at++] = Philox.attentionKeeps(bh, i, j, keep.p, keep.seed, keep.offset) ? 1 / (1 - keep.p) : 0;
          }
        }
      }
      weights = weights.mul(Tensors.of(factor, b, h, n, m).to(Checks.type(q)));
    }
    return weights.matmul(v);
  }

  static boolean[] visible(long b, long n, long m, boolean causal, long[] keyLengths) {
    boolean[] visible = new boolean[(int) (b * n * m)];
    int at = 0;
    for (int batch = 0; batch < b; batch++) {
      for (long i = 0; i < n; i++) {
        for (long j = 0; j < m; j++) {
          visible[at++] = (keyLengths == null || j < keyLengths[batch]) && (!causal || j <= i + m - n);
        }
      }
    }
    return visible;
  }

  /** By gather and scatter, as message passing does it; source and target are in by-target order. */
  static Tensor graphAttention(Tensor q, Tensor k, Tensor v, long[] source, long[] target, double scale, Keep keep) {
    long nodes = q.size(0);
    long heads = q.size(1);
    Tensor from = Tensors.longs(source);
    Tensor to = Tensors.longs(target);
    TensorOptions options = q.options();
    Tensor logits = Tensors.multiply(
        q.index_select(0, to).mul(k.index_select(0, from)).sum(new long[] {-1}, false, new ScalarTypeOptional()), scale);
    Tensor index = to.unsqueeze(1).expand(source.length, heads);
    Tensor highest = torch.zeros(new long[] {nodes, heads}, options)
        .scatter_reduce(0, index, logits.detach(), "amax", false);
    Tensor weights = logits.sub(highest.index_select(0, to)).exp();
    Tensor sums = torch.zeros(new long[] {nodes, heads}, options).index_add(0, to, weights);
    weights = weights.div(sums.index_select(0, to));
    if (keep.p > 0) {
      double[] factor = new double[(int) (source.length * heads)];
      for (int e = 0; e < source.length; e++) {
        for (int h = 0; h < heads; h++) {
          factor[(int) (e * heads + h)] = Philox.graphKeeps(e, h, keep.p, keep.seed, keep.offset) ? 1 / (1 - keep.p) : 0;
        }
      }
      weights = weights.mul(Tensors.of(factor, source.length, heads).to(Checks.type(q)));
    }
    return torch.zeros(q.shape(), options).index_add(0, to, weights.unsqueeze(-1).mul(v.index_select(0, from)));
  }

  /**
   * total, recon, kl, perplexity with mean reduction; recon and kl as sums with sum; nll and kl per sample with none. Only the
   * log-softmax is in a low type: sums of many tokens there are no result to compare with.
   */
  static Tensor[] vaeLoss(
      Tensor logits, Tensor targets, Tensor mean, Tensor logVar, double beta, long padIndex, VaeLoss.Reduction reduction) {
    ScalarType type = statistics(Checks.type(logits));
    Tensor mask = targets.ne(new Scalar(padIndex));
    Tensor safe = targets.masked_fill(mask.logical_not(), new Scalar(0L));
    Tensor nll = logits.log_softmax(-1).gather(-1, safe.unsqueeze(-1)).squeeze(-1).to(type).neg().mul(mask.to(type));
    Tensor lv = logVar.to(type).clamp(new ScalarOptional(new Scalar(-20.0)), new ScalarOptional(new Scalar(10.0)));
    Tensor kl = Tensors.multiply(
        lv.add(new Scalar(1.0)).sub(mean.to(type).pow(new Scalar(2.0))).sub(lv.exp()), -0.5);
    if (reduction == VaeLoss.Reduction.NONE) {
      return new Tensor[] {nll, kl.sum(new long[] {1}, false, new ScalarTypeOptional())};
    }
    boolean average = reduction == VaeLoss.Reduction.MEAN;
    Tensor recon = nll.sum();
    if (average) {
      recon = recon.div(mask.to(type).sum().add(new Scalar(1e-8)));
    }
    Tensor divergence = average ? kl.mean() : kl.sum();
    return new Tensor[] {recon.add(Tensors.multiply(divergence, beta)), recon, divergence, recon.exp()};
  }

  private static ScalarType statistics(ScalarType type) {
    return type == ScalarType.Double ? type : ScalarType.Float;
  }

  static Tensor latentConcat(List<Tensor> layers, long[] graphPtr) {
    int graphs = graphPtr.length - 1;
    long nodes = graphPtr[graphs];
    long[] graphOf = new long[(int) nodes];
    double[] factor = new double[graphs];
    for (int b = 0; b < graphs; b++) {
      Arrays.fill(graphOf, (int) graphPtr[b], (int) graphPtr[b + 1], b);
      factor[b] = 1.0 / Math.max(1, graphPtr[b + 1] - graphPtr[b]);
    }
    TensorVector pooled = new TensorVector();
    for (Tensor layer : layers) {
      Tensor sums = torch.zeros(new long[] {graphs, layer.size(1)}, layer.options())
          .index_add(0, Tensors.longs(graphOf), layer);
      pooled.push_back(sums.mul(Tensors.of(factor, graphs, 1).to(Checks.type(layer))));
    }
    return torch.cat(pooled, 1);
  }

  static Tensor reparameterize(Tensor mean, Tensor logVar, long seed, long offset) {
    double[] eps = new double[Math.toIntExact(mean.numel())];
    for (int n = 0; n < eps.length; n++) {
      eps[n] = Philox.normal(n, seed, offset);
    }
    Tensor lv = logVar.clamp(new ScalarOptional(new Scalar(-20.0)), new ScalarOptional(new Scalar(10.0)));
    return mean.add(Tensors.multiply(lv, 0.5).exp().mul(Tensors.of(eps, mean.shape()).to(Checks.type(mean))));
  }
}

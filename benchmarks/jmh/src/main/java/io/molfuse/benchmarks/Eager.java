// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarOptional;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/** The peers: what a user of libtorch writes, in chains of its own operators or with its scaled dot-product attention. */
final class Eager {
  private Eager() {}

  /** libtorch's scaled dot-product attention; bias null for none. */
  static Tensor sdpa(Tensor query, Tensor key, Tensor value, Tensor bias, boolean causal, double dropout) {
    return torch.scaled_dot_product_attention(
        query, key, value, bias == null ? new TensorOptional() : new TensorOptional(bias), dropout, causal, new DoubleOptional(), false);
  }

  /**
   * Attention operator by operator.
   *
   * @param bias added to the scores; null for none
   * @param hidden bool, true where a query does not see a key; null where it sees all
   */
  static Tensor attention(Tensor query, Tensor key, Tensor value, Tensor bias, Tensor hidden, double dropout) {
    Tensor score = query.matmul(key.transpose(-2, -1)).mul(new Scalar(1 / Math.sqrt(query.size(-1))));
    if (bias != null) {
      score = score.add(bias);
    }
    if (hidden != null) {
      score = score.masked_fill(hidden, new Scalar(Double.NEGATIVE_INFINITY));
    }
    Tensor weight = score.softmax(-1);
    return (dropout > 0 ? torch.dropout(weight, dropout, true) : weight).matmul(value);
  }

  /**
   * The [1,H,N,N] bias of learned relative positions.
   *
   * @param relative [H,2R+1]
   * @param positions int64 [N*N], for each pair of a query and a key the column of relative
   */
  static Tensor relativeBias(Tensor relative, Tensor positions, long n) {
    return relative.index_select(1, positions).view(1, relative.size(0), n, n);
  }

  /** Message passing: gathers query, key and value of each edge, softmax over the edges of a target, scatters. */
  static Tensor graphAttention(Tensor query, Tensor key, Tensor value, Edges edges, double dropout) {
    long v = query.size(0);
    long h = query.size(1);
    Tensor score =
        query.index_select(0, edges.target).mul(key.index_select(0, edges.source)).sum(-1).div(new Scalar(Math.sqrt(query.size(2))));
    Tensor largest =
        torch.full(new long[] {v, h}, new Scalar(Double.NEGATIVE_INFINITY), query.options())
            .scatter_reduce(0, edges.spread, score.detach(), "amax");
    Tensor weight = score.sub(largest.index_select(0, edges.target)).exp();
    Tensor sum = torch.zeros(new long[] {v, h}, query.options()).index_add(0, edges.target, weight);
    Tensor share = weight.div(sum.index_select(0, edges.target));
    if (dropout > 0) {
      share = torch.dropout(share, dropout, true);
    }
    Tensor message = value.index_select(0, edges.source).mul(share.unsqueeze(-1));
    return torch.zeros(new long[] {v, h, query.size(2)}, query.options()).index_add(0, edges.target, message);
  }

  /**
   * Edges as the chain needs them.
   *
   * @param source int64 [E]
   * @param target int64 [E]
   * @param spread target, int64 [E,H]
   */
  record Edges(Tensor source, Tensor target, Tensor spread) {
    static Edges of(Tensor source, Tensor target, long heads) {
      long e = source.numel();
      return new Edges(source, target, target.view(e, 1).expand(new long[] {e, heads}, false).contiguous());
    }
  }

  /** Its cross entropy without padding and the Kullback-Leibler term; neither accuracy nor perplexity. */
  static Tensor vaeLoss(Tensor logits, Tensor targets, Tensor mean, Tensor logVar, double beta) {
    Tensor rows = logits.reshape(-1, logits.size(-1));
    Tensor recon = torch.cross_entropy_loss(rows, targets.reshape(-1), new TensorOptional(), 1, 0, 0.0);
    Tensor clamped = torch.clamp(logVar, new ScalarOptional(new Scalar(-20.0)), new ScalarOptional(new Scalar(10.0)));
    Tensor kl =
        clamped.add(new Scalar(1.0)).sub(mean.square()).sub(clamped.exp()).mean(new ScalarTypeOptional()).mul(new Scalar(-0.5));
    return recon.add(kl.mul(new Scalar(beta)));
  }

  static Tensor reparameterize(Tensor mean, Tensor logVar) {
    Tensor deviation = torch.clamp(logVar, new ScalarOptional(new Scalar(-20.0)), new ScalarOptional(new Scalar(10.0))).mul(new Scalar(0.5)).exp();
    return mean.add(deviation.mul(torch.randn_like(mean)));
  }

  /**
   * Means over the nodes of each graph.
   *
   * @param owner int64 [V], the graph of each node
   * @param counts [B,1], the nodes of each graph
   */
  static Tensor pool(Tensor nodes, Tensor owner, Tensor counts) {
    return torch.zeros(new long[] {counts.size(0), nodes.size(1)}, nodes.options()).index_add(0, owner, nodes).div(counts);
  }

  /** Side by side. */
  static Tensor join(Tensor... columns) {
    return torch.cat(new TensorVector(columns), 1);
  }

  /** Skip connection, batch norm by the batch's statistics, ReLU, dropout. */
  static Tensor epilogue(
      Tensor input, Tensor residual, Tensor weight, Tensor bias, Tensor runningMean, Tensor runningVar, double dropout) {
    Tensor normalised =
        torch.batch_norm(
            input.add(residual), new TensorOptional(weight), new TensorOptional(bias), new TensorOptional(runningMean),
            new TensorOptional(runningVar), true, 0.1, 1e-5, false);
    Tensor features = torch.relu(normalised);
    return dropout > 0 ? torch.dropout(features, dropout, true) : features;
  }
}

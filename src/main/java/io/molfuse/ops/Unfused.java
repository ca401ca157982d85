// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.function.Supplier;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.LongOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * The operators as chains of libtorch's own, as a user of libtorch alone would write them: what {@link Molfuse#setFused} switches to.
 * Dropout and noise are drawn from libtorch's default generator; seeds and offsets have no meaning here.
 */
@SuppressWarnings("try") // Scopes do their work by being open.
final class Unfused {
  private static final double NEGATIVE_INFINITY = Double.NEGATIVE_INFINITY;

  private static volatile boolean on;

  private Unfused() {}

  static boolean on() {
    return on;
  }

  static void set(boolean unfused) {
    on = unfused;
  }

  /** Without a scope of its own, every tensor of a chain would live until the caller's scope ends. */
  private static Tensor of(Supplier<Tensor> chain) {
    return all(() -> new Tensor[] {chain.get()})[0];
  }

  private static Tensor[] all(Supplier<Tensor[]> chain) {
    PointerScope callers = PointerScope.getInnerScope();
    if (callers == null) {
      return chain.get();
    }
    try (PointerScope own = new PointerScope()) {
      Tensor[] results = chain.get();
      for (Tensor result : results) {
        // In this order: a scope that lets go of the last reference releases it.
        callers.attach(result);
        own.detach(result);
      }
      return results;
    }
  }

  static Tensor attention(Tensor query, Tensor key, Tensor value, Attention.Options options) {
    return of(
        () -> {
          boolean square = query.size(2) == key.size(2);
          // libtorch's own flag aligns the diagonal with the first key, not with the last.
          boolean flag = options.causal && square && options.bias == null && options.relativeBias == null && options.keyLengths == null;
          Tensor mask = flag ? null : mask(query, key, options);
          return torch.scaled_dot_product_attention(
              query, key, value, optional(mask), options.dropout.p, flag, scale(options.scale), false);
        });
  }

  private static DoubleOptional scale(Double scale) {
    return scale == null ? new DoubleOptional() : new DoubleOptional(scale);
  }

  private static TensorOptional optional(Tensor tensor) {
    return tensor == null ? new TensorOptional() : new TensorOptional(tensor);
  }

  /** What is added to the scores, or which of them count; null for nothing of that. */
  private static Tensor mask(Tensor query, Tensor key, Attention.Options options) {
    long queries = query.size(2);
    long keys = key.size(2);
    Tensor added = null;
    if (options.relativeBias != null) {
      Tensor table = options.relativeBias.to(Checks.type(query));
      long radius = (table.size(1) - 1) / 2;
      Tensor distance = range(keys, query).view(1, keys).sub(range(queries, query).view(queries, 1)).sub(new Scalar(keys - queries));
      Tensor places = clamp(distance, -radius, radius).add(new Scalar(radius)).view(-1);
      added = table.index_select(1, places).view(1, table.size(0), queries, keys);
    }
    if (options.bias != null) {
      Tensor bias = options.bias.to(Checks.type(query));
      added = added == null ? bias : added.add(bias);
    }
    Tensor visible = null;
    if (options.causal) {
      visible = filled(1, ScalarType.Bool, query, queries, keys).tril(keys - queries);
    }
    if (options.keyLengths != null) {
      Tensor within = range(keys, query).view(1, 1, 1, keys).lt(options.keyLengths.view(-1, 1, 1, 1));
      visible = visible == null ? within : visible.logical_and(within);
    }
    if (added == null || visible == null) {
      return added == null ? visible : added;
    }
    return torch.where(visible, added, new Scalar(NEGATIVE_INFINITY));
  }

  private static TensorOptions options(ScalarType type, Tensor beside) {
    return new TensorOptions(type).device(beside.options().device_opt());
  }

  private static Tensor filled(double value, ScalarType type, Tensor beside, long... shape) {
    return torch.full(shape, new Scalar(value), options(type, beside));
  }

  private static Tensor range(long count, Tensor like) {
    return torch.arange(new Scalar(count), options(ScalarType.Long, like));
  }

  /** Of a tensor's type and on its device. */
  private static Tensor zeros(Tensor like, long... shape) {
    return filled(0, Checks.type(like), like, shape);
  }

  private static Tensor clamp(Tensor values, double low, double high) {
    return values.clamp(new ScalarOptional(new Scalar(low)), new ScalarOptional(new Scalar(high)));
  }

  private static Tensor clamp(Tensor values, long low, long high) {
    return values.clamp(new ScalarOptional(new Scalar(low)), new ScalarOptional(new Scalar(high)));
  }

  static Tensor graphAttention(Tensor query, Tensor key, Tensor value, Graph graph, GraphAttention.Options options) {
    return of(
        () -> {
          long nodes = query.size(0);
          long heads = query.size(1);
          double scale = options.scale == null ? 1 / Math.sqrt(query.size(2)) : options.scale;
          Tensor source = graph.source();
          Tensor target = owners(graph.rowPtr());
          Tensor score = query.index_select(0, target).mul(key.index_select(0, source)).sum(-1).mul(new Scalar(scale));
          Tensor spread = target.view(-1, 1).expand(new long[] {target.numel(), heads}, false).contiguous();
          Tensor largest =
              filled(NEGATIVE_INFINITY, Checks.type(score), score, nodes, heads)
                  .scatter_reduce(0, spread, score.detach(), "amax");
          Tensor weight = score.sub(largest.index_select(0, target)).exp();
          Tensor sum = zeros(weight, nodes, heads).index_add(0, target, weight);
          Tensor share = drop(weight.div(sum.index_select(0, target)), options.dropout);
          Tensor message = value.index_select(0, source).mul(share.unsqueeze(-1));
          return zeros(message, nodes, heads, value.size(2)).index_add(0, target, message);
        });
  }

  /** int64: the row of each element of compressed rows. */
  private static Tensor owners(Tensor starts) {
    return torch.repeat_interleave(range(starts.numel() - 1, starts), starts.diff().to(ScalarType.Long));
  }

  private static Tensor drop(Tensor values, Dropout dropout) {
    return dropout.p > 0 ? torch.dropout(values, dropout.p, true) : values;
  }

  static Tensor latentConcat(TensorVector layers, Tensor graphPtr) {
    return of(
        () -> {
          TensorVector pooled = new TensorVector();
          for (long layer = 0; layer < layers.size(); layer++) {
            pooled.push_back(pooled(layers.get(layer), graphPtr));
          }
          return torch.cat(pooled, 1);
        });
  }

  static Tensor latentConcatInto(Tensor out, long columnOffset, Tensor nodes, Tensor graphPtr) {
    try (PointerScope own = new PointerScope()) {
      out.narrow(1, columnOffset, nodes.size(1)).copy_(pooled(nodes, graphPtr));
    }
    return out;
  }

  static Tensor latentConcatPooled(TensorVector pooled) {
    return of(() -> torch.cat(pooled, 1));
  }

  private static Tensor pooled(Tensor nodes, Tensor graphPtr) {
    Tensor sums = zeros(nodes, graphPtr.numel() - 1, nodes.size(1)).index_add(0, owners(graphPtr), nodes);
    return sums.div(graphPtr.diff().clamp_min(new Scalar(1L)).to(Checks.type(nodes)).view(-1, 1));
  }

  static Tensor encoderEpilogue(Tensor input, EncoderEpilogue.Options options) {
    return of(
        () -> {
          Tensor sum = options.residual == null ? input : input.add(options.residual);
          Tensor normalised =
              torch.batch_norm(
                  sum,
                  optional(options.weight),
                  optional(options.bias),
                  optional(options.runningMean),
                  optional(options.runningVar),
                  options.training,
                  options.momentum,
                  options.epsilon,
                  true);
          return drop(normalised.relu(), options.dropout);
        });
  }

  static Tensor reparameterize(Tensor mean, Tensor logVar) {
    return of(() -> mean.add(clamp(logVar, -20.0, 10.0).mul(new Scalar(0.5)).exp().mul(torch.randn_like(mean))));
  }

  static Tensor[] linearVaeLoss(
      Tensor hidden, Tensor weight, Tensor weightBias, Tensor targets, Tensor mean, Tensor logVar, VaeLoss.Options options) {
    return all(() -> loss(torch.linear(hidden, weight, optional(weightBias)), targets, mean, logVar, options));
  }

  static Tensor[] vaeLoss(Tensor logits, Tensor targets, Tensor mean, Tensor logVar, VaeLoss.Options options) {
    return all(() -> loss(options.classSecond ? logits.transpose(1, 2) : logits, targets, mean, logVar, options));
  }

  /** In the order of {@link VaeLoss.Result}. */
  private static Tensor[] loss(Tensor logits, Tensor targets, Tensor mean, Tensor logVar, VaeLoss.Options options) {
    ScalarType type = Checks.type(logits) == ScalarType.Double ? ScalarType.Double : ScalarType.Float;
    Tensor rows = logits.reshape(-1, logits.size(2)).to(type);
    Tensor flat = targets.reshape(-1);
    Tensor counted = flat.ne(new Scalar(options.padIndex));
    Tensor tokens = counted.sum().to(type);
    Tensor correct = rows.detach().argmax(new LongOptional(1), false).eq(flat).logical_and(counted).sum().to(type);
    Tensor nll = torch.cross_entropy_loss(rows, flat, new TensorOptional(), 0, options.padIndex, 0.0);
    Tensor divergence = mean == null ? zeros(rows, targets.size(0), 1) : divergence(mean, logVar, type);
    if (options.reduction == VaeLoss.Reduction.NONE) {
      return new Tensor[] {nll.view(targets.size(0), targets.size(1)), divergence.sum(1), tokens, correct};
    }
    boolean means = options.reduction == VaeLoss.Reduction.MEAN;
    Tensor recon = means ? nll.sum().div(tokens.add(new Scalar(1e-8))) : nll.sum();
    Tensor kl = means ? divergence.mean() : divergence.sum();
    return new Tensor[] {recon.add(kl.mul(new Scalar(options.beta))), recon, kl, recon.exp(), tokens, correct};
  }

  private static Tensor divergence(Tensor mean, Tensor logVar, ScalarType type) {
    Tensor m = mean.to(type);
    Tensor lv = clamp(logVar.to(type), -20.0, 10.0);
    return lv.add(new Scalar(1.0)).sub(m.square()).sub(lv.exp()).mul(new Scalar(-0.5));
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.ops.Attention;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/** A pre-norm transformer layer: causal self-attention, cross-attention on the latent's memory, feed-forward with GELU. */
final class DecoderLayer {
  private final ModelConfig.Decoder config;
  private final int index;
  private final LayerNorm selfNorm;
  private final Linear selfQueryKeyValue;
  private final Linear selfOut;
  private final Tensor relativeBias;
  private final LayerNorm crossNorm;
  private final Linear crossQuery;
  private final Linear crossKeyValue;
  private final Linear crossOut;
  private final LayerNorm feedForwardNorm;
  private final Linear feedForwardIn;
  private final Linear feedForwardOut;

  /** @param relative whether attention scores depend on learned relative positions */
  DecoderLayer(ParameterFactory parameters, ModelConfig.Decoder config, int index, boolean relative) {
    this.config = config;
    this.index = index;
    int hidden = config.hidden();
    // Keeps the variance of the residual stream independent of the number of layers (Radford et al. 2019).
    double residualGain = 1 / Math.sqrt(3.0 * config.layers());
    selfNorm = new LayerNorm(parameters.under("self_norm"), hidden);
    selfQueryKeyValue = Linear.fused(parameters.under("self_qkv"), hidden, hidden, 3, 1);
    selfOut = Linear.fused(parameters.under("self_out"), hidden, hidden, 1, residualGain);
    relativeBias =
        relative
            ? parameters.constant("relative_bias", 0, config.heads(), 2L * config.relativeDistance() + 1)
            : null;
    crossNorm = new LayerNorm(parameters.under("cross_norm"), hidden);
    crossQuery = Linear.xavier(parameters.under("cross_query"), hidden, hidden);
    crossKeyValue = Linear.fused(parameters.under("cross_kv"), hidden, hidden, 2, 1);
    crossOut = Linear.fused(parameters.under("cross_out"), hidden, hidden, 1, residualGain);
    feedForwardNorm = new LayerNorm(parameters.under("ff_norm"), hidden);
    feedForwardIn = Linear.xavier(parameters.under("ff_in"), hidden, config.feedForward());
    feedForwardOut = Linear.fused(parameters.under("ff_out"), config.feedForward(), hidden, 1, residualGain);
  }

  /**
   * All positions at once.
   *
   * @param input [B,T,hidden]
   * @param memory [B,S,hidden]
   * @return [B,T,hidden]
   */
  Tensor apply(Tensor input, Tensor memory, Regularize regularize) {
    TensorVector self = selfQueryKeyValue.apply(selfNorm.apply(input)).split(config.hidden(), -1);
    Tensor attended =
        Attention.apply(
            heads(self.get(0)),
            heads(self.get(1)),
            heads(self.get(2)),
            options(regularize, 2L * index).causal(true).relativeBias(relativeBias));
    Tensor state = input.add(regularize.dropout(selfOut.apply(joined(attended)), config.dropout()));

    TensorVector keyValue = crossKeyValue.apply(memory).split(config.hidden(), -1);
    Tensor crossed =
        Attention.apply(
            heads(crossQuery.apply(crossNorm.apply(state))),
            heads(keyValue.get(0)),
            heads(keyValue.get(1)),
            options(regularize, 2L * index + 1));
    state = state.add(regularize.dropout(crossOut.apply(joined(crossed)), config.dropout()));
    return state.add(regularize.dropout(feedForward(state), config.dropout()));
  }

  private Attention.Options options(Regularize regularize, long site) {
    // Offsets below a thousand are the encoder's layers.
    return Attention.options().dropout(regularize.probability(config.dropout()), regularize.seed(), 2000 + site);
  }

  private Tensor feedForward(Tensor state) {
    return feedForwardOut.apply(torch.gelu(feedForwardIn.apply(feedForwardNorm.apply(state))));
  }

  /** [B,T,hidden] seen as [B,heads,T,D]. */
  private Tensor heads(Tensor rows) {
    return rows.view(rows.size(0), rows.size(1), config.heads(), config.headWidth()).transpose(1, 2);
  }

  private Tensor joined(Tensor heads) {
    return heads.transpose(1, 2).reshape(heads.size(0), heads.size(2), config.hidden());
  }

  /** The memory's keys and values for {@link #step}: [B,heads,S,D] each. */
  Tensor[] crossCache(Tensor memory) {
    TensorVector keyValue = crossKeyValue.apply(memory).split(config.hidden(), -1);
    return new Tensor[] {heads(keyValue.get(0)).contiguous(), heads(keyValue.get(1)).contiguous()};
  }

  /**
   * One more position, without gradient.
   *
   * @param input [B,hidden]
   * @param cache this layer's keys and values, which grow by one position
   * @return [B,hidden]
   */
  Tensor step(Tensor input, DecoderCache.Layer cache, DecoderCache lengths) {
    TensorVector self = selfQueryKeyValue.apply(selfNorm.apply(input)).split(config.hidden(), -1);
    Tensor attended =
        Attention.decode(
            row(self.get(0)),
            cache.keys(),
            cache.values(),
            lengths.filled(),
            Attention.decodeOptions().append(row(self.get(1)), row(self.get(2))).relativeBias(relativeBias));
    Tensor state = input.add(selfOut.apply(attended.reshape(-1, config.hidden())));
    Tensor crossed =
        Attention.decode(
            row(crossQuery.apply(crossNorm.apply(state))),
            cache.memoryKeys(),
            cache.memoryValues(),
            lengths.memory());
    state = state.add(crossOut.apply(crossed.reshape(-1, config.hidden())));
    return state.add(feedForward(state));
  }

  private Tensor row(Tensor rows) {
    return rows.view(rows.size(0), config.heads(), config.headWidth());
  }
}

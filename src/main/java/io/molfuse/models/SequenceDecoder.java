// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import java.util.ArrayList;
import java.util.List;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * The autoregressive decoder. Learned absolute positions enter before the first layer; the others have learned relative
 * positions in their attention scores.
 */
final class SequenceDecoder {
  private final ModelConfig.Decoder config;
  private final Tensor tokenEmbedding;
  private final Tensor positionEmbedding;
  private final List<DecoderLayer> layers = new ArrayList<>();
  private final LayerNorm finalNorm;
  private final Linear vocabulary;

  SequenceDecoder(ParameterFactory parameters, ModelConfig.Decoder config, int vocabularySize) {
    this.config = config;
    double deviation = 1 / Math.sqrt(config.hidden());
    tokenEmbedding = parameters.normal("token_embedding", deviation, vocabularySize, config.hidden());
    positionEmbedding = parameters.normal("position_embedding", deviation, config.maxLength(), config.hidden());
    for (int i = 0; i < config.layers(); i++) {
      layers.add(new DecoderLayer(parameters.under("layers." + i), config, i, i > 0));
    }
    finalNorm = new LayerNorm(parameters.under("final_norm"), config.hidden());
    vocabulary = Linear.xavier(parameters.under("vocabulary"), config.hidden(), vocabularySize);
  }

  /** The projection from {@link #hidden} to logits, which the loss fuses in. */
  Linear vocabulary() {
    return vocabulary;
  }

  /**
   * The states before the vocabulary projection.
   *
   * @param tokens int64 [B,T], each sequence from its start token on
   * @param memory [B,S,hidden]
   * @return [B,T,hidden]
   */
  Tensor hidden(Tensor tokens, Tensor memory, Regularize regularize) {
    Tensor positions = positionEmbedding.narrow(0, 0L, tokens.size(1));
    Tensor state = torch.embedding(tokenEmbedding, tokens).add(positions);
    for (DecoderLayer layer : layers) {
      state = layer.apply(state, memory, regularize);
    }
    return finalNorm.apply(state);
  }

  /**
   * Empty caches for a batch.
   *
   * @param memory [B,S,hidden]
   * @param capacity most positions
   */
  DecoderCache cache(Tensor memory, int capacity) {
    long batch = memory.size(0);
    TensorOptions ints = new TensorOptions(ScalarType.Int).device(memory.options().device_opt());
    List<DecoderCache.Layer> caches = new ArrayList<>();
    for (DecoderLayer layer : layers) {
      long[] shape = {batch, config.heads(), capacity, config.headWidth()};
      Tensor[] cross = layer.crossCache(memory);
      caches.add(
          new DecoderCache.Layer(
              torch.zeros(shape, memory.options()), torch.zeros(shape, memory.options()), cross[0], cross[1]));
    }
    return new DecoderCache(
        caches,
        torch.zeros(new long[] {batch}, ints),
        torch.full(new long[] {batch}, new Scalar((int) memory.size(1)), ints));
  }

  /**
   * The logits after one more token, without gradient.
   *
   * @param tokens int64 [B], the tokens at this position
   * @param position counted from 0
   * @param cache grows by one position
   * @return [B,K]
   */
  Tensor step(Tensor tokens, int position, DecoderCache cache) {
    Tensor state = torch.embedding(tokenEmbedding, tokens).add(positionEmbedding.select(0, position));
    for (int i = 0; i < layers.size(); i++) {
      state = layers.get(i).step(state, cache.layers().get(i), cache);
    }
    cache.grow();
    return vocabulary.apply(finalNorm.apply(state));
  }
}

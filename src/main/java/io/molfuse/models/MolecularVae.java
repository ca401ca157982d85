// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.Vocabulary;
import io.molfuse.ops.VaeLoss;
import io.molfuse.train.ParameterSet;
import io.molfuse.train.Seeds;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;

/**
 * A variational autoencoder from molecular graphs to token sequences, after "PanGu Drug Model: Learn a Molecule Like a Human":
 * graph transformer layers of which several are pooled and concatenated, a Gaussian latent, and a transformer decoder that
 * attends to it. Parameter groups are "encoder", "latent" and "decoder".
 *
 * <p>Not thread-safe: all calls belong on one thread.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class MolecularVae implements AutoCloseable {
  private final ModelConfig config;
  private final int vocabularySize;
  private final ParameterSet parameters = new ParameterSet();
  private final GraphEncoder encoder;
  private final LatentHead latent;
  private final SequenceDecoder decoder;
  private final DeviceType deviceType;

  /**
   * An untrained model on the CPU.
   *
   * @param config its size
   * @param vocabularySize number of tokens, the special ones included
   * @param seed decides the initial parameters; libtorch's default generator is set to it
   */
  public MolecularVae(ModelConfig config, int vocabularySize, long seed) {
    this(config, vocabularySize, seed, DeviceType.CPU);
  }

  /**
   * An untrained model.
   *
   * @param config its size
   * @param vocabularySize number of tokens, the special ones included
   * @param seed decides the initial parameters; libtorch's default generator is set to it
   * @param deviceType where its parameters live
   */
  public MolecularVae(ModelConfig config, int vocabularySize, long seed, DeviceType deviceType) {
    if (vocabularySize <= Vocabulary.SPECIAL) {
      throw new IllegalArgumentException(
          "vocabulary_size must be above " + Vocabulary.SPECIAL + ", the special tokens, but is " + vocabularySize);
    }
    this.config = config;
    this.vocabularySize = vocabularySize;
    this.deviceType = deviceType;
    Seeds.seedLibtorch(seed);
    try (PointerScope scope = new PointerScope()) {
      Device device = device();
      int hidden = config.decoder().hidden();
      encoder = new GraphEncoder(ParameterFactory.of(parameters, device, "encoder"), config.encoder());
      latent =
          new LatentHead(
              ParameterFactory.of(parameters, device, "latent"),
              config.latent(),
              config.encoder().selected() * config.encoder().width(),
              hidden);
      decoder =
          new SequenceDecoder(ParameterFactory.of(parameters, device, "decoder"), config.decoder(), vocabularySize);
    }
  }

  /** @return its size */
  public ModelConfig config() {
    return config;
  }

  /** @return number of tokens, the special ones included */
  public int vocabularySize() {
    return vocabularySize;
  }

  /** @return parameters and running statistics; they stay the model's */
  public ParameterSet parameters() {
    return parameters;
  }

  /**
   * Lets backward compute the encoder's layers again instead of keeping their intermediate results: less memory for more time. Off unless
   * set; gradients are the same but for the order of additions.
   *
   * @param on whether
   * @return this
   */
  public MolecularVae checkpointing(boolean on) {
    encoder.checkpointing(on);
    return this;
  }

  /** @return where the parameters live, in the caller's scope */
  public Device device() {
    return new Device(deviceType);
  }

  /**
   * The training loss of a batch. Sets libtorch's default generator, from which dropout draws.
   *
   * @param batch molecules
   * @param beta weight of the Kullback-Leibler term
   * @param seed decides dropout and the latent samples
   * @return the loss, with a history for backward
   */
  public VaeLoss.Result loss(VaeBatch batch, double beta, long seed) {
    Seeds.seedLibtorch(seed);
    return loss(batch, beta, new Regularize(true, seed));
  }

  /**
   * The loss of a batch without dropout, with running statistics and the latent's mean in place of samples.
   *
   * @param batch molecules
   * @param beta weight of the Kullback-Leibler term
   * @return the loss
   */
  public VaeLoss.Result evaluate(VaeBatch batch, double beta) {
    return loss(batch, beta, Regularize.OFF);
  }

  private VaeLoss.Result loss(VaeBatch batch, double beta, Regularize regularize) {
    Tensor pooled = encoder.apply(batch.nodes(), batch.graph(), batch.graphPtr(), regularize);
    Tensor mean = latent.mean(pooled);
    Tensor logVar = latent.logVar(pooled);
    Tensor memory = latent.memory(latent.sample(mean, logVar, regularize));
    return VaeLoss.linear(
        decoder.hidden(batch.inputs(), memory, regularize),
        decoder.vocabulary().weight(),
        decoder.vocabulary().bias(),
        batch.targets(),
        mean,
        logVar,
        VaeLoss.options().beta(beta).padIndex(Vocabulary.PAD));
  }

  /**
   * The latent means of a batch, without gradient.
   *
   * @param batch molecules; its tokens are not used
   * @return f32 [B, slots * width], in the caller's scope
   */
  public Tensor encode(VaeBatch batch) {
    try (NoGradGuard noGrad = new NoGradGuard()) {
      return latent.mean(encoder.apply(batch.nodes(), batch.graph(), batch.graphPtr(), Regularize.OFF));
    }
  }

  /**
   * The Gaussians that a batch is encoded to.
   *
   * @param mean f32 [B, slots * width]
   * @param logVar f32 [B, slots * width], not clamped
   */
  record Posterior(Tensor mean, Tensor logVar) {}

  /** The Gaussians of a batch, without gradient, in the caller's scope. */
  Posterior posterior(VaeBatch batch) {
    try (NoGradGuard noGrad = new NoGradGuard()) {
      Tensor pooled = encoder.apply(batch.nodes(), batch.graph(), batch.graphPtr(), Regularize.OFF);
      return new Posterior(latent.mean(pooled), latent.logVar(pooled));
    }
  }

  /**
   * The logits of every next token, without gradient and without a cache.
   *
   * @param latents f32 [B, slots * width]
   * @param tokens int64 [B,T], each sequence from its start token on
   * @return f32 [B,T,K], in the caller's scope
   */
  public Tensor logits(Tensor latents, Tensor tokens) {
    try (NoGradGuard noGrad = new NoGradGuard()) {
      return decoder.vocabulary().apply(decoder.hidden(tokens, latent.memory(latents), Regularize.OFF));
    }
  }

  /** Caches for decoding a batch of latents token by token. */
  DecoderCache cache(Tensor latents, int capacity) {
    return decoder.cache(latent.memory(latents), capacity);
  }

  /** The logits [B,K] after one more token; call without gradients. */
  Tensor step(Tensor tokens, int position, DecoderCache cache) {
    return decoder.step(tokens, position, cache);
  }

  /** Releases the parameters. */
  @Override
  public void close() {
    parameters.close();
  }
}

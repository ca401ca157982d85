// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.MolecularProperty;
import io.molfuse.chem.PropertyStatistics;
import io.molfuse.chem.Vocabulary;
import io.molfuse.ops.VaeLoss;
import io.molfuse.train.ParameterSet;
import io.molfuse.train.Seeds;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;

/**
 * A variational autoencoder from molecular graphs to token sequences, after "PanGu Drug Model: Learn a Molecule Like a Human":
 * graph transformer layers of which several are pooled and concatenated, a Gaussian latent, and a transformer decoder that
 * attends to it. Parameter groups are "encoder", "latent" and "decoder".
 *
 * <p>With conditions it is the conditional model of Sohn et al. 2015: the latent's mean and log-variance, and the decoder, depend on the
 * properties, too, which enter in their own units and are normalised by the training data's statistics.
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
  private final ConditionHead condition;
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
      condition =
          config.condition().any()
              ? new ConditionHead(
                  ParameterFactory.of(parameters, device, "latent").under("condition"), config.condition(), config.latent().size(), hidden)
              : null;
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
   * Sets what properties are normalised by, before training; it is saved with the parameters.
   *
   * @param statistics of the training data, in the order of the configuration's properties
   */
  public void statistics(List<PropertyStatistics> statistics) {
    conditional().statistics(statistics);
  }

  /**
   * What properties are normalised by. Waits for the device.
   *
   * @return in the order of the configuration's properties; none without conditions
   */
  public List<PropertyStatistics> statistics() {
    return condition == null ? List.of() : condition.statistics();
  }

  /**
   * A condition that wants values of some properties and leaves the others open.
   *
   * @param wanted in the properties' units
   * @return [P] as {@link VaeBatch#properties} has it: NaN for what is open
   * @throws IllegalArgumentException if the model has no such condition
   */
  public float[] condition(Map<MolecularProperty, Double> wanted) {
    List<MolecularProperty> known = config.condition().properties();
    float[] values = new float[known.size()];
    Arrays.fill(values, Float.NaN);
    wanted.forEach(
        (property, value) -> {
          if (!known.contains(property)) {
            throw new IllegalArgumentException(
                "the model was trained without a condition on "
                    + property.label()
                    + (known.isEmpty() ? ", and has no other" : "; it has " + String.join(", ", ModelConfig.Condition.labels(known))));
          }
          if (!Double.isFinite(value)) {
            throw new IllegalArgumentException("a condition must be a finite number, but " + property.label() + " is " + value);
          }
          values[known.indexOf(property)] = value.floatValue();
        });
    return values;
  }

  private ConditionHead conditional() {
    if (condition == null) {
      throw new IllegalStateException("the model has no conditions");
    }
    return condition;
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
    return loss(batch, beta, 0, seed).parts();
  }

  /**
   * The training loss of a batch with free bits (Kingma et al. 2016): of each latent dimension, the divergence's mean over the batch,
   * KL[j], is replaced by max(KL[j], freeBits) before the mean over the dimensions. Sets libtorch's default generator, from which dropout
   * draws.
   *
   * @param batch molecules
   * @param beta weight of the Kullback-Leibler term
   * @param freeBits what each latent dimension may have of it without cost, in nats; at least 0
   * @param seed decides dropout and the latent samples
   * @return the loss, with a history for backward
   */
  public Loss loss(VaeBatch batch, double beta, double freeBits, long seed) {
    Seeds.seedLibtorch(seed);
    if (condition != null && batch.properties() == null) {
      throw new IllegalArgumentException(
          "a batch to train on needs the properties " + ModelConfig.Condition.labels(config.condition().properties()));
    }
    return loss(batch, beta, freeBits, new Regularize(true, seed));
  }

  /**
   * The loss of a batch without dropout, with running statistics and the latent's mean in place of samples.
   *
   * @param batch molecules; without properties, all of them count as not known
   * @param beta weight of the Kullback-Leibler term
   * @return the loss
   */
  public VaeLoss.Result evaluate(VaeBatch batch, double beta) {
    return evaluate(batch, beta, 0).parts();
  }

  /**
   * The loss with free bits of a batch, otherwise as {@link #evaluate(VaeBatch, double)}.
   *
   * @param batch molecules; without properties, all of them count as not known
   * @param beta weight of the Kullback-Leibler term
   * @param freeBits what each latent dimension may have of it without cost, in nats
   * @return the loss
   */
  public Loss evaluate(VaeBatch batch, double beta, double freeBits) {
    return loss(batch, beta, freeBits, Regularize.OFF);
  }

  /**
   * A loss.
   *
   * @param total f32 []: what is trained: recon + beta * kl, with free bits where there are any
   * @param parts what it is made of; kl is the divergence itself, with or without free bits
   */
  public record Loss(Tensor total, VaeLoss.Result parts) {}

  private Loss loss(VaeBatch batch, double beta, double freeBits, Regularize regularize) {
    Tensor given = condition(batch.properties(), batch.graphPtr().numel() - 1, regularize);
    Tensor pooled = encoder.apply(batch.nodes(), batch.graph(), batch.graphPtr(), regularize);
    Tensor mean = mean(pooled, given);
    Tensor logVar = logVar(pooled, given);
    Tensor memory = memory(latent.sample(mean, logVar, regularize), given);
    FreeBits free = freeBits > 0 ? FreeBits.of(mean, logVar, freeBits) : null;
    VaeLoss.Result parts =
        VaeLoss.linear(
            decoder.hidden(batch.inputs(), memory, regularize),
            decoder.vocabulary().weight(),
            decoder.vocabulary().bias(),
            batch.targets(),
            free == null ? mean : free.mean(),
            free == null ? logVar : free.logVar(),
            VaeLoss.options().beta(beta).padIndex(Vocabulary.PAD));
    return new Loss(free == null ? parts.total() : parts.total().add(free.excess().mul(new Scalar(beta))), parts);
  }

  /** The vector [B,width] that stands for properties [B,P], of which null knows none; null without conditions. */
  private Tensor condition(Tensor properties, long molecules, Regularize regularize) {
    if (condition == null) {
      return null;
    }
    return condition.vector(properties == null ? condition.unknown(molecules) : properties, regularize);
  }

  private Tensor mean(Tensor pooled, Tensor given) {
    return given == null ? latent.mean(pooled) : latent.mean(pooled).add(condition.mean(given));
  }

  private Tensor logVar(Tensor pooled, Tensor given) {
    return given == null ? latent.logVar(pooled) : latent.logVar(pooled).add(condition.logVar(given));
  }

  /** [B,S,hidden], to which a condition adds a position. */
  private Tensor memory(Tensor latents, Tensor given) {
    Tensor memory = latent.memory(latents);
    return given == null ? memory : torch.cat(new TensorVector(memory, condition.memory(given)), 1);
  }

  /**
   * The latent means of a batch, without gradient.
   *
   * @param batch molecules; its tokens are not used; without properties, all of them count as not known
   * @return f32 [B, slots * width], in the caller's scope
   */
  public Tensor encode(VaeBatch batch) {
    try (NoGradGuard noGrad = new NoGradGuard()) {
      Tensor pooled = encoder.apply(batch.nodes(), batch.graph(), batch.graphPtr(), Regularize.OFF);
      return mean(pooled, condition(batch.properties(), batch.graphPtr().numel() - 1, Regularize.OFF));
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
      Tensor given = condition(batch.properties(), batch.graphPtr().numel() - 1, Regularize.OFF);
      return new Posterior(mean(pooled, given), logVar(pooled, given));
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
    return logits(latents, null, tokens);
  }

  /**
   * The logits of every next token under conditions, without gradient and without a cache.
   *
   * @param latents f32 [B, slots * width]
   * @param properties f32 [B,P], NaN for what is open; null for all
   * @param tokens int64 [B,T], each sequence from its start token on
   * @return f32 [B,T,K], in the caller's scope
   */
  public Tensor logits(Tensor latents, Tensor properties, Tensor tokens) {
    try (NoGradGuard noGrad = new NoGradGuard()) {
      Tensor given = condition(properties, latents.size(0), Regularize.OFF);
      return decoder.vocabulary().apply(decoder.hidden(tokens, memory(latents, given), Regularize.OFF));
    }
  }

  /** Caches for decoding a batch of latents token by token. */
  DecoderCache cache(Tensor latents, int capacity) {
    return cache(latents, null, capacity);
  }

  /** The same under conditions, f32 [B,P] with NaN for what is open; null for all. */
  DecoderCache cache(Tensor latents, Tensor properties, int capacity) {
    return decoder.cache(memory(latents, condition(properties, latents.size(0), Regularize.OFF)), capacity);
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

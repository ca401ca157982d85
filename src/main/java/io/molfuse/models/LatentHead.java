// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.ops.Reparameterize;
import org.bytedeco.pytorch.Tensor;

/** From the pooled encoder layers to a diagonal Gaussian, a sample of it, and the positions the decoder attends to. */
final class LatentHead {
  /** Keeps the seed's uses apart from the layers'. */
  private static final long SAMPLE_OFFSET = 1000;

  private final ModelConfig.Latent config;
  private final int hidden;
  private final Linear mean;
  private final Linear logVar;
  private final Linear memory;

  LatentHead(ParameterFactory parameters, ModelConfig.Latent config, int pooledWidth, int hidden) {
    this.config = config;
    this.hidden = hidden;
    mean = Linear.xavier(parameters.under("mean"), pooledWidth, config.size());
    logVar = Linear.xavier(parameters.under("log_var"), pooledWidth, config.size());
    memory =
        config.slots() == 1
            ? Linear.fused(parameters.under("memory"), config.width(), hidden, config.memorySlots(), 1)
            : Linear.xavier(parameters.under("memory"), config.width(), hidden);
  }

  /** [B, slots * width]. */
  Tensor mean(Tensor pooled) {
    return mean.apply(pooled);
  }

  /** [B, slots * width]. */
  Tensor logVar(Tensor pooled) {
    return logVar.apply(pooled);
  }

  /** A sample, with dropout in training; the mean itself otherwise. */
  Tensor sample(Tensor mean, Tensor logVar, Regularize regularize) {
    if (!regularize.training()) {
      return mean;
    }
    return regularize.dropout(Reparameterize.apply(mean, logVar, regularize.seed(), SAMPLE_OFFSET), config.dropout());
  }

  /** [B, memorySlots, hidden] of a latent [B, slots * width]. */
  Tensor memory(Tensor latent) {
    Tensor slots = config.slots() == 1 ? latent : latent.view(-1, config.slots(), config.width());
    return memory.apply(slots).view(-1, config.memorySlots(), hidden);
  }
}

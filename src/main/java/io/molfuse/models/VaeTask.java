// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.GraphBatch;
import io.molfuse.ops.VaeLoss;
import io.molfuse.train.Losses;
import io.molfuse.train.ParameterSet;
import io.molfuse.train.TrainingTask;
import org.bytedeco.pytorch.Scalar;

/** Training of a molecular VAE. Reports total_loss, recon_loss, kl_loss, perplexity and token_accuracy. */
public final class VaeTask implements TrainingTask<GraphBatch> {
  private final MolecularVae model;
  private final double beta;

  /**
   * A task.
   *
   * @param model stays the caller's
   * @param beta weight of the Kullback-Leibler term
   */
  public VaeTask(MolecularVae model, double beta) {
    if (!(beta >= 0) || Double.isInfinite(beta)) {
      throw new IllegalArgumentException("beta must be at least 0, but is " + beta);
    }
    this.model = model;
    this.beta = beta;
  }

  @Override
  public ParameterSet parameters() {
    return model.parameters();
  }

  @Override
  public Losses train(GraphBatch batch, long seed) {
    return losses(model.loss(VaeBatch.of(batch, model.device()), beta, seed));
  }

  @Override
  public Losses evaluate(GraphBatch batch, long seed) {
    return losses(model.evaluate(VaeBatch.of(batch, model.device()), beta));
  }

  @Override
  public int samples(GraphBatch batch) {
    return batch.size();
  }

  /** @return this task for batches that are on their way to the model's device; each is closed when it was used */
  public TrainingTask<StagedBatch> staged() {
    return new TrainingTask<>() {
      @Override
      public ParameterSet parameters() {
        return model.parameters();
      }

      @Override
      public Losses train(StagedBatch batch, long seed) {
        try (batch) {
          return losses(model.loss(VaeBatch.of(batch.transfer().take()), beta, seed));
        }
      }

      @Override
      public Losses evaluate(StagedBatch batch, long seed) {
        try (batch) {
          return losses(model.evaluate(VaeBatch.of(batch.transfer().take()), beta));
        }
      }

      @Override
      public int samples(StagedBatch batch) {
        return batch.size();
      }
    };
  }

  private static Losses losses(VaeLoss.Result loss) {
    return new Losses(loss.total())
        .with("recon_loss", loss.recon())
        .with("kl_loss", loss.kl())
        .with("perplexity", loss.perplexity())
        .with("token_accuracy", loss.correct().div(loss.tokenCount().add(new Scalar(1e-8))));
  }
}

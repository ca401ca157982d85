// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.GraphBatch;
import io.molfuse.ops.VaeLoss;
import io.molfuse.train.Losses;
import io.molfuse.train.ParameterSet;
import io.molfuse.train.TrainingTask;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.global.torch;

/** Training of a molecular VAE. Reports total_loss, recon_loss, kl_loss, beta, perplexity and token_accuracy. */
public final class VaeTask implements TrainingTask<GraphBatch> {
  private final MolecularVae model;
  private final KlTerm term;
  private double beta;

  /**
   * A task.
   *
   * @param model stays the caller's
   * @param beta weight of the Kullback-Leibler term
   */
  public VaeTask(MolecularVae model, double beta) {
    this(model, KlTerm.of(beta));
  }

  /**
   * A task.
   *
   * @param model stays the caller's
   * @param term how the Kullback-Leibler term counts
   */
  public VaeTask(MolecularVae model, KlTerm term) {
    this.model = model;
    this.term = term;
    begin(0);
  }

  @Override
  public void begin(long step) {
    beta = term.beta() * term.schedule().factor(step);
  }

  @Override
  public ParameterSet parameters() {
    return model.parameters();
  }

  @Override
  public Losses train(GraphBatch batch, long seed) {
    return training(VaeBatch.of(batch, model.device()), seed);
  }

  @Override
  public Losses evaluate(GraphBatch batch, long seed) {
    return evaluation(VaeBatch.of(batch, model.device()));
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
      public void begin(long step) {
        VaeTask.this.begin(step);
      }

      @Override
      public Losses train(StagedBatch batch, long seed) {
        try (batch) {
          return training(VaeBatch.of(batch.transfer().take()), seed);
        }
      }

      @Override
      public Losses evaluate(StagedBatch batch, long seed) {
        try (batch) {
          return evaluation(VaeBatch.of(batch.transfer().take()));
        }
      }

      @Override
      public int samples(StagedBatch batch) {
        return batch.size();
      }
    };
  }

  private Losses training(VaeBatch batch, long seed) {
    return losses(model.loss(batch, beta, term.freeBits(), seed), beta);
  }

  /** At the full weight: losses of different steps could not be compared otherwise. */
  private Losses evaluation(VaeBatch batch) {
    return losses(model.evaluate(batch, term.beta(), term.freeBits()), term.beta());
  }

  private static Losses losses(MolecularVae.Loss loss, double beta) {
    VaeLoss.Result parts = loss.parts();
    return new Losses(loss.total())
        .with("recon_loss", parts.recon())
        .with("kl_loss", parts.kl())
        .with("beta", torch.full(new long[0], new Scalar(beta), parts.kl().options()))
        .with("perplexity", parts.perplexity())
        .with("token_accuracy", parts.correct().div(parts.tokenCount().add(new Scalar(1e-8))));
  }
}

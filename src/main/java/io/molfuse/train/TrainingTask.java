// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/**
 * What a {@link Trainer} trains.
 *
 * @param <B> a batch, as Java data or on its way to the device; the task makes tensors of it within the step's scope
 */
public interface TrainingTask<B> {
  /** @return the parameters to train; the same set all the time */
  ParameterSet parameters();

  /**
   * Tells of an optimiser step before its batches, for what changes with the steps. Does nothing unless overridden.
   *
   * @param step optimiser steps done before it, those of earlier sittings of a resumed run included
   */
  default void begin(long step) {}

  /**
   * The loss of one batch with the model in training mode.
   *
   * @param batch the batch
   * @param seed decides all randomness of this call
   * @return the losses; their tensors belong to the caller's scope
   */
  Losses train(B batch, long seed);

  /**
   * The loss of one batch with the model in evaluation mode. Called without gradients.
   *
   * @param batch the batch
   * @param seed decides all randomness of this call
   * @return the losses; their tensors belong to the caller's scope
   */
  Losses evaluate(B batch, long seed);

  /**
   * The number of samples in a batch.
   *
   * @param batch the batch
   * @return at least 1
   */
  int samples(B batch);
}

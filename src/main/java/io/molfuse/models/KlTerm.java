// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

/**
 * How the Kullback-Leibler term counts.
 *
 * @param beta its full weight, which validation always has
 * @param schedule the course of the weight in training
 * @param freeBits what each latent dimension may have of it without cost, in nats; see {@link MolecularVae#loss(VaeBatch, double, double, long)}
 */
public record KlTerm(double beta, KlSchedule schedule, double freeBits) {
  /** Checks the values. */
  public KlTerm {
    if (!(beta >= 0) || Double.isInfinite(beta)) {
      throw new IllegalArgumentException("beta must be at least 0, but is " + beta);
    }
    if (!(freeBits >= 0) || Double.isInfinite(freeBits)) {
      throw new IllegalArgumentException("free_bits must be at least 0, but is " + freeBits);
    }
  }

  /**
   * One weight all the time.
   *
   * @param beta the weight
   * @return the term
   */
  public static KlTerm of(double beta) {
    return new KlTerm(beta, KlSchedule.FULL, 0);
  }
}

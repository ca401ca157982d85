// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/** What a training loop would gain from first. */
public enum Bottleneck {
  /** Nothing was measured. */
  UNKNOWN("nothing was measured yet"),
  /** The loop waits for batches. */
  INPUT_BOUND("the loop waits for batches: use more workers, a faster data set, or samples prepared in advance"),
  /** Copies to the device take longer than what is done with them. */
  TRANSFER_BOUND("copies to the device take longest: use a staging ring, smaller element types, or keep data on the device"),
  /** The device is busy. */
  COMPUTE_BOUND("the device is busy with the model: use lower precision, larger batches, or fused operators");

  private static final double WAITING = 0.2;

  private final String hint;

  Bottleneck(String hint) {
    this.hint = hint;
  }

  /** @return what it means and what to try, in English */
  public String hint() {
    return hint;
  }

  /**
   * Judges mean times of a step in one unit. Copies and batches are made beside the model, so that times may add up to more than a step.
   *
   * @param step from the end of one step to the end of the next
   * @param load waiting for batches
   * @param transfer copying to the device
   * @param compute forward, backward and optimiser
   * @return copies, if they take longer than the model and than the wait for batches, which includes waiting for copies; else batches,
   *     if the wait for them is a fifth of the time; else the model
   */
  public static Bottleneck of(double step, double load, double transfer, double compute) {
    if (!(step > 0)) {
      return UNKNOWN;
    }
    if (transfer > compute && transfer >= load) {
      return TRANSFER_BOUND;
    }
    return load >= WAITING * step ? INPUT_BOUND : COMPUTE_BOUND;
  }
}

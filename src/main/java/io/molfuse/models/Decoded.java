// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

/**
 * A sequence that was decoded from a latent.
 *
 * @param tokens its symbols' numbers, without {@code <sos>} and {@code <eos>}; not copied
 * @param ended whether it came to its {@code <eos>}; else it was cut at the model's maximum length
 * @param selfies the symbols as text
 * @param logProbability natural logarithm of the sequence's probability, {@code <eos>} included where it ended, at temperature 1 and
 *     among the tokens that may be drawn
 */
public record Decoded(int[] tokens, boolean ended, String selfies, double logProbability) {}

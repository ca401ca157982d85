// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.MolecularProperty;
import io.molfuse.chem.Vocabulary;
import io.molfuse.train.Seeds;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Consumer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;

/**
 * Writes molecules: latents from the prior or from the caller, decoded in batches with a key/value cache. Sequences that
 * have ended leave their batch.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class Generator {
  private static final int BATCH = 64;

  private final MolecularVae model;
  private final Vocabulary vocabulary;
  private final int maxLength;
  private int batch = BATCH;
  private boolean cached = true;
  private float[] condition;

  /**
   * A generator that stays within the model's own maximum length.
   *
   * @param model stays the caller's
   * @param vocabulary the one the model was trained with
   */
  public Generator(MolecularVae model, Vocabulary vocabulary) {
    if (vocabulary.size() != model.vocabularySize()) {
      throw new IllegalArgumentException(
          "vocabulary must have the model's " + model.vocabularySize() + " tokens, but has " + vocabulary.size());
    }
    this.model = model;
    this.vocabulary = vocabulary;
    maxLength = model.config().decoder().maxLength();
    condition = model.condition(Map.of());
  }

  /**
   * Asks for molecules with certain properties; none unless set.
   *
   * @param wanted in the properties' units; the model's other properties are left open
   * @return this
   * @throws IllegalArgumentException if the model has no such condition
   */
  public Generator condition(Map<MolecularProperty, Double> wanted) {
    condition = model.condition(wanted);
    return this;
  }

  /**
   * How many sequences are decoded together; 64 unless set.
   *
   * @param sequences at least 1
   * @return this
   */
  public Generator batch(int sequences) {
    if (sequences < 1) {
      throw new IllegalArgumentException("batch must be at least 1, but is " + sequences);
    }
    batch = sequences;
    return this;
  }

  /**
   * Whether keys and values of earlier positions are kept instead of computed again at each; on unless set. The molecules are the same:
   * without is for measuring what it gains.
   *
   * @param on whether
   * @return this
   */
  public Generator cached(boolean on) {
    cached = on;
    return this;
  }

  /**
   * Molecules with latents drawn from the prior.
   *
   * @param count how many
   * @param options how tokens are drawn
   * @return SELFIES
   */
  public List<String> sample(int count, GenerationOptions options) {
    List<String> molecules = new ArrayList<>();
    sample(count, options, molecules::addAll);
    return molecules;
  }

  /**
   * As {@link #sample(int, GenerationOptions)}, batch by batch.
   *
   * @param count how many
   * @param options how tokens are drawn
   * @param batches takes the SELFIES of each batch as soon as they are there, in order
   */
  public void sample(int count, GenerationOptions options, Consumer<List<String>> batches) {
    if (count < 0) {
      throw new IllegalArgumentException("count must be at least 0, but is " + count);
    }
    int size = model.config().latent().size();
    int most = batch(options);
    for (int first = 0; first < count; first += most) {
      int rows = Math.min(most, count - first);
      Random[] random = new Random[rows];
      float[] latents = new float[rows * size];
      for (int row = 0; row < rows; row++) {
        random[row] = new Random(Seeds.mix(options.seed(), first + row));
        for (int i = 0; i < size; i++) {
          latents[row * size + i] = (float) random[row].nextGaussian();
        }
      }
      batches.accept(selfies(List.of(decode(latents, random, options))));
    }
  }

  /**
   * The molecules that latents stand for.
   *
   * @param latents [B, slots * width] row by row
   * @param options how tokens are drawn
   * @return SELFIES, one a row
   */
  public List<String> decode(float[] latents, GenerationOptions options) {
    return selfies(decodeScored(latents, options));
  }

  /**
   * The sequences that latents stand for, with their probabilities.
   *
   * @param latents [B, slots * width] row by row
   * @param options how tokens are drawn
   * @return one a row
   */
  public List<Decoded> decodeScored(float[] latents, GenerationOptions options) {
    int size = model.config().latent().size();
    if (latents.length % size != 0) {
      throw new IllegalArgumentException(
          "latents must hold rows of " + size + " numbers, but holds " + latents.length + " numbers");
    }
    List<Decoded> molecules = new ArrayList<>();
    int most = batch(options);
    for (int first = 0; first < latents.length / size; first += most) {
      int rows = Math.min(most, latents.length / size - first);
      Random[] random = new Random[rows];
      for (int row = 0; row < rows; row++) {
        random[row] = new Random(Seeds.mix(options.seed(), first + row));
      }
      molecules.addAll(List.of(decode(Arrays.copyOfRange(latents, first * size, (first + rows) * size), random, options)));
    }
    return molecules;
  }

  private Decoded[] decode(float[] latents, Random[] random, GenerationOptions options) {
    int rows = random.length;
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      Tensor rowsOfLatents = Tensors.floats(model.device(), latents, rows, model.config().latent().size());
      Tensor wanted = conditions(rows);
      try (TokenLogits logits =
          cached ? new CachedLogits(model, rowsOfLatents, wanted, maxLength) : new PrefixLogits(model, rowsOfLatents, wanted)) {
        Decoding decoding = new Decoding(vocabulary, maxLength);
        return options.beam() > 0 ? decoding.beam(logits, rows, options.beam()) : decoding.draw(logits, random, options);
      }
    }
  }

  /** Molecules decoded together: a beam counts for as many as it is wide. */
  private int batch(GenerationOptions options) {
    return Math.max(1, batch / Math.max(1, options.beam()));
  }

  private static List<String> selfies(List<Decoded> decoded) {
    return decoded.stream().map(Decoded::selfies).toList();
  }

  /** The condition for each of so many rows; null without conditions. */
  private Tensor conditions(int rows) {
    if (condition.length == 0) {
      return null;
    }
    float[] values = new float[rows * condition.length];
    for (int row = 0; row < rows; row++) {
      System.arraycopy(condition, 0, values, row * condition.length, condition.length);
    }
    return Tensors.floats(model.device(), values, rows, condition.length);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.MoleculeDataset;
import java.util.Arrays;
import java.util.Random;
import java.util.function.IntConsumer;
import org.bytedeco.javacpp.PointerScope;

/**
 * How a model uses its latent space, over n molecules; d is slots * width. Arrays are not copied.
 *
 * @param count n
 * @param mean [d] mean of the latent means
 * @param variance [d] their variance (divided by n)
 * @param posteriorVariance [d] mean of exp(log_var), log_var clamped to -20..10 as in training
 * @param kl [d] mean of the Kullback-Leibler divergence from the prior, in nats: (mean^2 + var - 1 - ln var) / 2
 * @param activeUnits dimensions with a variance of the means above {@value #ACTIVE} (Burda et al. 2016)
 * @param projection [n,2] row by row: the latent means minus their mean, along the two directions of largest variance
 * @param explained [2] share of the means' whole variance along each of them; 0 where there is none
 */
@SuppressWarnings("try") // A scope does its work by being open.
public record LatentStatistics(
    int count,
    double[] mean,
    double[] variance,
    double[] posteriorVariance,
    double[] kl,
    int activeUnits,
    double[] projection,
    double[] explained) {

  /** Least variance of the means of a dimension in use. */
  public static final double ACTIVE = 0.01;

  private static final int BATCH = 64;
  private static final double MIN_LOG_VAR = -20;
  private static final double MAX_LOG_VAR = 10;
  private static final int MOST_ITERATIONS = 300;
  private static final double CONVERGED = 1e-9;

  /**
   * Encodes molecules.
   *
   * @param model the model
   * @param dataset molecules
   * @param entries which of them; at least one
   * @param progress takes the number of molecules done, now and then
   * @return the statistics
   */
  public static LatentStatistics measure(MolecularVae model, MoleculeDataset dataset, int[] entries, IntConsumer progress) {
    int size = model.config().latent().size();
    float[] means = new float[Math.multiplyExact(entries.length, size)];
    float[] logVars = new float[means.length];
    for (int first = 0; first < entries.length; first += BATCH) {
      int[] batch = Arrays.copyOfRange(entries, first, Math.min(entries.length, first + BATCH));
      try (PointerScope scope = new PointerScope()) {
        MolecularVae.Posterior posterior = model.posterior(VaeBatch.of(dataset.collate(batch), model.device()));
        System.arraycopy(Tensors.toFloats(posterior.mean()), 0, means, first * size, batch.length * size);
        System.arraycopy(Tensors.toFloats(posterior.logVar()), 0, logVars, first * size, batch.length * size);
      }
      progress.accept(first + batch.length);
    }
    return of(means, logVars, size);
  }

  /**
   * The statistics of Gaussians.
   *
   * @param means [n,d] row by row
   * @param logVars [n,d] row by row
   * @param size d
   * @return the statistics
   */
  public static LatentStatistics of(float[] means, float[] logVars, int size) {
    if (size < 1 || means.length == 0 || means.length % size != 0 || logVars.length != means.length) {
      throw new IllegalArgumentException(
          "means and logVars must hold the same number of rows of size " + size + ", but hold " + means.length + " and " + logVars.length);
    }
    int count = means.length / size;
    double[] mean = new double[size];
    double[] posterior = new double[size];
    double[] kl = new double[size];
    for (int i = 0; i < means.length; i++) {
      double logVar = Math.max(MIN_LOG_VAR, Math.min(MAX_LOG_VAR, logVars[i]));
      double deviation = Math.exp(logVar);
      mean[i % size] += means[i] / (double) count;
      posterior[i % size] += deviation / count;
      kl[i % size] += ((double) means[i] * means[i] + deviation - 1 - logVar) / (2.0 * count);
    }
    double[] variance = new double[size];
    for (int i = 0; i < means.length; i++) {
      double difference = means[i] - mean[i % size];
      variance[i % size] += difference * difference / count;
    }
    int active = (int) Arrays.stream(variance).filter(value -> value > ACTIVE).count();
    double[] explained = new double[2];
    double[] projection = project(means, mean, size, Arrays.stream(variance).sum(), explained);
    return new LatentStatistics(count, mean, variance, posterior, kl, active, projection, explained);
  }

  /** @return the mean Kullback-Leibler divergence of a molecule, summed over its dimensions, in nats */
  public double totalKl() {
    return Arrays.stream(kl).sum();
  }

  /** Principal components by power iteration, the second in what the first leaves; their signs make the largest coefficient positive. */
  private static double[] project(float[] means, double[] mean, int size, double whole, double[] explained) {
    int count = means.length / size;
    double[] projection = new double[2 * count];
    double[] first = null;
    for (int component = 0; component < 2; component++) {
      double[] direction = direction(means, mean, size, first);
      if (direction == null) {
        break;
      }
      double variance = 0;
      for (int row = 0; row < count; row++) {
        double along = along(means, mean, row, direction);
        projection[2 * row + component] = along;
        variance += along * along / count;
      }
      explained[component] = whole == 0 ? 0 : variance / whole;
      first = direction;
    }
    return projection;
  }

  private static double[] direction(float[] means, double[] mean, int size, double[] other) {
    Random random = new Random(1);
    double[] direction = random.doubles(size, -1, 1).toArray();
    if (!normalise(direction, other)) {
      return null;
    }
    for (int iteration = 0; iteration < MOST_ITERATIONS; iteration++) {
      double[] next = new double[size];
      for (int row = 0; row < means.length / size; row++) {
        double along = along(means, mean, row, direction);
        for (int i = 0; i < size; i++) {
          next[i] += along * (means[row * size + i] - mean[i]);
        }
      }
      if (!normalise(next, other)) {
        return null;
      }
      double cosine = dot(next, direction);
      direction = next;
      if (1 - cosine < CONVERGED) {
        break;
      }
    }
    double largest = 0;
    for (double value : direction) {
      largest = Math.abs(value) > Math.abs(largest) ? value : largest;
    }
    if (largest < 0) {
      for (int i = 0; i < size; i++) {
        direction[i] = -direction[i];
      }
    }
    return direction;
  }

  /** Takes the other direction out and brings the length to 1; false if nothing is left. */
  private static boolean normalise(double[] direction, double[] other) {
    double before = Math.sqrt(dot(direction, direction));
    if (other != null) {
      double along = dot(direction, other);
      for (int i = 0; i < direction.length; i++) {
        direction[i] -= along * other[i];
      }
    }
    double length = Math.sqrt(dot(direction, direction));
    if (!(length > 1e-12 * before) || length == 0) {
      return false;
    }
    for (int i = 0; i < direction.length; i++) {
      direction[i] /= length;
    }
    return true;
  }

  private static double along(float[] means, double[] mean, int row, double[] direction) {
    double sum = 0;
    for (int i = 0; i < direction.length; i++) {
      sum += (means[row * direction.length + i] - mean[i]) * direction[i];
    }
    return sum;
  }

  private static double dot(double[] a, double[] b) {
    double sum = 0;
    for (int i = 0; i < a.length; i++) {
      sum += a[i] * b[i];
    }
    return sum;
  }
}

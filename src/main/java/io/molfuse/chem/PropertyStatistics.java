// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;

/**
 * How a property is distributed over molecules.
 *
 * @param property of which
 * @param mean in its unit
 * @param deviation standard deviation; 1 if all molecules have one value, so that it can always be divided by
 * @param low value that one molecule in a hundred is below
 * @param high value that one molecule in a hundred is above
 */
public record PropertyStatistics(MolecularProperty property, double mean, double deviation, double low, double high) {
  private static final double TAIL = 0.01;

  /**
   * The distribution of values.
   *
   * @param property of which
   * @param values of molecules; those that are not finite do not count
   * @return the distribution
   * @throws IllegalArgumentException if none counts
   */
  public static PropertyStatistics of(MolecularProperty property, float[] values) {
    double[] sorted = new double[values.length];
    int count = 0;
    for (float value : values) {
      if (Float.isFinite(value)) {
        sorted[count++] = value;
      }
    }
    if (count == 0) {
      throw new IllegalArgumentException("no molecule has a value of " + property.label());
    }
    sorted = Arrays.copyOf(sorted, count);
    Arrays.sort(sorted);
    double mean = Arrays.stream(sorted).average().orElseThrow();
    double variance = Arrays.stream(sorted).map(value -> (value - mean) * (value - mean)).average().orElseThrow();
    double deviation = sorted[0] == sorted[count - 1] ? 1 : Math.sqrt(variance);
    return new PropertyStatistics(property, mean, deviation, quantile(sorted, TAIL), quantile(sorted, 1 - TAIL));
  }

  /** Between the two nearest values, in proportion. */
  private static double quantile(double[] sorted, double share) {
    double place = share * (sorted.length - 1);
    int below = (int) place;
    int above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
  }

  /**
   * Whether molecules like that were seen.
   *
   * @param value in the property's unit
   * @return whether it is within low and high
   */
  public boolean covers(double value) {
    return value >= low && value <= high;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeMap;

/** Counts of numbers in bins of one width, bin k from k times the width on. */
final class Histogram {
  private final double width;
  private final TreeMap<Long, Long> bins = new TreeMap<>();
  private long count;
  private double sum;
  private double least = Double.POSITIVE_INFINITY;
  private double greatest = Double.NEGATIVE_INFINITY;

  Histogram(double width) {
    this.width = width;
  }

  void add(double value) {
    bins.merge((long) Math.floor(value / width), 1L, Long::sum);
    count++;
    sum += value;
    least = Math.min(least, value);
    greatest = Math.max(greatest, value);
  }

  double width() {
    return width;
  }

  long count() {
    return count;
  }

  double mean() {
    return sum / count;
  }

  double least() {
    return least;
  }

  double greatest() {
    return greatest;
  }

  /** Counts by the number of the bin. */
  TreeMap<Long, Long> bins() {
    return bins;
  }

  /** Mean and range, and the counts by where the bins begin. */
  Map<String, Object> json() {
    Map<String, Object> json = new LinkedHashMap<>();
    if (count > 0) {
      json.put("mean", mean());
      json.put("min", least);
      json.put("max", greatest);
    }
    json.put("bin_width", width);
    Map<String, Long> counts = new LinkedHashMap<>();
    bins.forEach((bin, number) -> counts.put(String.valueOf(bin * width), number));
    json.put("counts", counts);
    return json;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.util.ArrayList;
import java.util.List;

/** All benchmarks, in the order they are run and shown. */
final class Suites {
  private Suites() {}

  static List<Benchmark> all(Settings settings) {
    List<Benchmark> all = new ArrayList<>(new OperatorSuites(settings).all());
    all.addAll(new StepSuites(settings).all());
    all.addAll(new DataSuites(settings).all());
    all.addAll(new ScalingSuites(settings).all());
    return all;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What one benchmark runs: the ways, interleaved, of doing one thing. Tensors belong to the scope that is open while it is made.
 */
final class Comparison {
  /** Something to let go of at the end. */
  interface Closing {
    void close() throws Exception;
  }

  private final List<Way> ways = new ArrayList<>();
  private final List<Closing> closings = new ArrayList<>();
  private final Map<String, Double> disagreements = new LinkedHashMap<>();
  private final Map<String, String> absent = new LinkedHashMap<>();
  private Cost cost = Cost.NONE;
  private boolean memory;

  Comparison add(Way way) {
    ways.add(way);
    return this;
  }

  /** A way that cannot be run, and why. */
  Comparison absent(String name, String reason) {
    absent.put(name, reason);
    return this;
  }

  /** The cost of one unit of work. */
  Comparison cost(Cost least) {
    cost = least;
    return this;
  }

  /** The largest difference of a peer's numbers from ours, over the largest number. */
  Comparison disagreement(String peer, double value) {
    disagreements.put(peer, value);
    return this;
  }

  /** Asks for the peak memory of a call as well. */
  Comparison measuringMemory() {
    memory = true;
    return this;
  }

  /** Later ones are closed first. */
  <T> T closing(T resource, Closing close) {
    closings.add(0, close);
    return resource;
  }

  List<Way> ways() {
    return ways;
  }

  Map<String, Double> disagreements() {
    return disagreements;
  }

  Map<String, String> absent() {
    return absent;
  }

  Cost cost() {
    return cost;
  }

  boolean memory() {
    return memory;
  }

  /** Lets go of everything. */
  void close() throws Exception {
    for (Closing closing : closings) {
      closing.close();
    }
  }
}

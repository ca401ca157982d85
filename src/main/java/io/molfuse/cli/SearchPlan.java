// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * What a search is to do, kept in its folder so that it can be resumed.
 *
 * @param version of the file
 * @param method random, or halving
 * @param seed decides what is drawn
 * @param trials how many configurations
 * @param eta of so many trials one goes on
 * @param trialSteps most optimiser steps of a trial, 0 if they are not limited by the search
 * @param trialMinutes most minutes of a trial, 0 if they are not limited by the search
 * @param metric the validation value that is compared
 * @param spaceFile name of the space's file
 * @param space its text
 * @param base the configuration that trials vary, as YAML
 */
record SearchPlan(
    @JsonProperty("version") int version,
    @JsonProperty("method") Method method,
    @JsonProperty("seed") long seed,
    @JsonProperty("trials") int trials,
    @JsonProperty("eta") int eta,
    @JsonProperty("trial_steps") long trialSteps,
    @JsonProperty("trial_minutes") double trialMinutes,
    @JsonProperty("metric") String metric,
    @JsonProperty("space_file") String spaceFile,
    @JsonProperty("space") String space,
    @JsonProperty("base") String base) {

  static final String FILE = "search.json";
  static final int VERSION = 1;

  /** Values of which more is better. */
  private static final List<String> RISING = List.of("token_accuracy");

  /** How to search. */
  enum Method {
    @JsonProperty("random")
    RANDOM,
    @JsonProperty("halving")
    HALVING;

    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  /**
   * A round of trials.
   *
   * @param trials how many take part
   * @param steps how far each goes, Long.MAX_VALUE if steps do not limit it
   * @param seconds how long each may train, infinite if time does not limit it
   */
  record Rung(int trials, long steps, double seconds) {}

  /**
   * The rounds. Halving is one bracket of Hyperband (Li et al., JMLR 18 (2018), algorithm 1): with s the whole part of log_eta(trials),
   * round i has trials / eta^i trials, each of which goes on to eta^(i-s) of the most.
   */
  List<Rung> rungs() {
    int last = 0;
    if (method == Method.HALVING) {
      for (long power = eta; power <= trials; power *= eta) {
        last++;
      }
    }
    List<Rung> rungs = new ArrayList<>();
    for (int i = 0; i <= last; i++) {
      double share = Math.pow(eta, i - last);
      rungs.add(
          new Rung(
              (int) (trials / Math.pow(eta, i)),
              trialSteps == 0 ? Long.MAX_VALUE : Math.max(1, Math.round(trialSteps * share)),
              trialMinutes == 0 ? Double.POSITIVE_INFINITY : 60 * trialMinutes * share));
    }
    return rungs;
  }

  boolean rising() {
    return RISING.contains(metric);
  }

  /** Whether one value of the metric is better than another. */
  boolean better(double one, double other) {
    return rising() ? one > other : one < other;
  }

  Setting baseSetting() {
    return YamlSettings.parse(base, new Origin(Origin.Layer.FILE, FILE, 1));
  }

  SearchSpace searchSpace() {
    return SearchSpace.parse(space, spaceFile);
  }
}

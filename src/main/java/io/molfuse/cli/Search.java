// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.train.TrainingState;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;

/** Goes through the rounds of a search, from wherever it stands. */
final class Search {
  /** Why a search ended. */
  enum Ending {
    FINISHED,
    /** Steps or minutes for all trials are used up. */
    BUDGET_USED,
    STOPPED
  }

  /** Sittings that may end without a word before a trial counts as failed, as when the system kills what takes too much memory. */
  private static final int MOST_BEGUN = 3;

  /**
   * What all trials together may use.
   *
   * @param steps optimiser steps
   * @param seconds of training
   */
  record Budget(long steps, double seconds) {
    boolean used(long stepsUsed, double secondsUsed) {
      return stepsUsed >= steps || secondsUsed >= seconds;
    }
  }

  private final SearchPlan plan;
  private final Setting base;
  private final List<SearchTrial> trials;
  private final TrialRun runner;
  private final Budget budget;
  private final BooleanSupplier stopped;
  private final Consumer<SearchTrial> changed;
  private boolean interrupted;

  /**
   * A search.
   *
   * @param plan what to do
   * @param trials how far it is; changed
   * @param runner runs a trial
   * @param budget when to end
   * @param stopped whether someone asked to end
   * @param changed is told of each change of a trial, to keep it
   */
  Search(
      SearchPlan plan, List<SearchTrial> trials, TrialRun runner, Budget budget, BooleanSupplier stopped, Consumer<SearchTrial> changed) {
    this.plan = plan;
    this.base = plan.baseSetting();
    this.trials = trials;
    this.runner = runner;
    this.budget = budget;
    this.stopped = stopped;
    this.changed = changed;
  }

  /** The configuration of a trial. */
  Configuration configuration(SearchTrial trial) {
    Map<String, Setting> values = new LinkedHashMap<>();
    Origin origin = new Origin(Origin.Layer.FILE, SearchResults.DATA, 1);
    trial.settings.forEach((key, text) -> values.put(key, new Setting.Scalar(text, origin)));
    return Configuration.of(SearchSpace.over(base, values));
  }

  /** Runs what there is to run. */
  Ending run() {
    List<SearchPlan.Rung> rungs = plan.rungs();
    List<SearchTrial> taking = trials;
    for (int round = 0; round < rungs.size(); round++) {
      int now = round;
      for (SearchTrial trial : taking) {
        while (trial.values.size() <= round && trial.status != SearchTrial.Status.FAILED) {
          if (interrupted || stopped.getAsBoolean()) {
            return Ending.STOPPED;
          }
          if (!trial.over && used(trial.step, trial.seconds, trial)) {
            return Ending.BUDGET_USED;
          }
          advance(trial, rungs.get(round), round == rungs.size() - 1);
        }
      }
      boolean last = round == rungs.size() - 1;
      int places = last ? trials.size() : rungs.get(round + 1).trials();
      List<SearchTrial> going =
          taking.stream().filter(trial -> trial.values.size() > now).sorted(order(plan, now)).limit(places).toList();
      for (SearchTrial trial : taking) {
        if (!going.contains(trial) && trial.status == SearchTrial.Status.WAITING) {
          trial.status = SearchTrial.Status.DROPPED;
          changed.accept(trial);
        }
      }
      taking = going;
    }
    return Ending.FINISHED;
  }

  /** The best of a round first; of equal ones that with the smaller number. */
  static Comparator<SearchTrial> order(SearchPlan plan, int round) {
    Comparator<SearchTrial> byValue = Comparator.comparingDouble(trial -> trial.values.get(round));
    return (plan.rising() ? byValue.reversed() : byValue).thenComparingInt(trial -> trial.number);
  }

  /** Whether the budget is used when a trial is so far. */
  private boolean used(long step, double seconds, SearchTrial trial) {
    long steps = step;
    double time = seconds;
    for (SearchTrial other : trials) {
      if (other != trial) {
        steps += other.step;
        time += other.seconds;
      }
    }
    return budget.used(steps, time);
  }

  private void advance(SearchTrial trial, SearchPlan.Rung rung, boolean last) {
    if (trial.over) {
      // It has gone as far as it goes, and competes with what it has.
      reached(trial, trial.value(), last);
      return;
    }
    if (!begin(trial)) {
      return;
    }
    TrialRun.Outcome outcome =
        runner.run(
            trial, configuration(trial), state -> reached(rung, state) || used(state.step(), state.elapsedSeconds(), trial));
    trial.begun = 0;
    trial.step = outcome.state().step();
    trial.seconds = outcome.state().elapsedSeconds();
    trial.over = outcome.over();
    interrupted = outcome.stopped();
    if (outcome.failure() != null) {
      trial.status = SearchTrial.Status.FAILED;
      trial.reason = outcome.failure();
    } else if (outcome.value() != null && !outcome.stopped() && (outcome.over() || reached(rung, outcome.state()))) {
      reached(trial, outcome.value(), last);
      return;
    } else {
      trial.status = SearchTrial.Status.UNFINISHED;
    }
    changed.accept(trial);
  }

  /** Notes that a trial begins; false if it was killed too often already. */
  private boolean begin(SearchTrial trial) {
    TrainingState state = runner.state(trial);
    if (state.step() > trial.step) {
      trial.begun = 0;
      trial.step = state.step();
      trial.seconds = state.elapsedSeconds();
    }
    if (trial.begun >= MOST_BEGUN) {
      trial.status = SearchTrial.Status.FAILED;
      trial.over = true;
      trial.reason =
          String.format("its process was killed %d times at step %d, perhaps for taking too much memory", trial.begun, trial.step);
      changed.accept(trial);
      return false;
    }
    trial.begun++;
    trial.status = SearchTrial.Status.RUNNING;
    changed.accept(trial);
    return true;
  }

  private void reached(SearchTrial trial, Double value, boolean last) {
    trial.values.add(value);
    trial.status = last ? SearchTrial.Status.FINISHED : SearchTrial.Status.WAITING;
    changed.accept(trial);
  }

  private static boolean reached(SearchPlan.Rung rung, TrainingState state) {
    return state.step() >= rung.steps() || state.elapsedSeconds() >= rung.seconds();
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.ops.Molfuse;
import io.molfuse.train.RunDirectory;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicBoolean;
import org.bytedeco.pytorch.global.torch.DeviceType;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Trains many configurations, and finds the best. */
@Command(
    name = "search",
    sortOptions = false,
    description = {
      "Searches for the best configuration: draws some from a space of keys and trains each, all of them to the end (random),"
          + " or more and more of the better ones only (halving).",
      "docs/search.md shows a space."
    })
final class SearchCommand implements Callable<Integer> {
  private static final String DEFAULT_OUTPUT = "molfuse-search";
  private static final int MOST_TRIALS = 100_000;

  /** Keys that change what the total loss means, by their beginning. */
  private static final List<String> CHANGE_TOTAL_LOSS = List.of("training.beta", "training.kl", "training.free_bits");

  /** Keys that change what every loss means. */
  private static final List<String> CHANGE_DATA = List.of("data.path", "data.max_vocabulary", "model.decoder.max_length");

  private static final List<String> LIMITS = List.of("training.epochs", "training.max_steps", "training.max_minutes");

  private final Console console;

  @Parameters(
      arity = "0..1",
      paramLabel = "SPACE",
      description = "YAML file: for each key {min, max, log, step} or {choices: [...]}.")
  private Path space;

  @Option(names = "--method", paramLabel = "NAME", description = "random or halving (default: halving).")
  private SearchPlan.Method method;

  @Option(names = "--trials", paramLabel = "N", description = "Configurations to draw (default: 27).")
  private Integer trials;

  @Option(names = "--trial-steps", paramLabel = "N", description = "Optimiser steps of a trial that goes to its end.")
  private Long trialSteps;

  @Option(names = "--trial-minutes", paramLabel = "X", description = "Minutes of training of a trial that goes to its end.")
  private Double trialMinutes;

  @Option(names = "--eta", paramLabel = "N", description = "With halving, one of N trials goes on, for N times as long (default: 3).")
  private Integer eta;

  @Option(
      names = "--metric",
      paramLabel = "NAME",
      description = "Validation value to compare: total_loss, recon_loss, kl_loss, perplexity, token_accuracy (default: total_loss).")
  private String metric;

  @Option(names = "--max-steps", paramLabel = "N", description = "End when all trials together did N steps; may be more with --resume.")
  private Long maxSteps;

  @Option(
      names = "--max-minutes",
      paramLabel = "X",
      description = "End when all trials together trained X minutes; may be more with --resume.")
  private Double maxMinutes;

  @Option(names = "--search-seed", paramLabel = "S", description = "Decides which configurations are drawn (default: 0).")
  private Long seed;

  @Option(names = "--data", paramLabel = "FILE", description = "As for train.")
  private Path data;

  @Option(names = "--preset", paramLabel = "NAME", description = "What trials have but for the space's keys (default: by the machine).")
  private Preset.Name preset;

  @Option(names = "--config", paramLabel = "FILE", description = "As for train.")
  private Path config;

  @Option(names = "--set", paramLabel = "KEY=VALUE", description = "As for train.")
  private List<String> set = List.of();

  @Option(names = "--output", paramLabel = "DIR", description = "Folder for trials and results (default: molfuse-search).")
  private Path output;

  @Option(names = "--resume", paramLabel = "DIR", description = "Go on with the search in this folder: finished trials are not run again.")
  private Path resume;

  @Option(names = "--json", description = "Write one JSON object per change of a trial to standard output, and one at the end.")
  private boolean json;

  @Mixin private DeviceOptions device;
  @Mixin private CommonOptions common;

  SearchCommand(Console console) {
    this.console = console;
  }

  @Override
  public Integer call() {
    checkOptions();
    DeviceType type = device.select();
    if (resume != null && !Files.exists(resume.resolve(SearchPlan.FILE))) {
      throw new FailureException("cannot resume " + resume + ": it holds no search, for it has no file " + SearchPlan.FILE);
    }
    SearchPlan plan =
        resume == null ? plan(type) : SearchResults.load(resume.resolve(SearchPlan.FILE), SearchPlan.class, SearchPlan.VERSION);
    Path folder = resume != null ? resume : output != null ? output : Path.of(DEFAULT_OUTPUT);
    if (resume == null && Files.exists(folder.resolve(SearchPlan.FILE))) {
      throw new FailureException(folder + " holds an earlier search: go on with --resume " + folder + ", or choose another folder");
    }
    plan.searchSpace().check(plan.baseSetting(), plan.seed());
    // Before the folder is made: a space without valid configurations leaves none behind.
    SearchResults results = resume == null ? SearchResults.begin(plan, folder) : SearchResults.read(plan, folder);
    try (RunDirectory directory = RunDirectory.prepare(folder)) {
      if (!directory.tryLock()) {
        throw new FailureException(folder + " is in use by another search");
      }
      SearchResults.write(folder.resolve(SearchPlan.FILE), plan);
      return run(plan, results, folder, type);
    }
  }

  private void checkOptions() {
    above0("--trials", trials);
    above0("--trial-steps", trialSteps);
    above0("--trial-minutes", trialMinutes);
    above0("--max-steps", maxSteps);
    above0("--max-minutes", maxMinutes);
    if (eta != null && eta < 2) {
      throw new UsageException("--eta must be at least 2, but is " + eta);
    }
    if (trials != null && trials > MOST_TRIALS) {
      throw new UsageException("--trials must be at most " + MOST_TRIALS + ", but is " + trials);
    }
    if (resume == null) {
      if (space == null) {
        throw new UsageException("a search needs the file with its space, or --resume");
      }
      if (method != SearchPlan.Method.RANDOM && trialSteps == null && trialMinutes == null) {
        throw new UsageException("halving needs --trial-steps or --trial-minutes");
      }
      return;
    }
    Map<String, Object> kept = new LinkedHashMap<>();
    kept.put("SPACE", space);
    kept.put("--method", method);
    kept.put("--trials", trials);
    kept.put("--trial-steps", trialSteps);
    kept.put("--trial-minutes", trialMinutes);
    kept.put("--eta", eta);
    kept.put("--metric", metric);
    kept.put("--search-seed", seed);
    kept.put("--data", data);
    kept.put("--preset", preset);
    kept.put("--config", config);
    kept.put("--set", set.isEmpty() ? null : set);
    kept.put("--output", output);
    kept.forEach((name, value) -> {
      if (value != null) {
        throw new UsageException(name + " cannot be given with --resume, which keeps the search's own");
      }
    });
  }

  private static void above0(String name, Number value) {
    if (value != null && !(value.doubleValue() > 0 && Double.isFinite(value.doubleValue()))) {
      throw new UsageException(name + " must be above 0, but is " + value);
    }
  }

  private SearchPlan plan(DeviceType type) {
    Overrides overrides = new Overrides();
    if (config != null) {
      overrides.file(config);
    }
    overrides.option("--preset", preset, "preset");
    overrides.option("--data", data == null ? null : data.toAbsolutePath().normalize(), "data.path");
    set.forEach(overrides::set);
    Preset.Name name = SettingBinder.part(Preset.Name.class, Configuration.class, overrides.over(Preset.defaults()), "preset");
    if (name == null) {
      name = Preset.forMachine(Molfuse.capabilities().cpuThreads(), type == DeviceType.CUDA);
    }
    Overrides implied = new Overrides();
    implied.implied("preset", name, "preset");
    if (trialSteps != null || trialMinutes != null) {
      implied.implied("--trial-steps", trialSteps == null ? 0 : trialSteps, "training.max_steps");
      implied.implied("--trial-steps", 0, "training.epochs");
      implied.implied("--trial-minutes", trialMinutes == null ? 0 : trialMinutes, "training.max_minutes");
    }
    Configuration base = Configuration.of(implied.over(overrides.over(Preset.settings(name))));
    SearchSpace keys = SearchSpace.parse(text(space), space.toString());
    String compared = metric == null ? "total_loss" : metric;
    keys.keys().forEach(key -> check(keys, key, compared));
    return new SearchPlan(
        SearchPlan.VERSION,
        method == null ? SearchPlan.Method.HALVING : method,
        seed == null ? 0 : seed,
        trials == null ? 27 : trials,
        eta == null ? 3 : eta,
        trialSteps == null ? 0 : trialSteps,
        trialMinutes == null ? 0 : trialMinutes,
        compared,
        space.toString(),
        text(space),
        base.yaml());
  }

  private void check(SearchSpace keys, String key, String compared) {
    if (LIMITS.contains(key) && (trialSteps != null || trialMinutes != null)) {
      throw keys.origin(key).refusal(key + " cannot be searched together with --trial-steps or --trial-minutes, which set it");
    }
    if (compared.equals("total_loss") && CHANGE_TOTAL_LOSS.stream().anyMatch(key::startsWith)) {
      throw keys.origin(key).refusal(
          key + " changes what total_loss means, so trials cannot be compared by it; give --metric recon_loss or token_accuracy");
    }
    if (CHANGE_DATA.contains(key)) {
      throw keys.origin(key).refusal(key + " changes the data that trials are validated with, so they cannot be compared");
    }
  }

  private static String text(Path file) {
    try {
      return Files.readString(file);
    } catch (NoSuchFileException e) {
      throw new FailureException(file + ": no such file");
    } catch (IOException e) {
      throw new FailureException("cannot read the search space " + file + ": " + e.getMessage());
    }
  }

  private int run(SearchPlan plan, SearchResults results, Path folder, DeviceType type) {
    AtomicBoolean stopped = new AtomicBoolean();
    Search.Budget budget =
        new Search.Budget(maxSteps == null ? Long.MAX_VALUE : maxSteps, maxMinutes == null ? Double.POSITIVE_INFINITY : 60 * maxMinutes);
    TrialRun runner = new TrialRun(plan, folder, type == DeviceType.CUDA ? "cuda" : "cpu");
    Search search = new Search(plan, results.trials(), runner, budget, stopped::get, trial -> changed(plan, results, trial));
    console.say("search     %s over %s: %d trials; output %s", plan.method(), plan.spaceFile(), plan.trials(), folder);
    Runnable before = Shutdown.stopBy(() -> stopped.set(true));
    Search.Ending ending;
    try {
      results.save();
      ending = search.run();
      results.publish(search);
    } finally {
      Shutdown.stopBy(before);
    }
    finish(results, folder, ending);
    return ending == Search.Ending.STOPPED ? Main.INTERRUPTED : results.best() == null ? Main.FAILURE : Main.SUCCESS;
  }

  private void changed(SearchPlan plan, SearchResults results, SearchTrial trial) {
    results.save();
    String status = trial.status.name().toLowerCase(Locale.ROOT);
    String value = trial.value() == null ? "" : ", " + plan.metric() + " " + Html.number(trial.value());
    console.say(
        "trial %d %s: step %d%s%s%s", trial.number, status, trial.step, value, trial.reason == null ? "" : ", " + trial.reason,
        trial.status == SearchTrial.Status.RUNNING ? " " + settings(trial) : "");
    if (json) {
      console.json(trial);
    }
  }

  private static String settings(SearchTrial trial) {
    List<String> texts = new ArrayList<>();
    trial.settings.forEach((key, text) -> texts.add(key + "=" + text));
    return "(" + String.join(" ", texts) + ")";
  }

  private void finish(SearchResults results, Path folder, Search.Ending ending) {
    SearchTrial best = results.best();
    if (json) {
      Map<String, Object> line = new LinkedHashMap<>();
      line.put("event", "finished");
      line.put("ending", ending.name().toLowerCase(Locale.ROOT));
      line.put("best", best);
      console.json(line);
    } else {
      console.out().print(results.table());
      console.flush();
    }
    switch (ending) {
      case STOPPED -> console.say("stopped; go on with: molfuse search --resume %s", folder);
      case BUDGET_USED -> console.say("the budget is used; go on with a larger one: molfuse search --resume %s", folder);
      default -> console.say("all trials are done");
    }
    if (best == null) {
      console.say("no trial has a value yet; %s", folder.resolve(SearchResults.PAGE));
    } else {
      console.say(
          "best is trial %d; train with its configuration: molfuse train --config %s", best.number, folder.resolve(SearchResults.BEST));
    }
  }
}

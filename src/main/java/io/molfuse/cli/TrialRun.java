// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.ChemDataException;
import io.molfuse.models.VaeCheckpoint;
import io.molfuse.ops.MolfuseException;
import io.molfuse.train.CheckpointException;
import io.molfuse.train.RunDirectory;
import io.molfuse.train.TrainingState;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalDouble;
import java.util.function.Predicate;
import picocli.CommandLine;

/** Runs trials as the train command runs, each in its folder, with what they say in a file there. */
final class TrialRun {
  /** The configuration of a trial, which train --config takes. */
  static final String CONFIGURATION = "trial.yaml";

  private static final String LOG = "log.txt";
  private static final String VALIDATION = "validation/";

  /** The value is the best of all, so the number of points does not matter. */
  private static final int POINTS = 100;

  /** Endings of a run that has nothing more to do. */
  private static final List<String> OVER = List.of("finished", "time_up", "early_stopped");

  /**
   * What became of a trial.
   *
   * @param state how far it is
   * @param value best validation so far; null without any
   * @param over whether the run has nothing more to do
   * @param stopped whether someone asked it to stop
   * @param failure why it cannot go on; null if it can
   */
  record Outcome(TrainingState state, Double value, boolean over, boolean stopped, String failure) {}

  private final SearchPlan plan;
  private final Path trials;
  private final String device;

  /**
   * Runs in a search's folder.
   *
   * @param plan of the search
   * @param directory of the search
   * @param device cpu or cuda
   */
  TrialRun(SearchPlan plan, Path directory, String device) {
    this.plan = plan;
    this.trials = directory.resolve("trials");
    this.device = device;
  }

  /** The folder of a trial's run. */
  Path folder(SearchTrial trial) {
    return trials.resolve(String.format("%04d", trial.number));
  }

  /** How far a trial's last checkpoint is. */
  TrainingState state(SearchTrial trial) {
    return RunDirectory.holdsRun(folder(trial)) ? VaeCheckpoint.open(folder(trial), RunDirectory.LAST).state() : TrainingState.START;
  }

  /**
   * Begins a trial or goes on with it.
   *
   * @param trial which
   * @param configuration of it
   * @param pause when it has come far enough
   * @return what became of it
   * @throws RuntimeException what other trials would suffer from, too, such as a full disk
   */
  Outcome run(SearchTrial trial, Configuration configuration, Predicate<TrainingState> pause) {
    Path folder = folder(trial);
    try {
      Files.createDirectories(folder);
      Files.writeString(folder.resolve(CONFIGURATION), configuration.yaml());
      try (OutputStream file = Files.newOutputStream(folder.resolve(LOG), StandardOpenOption.CREATE, StandardOpenOption.APPEND);
          PrintStream log = new PrintStream(file, true, StandardCharsets.UTF_8)) {
        return outcome(trial, folder, execute(folder, new Console(InputStream.nullInputStream(), log, log), pause));
      }
    } catch (IOException e) {
      throw new FailureException("cannot write to " + folder + ": " + e);
    }
  }

  /** Exit code of the train command, and what it failed with or null. */
  private record Exit(int code, Throwable failure) {}

  private Exit execute(Path folder, Console console, Predicate<TrainingState> pause) {
    List<String> args = new ArrayList<>(List.of("--device", device, "--samples", "0"));
    if (RunDirectory.holdsRun(folder)) {
      args.addAll(List.of("--resume", folder.toString()));
    } else {
      args.addAll(List.of("--config", folder.resolve(CONFIGURATION).toString(), "--output", folder.toString()));
    }
    Throwable[] failure = new Throwable[1];
    CommandLine train = new CommandLine(new TrainCommand(console, pause));
    train.setCaseInsensitiveEnumValuesAllowed(true);
    train.setExecutionExceptionHandler(
        (thrown, command, parsed) -> {
          failure[0] = thrown;
          return Main.FAILURE;
        });
    int code;
    try {
      code = train.execute(args.toArray(String[]::new));
    } catch (OutOfMemoryError e) {
      failure[0] = e;
      code = Main.FAILURE;
    }
    if (failure[0] != null) {
      console.say("error: %s", MolfuseException.reason(failure[0]));
    }
    return new Exit(code, failure[0]);
  }

  private Outcome outcome(SearchTrial trial, Path folder, Exit exit) throws IOException {
    RunHistory history = RunHistory.read(folder, POINTS);
    String ending = String.valueOf(history.ending());
    // A run that ended before the search could note it says so when it is resumed.
    boolean over = OVER.contains(ending);
    if (exit.failure() != null && !(over && exit.failure() instanceof FailureException)) {
      return new Outcome(state(trial), null, true, false, reason(exit.failure()));
    }
    List<RunHistory.Point> values = history.curve(VALIDATION + plan.metric());
    boolean stopped = exit.code() == Main.INTERRUPTED;
    if (values.isEmpty() && !stopped) {
      List<String> known =
          history.names().stream()
              .filter(name -> name.startsWith(VALIDATION))
              .map(name -> name.substring(VALIDATION.length()))
              .toList();
      throw new FailureException(
          known.isEmpty()
              ? "a search compares validation values, but the data are too few to keep some for validation"
              : "no validation value is called " + plan.metric() + "; there are " + String.join(", ", known));
    }
    OptionalDouble best =
        plan.rising()
            ? values.stream().mapToDouble(RunHistory.Point::most).max()
            : values.stream().mapToDouble(RunHistory.Point::least).min();
    return new Outcome(state(trial), best.isPresent() ? best.getAsDouble() : null, over, stopped, null);
  }

  /** Why a trial failed, if that is its own affair. */
  private static String reason(Throwable failure) {
    String memory = Main.outOfMemory(failure);
    if (memory != null) {
      return "out of memory: " + MolfuseException.reason(failure).lines().findFirst().orElse("");
    }
    if (failure instanceof FailureException || failure instanceof ChemDataException || failure instanceof CheckpointException) {
      throw (RuntimeException) failure;
    }
    return MolfuseException.reason(failure);
  }
}

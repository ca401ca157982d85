// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.ChemDataException;
import io.molfuse.ops.MolfuseException;
import io.molfuse.train.CheckpointException;
import io.molfuse.train.TrainingException;
import java.io.InputStream;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** The program. */
@Command(
    name = "molfuse",
    description = "Trains molecular variational autoencoders, generates molecules with them, and measures them.",
    mixinStandardHelpOptions = true,
    versionProvider = VersionProvider.class,
    footer = {
      "",
      "Exit codes: 0 success, 1 failure, 2 wrong usage.",
      "Start with: molfuse train   (no arguments: a few minutes on the bundled molecules)"
    })
public final class Main implements Runnable {
  static final int SUCCESS = 0;
  static final int FAILURE = 1;
  static final int USAGE = 2;
  static final int INTERRUPTED = 130;

  /** What libtorch and the C++ library say when memory is short, on the CPU or a GPU. */
  private static final List<String> OUT_OF_MEMORY = List.of("allocate memory", "out of memory", "bad_alloc");

  @Spec private CommandSpec spec;

  private Main() {}

  /**
   * Runs the program and ends the process with its exit code.
   *
   * @param args the command line
   */
  public static void main(String[] args) {
    // Not logback.xml at the jar's root, which would configure the logging of applications that use the library.
    if (System.getProperty("logback.configurationFile") == null) {
      System.setProperty("logback.configurationFile", "io/molfuse/cli/logback.xml");
    }
    // JavaCPP would otherwise refuse to allocate once the process is some multiple of the heap in size.
    if (System.getProperty("org.bytedeco.javacpp.maxPhysicalBytes") == null) {
      System.setProperty("org.bytedeco.javacpp.maxPhysicalBytes", "0");
    }
    Shutdown.install();
    int code = run(args, System.in, System.out, System.err);
    System.out.flush();
    System.err.flush();
    Shutdown.finished();
    System.exit(code);
  }

  /**
   * Runs the program.
   *
   * @param args the command line
   * @param in input
   * @param out results
   * @param err everything else for people
   * @return the exit code
   */
  public static int run(String[] args, InputStream in, PrintStream out, PrintStream err) {
    Console console = new Console(in, out, err);
    CommandLine commandLine =
        new CommandLine(new Main())
            .addSubcommand(new PrepareCommand(console))
            .addSubcommand(new TrainCommand(console))
            .addSubcommand(new SearchCommand(console))
            .addSubcommand(new GenerateCommand(console))
            .addSubcommand(new EvaluateCommand(console))
            .addSubcommand(new SelfiesCommand(console))
            .addSubcommand(new InfoCommand(console));
    commandLine.setOut(new PrintWriter(out, true, StandardCharsets.UTF_8));
    commandLine.setErr(new PrintWriter(err, true, StandardCharsets.UTF_8));
    commandLine.setCaseInsensitiveEnumValuesAllowed(true);
    commandLine.setUsageHelpAutoWidth(true);
    commandLine.setExecutionExceptionHandler(
        (failure, command, parsed) -> fail(failure, verbose(parsed), console));
    int code;
    try {
      code = commandLine.execute(args);
    } catch (RuntimeException | Error failure) {
      // Picocli handles the exceptions of a command, but neither errors nor what --version may throw.
      code = fail(failure, Arrays.asList(args).contains("--verbose"), console);
    }
    if (out.checkError() && code == SUCCESS) {
      console.say("error: cannot write to standard output");
      return FAILURE;
    }
    return code;
  }

  private static int fail(Throwable failure, boolean verbose, Console console) {
    if (verbose) {
      failure.printStackTrace(console.err());
    }
    String memory = outOfMemory(failure);
    if (failure instanceof UsageException) {
      console.say("error: %s", failure.getMessage());
      return USAGE;
    }
    if (memory != null) {
      console.say("error: out of memory: %s", memory);
    } else if (isForTheUser(failure)) {
      console.say("error: %s", MolfuseException.reason(failure));
      if (failure instanceof ChemDataException data && data.report() != null) {
        data.report().examples().forEach(example -> console.say("  %s", example));
      }
    } else {
      console.say(
          "error: %s: %s%s",
          failure.getClass().getSimpleName(),
          MolfuseException.reason(failure),
          verbose ? "" : " (this should not happen; --verbose shows where it comes from)");
    }
    return FAILURE;
  }

  /** What to do about a shortage of memory, or null if that is not what went wrong. */
  static String outOfMemory(Throwable failure) {
    String advice = null;
    for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
      String text = String.valueOf(cause.getMessage()).toLowerCase(Locale.ROOT);
      if (OUT_OF_MEMORY.stream().anyMatch(text::contains)) {
        return "try a smaller --batch-size or --preset";
      }
      if (cause instanceof OutOfMemoryError) {
        advice = "Java may use more with MOLFUSE_JAVA_OPTS=-Xmx8g, say (" + cause.getMessage() + ")";
      }
    }
    return advice;
  }

  private static boolean isForTheUser(Throwable failure) {
    return failure instanceof FailureException
        || failure instanceof ChemDataException
        || failure instanceof CheckpointException
        || failure instanceof TrainingException
        || failure instanceof MolfuseException
        || failure instanceof IllegalArgumentException;
  }

  private static boolean verbose(ParseResult parsed) {
    ParseResult innermost = parsed;
    while (innermost.hasSubcommand()) {
      innermost = innermost.subcommand();
    }
    return innermost.hasMatchedOption("--verbose");
  }

  @Override
  public void run() {
    throw new CommandLine.ParameterException(
        spec.commandLine(), "a command is needed: prepare, train, search, generate, evaluate, selfies or info");
  }
}

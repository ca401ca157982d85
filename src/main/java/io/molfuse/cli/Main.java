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
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** The program. */
@Command(
    name = "molfuse",
    description = "Trains molecular variational autoencoders and generates molecules with them.",
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
            .addSubcommand(new TrainCommand(console))
            .addSubcommand(new GenerateCommand(console))
            .addSubcommand(new SelfiesCommand(console))
            .addSubcommand(new InfoCommand(console));
    commandLine.setOut(new PrintWriter(out, true, StandardCharsets.UTF_8));
    commandLine.setErr(new PrintWriter(err, true, StandardCharsets.UTF_8));
    commandLine.setCaseInsensitiveEnumValuesAllowed(true);
    commandLine.setUsageHelpAutoWidth(true);
    commandLine.setExecutionExceptionHandler(
        (failure, command, parsed) -> fail(failure, parsed, console));
    return commandLine.execute(args);
  }

  private static int fail(Exception failure, ParseResult parsed, Console console) {
    boolean verbose = verbose(parsed);
    if (verbose) {
      failure.printStackTrace(console.err());
    }
    if (failure instanceof UsageException) {
      console.say("error: %s", failure.getMessage());
      return USAGE;
    }
    if (isForTheUser(failure)) {
      console.say("error: %s", failure.getMessage());
    } else {
      console.say(
          "error: %s%s", failure, verbose ? "" : " (this should not happen; --verbose shows where it comes from)");
    }
    return FAILURE;
  }

  private static boolean isForTheUser(Exception failure) {
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
    throw new CommandLine.ParameterException(spec.commandLine(), "a command is needed: train, generate, selfies or info");
  }
}

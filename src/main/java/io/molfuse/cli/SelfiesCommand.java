// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.chem.MoleculeException;
import io.molfuse.chem.Selfies;
import io.molfuse.chem.SelfiesException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Callable;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** SMILES to SELFIES and back. */
@Command(
    name = "selfies",
    description = {
      "Translates SMILES to SELFIES or back, line by line from standard input to standard output.",
      "A line that cannot be translated gives an empty line, a message on standard error, and exit code 1 at the end."
    })
final class SelfiesCommand implements Callable<Integer> {
  /** Lines between looks at whether anyone still reads the results. */
  private static final int CHECK = 1024;

  private final Console console;

  @Mixin private CommonOptions common;

  @ArgGroup(multiplicity = "1")
  private Direction direction;

  private static final class Direction {
    @Option(names = "--encode", required = true, description = "SMILES to SELFIES.")
    private boolean encode;

    @Option(names = "--decode", required = true, description = "SELFIES to SMILES.")
    private boolean decode;
  }

  SelfiesCommand(Console console) {
    this.console = console;
  }

  @Override
  public Integer call() throws IOException {
    Selfies codec = Selfies.standard();
    long number = 0;
    long failures = 0;
    PrintWriter out = new PrintWriter(console.out(), false, StandardCharsets.UTF_8);
    BufferedReader in = new BufferedReader(new InputStreamReader(console.in(), StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      number++;
      String result = "";
      try {
        result = direction.encode ? codec.encode(line.strip()) : codec.decode(line.strip());
      } catch (SelfiesException | MoleculeException | IllegalArgumentException e) {
        failures++;
        console.say("line %d: %s", number, e.getMessage());
      }
      out.println(result);
      if (number % CHECK == 0) {
        console.flush();
      }
    }
    out.flush();
    console.flush();
    return failures == 0 ? Main.SUCCESS : Main.FAILURE;
  }
}

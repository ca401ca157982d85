// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import picocli.CommandLine.Option;

/** Options every command has. */
final class CommonOptions {
  @Option(
      names = {"-h", "--help"},
      usageHelp = true,
      description = "Show this help and exit.")
  private boolean help;

  @Option(names = "--verbose", description = "Show the stack trace of a failure.")
  private boolean verbose;
}

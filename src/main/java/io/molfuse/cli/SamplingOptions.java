// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.models.GenerationOptions;
import picocli.CommandLine.Option;

/** How tokens are chosen. */
final class SamplingOptions {
  @Option(
      names = "--temperature",
      paramLabel = "T",
      description = "Divides the logits; 0 takes the most likely token (default: 1 for molecules drawn from the prior, else 0).")
  private Double temperature;

  @Option(names = "--top-k", paramLabel = "K", description = "Draw from the K most likely tokens only.")
  private Integer topK;

  @Option(
      names = "--top-p",
      paramLabel = "P",
      description = "Draw from the most likely tokens that together have probability P.")
  private Double topP;

  @Option(
      names = "--beam",
      paramLabel = "W",
      description = "Draw no tokens: search for the most likely sequence, keeping W at each step.")
  private Integer beam;

  @Option(
      names = "--seed",
      paramLabel = "S",
      defaultValue = "0",
      description = "The same seed gives the same molecules (default: ${DEFAULT-VALUE}).")
  private long seed;

  long seed() {
    return seed;
  }

  /** @param usual temperature where the user gives none */
  GenerationOptions options(double usual) {
    if (beam != null && (temperature != null || topK != null || topP != null)) {
      throw new UsageException("--beam cannot be given with --temperature, --top-k or --top-p: it draws no tokens");
    }
    if (beam != null && beam < 1) {
      throw new UsageException("--beam must be at least 1, but is " + beam);
    }
    // Cutting the distribution is asking for draws from it.
    double usualTemperature = topK != null || topP != null ? 1 : usual;
    try {
      return new GenerationOptions(
          temperature == null ? usualTemperature : temperature,
          topK == null ? 0 : topK,
          topP == null ? 1 : topP,
          seed,
          beam == null ? 0 : beam);
    } catch (IllegalArgumentException e) {
      throw new UsageException("--" + e.getMessage().replace('_', '-'));
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.ToIntFunction;

/**
 * Processor time of this process, garbage collection with it, for each direction of the SELFIES codec. Started by
 * scripts/chem/bench_selfies.py with a file of SMILES strings and the seconds to measure each; prints names and microseconds a
 * molecule.
 */
public final class SelfiesSpeed {
  private static final int ROUNDS = 5;

  private SelfiesSpeed() {}

  /** @param args file, seconds */
  public static void main(String[] args) throws IOException {
    List<String> smiles = Files.readAllLines(Path.of(args[0]), StandardCharsets.US_ASCII);
    double seconds = Double.parseDouble(args[1]);
    Selfies codec = Selfies.standard();
    List<String> selfies = new ArrayList<>();
    Map<String, Long> counts = new HashMap<>();
    for (String text : smiles) {
      selfies.add(codec.encode(text));
      Selfies.split(selfies.get(selfies.size() - 1)).forEach(symbol -> counts.merge(symbol, 1L, Long::sum));
    }
    Vocabulary vocabulary = Vocabulary.fromCounts(counts, 1024);
    measure("encode", smiles, seconds, text -> codec.encode(text).length());
    measure("decode", selfies, seconds, text -> codec.decode(text).length());
    measure("split", selfies, seconds, text -> Selfies.split(text).size());
    measure("tokenise", selfies, seconds, text -> vocabulary.encode(text, Integer.MAX_VALUE).length);
  }

  private static void measure(String name, List<String> texts, double seconds, ToIntFunction<String> work) {
    // Twice the time first, for the compiler, whose threads count as well.
    round(texts, 2 * seconds, work);
    double best = Double.POSITIVE_INFINITY;
    for (int i = 0; i < ROUNDS; i++) {
      best = Math.min(best, round(texts, seconds / ROUNDS, work));
    }
    System.out.printf(Locale.ROOT, "%s\t%.4f%n", name, best);
  }

  private static double round(List<String> texts, double seconds, ToIntFunction<String> work) {
    long begin = processorTime();
    long passes = 0;
    long sum = 0;
    long used = 0;
    while (used < seconds * 1e9) {
      for (String text : texts) {
        sum += work.applyAsInt(text);
      }
      passes++;
      used = processorTime() - begin;
    }
    if (sum == 0) {
      throw new AssertionError("nothing was translated");
    }
    return used / 1e3 / passes / texts.size();
  }

  private static long processorTime() {
    return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
  }
}

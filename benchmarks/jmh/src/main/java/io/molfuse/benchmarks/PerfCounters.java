// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.infra.BenchmarkParams;
import org.openjdk.jmh.infra.IterationParams;
import org.openjdk.jmh.profile.InternalProfiler;
import org.openjdk.jmh.results.AggregationPolicy;
import org.openjdk.jmh.results.IterationResult;
import org.openjdk.jmh.results.Result;
import org.openjdk.jmh.results.ScalarResult;

/**
 * Counters of the processor and the kernel by `perf stat` on this process, for each call. JMH's own profiler of that kind needs a forked
 * process, in which the ways of a benchmark cannot be told apart.
 */
public final class PerfCounters implements InternalProfiler {
  private static final String PREFIX = "perf.";
  private static final List<String> EVENTS = List.of("cycles", "instructions", "cache-misses", "page-faults", "context-switches");
  private static int skipped;
  private static List<String> counted;

  private Process perf;
  private Path output;

  /** Whether perf is there and may count at least one of the events. */
  static synchronized boolean usable() {
    if (counted == null) {
      counted = new ArrayList<>();
      for (String event : EVENTS) {
        try {
          Process trial = new ProcessBuilder("perf", "stat", "-x,", "-e", event, "-p", pid(), "sleep", "0.01").redirectErrorStream(true).start();
          String said = new String(trial.getInputStream().readAllBytes());
          if (trial.waitFor() == 0 && !said.contains("<not supported>")) {
            counted.add(event);
          }
        } catch (IOException e) {
          break;
        } catch (InterruptedException e) {
          throw new IllegalStateException(e);
        }
      }
    }
    return !counted.isEmpty();
  }

  /** Leaves so many of the next run's iterations alone. */
  static void skip(int iterations) {
    skipped = iterations;
  }

  /** The counters of an iteration. */
  static Map<String, Double> of(IterationResult iteration) {
    Map<String, Double> values = new LinkedHashMap<>();
    iteration.getSecondaryResults().forEach((name, result) -> {
      if (name.startsWith(PREFIX)) {
        values.put(name.substring(PREFIX.length()), result.getScore());
      }
    });
    return values;
  }

  private static String pid() {
    return Long.toString(ProcessHandle.current().pid());
  }

  @Override
  public String getDescription() {
    return "perf stat on this process";
  }

  @Override
  public void beforeIteration(BenchmarkParams benchmark, IterationParams iteration) {
    perf = null;
    if (skipped-- > 0) {
      return;
    }
    try {
      output = Files.createTempFile("molfuse-perf", ".csv");
      perf =
          new ProcessBuilder("perf", "stat", "-x,", "-o", output.toString(), "-e", String.join(",", counted), "-p", pid())
              .redirectErrorStream(true)
              .redirectOutput(ProcessBuilder.Redirect.DISCARD)
              .start();
      // Until it has attached itself.
      Thread.sleep(100);
    } catch (IOException e) {
      throw new IllegalStateException(e);
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  @Override
  public Collection<? extends Result<?>> afterIteration(BenchmarkParams benchmark, IterationParams iteration, IterationResult result) {
    if (perf == null) {
      return List.of();
    }
    List<Result<?>> results = new ArrayList<>();
    try {
      new ProcessBuilder("kill", "-INT", Long.toString(perf.pid())).start().waitFor();
      perf.waitFor(10, TimeUnit.SECONDS);
      for (String line : Files.readAllLines(output)) {
        // value,unit,event,...
        String[] fields = line.split(",");
        if (fields.length > 2 && fields[0].matches("[0-9.]+")) {
          double each = Double.parseDouble(fields[0]) / result.getMetadata().getAllOps();
          results.add(new ScalarResult(PREFIX + fields[2].replaceAll(":.*", ""), each, "#/op", AggregationPolicy.AVG));
        }
      }
      Files.deleteIfExists(output);
    } catch (IOException e) {
      throw new IllegalStateException(e);
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
    return results;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import org.bytedeco.javacpp.PointerScope;
import org.openjdk.jmh.profile.GCProfiler;
import org.openjdk.jmh.results.IterationResult;
import org.openjdk.jmh.results.Result;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import org.openjdk.jmh.runner.options.VerboseMode;

/** Runs one benchmark: JMH for the times, with a raw sample, the median of an iteration's calls, for every way and round. */
final class Measurement {
  private static List<Way> ways = List.of();
  private static int iteration;

  private Measurement() {}

  /** The way that the next iteration calls. */
  static Way nextWay() {
    return ways.get(iteration++ % ways.size());
  }

  /**
   * Times a benchmark.
   *
   * @param timed false to run every way once only, which compares their results
   * @return what results.json has of it
   */
  static Map<String, Object> run(Benchmark benchmark, Settings settings, boolean timed) throws Exception {
    Map<String, Object> row = new LinkedHashMap<>();
    row.put("suite", benchmark.suite());
    row.put("name", benchmark.name());
    row.put("parameters", benchmark.parameters());
    PointerScope[] scope = new PointerScope[1];
    List<Map<String, Object>> results = new ArrayList<>();
    List<Way> chosen = new ArrayList<>();
    double[] round = new double[1];
    Comparison comparison =
        onAThreadOfItsOwn(
            () -> {
              scope[0] = new PointerScope();
              Comparison made = benchmark.make().make();
              for (Way way : made.ways()) {
                way.prepare().run();
                way.call().run();
                long start = System.nanoTime();
                way.call().run();
                double seconds = (System.nanoTime() - start) * 1e-9;
                if (timed && way.role() == Way.Role.PEER && seconds > settings.longestCallSeconds()) {
                  made.absent(way.name(), String.format(Locale.ROOT, "one call takes %.1f s", seconds));
                  continue;
                }
                Map<String, Object> result = new LinkedHashMap<>();
                result.put("name", way.name());
                result.put("role", way.role().name().toLowerCase(Locale.ROOT));
                result.put("units", way.units());
                if (timed && made.memory()) {
                  result.put("extra_mib", ResidentMemory.peakOf(way.call()));
                }
                chosen.add(way);
                results.add(result);
                round[0] += Math.max(seconds, settings.iterationMillis() * 1e-3);
              }
              return made;
            });
    try {
      row.put("cost", Map.of("bytes", comparison.cost().bytes(), "operations", comparison.cost().operations()));
      row.put("disagreement", comparison.disagreements());
      row.put("absent", comparison.absent());
      row.put("ways", results);
      if (timed) {
        time(chosen, settings, settings.rounds(round[0]), results);
      }
    } finally {
      ways = List.of();
      onAThreadOfItsOwn(
          () -> {
            comparison.close();
            scope[0].close();
            return null;
          });
    }
    return row;
  }

  private static void time(List<Way> chosen, Settings settings, int rounds, List<Map<String, Object>> results) throws RunnerException {
    ways = chosen;
    iteration = 0;
    int count = ways.size();
    boolean counting = !settings.quick() && PerfCounters.usable();
    TimeValue time = TimeValue.milliseconds(settings.iterationMillis());
    ChainedOptionsBuilder options =
        new OptionsBuilder()
            .include(Interleaved.class.getName())
            .verbosity(VerboseMode.SILENT)
            .addProfiler(GCProfiler.class)
            .warmupIterations(settings.warmupRounds(rounds) * count)
            .warmupTime(time)
            // Counting disturbs: one more round, whose times are not used.
            .measurementIterations((rounds + (counting ? 1 : 0)) * count)
            .measurementTime(time);
    if (counting) {
      PerfCounters.skip(rounds * count);
      options.addProfiler(PerfCounters.class);
    }
    List<IterationResult> iterations =
        new ArrayList<>(new Runner(options.build()).runSingle().getAggregatedResult().getIterationResults());
    for (int w = 0; w < count; w++) {
      double[] micros = new double[rounds];
      double[] heap = new double[rounds];
      long calls = 0;
      for (int round = 0; round < rounds; round++) {
        IterationResult result = iterations.get(round * count + w);
        Result<?> primary = result.getPrimaryResult();
        micros[round] = primary.getStatistics().getPercentile(50) / ways.get(w).units();
        calls += result.getMetadata().getMeasuredOps();
        Result<?> allocated = result.getSecondaryResults().get("gc.alloc.rate.norm");
        heap[round] = allocated == null ? Double.NaN : allocated.getScore();
      }
      results.get(w).put("samples_us", micros);
      results.get(w).put("calls", calls);
      Arrays.sort(heap);
      if (!Double.isNaN(heap[rounds / 2])) {
        results.get(w).put("heap_bytes_per_call", heap[rounds / 2]);
      }
      if (counting) {
        results.get(w).put("counters_per_call", PerfCounters.of(iterations.get(rounds * count + w)));
      }
    }
  }

  /**
   * OpenMP keeps a pool of threads for every thread that ever used one, until that thread ends; with more threads in all than
   * processors, it lets none of them wait for work by spinning. What is not timed must leave no pool behind.
   */
  static <T> T onAThreadOfItsOwn(Callable<T> body) throws Exception {
    FutureTask<T> task = new FutureTask<>(body);
    Thread thread = new Thread(task, "preparation");
    thread.start();
    thread.join();
    try {
      return task.get();
    } catch (ExecutionException e) {
      if (e.getCause() instanceof Exception cause) {
        throw cause;
      }
      throw e;
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import io.molfuse.ops.Molfuse;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import org.openjdk.jmh.util.Statistics;

/** Runs the workloads and writes what came out: medians, their ratio, the share of the machine's own ceilings, and peak memory. */
public final class Main {
  private Main() {}

  public static void main(String[] args) throws RunnerException, IOException {
    Path output = Path.of("benchmarks/results/cpu");
    boolean quick = false;
    String only = "";
    for (int n = 0; n < args.length; n++) {
      switch (args[n]) {
        case "--output" -> output = Path.of(args[++n]);
        case "--only" -> only = args[++n];
        case "--quick" -> quick = true;
        default -> {
          System.err.println("usage: run [--quick] [--only TEXT] [--output DIR]");
          System.exit(2);
        }
      }
    }
    String wanted = only;
    List<String> names = Arrays.stream(Workloads.names()).filter(name -> name.contains(wanted)).toList();
    Molfuse.load();
    double copy = onAThreadOfItsOwn(Main::copyBandwidth);
    double multiply = onAThreadOfItsOwn(Main::multiplyRate);

    List<Map<String, Object>> rows = new ArrayList<>();
    for (String name : names) {
      Map<String, Object> row = new LinkedHashMap<>();
      row.put("workload", name);
      onAThreadOfItsOwn(() -> {
        try (PointerScope scope = new PointerScope()) {
          Workload work = Workloads.make(name);
          row.put("gradient_disagreement", work.disagreement());
          row.put("molfuse_peak_mib", peakMemory(work, true));
          row.put("libtorch_peak_mib", peakMemory(work, false));
          row.put("least_bytes", work.bytes());
          return row.put("operations", work.operations());
        }
      });
      for (RunResult result : new Runner(new OptionsBuilder()
          .include(OperatorBenchmark.class.getSimpleName())
          .param("workload", name)
          .warmupIterations(2).warmupTime(TimeValue.milliseconds(quick ? 300 : 1000))
          .measurementIterations(quick ? 2 : 5).measurementTime(TimeValue.milliseconds(quick ? 500 : 2000))
          .build()).run()) {
        Statistics samples = result.getPrimaryResult().getStatistics();
        row.put(result.getPrimaryResult().getLabel() + "_ms", samples.getPercentile(50));
        row.put(result.getPrimaryResult().getLabel() + "_fastest_ms", samples.getMin());
      }
      double ours = (double) row.get("molfuse_ms");
      row.put("libtorch_over_molfuse", (double) row.get("libtorch_ms") / ours);
      double floor = Math.max((double) row.get("least_bytes") / copy, (double) row.get("operations") / multiply) * 1e3;
      row.put("floor_ms", floor);
      row.put("share_of_ceiling", floor / ours);
      rows.add(row);
    }

    Map<String, Object> report = new LinkedHashMap<>();
    report.put("command", "benchmarks/run" + (args.length > 2 ? " " + String.join(" ", Arrays.copyOfRange(args, 2, args.length)) : ""));
    report.put("commit", System.getProperty("molfuse.commit", "unknown"));
    report.put("threads", torch.get_num_threads());
    report.put("cpu", cpuName());
    report.put("vector_level", Molfuse.capabilities().cpuVectorLevel());
    report.put("copy_bytes_per_second", copy);
    report.put("f32_matmul_operations_per_second", multiply);
    report.put("rows", rows);
    Files.createDirectories(output);
    new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT).writeValue(output.resolve("operators.json").toFile(), report);
    String table = table(report, rows);
    Files.writeString(output.resolve("operators.md"), table);
    System.out.println(table);
  }

  /**
   * OpenMP keeps a pool of threads for every thread that ever used one, until that thread ends; with more threads in all than
   * processors, it lets none of them wait for work by spinning. What is not the benchmark must leave no pool behind.
   */
  private static <T> T onAThreadOfItsOwn(Supplier<T> body) {
    CompletableFuture<T> result = new CompletableFuture<>();
    Thread thread = new Thread(() -> {
      try {
        result.complete(body.get());
      } catch (Throwable failure) {
        result.completeExceptionally(failure);
      }
    });
    thread.start();
    T value = result.join();
    try {
      thread.join();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
    return value;
  }

  private static String table(Map<String, Object> report, List<Map<String, Object>> rows) {
    StringBuilder text = new StringBuilder();
    text.append(String.format(Locale.ROOT,
        "f32, forward and backward, %s threads, %s (%s), `%s` at %s.%n"
            + "Ceilings of the same run: copy %.1f GB/s (read and written), f32 matrix product %.0f GFLOP/s.%n"
            + "Median times in ms. Floor: fewest bytes over copy bandwidth, or operations over the matrix product's rate.%n"
            + "Memory: growth of the resident set's peak over one forward and backward, in MiB.%n%n",
        report.get("threads"), report.get("cpu"), report.get("vector_level"), report.get("command"), report.get("commit"),
        (double) report.get("copy_bytes_per_second") / 1e9, (double) report.get("f32_matmul_operations_per_second") / 1e9));
    text.append("| workload | molfuse | libtorch | ratio | floor | floor / molfuse | memory | libtorch's memory |\n|---|---|---|---|---|---|---|---|\n");
    for (Map<String, Object> row : rows) {
      text.append(String.format(Locale.ROOT, "| %s | %.3f | %.3f | %.2f | %.3f | %.2f | %.1f | %.1f |%n", row.get("workload"),
          row.get("molfuse_ms"), row.get("libtorch_ms"), row.get("libtorch_over_molfuse"), row.get("floor_ms"), row.get("share_of_ceiling"),
          row.get("molfuse_peak_mib"), row.get("libtorch_peak_mib")));
    }
    return text.toString();
  }

  /** Bytes read plus bytes written per second when copying 256 MiB. */
  private static double copyBandwidth() {
    try (PointerScope scope = new PointerScope()) {
      Tensor from = torch.ones(64L << 20);
      Tensor to = torch.zeros(64L << 20);
      double best = 0;
      for (int n = 0; n < 10; n++) {
        long start = System.nanoTime();
        to.copy_(from);
        best = Math.max(best, 2.0 * (256L << 20) / ((System.nanoTime() - start) * 1e-9));
      }
      return best;
    }
  }

  private static double multiplyRate() {
    try (PointerScope scope = new PointerScope()) {
      Tensor a = torch.ones(1024, 1024);
      double best = 0;
      for (int n = 0; n < 10; n++) {
        try (PointerScope inner = new PointerScope()) {
          long start = System.nanoTime();
          a.matmul(a);
          best = Math.max(best, 2.0 * (1L << 30) / ((System.nanoTime() - start) * 1e-9));
        }
      }
      return best;
    }
  }

  /** MiB by which the resident set's peak rises above what was resident before; needs Linux, NaN elsewhere. */
  private static double peakMemory(Workload work, boolean ours) {
    work.run(ours);
    try {
      // What the warm-up freed goes back to the system, or its reuse would hide the need for it.
      Pointer.trimMemory();
      Files.writeString(Path.of("/proc/self/clear_refs"), "5");
      double before = status("VmRSS:");
      work.run(ours);
      return (status("VmHWM:") - before) / 1024;
    } catch (IOException e) {
      return Double.NaN;
    }
  }

  private static double status(String field) throws IOException {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith(field)) {
        return Double.parseDouble(line.substring(field.length()).replace("kB", "").trim());
      }
    }
    throw new IOException("no " + field);
  }

  private static String cpuName() throws IOException {
    try (var lines = Files.lines(Path.of("/proc/cpuinfo"))) {
      return lines.filter(line -> line.startsWith("model name")).map(line -> line.substring(line.indexOf(':') + 1).trim()).findFirst().orElse("unknown");
    }
  }
}

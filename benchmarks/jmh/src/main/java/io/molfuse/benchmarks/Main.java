// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import io.molfuse.ops.Capabilities;
import io.molfuse.ops.Molfuse;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.bytedeco.pytorch.global.torch;

/**
 * Runs the benchmarks and writes what was measured, raw. benchmarks/report makes tables and charts of it; ceilings come from
 * benchmarks/native.
 */
public final class Main {
  /** Version of the file's layout. */
  private static final int FORMAT = 1;

  private Main() {}

  /** @param args see benchmarks/run */
  public static void main(String[] args) throws Exception {
    Path output = null;
    String only = "";
    String backend = "auto";
    boolean quick = false;
    boolean cuda = false;
    boolean check = false;
    boolean list = false;
    for (int n = 0; n < args.length; n++) {
      switch (args[n]) {
        case "--output" -> output = Path.of(args[++n]);
        case "--only" -> only = args[++n];
        case "--backend" -> backend = args[++n];
        case "--device" -> cuda = args[++n].equals("cuda");
        case "--quick" -> quick = true;
        case "--check" -> check = true;
        case "--list" -> list = true;
        default -> throw new IllegalArgumentException("unknown option " + args[n]);
      }
    }
    Molfuse.load();
    Settings settings = new Settings(quick, cuda, backend, torch.get_num_threads(), true);
    settings.apply();
    List<Benchmark> chosen = new ArrayList<>();
    for (Benchmark benchmark : Suites.all(settings)) {
      if (benchmark.label().contains(only) && (benchmark.quick() || !quick)) {
        chosen.add(benchmark);
      }
    }
    if (chosen.isEmpty()) {
      System.err.println("no benchmark is named like \"" + only + "\"; --list shows them");
      System.exit(2);
    }
    if (list) {
      chosen.forEach(benchmark -> System.out.println(benchmark.label()));
      return;
    }
    List<Map<String, Object>> rows = new ArrayList<>();
    for (Benchmark benchmark : chosen) {
      long start = System.nanoTime();
      Map<String, Object> row = Measurement.run(benchmark, settings, !check);
      rows.add(row);
      System.err.printf(
          Locale.ROOT, "%3d/%d %s: %.1f s %s %s%n", rows.size(), chosen.size(), benchmark.label(), (System.nanoTime() - start) * 1e-9,
          row.get("disagreement"), row.get("absent"));
    }
    if (output != null && !check) {
      Map<String, Object> report = report(settings, backend, only);
      report.put("benchmarks", rows);
      new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT).writeValue(output.toFile(), report);
    }
    boolean failed = rows.stream().anyMatch(row -> !((Map<?, ?>) row.get("absent")).isEmpty());
    System.exit(check && failed ? 1 : 0);
  }

  private static Map<String, Object> report(Settings settings, String backend, String only) throws IOException {
    Capabilities capabilities = Molfuse.capabilities();
    Map<String, Object> versions = new LinkedHashMap<>();
    versions.put("molfuse", capabilities.version());
    versions.put("libtorch", capabilities.libtorch());
    versions.put("java", System.getProperty("java.vm.name") + " " + System.getProperty("java.vm.version"));
    versions.put("jmh", org.openjdk.jmh.util.Version.getPlainVersion());
    versions.put("system", System.getProperty("os.name") + " " + System.getProperty("os.arch"));
    Map<String, Object> report = new LinkedHashMap<>();
    report.put("format", FORMAT);
    report.put("command", System.getProperty("molfuse.command", "unknown"));
    report.put("commit", System.getProperty("molfuse.commit", "unknown"));
    report.put("quick", settings.quick());
    report.put("only", only);
    report.put("device", settings.cuda() ? Molfuse.cudaDevice(0).name() : "cpu");
    report.put("backend", settings.cuda() ? backend : capabilities.cpuVectorLevel());
    report.put("cpu", cpuName());
    report.put("threads", settings.threads());
    report.put("versions", versions);
    return report;
  }

  private static String cpuName() throws IOException {
    try (var lines = Files.lines(Path.of("/proc/cpuinfo"))) {
      return lines.filter(line -> line.startsWith("model name")).map(line -> line.substring(line.indexOf(':') + 1).trim()).findFirst().orElse("unknown");
    }
  }
}

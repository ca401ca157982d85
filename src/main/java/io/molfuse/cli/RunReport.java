// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.dataformat.yaml.YAMLFactory;
import io.molfuse.chem.BadRecordReport;
import io.molfuse.chem.GenerationMetrics;
import io.molfuse.chem.MoleculePicture;
import io.molfuse.ops.Capabilities;
import io.molfuse.ops.Molfuse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/** What became of a run, for people as report.html and for programs as report.json, in the run's folder. */
final class RunReport {
  static final String PAGE = "report.html";
  static final String DATA = "report.json";

  /** Of report.json; another one when what is there changes its meaning. */
  static final int VERSION = 1;

  /** Points of a curve. The page of a run however long stays under 2 MB. */
  static final int POINTS = 400;

  private static final int ROWS = 12;
  private static final double MIB = 1 << 20;
  private static final ObjectMapper JSON = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);
  private static final ObjectMapper YAML = new ObjectMapper(new YAMLFactory());

  /** What charts there are: title, unit, factor on the values, then pairs of a curve and its name. */
  private record Figure(String title, String unit, double factor, List<String> curves) {}

  private static final List<Figure> FIGURES =
      List.of(
          losses("Loss", "total_loss"),
          losses("Reconstruction loss", "recon_loss"),
          losses("Kullback-Leibler divergence", "kl_loss"),
          losses("Token accuracy", "token_accuracy"),
          new Figure("Learning rate", "", 1, List.of("learning_rate", "base rate")),
          new Figure("Gradient norm before clipping", "", 1, List.of("train/grad_norm", "gradient norm")),
          new Figure("Throughput", "molecules/s", 1, List.of("molecules_per_second", "training")),
          new Figure(
              "Memory", "MiB", 1 / MIB,
              List.of(
                  "process_memory_bytes", "process", "device_memory_bytes", "device, in use", "device_peak_bytes", "device, most so far")));

  private static Figure losses(String title, String value) {
    return new Figure(title, "", 1, List.of("train/" + value, "training", "validation/" + value, "validation"));
  }

  private final Path run;
  private final Configuration configuration;
  private final Map<String, Object> document = new LinkedHashMap<>();
  private RunHistory history;

  /**
   * A report that nothing is known of yet but what was asked for.
   *
   * @param run the run's folder
   * @param configuration in effect
   */
  RunReport(Path run, Configuration configuration) {
    this.run = run;
    this.configuration = configuration;
  }

  private final Map<String, Object> data = new LinkedHashMap<>();
  private final Map<String, Object> model = new LinkedHashMap<>();
  private GenerationMetrics generated;

  /** Says which molecules were used. */
  RunReport data(TrainingData of, TrainingData.Parts parts) {
    String path = configuration.data().path();
    data.put("path", path == null ? "the bundled molecules" : path);
    data.put("training_molecules", parts.train().size());
    data.put("validation_molecules", parts.validation().size());
    data.put("vocabulary", of.vocabulary().size());
    data.put("fingerprint", of.fingerprint());
    BadRecordReport bad = of.report();
    data.put("records_not_used", bad.total());
    Map<String, Long> reasons = new LinkedHashMap<>();
    bad.counts().forEach((reason, count) -> reasons.put(reason.text(), count));
    data.put("reasons", reasons);
    data.put("examples_not_used", bad.examples().stream().map(BadRecordReport.Example::toString).toList());
    return this;
  }

  /** Says what was trained. */
  RunReport model(long parameters, String precision, String device) {
    model.put("parameters", parameters);
    model.put("precision", precision);
    model.put("device", device);
    return this;
  }

  /** Says what the model generates; null if it was not tried. */
  RunReport generated(GenerationMetrics metrics) {
    generated = metrics;
    return this;
  }

  /**
   * Writes both files.
   *
   * @return the page
   * @throws IOException if one cannot be written or the history cannot be read
   */
  Path write() throws IOException {
    history = RunHistory.read(run, POINTS);
    fill();
    replace(run.resolve(DATA), JSON.writeValueAsBytes(document));
    Path page = run.resolve(PAGE);
    replace(page, Html.page("Training run " + run.toAbsolutePath().normalize().getFileName(), body()).getBytes(StandardCharsets.UTF_8));
    return page;
  }

  /** A reader sees the old file or the new one. */
  static void replace(Path file, byte[] content) throws IOException {
    Path temporary = file.resolveSibling("." + file.getFileName() + ".tmp");
    Files.write(temporary, content);
    Files.move(temporary, file, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
  }

  private void fill() throws IOException {
    document.put("version", VERSION);
    document.put("ending", history.ending());
    document.put("message", history.message());
    document.put("step", history.step());
    document.put("sittings", history.sittings());
    document.put("results", results());
    document.put("data", data);
    document.put("model", model);
    document.put("machine", machine());
    document.put("configuration", YAML.readTree(configuration.yaml()));
    document.put("generated", generated());
    Map<String, Object> curves = new LinkedHashMap<>();
    for (String name : history.names()) {
      curves.put(
          name,
          history.curve(name).stream()
              .map(point -> List.of(digits(point.step()), digits(point.mean()), digits(point.least()), digits(point.most())))
              .toList());
    }
    document.put("curves_have", List.of("step", "mean", "least", "most"));
    document.put("curves", curves);
  }

  /** Six digits: more than a chart shows, and half the length. */
  private static double digits(double value) {
    return Double.parseDouble(String.format(Locale.ROOT, "%.6g", value));
  }

  /** First, last and best of what there are curves of. */
  private Map<String, Object> results() {
    Map<String, Object> results = new LinkedHashMap<>();
    for (String name : history.names()) {
      List<RunHistory.Point> points = history.curve(name);
      Map<String, Object> values = new LinkedHashMap<>();
      values.put("first", points.get(0).mean());
      values.put("last", points.get(points.size() - 1).mean());
      values.put("least", points.stream().mapToDouble(RunHistory.Point::least).min().orElseThrow());
      values.put("most", points.stream().mapToDouble(RunHistory.Point::most).max().orElseThrow());
      results.put(name, values);
    }
    return results;
  }

  static Map<String, Object> machine() {
    Capabilities found = Molfuse.capabilities();
    Map<String, Object> machine = new LinkedHashMap<>();
    machine.put("system", System.getProperty("os.name") + " " + System.getProperty("os.version") + ", " + System.getProperty("os.arch"));
    machine.put("processors", Runtime.getRuntime().availableProcessors());
    machine.put("threads", found.cpuThreads());
    machine.put("vector_level", found.cpuVectorLevel());
    machine.put("gpus", Molfuse.cudaDevices().stream().map(gpu -> gpu.name()).toList());
    machine.put("java", System.getProperty("java.version"));
    machine.put("libtorch", found.libtorch());
    machine.put("molfuse", found.version());
    return machine;
  }

  private Map<String, Object> generated() {
    if (generated == null || generated.generated() == 0) {
      return null;
    }
    Map<String, Object> values = new LinkedHashMap<>();
    values.put("count", generated.generated());
    values.put("validity", JsonSteps.finite(generated.validity()));
    values.put("uniqueness", JsonSteps.finite(generated.uniqueness()));
    values.put("novelty", JsonSteps.finite(generated.novelty()));
    values.put("novel_molecules", generated.novelExamples());
    values.put("valid_molecules", generated.validExamples());
    values.put("invalid", generated.invalidExamples());
    return values;
  }

  private String body() {
    StringBuilder html = new StringBuilder();
    html.append("<p>").append(Html.text(summary())).append("</p>\n");
    if (history.message() != null) {
      html.append("<p class=\"bad\">").append(Html.text(history.message())).append("</p>\n");
    }
    html.append("<h2>Curves</h2>\n");
    if (history.names().isEmpty()) {
      html.append("<p>No step was logged.</p>\n");
    }
    html.append("<div class=\"grid2\">\n");
    FIGURES.forEach(figure -> html.append(figure(figure)));
    html.append("</div>\n");
    html.append("<h2>Generated molecules</h2>\n").append(molecules());
    html.append("<h2>Data</h2>\n").append(Html.table("The molecules of the run.", List.of("item", "value"), rows(data)));
    html.append(examples());
    html.append("<h2>Model and machine</h2>\n<div class=\"grid2\">\n");
    html.append(Html.table("What was trained.", List.of("item", "value"), rows(model)));
    html.append(Html.table("Where the last sitting ran.", List.of("item", "value"), rows(machine()))).append("</div>\n");
    html.append("<h2>Configuration</h2>\n<pre tabindex=\"0\">").append(Html.text(configuration.yaml())).append("</pre>\n");
    return html.toString();
  }

  private String summary() {
    String how =
        switch (history.ending() == null ? "" : history.ending()) {
          case "finished" -> "The run did all its steps";
          case "time_up" -> "The run's time was up";
          case "early_stopped" -> "Validation got no better, so the run ended";
          case "stopped" -> "The run was stopped and can be resumed";
          case "paused" -> "The run paused and can be resumed";
          case "failed" -> "The run failed";
          default -> "The run's end is not known";
        };
    return String.format(
        Locale.ROOT, "%s (%,d steps%s).", how, history.step(), history.sittings() > 1 ? " in " + history.sittings() + " sittings" : "");
  }

  private String figure(Figure figure) {
    List<LineChart.Line> lines = new ArrayList<>();
    for (int i = 0; i < figure.curves().size(); i += 2) {
      List<RunHistory.Point> points = scaled(history.curve(figure.curves().get(i)), figure.factor());
      if (!points.isEmpty()) {
        lines.add(new LineChart.Line(figure.curves().get(i + 1), points));
      }
    }
    if (lines.isEmpty()) {
      return "";
    }
    LineChart chart = new LineChart(figure.title(), figure.unit(), lines);
    String drawn = chart.legend() + chart.svg() + numbers(figure, lines);
    return "<section>\n<h3>" + Html.text(figure.title()) + "</h3>\n" + drawn + "</section>\n";
  }

  private static List<RunHistory.Point> scaled(List<RunHistory.Point> points, double factor) {
    return points.stream()
        .map(point -> new RunHistory.Point(point.step(), factor * point.mean(), factor * point.least(), factor * point.most()))
        .toList();
  }

  private static String numbers(Figure figure, List<LineChart.Line> lines) {
    List<List<String>> rows = new ArrayList<>();
    for (LineChart.Line line : lines) {
      int count = Math.min(ROWS, line.points().size());
      for (int i = 0; i < count; i++) {
        RunHistory.Point point = line.points().get(count == 1 ? 0 : i * (line.points().size() - 1) / (count - 1));
        rows.add(
            List.of(
                Html.number(Math.rint(point.step())), line.name(), Html.number(point.mean()), Html.number(point.least()),
                Html.number(point.most())));
      }
    }
    return "<details><summary>Numbers</summary>\n"
        + Html.table(figure.title() + " at some steps", List.of("step", "of", "mean", "least", "most"), rows)
        + "</details>\n";
  }

  private String molecules() {
    if (generated == null || generated.generated() == 0) {
      return "<p>None were generated" + (generated == null ? ", since the run did not come to its end" : "") + ".</p>\n";
    }
    StringBuilder html = new StringBuilder("<p>");
    html.append(
        String.format(
            Locale.ROOT, "Of %,d: validity %s, uniqueness %s, novelty %s.", generated.generated(), Html.number(generated.validity()),
            Html.number(generated.uniqueness()), Html.number(generated.novelty())));
    boolean novel = !generated.novelExamples().isEmpty();
    List<String> shown = novel ? generated.novelExamples() : generated.validExamples();
    html.append(novel ? " Some that are not among the training molecules:" : "").append("</p>\n<div class=\"tiles\">\n");
    for (String smiles : shown) {
      Optional<String> picture = MoleculePicture.svg(smiles);
      html.append("<figure>");
      String label = "<svg role=\"img\" aria-label=\"" + Html.text("Structure of " + smiles) + "\" ";
      picture.ifPresent(svg -> html.append(svg.replace("<svg ", label)));
      html.append("<figcaption>").append(Html.text(smiles)).append("</figcaption></figure>\n");
    }
    return html.append("</div>\n").toString();
  }

  private String examples() {
    List<?> examples = (List<?>) data.getOrDefault("examples_not_used", List.of());
    if (examples.isEmpty()) {
      return "";
    }
    StringBuilder html = new StringBuilder("<details><summary>Some records that were not used</summary>\n<ul>\n");
    examples.forEach(example -> html.append("<li>").append(Html.text(example.toString())).append("</li>\n"));
    return html.append("</ul></details>\n").toString();
  }

  private static List<List<String>> rows(Map<String, Object> values) {
    List<List<String>> rows = new ArrayList<>();
    values.forEach((name, value) -> {
      if (!name.equals("examples_not_used")) {
        rows.add(List.of(name.replace('_', ' '), words(value)));
      }
    });
    return rows;
  }

  private static String words(Object value) {
    if (value instanceof Map<?, ?> map) {
      List<String> parts = map.entrySet().stream().map(each -> each.getKey() + " " + each.getValue()).toList();
      return parts.isEmpty() ? "none" : String.join(", ", parts);
    }
    if (value instanceof List<?> list) {
      return list.isEmpty() ? "none" : String.join(", ", list.stream().map(Object::toString).toList());
    }
    return value instanceof Number number ? String.format(Locale.ROOT, "%,d", number.longValue()) : String.valueOf(value);
  }
}

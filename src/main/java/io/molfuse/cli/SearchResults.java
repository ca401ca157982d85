// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;

/** The trials of a search in its folder: results.json, from which it is resumed, results.csv, results.html, and the best as best.yaml. */
final class SearchResults {
  static final String DATA = "results.json";
  static final String TABLE = "results.csv";
  static final String PAGE = "results.html";
  static final String BEST = "best.yaml";

  private static final int VERSION = 1;
  private static final ObjectMapper JSON = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

  /** What results.json holds. */
  private record Document(
      @JsonProperty("version") int version,
      @JsonProperty("metric") String metric,
      @JsonProperty("best") Integer best,
      @JsonProperty("trials") List<SearchTrial> trials) {}

  private final SearchPlan plan;
  private final Path directory;
  private final List<SearchTrial> trials;

  private SearchResults(SearchPlan plan, Path directory, List<SearchTrial> trials) {
    this.plan = plan;
    this.directory = directory;
    this.trials = trials;
  }

  /** Begins with the trials of a plan, each with a valid configuration. */
  static SearchResults begin(SearchPlan plan, Path directory) {
    SearchSpace space = plan.searchSpace();
    Setting base = plan.baseSetting();
    List<SearchTrial> trials = new ArrayList<>();
    for (int i = 1; i <= plan.trials(); i++) {
      SearchTrial trial = new SearchTrial();
      trial.number = i;
      trial.settings = space.draw(base, plan.seed(), i);
      trials.add(trial);
    }
    return new SearchResults(plan, directory, trials);
  }

  /** Goes on with what is in a search's folder. */
  static SearchResults read(SearchPlan plan, Path directory) {
    Path file = directory.resolve(DATA);
    if (!Files.exists(file)) {
      // Killed between the two first files.
      return begin(plan, directory);
    }
    return new SearchResults(plan, directory, load(file, Document.class, VERSION).trials());
  }

  /** A file of a search, of the version this program writes. */
  static <T> T load(Path file, Class<T> type, int version) {
    try {
      int written = JSON.readTree(file.toFile()).path("version").asInt();
      if (written != version) {
        throw new FailureException(file + " has version " + written + ", but this program reads version " + version);
      }
      return JSON.readValue(file.toFile(), type);
    } catch (IOException e) {
      throw new FailureException("cannot read " + file + ": " + e.getMessage());
    }
  }

  static void write(Path file, Object value) {
    try {
      RunReport.replace(file, JSON.writeValueAsBytes(value));
    } catch (IOException e) {
      throw new FailureException("cannot write " + file + ": " + e);
    }
  }

  List<SearchTrial> trials() {
    return trials;
  }

  /** The trials, the best first: who came farther, then who is better; then those without a value. */
  List<SearchTrial> ranked() {
    Comparator<Double> better = plan.rising() ? Comparator.reverseOrder() : Comparator.naturalOrder();
    return trials.stream()
        .sorted(
            Comparator.<SearchTrial>comparingInt(trial -> trial.status == SearchTrial.Status.FAILED ? 0 : -trial.values.size())
                .thenComparing(trial -> trial.status == SearchTrial.Status.FAILED ? null : trial.value(), Comparator.nullsLast(better))
                .thenComparingInt(trial -> trial.number))
        .toList();
  }

  /** The best so far, or null. */
  SearchTrial best() {
    SearchTrial first = ranked().get(0);
    return first.value() == null || first.status == SearchTrial.Status.FAILED ? null : first;
  }

  /** Writes what a resumed search needs. */
  void save() {
    SearchTrial best = best();
    write(directory.resolve(DATA), new Document(VERSION, plan.metric(), best == null ? null : best.number, trials));
  }

  /**
   * Writes the tables, and the best configuration if there is one.
   *
   * @param search gives configurations
   */
  void publish(Search search) {
    save();
    try {
      RunReport.replace(directory.resolve(TABLE), csv().getBytes(StandardCharsets.UTF_8));
      RunReport.replace(directory.resolve(PAGE), page().getBytes(StandardCharsets.UTF_8));
      SearchTrial best = best();
      if (best != null) {
        String head =
            String.format(
                Locale.ROOT, "# Trial %d of a search over %d: %s %s after %d steps.%n", best.number, trials.size(), plan.metric(),
                best.value(), best.step);
        RunReport.replace(directory.resolve(BEST), (head + search.configuration(best).yaml()).getBytes(StandardCharsets.UTF_8));
      }
    } catch (IOException e) {
      throw new FailureException("cannot write to " + directory + ": " + e);
    }
  }

  private List<String> head() {
    List<String> head = new ArrayList<>(List.of("trial", "status", "step", "seconds", plan.metric()));
    head.addAll(keys());
    head.add("reason");
    return head;
  }

  private List<String> keys() {
    return List.copyOf(trials.get(0).settings.keySet());
  }

  private List<String> row(SearchTrial trial) {
    List<String> row = new ArrayList<>();
    row.add(Integer.toString(trial.number));
    row.add(trial.status.name().toLowerCase(Locale.ROOT));
    row.add(Long.toString(trial.step));
    row.add(String.format(Locale.ROOT, "%.1f", trial.seconds));
    row.add(trial.value() == null ? "" : Html.number(trial.value()));
    keys().forEach(key -> row.add(text(trial.settings.get(key))));
    row.add(text(trial.reason));
    return row;
  }

  private static String text(String text) {
    return text == null ? "" : text;
  }

  /** For spreadsheets, by RFC 4180. */
  private String csv() {
    StringBuilder csv = new StringBuilder(line(head()));
    for (SearchTrial trial : ranked()) {
      List<String> row = row(trial);
      row.set(4, trial.value() == null ? "" : trial.value().toString());
      csv.append(line(row));
    }
    return csv.toString();
  }

  private static String line(List<String> cells) {
    return cells.stream()
            .map(cell -> cell.matches("[^\",\r\n]*") ? cell : "\"" + cell.replace("\"", "\"\"") + "\"")
            .collect(Collectors.joining(","))
        + "\r\n";
  }

  /** For people, in columns. */
  String table() {
    List<List<String>> rows = new ArrayList<>(List.of(head()));
    ranked().forEach(trial -> rows.add(row(trial)));
    StringBuilder table = new StringBuilder();
    for (List<String> row : rows) {
      StringBuilder line = new StringBuilder();
      for (int i = 0; i < row.size(); i++) {
        int column = i;
        int width = rows.stream().mapToInt(other -> other.get(column).length()).max().orElse(0);
        line.append(String.format("%-" + (width + 2) + "s", row.get(i)));
      }
      table.append(line.toString().stripTrailing()).append('\n');
    }
    return table.toString();
  }

  private String page() {
    StringBuilder html = new StringBuilder();
    SearchTrial best = best();
    html.append("<p>").append(Html.text(summary(best))).append("</p>\n");
    html.append("<h2>Trials</h2>\n");
    List<List<String>> rows = ranked().stream().map(this::row).toList();
    html.append(Html.table("The best first; each trial's own report lies in its folder.", head(), rows));
    html.append(rounds());
    html.append("<h2>Search space</h2>\n<pre tabindex=\"0\">").append(Html.text(plan.space())).append("</pre>\n");
    html.append("<h2>Configuration that trials vary</h2>\n<pre tabindex=\"0\">").append(Html.text(plan.base())).append("</pre>\n");
    return Html.page("Search " + directory.toAbsolutePath().normalize().getFileName(), html.toString());
  }

  private String summary(SearchTrial best) {
    Map<SearchTrial.Status, Long> counts =
        trials.stream().collect(Collectors.groupingBy(trial -> trial.status, LinkedHashMap::new, Collectors.counting()));
    String states =
        counts.entrySet().stream()
            .map(each -> each.getValue() + " " + each.getKey().name().toLowerCase(Locale.ROOT))
            .collect(Collectors.joining(", "));
    return String.format(
        Locale.ROOT, "Method %s, seed %d, %d trials: %s. %s", plan.method(), plan.seed(), trials.size(), states,
        best == null
            ? "None has a value yet."
            : String.format(
                Locale.ROOT, "Trial %d is best, with %s %s after %,d steps; best.yaml has its configuration.", best.number, plan.metric(),
                Html.number(best.value()), best.step));
  }

  /** What each round compared, if there are several. */
  private String rounds() {
    List<SearchPlan.Rung> rungs = plan.rungs();
    if (rungs.size() < 2) {
      return "";
    }
    List<List<String>> rows = new ArrayList<>();
    for (int i = 0; i < rungs.size(); i++) {
      int round = i;
      SearchPlan.Rung rung = rungs.get(i);
      List<SearchTrial> done = trials.stream().filter(trial -> trial.values.size() > round).sorted(Search.order(plan, i)).toList();
      rows.add(
          List.of(
              Integer.toString(i + 1),
              Integer.toString(rung.trials()),
              rung.steps() < Long.MAX_VALUE ? Long.toString(rung.steps()) : "",
              rung.seconds() < Double.POSITIVE_INFINITY ? Html.number(rung.seconds() / 60) : "",
              Integer.toString(done.size()),
              done.isEmpty() ? "" : Html.number(done.get(0).values.get(i)),
              done.isEmpty() ? "" : Html.number(done.get(done.size() - 1).values.get(i))));
    }
    return "<h2>Rounds</h2>\n"
        + Html.table("Of each round the best go on.", List.of("round", "places", "steps", "minutes", "done", "best", "worst"), rows);
  }
}

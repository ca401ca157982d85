// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What a run's folder tells of all its sittings, as {@link io.molfuse.train.JsonLinesListener} wrote it. Steps that a killed sitting made
 * after the checkpoint that the next one went on from do not count. Memory depends on the number of buckets only, not on the run's length.
 */
final class RunHistory {
  /** The file, in the run's folder. */
  static final String FILE = "history.jsonl";

  private static final ObjectReader JSON = new ObjectMapper().reader();
  private static final String STARTED = "\"event\":\"started\"";
  private static final Pattern STEP = Pattern.compile("\"step\":(\\d+)");

  /**
   * Several steps in one.
   *
   * @param step mean of their numbers
   * @param mean of their values
   * @param least of their values
   * @param most of their values
   */
  record Point(double step, double mean, double least, double most) {}

  private final Map<String, Curve> curves = new TreeMap<>();
  private int sittings;
  private long step;
  private String ending;
  private String message;

  private RunHistory() {}

  /**
   * Reads a run's history.
   *
   * @param run its folder
   * @param buckets most points of a curve
   * @return the history, empty if there is no file
   * @throws IOException if it cannot be read
   */
  static RunHistory read(Path run, int buckets) throws IOException {
    RunHistory history = new RunHistory();
    Path file = run.resolve(FILE);
    if (Files.exists(file)) {
      Sittings sittings = Sittings.of(file);
      history.read(file, sittings, buckets);
    }
    return history;
  }

  /**
   * Where sittings began and how far they count, found without reading all values.
   *
   * @param until last step of each sitting that counts
   * @param last step of all
   */
  private record Sittings(List<Long> until, long last) {
    static Sittings of(Path file) throws IOException {
      List<Long> until = new ArrayList<>();
      long last = 0;
      try (BufferedReader lines = Files.newBufferedReader(file, StandardCharsets.UTF_8)) {
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
          Matcher number = STEP.matcher(line);
          if (!number.find()) {
            continue;
          }
          long step = Long.parseLong(number.group(1));
          if (line.contains(STARTED)) {
            until.replaceAll(before -> Math.min(before, step));
            until.add(Long.MAX_VALUE);
          }
          last = Math.max(last, step);
        }
      }
      return new Sittings(until, last);
    }
  }

  private void read(Path file, Sittings all, int buckets) throws IOException {
    try (BufferedReader lines = Files.newBufferedReader(file, StandardCharsets.UTF_8)) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        JsonNode event;
        try {
          event = JSON.readTree(line);
        } catch (JsonProcessingException e) {
          // A killed process may leave half a line.
          continue;
        }
        if (event.path("event").asText().equals("started")) {
          sittings++;
          ending = null;
          message = null;
        }
        long at = event.path("step").asLong();
        if (sittings > 0 && at <= all.until().get(sittings - 1)) {
          step = Math.max(step, at);
          take(event, at, (double) buckets / (all.last() + 1));
        }
      }
    }
  }

  private void take(JsonNode event, long at, double perStep) {
    switch (event.path("event").asText()) {
      case "step" -> {
        event.path("values").properties().forEach(value -> add("train/" + value.getKey(), at, value.getValue(), perStep));
        event.path("readings").properties().forEach(value -> add(value.getKey(), at, value.getValue(), perStep));
        add("learning_rate", at, event.path("learning_rate"), perStep);
        add("molecules_per_second", at, event.path("samples_per_second"), perStep);
      }
      case "validated" ->
          event.path("values").properties().forEach(value -> add("validation/" + value.getKey(), at, value.getValue(), perStep));
      case "ended" -> ending = event.path("ending").asText();
      case "failed" -> {
        ending = "failed";
        message = event.path("message").asText();
      }
      default -> {
        // Checkpoints and summaries of the monitor are not of interest here.
      }
    }
  }

  private void add(String curve, long at, JsonNode value, double perStep) {
    if (value.isNumber()) {
      curves.computeIfAbsent(curve, name -> new Curve()).add(at, value.asDouble(), (long) (at * Math.min(1, perStep)));
    }
  }

  /** The points of a curve in order of steps; empty if there is none of the name, such as "train/total_loss". */
  List<Point> curve(String name) {
    return curves.containsKey(name) ? curves.get(name).points() : List.of();
  }

  /** The names of all curves. */
  List<String> names() {
    return List.copyOf(curves.keySet());
  }

  /** How often the run was started or resumed. */
  int sittings() {
    return sittings;
  }

  /** The last step that anything is known of. */
  long step() {
    return step;
  }

  /** How the last sitting ended; null if it did not, as when it was killed. */
  String ending() {
    return ending;
  }

  /** Why it failed; null if it did not. */
  String message() {
    return message;
  }

  /** Points of one curve, the last of which still takes in values. */
  private static final class Curve {
    private final List<Point> points = new ArrayList<>();
    private long bucket = -1;
    private long last = -1;
    private int count;
    private double steps;
    private double sum;
    private double least;
    private double most;

    void add(long step, double value, long into) {
      if (step <= last) {
        // A sitting that only validated again, or told of its last step again, has nothing new.
        return;
      }
      if (into != bucket) {
        close();
        bucket = into;
        count = 0;
        steps = 0;
        sum = 0;
        least = value;
        most = value;
      }
      last = step;
      count++;
      steps += step;
      sum += value;
      least = Math.min(least, value);
      most = Math.max(most, value);
    }

    private void close() {
      if (count > 0) {
        points.add(point());
      }
    }

    private Point point() {
      return new Point(steps / count, sum / count, least, most);
    }

    List<Point> points() {
      List<Point> all = new ArrayList<>(points);
      if (count > 0) {
        all.add(point());
      }
      return all;
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** What a user changes of a configuration. Of two changes of one key, the later one holds. */
final class Overrides {
  /** What may be other when a run goes on: how long it goes on, what it tells, and what does not change its results. */
  static final List<String> WITH_RESUME =
      List.of(
          "training.epochs",
          "training.max_steps",
          "training.max_minutes",
          "training.log_every",
          "training.checkpoint_minutes",
          "training.patience",
          "training.tensorboard",
          "training.monitor",
          "data.workers");

  private record Change(List<String> path, Setting value) {}

  private final List<Change> all = new ArrayList<>();

  /** Takes in a configuration file, which need not have all keys. */
  void file(Path file) {
    try {
      Origin origin = new Origin(Origin.Layer.FILE, file.toString(), 1);
      Setting setting = YamlSettings.parse(Files.readString(file), origin);
      boolean empty = setting instanceof Setting.Scalar scalar && scalar.text() == null;
      if (!empty && !(setting instanceof Setting.Section)) {
        throw origin.refusal("a configuration must be " + SettingBinder.expected(Configuration.class) + ", but is " + setting);
      }
      all.add(new Change(List.of(), setting));
    } catch (NoSuchFileException e) {
      throw new FailureException("--config " + file + ": no such file");
    } catch (IOException e) {
      throw new FailureException("cannot read the configuration " + file + ": " + e.getMessage());
    }
  }

  /** Takes in an option that stands for a key; null if it was not given. */
  void option(String option, Object value, String path) {
    if (value != null) {
      implied(option + " " + value, value, path);
    }
  }

  /** Takes in a value that follows from something else. */
  void implied(String source, Object value, String path) {
    Origin origin = new Origin(Origin.Layer.OPTION, source, 0);
    all.add(new Change(List.of(path.split("\\.")), new Setting.Scalar(value.toString(), origin)));
  }

  /** Takes in KEY=VALUE. */
  void set(String assignment) {
    Origin origin = new Origin(Origin.Layer.OPTION, "--set " + assignment, 0);
    int equals = assignment.indexOf('=');
    String path = equals < 0 ? "" : assignment.substring(0, equals).strip();
    if (path.isEmpty() || path.startsWith(".") || path.endsWith(".") || path.contains("..")) {
      throw origin.refusal("must be KEY=VALUE, such as training.beta=0.001");
    }
    all.add(new Change(List.of(path.split("\\.")), YamlSettings.parse(assignment.substring(equals + 1), origin)));
  }

  /** A configuration's values with the changes. */
  Setting over(Setting base) {
    Setting result = base;
    for (Change change : all) {
      result = result.with(change.path(), change.value());
    }
    return result;
  }

  /** Whether one of the changes is about this key. */
  boolean has(String key) {
    return over(new Setting.Section(Map.of(), null)).at(key) != null;
  }

  /** Refuses changes of what a resumed run keeps. */
  void checkResumable() {
    for (Change change : all) {
      check(change.value(), String.join(".", change.path()));
    }
  }

  private static void check(Setting value, String path) {
    Set<String> leaves = SettingBinder.leaves(Configuration.class).keySet();
    if (value instanceof Setting.Section section && !leaves.contains(path)) {
      section.values().forEach((key, inner) -> check(inner, path.isEmpty() ? key : path + "." + key));
    } else if (!WITH_RESUME.contains(path)) {
      throw value
          .origin()
          .refusal(path + " cannot be changed with --resume, which keeps the run's own; what can be is " + String.join(", ", WITH_RESUME));
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.train.Seeds;
import java.lang.reflect.Type;
import java.math.BigDecimal;
import java.math.MathContext;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/**
 * The keys of a search and what each may be, from a YAML file: a key with its dots, or mappings as in a configuration, and for each a range
 * ({min, max} with log or step if wanted) or {choices: [...]}.
 */
final class SearchSpace {
  private static final List<String> OF_RANGES = List.of("min", "max", "log", "step");
  private static final String CHOICES = "choices";

  /** Draws in vain after which a space counts as one without valid configurations. */
  private static final int MOST_DRAWS = 1000;

  /** Combinations that an end of a range is tried in. */
  private static final int COMBINATIONS = 64;

  /** Digits of a number drawn: what matters of a learning rate is its size. */
  private static final MathContext DIGITS = new MathContext(4);

  /** What a key may be: one of the choices, or a number of a range. */
  private record Dimension(String key, List<Setting> choices, Range range, Origin origin) {
    Setting draw(Random random) {
      return choices != null ? choices.get(random.nextInt(choices.size())) : number(range.draw(random.nextDouble()));
    }

    /** Values that are valid if all are. */
    List<Setting> ends() {
      return choices != null ? choices : List.of(number(range.draw(0)), number(range.draw(Math.nextDown(1.0))));
    }

    private Setting number(BigDecimal value) {
      return new Setting.Scalar(value.toString(), origin);
    }
  }

  /**
   * Numbers.
   *
   * @param min least
   * @param max most
   * @param log whether their logarithms are drawn evenly
   * @param step from one to the next, counted from the least; 0 for all numbers between
   */
  private record Range(double min, double max, boolean log, double step) {
    /** The number for a draw from [0, 1). */
    BigDecimal draw(double even) {
      double value = log ? min * Math.pow(max / min, even) : min + (max - min) * even;
      if (step > 0) {
        double count = Math.floor((max - min) / step + 1e-9);
        double index = log ? Math.min(count, Math.rint((value - min) / step)) : Math.floor(even * (count + 1));
        return exact(min).add(exact(step).multiply(BigDecimal.valueOf((long) index)));
      }
      BigDecimal rounded = new BigDecimal(value).round(DIGITS);
      return exact(Math.min(max, Math.max(min, rounded.doubleValue())));
    }

    private static BigDecimal exact(double value) {
      BigDecimal decimal = BigDecimal.valueOf(value).stripTrailingZeros();
      // Integers are written as such, not as 1E+2.
      return decimal.scale() < 0 ? decimal.setScale(0) : decimal;
    }
  }

  private final List<Dimension> dimensions;

  private SearchSpace(List<Dimension> dimensions) {
    this.dimensions = dimensions;
  }

  /**
   * Reads a space.
   *
   * @param text YAML
   * @param source its file's name
   * @return the space
   * @throws FailureException if it is none, or has keys that a configuration does not have
   */
  static SearchSpace parse(String text, String source) {
    Origin origin = new Origin(Origin.Layer.FILE, source, 1);
    Setting setting = YamlSettings.parse(text, origin);
    if (!(setting instanceof Setting.Section section) || section.values().isEmpty()) {
      throw origin.refusal("a search space must be a mapping of keys to {min, max} or {choices}, but is " + setting);
    }
    List<Dimension> dimensions = new ArrayList<>();
    collect(section, "", dimensions);
    return new SearchSpace(List.copyOf(dimensions));
  }

  private static void collect(Setting.Section section, String path, List<Dimension> into) {
    Map<String, Type> leaves = SettingBinder.leaves(Configuration.class);
    section.values().forEach((key, value) -> {
      String whole = path.isEmpty() ? key : path + "." + key;
      if (leaves.containsKey(whole)) {
        if (into.stream().anyMatch(before -> before.key().equals(whole))) {
          throw value.origin().refusal("the key " + whole + " is there twice");
        }
        into.add(dimension(whole, leaves.get(whole), value));
      } else if (value instanceof Setting.Section inner && leaves.keySet().stream().anyMatch(leaf -> leaf.startsWith(whole + "."))) {
        collect(inner, whole, into);
      } else {
        throw value.origin().refusal(
            "unknown key " + whole + "; the nearest known one is " + NearestKey.of(whole, leaves.keySet(), leaves.keySet()));
      }
    });
  }

  private static Dimension dimension(String key, Type type, Setting value) {
    if (key.equals("preset")) {
      throw value.origin().refusal("preset cannot be searched, since it stands for many keys; search those, such as model.encoder.layers");
    }
    Setting choices = value instanceof Setting.Section section ? section.values().get(CHOICES) : value;
    if (choices instanceof Setting.Items items && !items.values().isEmpty()) {
      if (value instanceof Setting.Section section && section.values().size() > 1) {
        throw value.origin().refusal(key + " must have either choices or a range");
      }
      items.values().stream().filter(choice -> !(choice instanceof Setting.Scalar)).findFirst().ifPresent(choice -> {
        throw choice.origin().refusal("a choice for " + key + " must be a single value, but is " + choice);
      });
      return new Dimension(key, items.values(), null, value.origin());
    }
    if (!(value instanceof Setting.Section range) || range.values().containsKey(CHOICES)) {
      throw value.origin().refusal(key + " must be {min: NUMBER, max: NUMBER} or {choices: [...]}, but is " + value);
    }
    return new Dimension(key, null, range(key, type, range), value.origin());
  }

  private static Range range(String key, Type type, Setting.Section section) {
    section.values().forEach((name, value) -> {
      if (!OF_RANGES.contains(name)) {
        throw value.origin().refusal(
            "unknown key " + name + " in the range of " + key + "; the nearest known one is " + NearestKey.of(name, OF_RANGES, OF_RANGES));
      }
    });
    boolean integer = type == int.class || type == long.class;
    if (!integer && type != double.class) {
      throw section.origin().refusal(key + " must be " + SettingBinder.expected(type) + ", which has no range; give {choices: [...]}");
    }
    double min = number(key, "min", section, integer);
    double max = number(key, "max", section, integer);
    double step = section.values().containsKey("step") ? number(key, "step", section, integer) : integer ? 1 : 0;
    Setting log = section.values().get("log");
    String written = log instanceof Setting.Scalar scalar ? String.valueOf(scalar.text()) : log == null ? "false" : log.toString();
    if (!written.equals("true") && !written.equals("false")) {
      throw log.origin().refusal("log of " + key + " must be true or false, but is " + log);
    }
    if (!(max > min)) {
      throw section.origin().refusal("max of " + key + " must be above min, but is " + Html.number(max));
    }
    if (written.equals("true") && !(min > 0)) {
      throw section.origin().refusal("min of " + key + " must be above 0 for log, but is " + Html.number(min));
    }
    if (section.values().containsKey("step") && !(step > 0)) {
      throw section.origin().refusal("step of " + key + " must be above 0, but is " + Html.number(step));
    }
    return new Range(min, max, written.equals("true"), step);
  }

  private static double number(String key, String name, Setting.Section section, boolean integer) {
    Setting value = section.values().get(name);
    if (value instanceof Setting.Scalar scalar && scalar.text() != null) {
      try {
        double number = new BigDecimal(scalar.text()).doubleValue();
        if (Double.isFinite(number) && (!integer || number == Math.rint(number))) {
          return number;
        }
      } catch (NumberFormatException e) {
        // Said below.
      }
    }
    throw (value == null ? section : value).origin().refusal(
        name + " of " + key + " must be " + (integer ? "an integer" : "a number") + ", but is " + (value == null ? "missing" : value));
  }

  /** The keys, in the order written. */
  List<String> keys() {
    return dimensions.stream().map(Dimension::key).toList();
  }

  /** Where a key was given. */
  Origin origin(String key) {
    return dimensions.stream().filter(dimension -> dimension.key().equals(key)).findFirst().orElseThrow().origin();
  }

  /**
   * Refuses ends of ranges and choices that no configuration can have. What only some combinations cannot have is left to {@link #draw}.
   *
   * @param base what the keys are laid over
   * @param seed as for draw
   */
  void check(Setting base, long seed) {
    for (Dimension dimension : dimensions) {
      for (Setting end : dimension.ends()) {
        RuntimeException refused = refusal(base, Map.of(dimension.key(), end));
        for (int i = 0; i < COMBINATIONS && refused != null; i++) {
          Map<String, Setting> values = any(seed, i, 0);
          values.put(dimension.key(), end);
          if (refusal(base, values) == null) {
            refused = null;
          }
        }
        if (refused != null) {
          throw refused;
        }
      }
    }
  }

  /**
   * The configuration of a trial, drawn anew until it is valid. Depends on the seed, the trial's number and the space only.
   *
   * @param base what the keys are laid over
   * @param seed of the search
   * @param trial from 1
   * @return the values' texts by key
   * @throws FailureException if no combination is valid
   */
  Map<String, String> draw(Setting base, long seed, int trial) {
    RuntimeException refused = null;
    for (int i = 0; i < MOST_DRAWS; i++) {
      Map<String, Setting> values = any(seed, trial, i);
      RuntimeException now = refusal(base, values);
      if (now == null) {
        Map<String, String> texts = new LinkedHashMap<>();
        values.forEach((key, value) -> texts.put(key, ((Setting.Scalar) value).text()));
        return texts;
      }
      refused = refused == null ? now : refused;
    }
    throw refused;
  }

  private Map<String, Setting> any(long seed, int trial, int attempt) {
    Random random = new Random(Seeds.mix(seed, trial, attempt));
    Map<String, Setting> values = new LinkedHashMap<>();
    dimensions.forEach(dimension -> values.put(dimension.key(), dimension.draw(random)));
    return values;
  }

  private static RuntimeException refusal(Setting base, Map<String, Setting> values) {
    try {
      Configuration.of(over(base, values));
      return null;
    } catch (FailureException | UsageException e) {
      return e;
    }
  }

  /** A configuration's values with those of a trial. */
  static Setting over(Setting base, Map<String, Setting> values) {
    Setting result = base;
    for (Map.Entry<String, Setting> value : values.entrySet()) {
      result = result.with(List.of(value.getKey().split("\\.")), value.getValue());
    }
    return result;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A value of a configuration before its type is known, with where it was given. */
sealed interface Setting {
  /** Where it was given; for the value of a key, where the key is. */
  Origin origin();

  /**
   * A single value.
   *
   * @param text as written, without quotes; null if nothing was
   * @param origin where
   */
  record Scalar(String text, Origin origin) implements Setting {
    @Override
    public String toString() {
      return text == null ? "empty" : "\"" + text + "\"";
    }
  }

  /**
   * A list.
   *
   * @param values its values
   * @param origin where
   */
  record Items(List<Setting> values, Origin origin) implements Setting {
    @Override
    public String toString() {
      return "a list of " + values.size();
    }
  }

  /**
   * A mapping.
   *
   * @param values by key, in the order written
   * @param origin where
   */
  record Section(Map<String, Setting> values, Origin origin) implements Setting {
    @Override
    public String toString() {
      return "a mapping";
    }
  }

  /** This with another one laid over it: mappings key by key, all else as a whole. A mapping is not replaced by nothing. */
  default Setting with(Setting over) {
    if (!(this instanceof Section below)) {
      return over;
    }
    if (over instanceof Scalar scalar && scalar.text() == null) {
      return this;
    }
    if (!(over instanceof Section above)) {
      return over;
    }
    Map<String, Setting> values = new LinkedHashMap<>(below.values());
    above.values().forEach((key, value) -> values.merge(key, value, Setting::with));
    return new Section(values, below.origin());
  }

  /**
   * This with a value at a path.
   *
   * @param path keys, and numbers from 0 in lists
   * @param value what to lay over what is there
   */
  default Setting with(List<String> path, Setting value) {
    if (path.isEmpty()) {
      return with(value);
    }
    String key = path.get(0);
    List<String> rest = path.subList(1, path.size());
    if (this instanceof Items list) {
      List<Setting> values = new ArrayList<>(list.values());
      int index = key.matches("\\d{1,9}") ? Integer.parseInt(key) : values.size();
      if (index >= values.size()) {
        throw value.origin().refusal("the list has " + values.size() + " values, numbered from 0; there is no " + key);
      }
      values.set(index, values.get(index).with(rest, value));
      return new Items(values, list.origin());
    }
    // What is no mapping becomes one here, and is refused where types are known.
    Section section = this instanceof Section here ? here : new Section(Map.of(), value.origin());
    Map<String, Setting> values = new LinkedHashMap<>(section.values());
    Setting before = values.getOrDefault(key, new Scalar(null, value.origin()));
    values.put(key, before.with(rest, value));
    return new Section(values, section.origin());
  }

  /** The setting at a path of dots, or null if there is none. */
  default Setting at(String path) {
    Setting setting = this;
    for (String key : path.split("\\.")) {
      if (setting instanceof Items list && key.matches("\\d{1,9}") && Integer.parseInt(key) < list.values().size()) {
        setting = list.values().get(Integer.parseInt(key));
      } else {
        setting = setting instanceof Section section ? section.values().get(key) : null;
      }
      if (setting == null) {
        return null;
      }
    }
    return setting;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.RecordComponent;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Makes records of settings. The records say what keys there are (their JsonProperty annotations, of which required means that the
 * value may not be empty) and check their values; what they refuse is reported with the place it was given at.
 */
final class SettingBinder {
  private static final Pattern INTEGER = Pattern.compile("[-+]?\\d+");
  private static final Pattern NUMBER = Pattern.compile("[-+]?(\\d+\\.?\\d*|\\.\\d+)([eE][-+]?\\d+)?");
  private static final Pattern KEY = Pattern.compile("^[a-z_][a-z_0-9]*(\\.[a-z_0-9]+)*|\\b[a-z_][a-z_0-9]*(\\.[a-z_0-9]+)+");

  private final Class<?> schema;
  private final Setting root;

  private SettingBinder(Class<?> schema, Setting root) {
    this.schema = schema;
    this.root = root;
  }

  /**
   * Makes a record.
   *
   * @param type a record
   * @param root a mapping with its keys
   * @return the record
   * @throws FailureException or UsageException, by the setting's origin, if a key is unknown or missing or a value is refused
   */
  static <T> T bind(Class<T> type, Setting root) {
    return type.cast(new SettingBinder(type, root).value(type, root, "", true));
  }

  /** The value at a path of a record that is bound in part only. */
  static <T> T part(Class<T> type, Class<?> schema, Setting root, String path) {
    return type.cast(new SettingBinder(schema, root).value(type, root.at(path), path, false));
  }

  /** The paths of all values that a record has, in its order, with their types. */
  static Map<String, Type> leaves(Class<?> type) {
    Map<String, Type> leaves = new LinkedHashMap<>();
    for (RecordComponent component : type.getRecordComponents()) {
      if (component.getType().isRecord()) {
        leaves(component.getType()).forEach((path, leaf) -> leaves.put(key(component) + "." + path, leaf));
      } else {
        leaves.put(key(component), component.getGenericType());
      }
    }
    return leaves;
  }

  /** What a value of a type must be, in words. */
  static String expected(Type type) {
    if (type instanceof ParameterizedType) {
      return "a list";
    }
    Class<?> plain = (Class<?>) type;
    if (plain.isRecord()) {
      return "a mapping with the keys " + String.join(", ", keys(plain));
    }
    if (plain.isEnum()) {
      return "one of " + Arrays.stream(plain.getEnumConstants()).map(SettingBinder::word).collect(Collectors.joining(", "));
    }
    if (plain == int.class || plain == long.class) {
      return "an integer";
    }
    return plain == double.class ? "a number" : plain == boolean.class ? "true or false" : "text";
  }

  /** An enum's constant as it is written in files. */
  static String word(Object constant) {
    return ((Enum<?>) constant).name().toLowerCase(Locale.ROOT);
  }

  static String key(RecordComponent component) {
    // The annotation cannot be on a record's component itself, only on what is made of it.
    JsonProperty property = component.getAccessor().getAnnotation(JsonProperty.class);
    return property == null || property.value().isEmpty() ? component.getName() : property.value();
  }

  private static boolean required(RecordComponent component) {
    JsonProperty property = component.getAccessor().getAnnotation(JsonProperty.class);
    return component.getType().isPrimitive() || (property != null && property.required());
  }

  private static List<String> keys(Class<?> type) {
    return Arrays.stream(type.getRecordComponents()).map(SettingBinder::key).toList();
  }

  private Object value(Type type, Setting setting, String path, boolean required) {
    if (setting == null || (!required && setting instanceof Setting.Scalar scalar && scalar.text() == null)) {
      return null;
    }
    if (type instanceof ParameterizedType list && list.getRawType() == List.class) {
      return list(list.getActualTypeArguments()[0], setting, path);
    }
    Class<?> plain = (Class<?>) type;
    if (plain.isRecord()) {
      if (!(setting instanceof Setting.Section section)) {
        throw unexpected(type, setting, path);
      }
      return record(plain, section, path);
    }
    if (!(setting instanceof Setting.Scalar scalar) || scalar.text() == null) {
      throw unexpected(type, setting, path);
    }
    return scalar(plain, scalar, path);
  }

  private Object list(Type of, Setting setting, String path) {
    if (!(setting instanceof Setting.Items items)) {
      throw setting.origin().refusal(path + " must be a list, but is " + setting);
    }
    List<Object> values = new ArrayList<>();
    for (int i = 0; i < items.values().size(); i++) {
      values.add(value(of, items.values().get(i), path + "." + i, true));
    }
    return List.copyOf(values);
  }

  private static Object scalar(Class<?> type, Setting.Scalar scalar, String path) {
    String text = scalar.text();
    if (type == String.class) {
      return text;
    }
    if (type.isEnum()) {
      for (Object constant : type.getEnumConstants()) {
        if (word(constant).equals(text.toLowerCase(Locale.ROOT))) {
          return constant;
        }
      }
    } else if (type == boolean.class) {
      if (text.equals("true") || text.equals("false")) {
        return text.equals("true");
      }
    } else if (type == double.class) {
      if (NUMBER.matcher(text).matches()) {
        return Double.parseDouble(text);
      }
    } else if (INTEGER.matcher(text).matches()) {
      return integer(type, scalar, path);
    }
    throw unexpected(type, scalar, path);
  }

  private static Object integer(Class<?> type, Setting.Scalar scalar, String path) {
    try {
      // No conditional expression here: it would make a long of either.
      if (type == int.class) {
        return Integer.valueOf(scalar.text());
      }
      return Long.valueOf(scalar.text());
    } catch (NumberFormatException e) {
      Object least = type == int.class ? (Object) Integer.MIN_VALUE : (Object) Long.MIN_VALUE;
      Object most = type == int.class ? (Object) Integer.MAX_VALUE : (Object) Long.MAX_VALUE;
      throw scalar.origin().refusal(path + " must be an integer from " + least + " to " + most + ", but is " + scalar);
    }
  }

  private static RuntimeException unexpected(Type type, Setting setting, String path) {
    return setting.origin().refusal((path.isEmpty() ? "it" : path) + " must be " + expected(type) + ", but is " + setting);
  }

  private Object record(Class<?> type, Setting.Section section, String path) {
    List<String> known = keys(type);
    section.values().forEach((key, value) -> {
      if (!known.contains(key)) {
        String nearest = NearestKey.of(join(path, key), leaves(schema).keySet(), known.stream().map(name -> join(path, name)).toList());
        throw value.origin().refusal("unknown key " + join(path, key) + "; the nearest known one is " + nearest);
      }
    });
    RecordComponent[] components = type.getRecordComponents();
    Object[] values = new Object[components.length];
    Class<?>[] types = new Class<?>[components.length];
    for (int i = 0; i < components.length; i++) {
      String key = key(components[i]);
      types[i] = components[i].getType();
      values[i] = value(components[i].getGenericType(), section.values().get(key), join(path, key), required(components[i]));
      if (values[i] == null && required(components[i])) {
        throw section.origin().refusal(join(path, key) + " is missing; it must be " + expected(components[i].getGenericType()));
      }
    }
    try {
      Constructor<?> constructor = type.getDeclaredConstructor(types);
      constructor.setAccessible(true);
      return constructor.newInstance(values);
    } catch (InvocationTargetException e) {
      if (e.getCause() instanceof IllegalArgumentException refused) {
        throw refusal(refused.getMessage(), section, path);
      }
      throw new IllegalStateException(e.getCause());
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException(e);
    }
  }

  /**
   * A record's own refusal. Its message names keys as the record knows them; here they get their whole paths, and of those it
   * names, the one given last is to blame.
   */
  private RuntimeException refusal(String message, Setting.Section section, String path) {
    Setting blamed = null;
    StringBuilder text = new StringBuilder();
    Matcher names = KEY.matcher(message);
    while (names.find()) {
      String whole = resolve(names.group(), path);
      names.appendReplacement(text, Matcher.quoteReplacement(whole == null ? names.group() : whole));
      Setting named = whole == null ? null : root.at(whole);
      if (named != null && (blamed == null || named.origin().layer().compareTo(blamed.origin().layer()) > 0)) {
        blamed = named;
      }
    }
    names.appendTail(text);
    return (blamed == null ? section : blamed).origin().refusal(text.toString());
  }

  private String resolve(String name, String path) {
    for (String base = path; ; base = base.substring(0, Math.max(0, base.lastIndexOf('.')))) {
      if (root.at(join(base, name)) != null) {
        return join(base, name);
      }
      if (base.isEmpty()) {
        return null;
      }
    }
  }

  private static String join(String path, String key) {
    return path.isEmpty() ? key : path + "." + key;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.lang.reflect.RecordComponent;
import java.util.List;
import java.util.stream.Collectors;

/** Writes records as YAML that {@link SettingBinder} makes equal records of. */
final class SettingWriter {
  private static final ObjectMapper JSON = new ObjectMapper();

  private SettingWriter() {}

  static String yaml(Record value) {
    StringBuilder text = new StringBuilder();
    append(text, value, "");
    return text.toString();
  }

  private static void append(StringBuilder text, Record value, String indent) {
    for (RecordComponent component : value.getClass().getRecordComponents()) {
      text.append(indent).append(SettingBinder.key(component)).append(':');
      Object part = get(component, value);
      if (part instanceof Record inner) {
        append(text.append('\n'), inner, indent + "  ");
      } else {
        text.append(part == null ? "" : " " + scalar(part)).append('\n');
      }
    }
  }

  private static Object get(RecordComponent component, Record value) {
    try {
      component.getAccessor().setAccessible(true);
      return component.getAccessor().invoke(value);
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException(e);
    }
  }

  private static String scalar(Object value) {
    if (value instanceof List<?> list) {
      return list.stream().map(SettingWriter::scalar).collect(Collectors.joining(", ", "[", "]"));
    }
    if (value instanceof Enum<?>) {
      return SettingBinder.word(value);
    }
    if (value instanceof Number || value instanceof Boolean) {
      return value.toString();
    }
    if (!(value instanceof String)) {
      throw new IllegalArgumentException("cannot write a " + value.getClass().getName());
    }
    try {
      // JSON's strings are YAML's double-quoted ones.
      return JSON.writeValueAsString(value);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException(e);
    }
  }
}

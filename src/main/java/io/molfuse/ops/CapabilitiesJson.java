// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.HashMap;
import java.util.Map;

/**
 * Reads the flat JSON objects the native library describes itself and devices with, so that the operators need no JSON library.
 * Values are strings, numbers, true, false or null.
 */
final class CapabilitiesJson {
  private final String text;
  private int at;

  private CapabilitiesJson(String text) {
    this.text = text;
  }

  static Capabilities parse(String json) {
    Map<String, Object> fields = new CapabilitiesJson(json).object();
    return new Capabilities(
        string(fields, "version"),
        string(fields, "libtorch"),
        string(fields, "cpu_vector_level"),
        string(fields, "cpu_vector_best"),
        (int) number(fields, "cpu_threads"),
        Boolean.TRUE.equals(fields.get("cuda_compiled")),
        Boolean.TRUE.equals(fields.get("cuda_usable")),
        string(fields, "cuda_reason"),
        Boolean.TRUE.equals(fields.get("cudnn_usable")),
        string(fields, "cudnn_reason"),
        (int) number(fields, "cudnn_version"),
        string(fields, "attention_backend"));
  }

  static CudaDevice device(int index, String json) {
    Map<String, Object> fields = new CapabilitiesJson(json).object();
    return new CudaDevice(
        index,
        (int) number(fields, "device_count"),
        Boolean.TRUE.equals(fields.get("usable")),
        string(fields, "reason"),
        string(fields, "name"),
        (int) number(fields, "compute_major"),
        (int) number(fields, "compute_minor"),
        (int) number(fields, "multiprocessors"),
        number(fields, "shared_memory_per_block"),
        number(fields, "total_memory"),
        (int) number(fields, "driver_version"),
        (int) number(fields, "runtime_version"));
  }

  static DeviceMemory memory(String json) {
    Map<String, Object> fields = new CapabilitiesJson(json).object();
    return new DeviceMemory(
        number(fields, "allocated"),
        number(fields, "reserved"),
        number(fields, "peak_allocated"),
        number(fields, "peak_reserved"),
        number(fields, "free"),
        number(fields, "total"));
  }

  private static long number(Map<String, Object> fields, String name) {
    return fields.get(name) instanceof Double value ? value.longValue() : 0;
  }

  private static String string(Map<String, Object> fields, String name) {
    return fields.get(name) instanceof String value ? value : "";
  }

  private Map<String, Object> object() {
    Map<String, Object> fields = new HashMap<>();
    expect('{');
    if (peek() != '}') {
      do {
        String name = quoted();
        expect(':');
        fields.put(name, value());
      } while (skip(','));
    }
    expect('}');
    return fields;
  }

  private Object value() {
    if (peek() == '"') {
      return quoted();
    }
    int start = at;
    while (at < text.length() && ",} \t\r\n".indexOf(text.charAt(at)) < 0) {
      at++;
    }
    String word = text.substring(start, at);
    switch (word) {
      case "true":
        return true;
      case "false":
        return false;
      case "null":
        return null;
      default:
        try {
          return Double.valueOf(word);
        } catch (NumberFormatException e) {
          throw malformed();
        }
    }
  }

  private String quoted() {
    expect('"');
    StringBuilder out = new StringBuilder();
    while (at < text.length() && text.charAt(at) != '"') {
      char c = text.charAt(at++);
      if (c != '\\') {
        out.append(c);
        continue;
      }
      if (at == text.length()) {
        throw malformed();
      }
      char escape = text.charAt(at++);
      switch (escape) {
        case 'n' -> out.append('\n');
        case 't' -> out.append('\t');
        case 'r' -> out.append('\r');
        case 'b' -> out.append('\b');
        case 'f' -> out.append('\f');
        case 'u' -> {
          if (at + 4 > text.length()) {
            throw malformed();
          }
          try {
            out.append((char) Integer.parseInt(text.substring(at, at + 4), 16));
          } catch (NumberFormatException e) {
            throw malformed();
          }
          at += 4;
        }
        default -> out.append(escape);
      }
    }
    expect('"');
    return out.toString();
  }

  private char peek() {
    while (at < text.length() && Character.isWhitespace(text.charAt(at))) {
      at++;
    }
    if (at == text.length()) {
      throw malformed();
    }
    return text.charAt(at);
  }

  private boolean skip(char c) {
    if (peek() != c) {
      return false;
    }
    at++;
    return true;
  }

  private void expect(char c) {
    if (!skip(c)) {
      throw malformed();
    }
  }

  private MolfuseException malformed() {
    return new MolfuseException("the native library described itself in no JSON object at character " + at + ": " + text);
  }
}

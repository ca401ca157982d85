// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Reads event files with nothing of what writes them: its own checksum, bit by bit, and any field of any message. */
public final class EventFile {
  /** Fields by number: Long, Double, Float or byte[], in order. */
  record Message(Map<Integer, List<Object>> fields) {
    Object only(int field) {
      List<Object> values = fields.get(field);
      if (values == null || values.size() != 1) {
        throw new AssertionError("field " + field + " comes " + (values == null ? 0 : values.size()) + " times in " + fields.keySet());
      }
      return values.get(0);
    }

    boolean has(int field) {
      return fields.containsKey(field);
    }

    Message message(int field) {
      return parse((byte[]) only(field));
    }

    String text(int field) {
      return new String((byte[]) only(field), StandardCharsets.UTF_8);
    }
  }

  private EventFile() {}

  static List<Message> read(Path file) throws IOException {
    ByteBuffer bytes = ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN);
    List<Message> events = new ArrayList<>();
    while (bytes.hasRemaining()) {
      byte[] length = new byte[8];
      bytes.get(length);
      check(length, bytes.getInt());
      byte[] data = new byte[(int) ByteBuffer.wrap(length).order(ByteOrder.LITTLE_ENDIAN).getLong()];
      bytes.get(data);
      check(data, bytes.getInt());
      events.add(parse(data));
    }
    return events;
  }

  /** The names of all values in a file. */
  public static List<String> tags(Path file) throws IOException {
    List<String> tags = new ArrayList<>();
    for (Message event : read(file)) {
      if (event.has(5)) {
        event.message(5).fields().getOrDefault(1, List.of()).forEach(value -> tags.add(parse((byte[]) value).text(1)));
      }
    }
    return tags;
  }

  private static void check(byte[] data, int masked) {
    int crc = crc32c(data);
    if ((crc >>> 15 | crc << 17) + 0xa282ead8 != masked) {
      throw new AssertionError("a checksum is wrong");
    }
  }

  static int crc32c(byte[] data) {
    int crc = -1;
    for (byte each : data) {
      crc ^= each & 0xff;
      for (int bit = 0; bit < 8; bit++) {
        crc = (crc & 1) == 0 ? crc >>> 1 : crc >>> 1 ^ 0x82f63b78;
      }
    }
    return ~crc;
  }

  static Message parse(byte[] data) {
    ByteBuffer in = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN);
    Map<Integer, List<Object>> fields = new LinkedHashMap<>();
    while (in.hasRemaining()) {
      long key = varint(in);
      Object value;
      switch ((int) (key & 7)) {
        case 0 -> value = varint(in);
        case 1 -> value = in.getDouble();
        case 2 -> {
          byte[] part = new byte[(int) varint(in)];
          in.get(part);
          value = part;
        }
        case 5 -> value = in.getFloat();
        default -> throw new AssertionError("wire type " + (key & 7));
      }
      fields.computeIfAbsent((int) (key >>> 3), number -> new ArrayList<>()).add(value);
    }
    return new Message(fields);
  }

  private static long varint(ByteBuffer in) {
    long value = 0;
    for (int shift = 0; ; shift += 7) {
      byte next = in.get();
      value |= (long) (next & 0x7f) << shift;
      if (next >= 0) {
        return value;
      }
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The header of a safetensors file, checked against the file's length.
 *
 * @param entries by the tensor's name
 * @param dataStart where the tensors' bytes begin
 */
record SafetensorsHeader(Map<String, Entry> entries, long dataStart) {
  // A name that comes twice would hide one tensor behind another.
  private static final ObjectMapper JSON =
      JsonMapper.builder()
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .build();
  private static final int MAX_HEADER = 100_000_000;

  /** Types that a file may hold, but libtorch has no arithmetic for. */
  private static final List<String> STORED_ONLY =
      List.of("U16", "U32", "U64", "C64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4");

  /**
   * Where a tensor is, relative to the start of the data.
   *
   * @param typeName as in the file
   * @param type null if libtorch cannot compute with it
   */
  record Entry(String typeName, ElementType type, long[] shape, long begin, long end) {}

  static SafetensorsHeader read(Path file, FileChannel channel) throws IOException {
    long size = channel.size();
    if (size < 8) {
      throw corrupt(file, "it has only " + size + " bytes");
    }
    ByteBuffer lengthBytes = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
    Safetensors.readFully(channel, lengthBytes, 0);
    long length = lengthBytes.flip().getLong();
    if (length < 2 || length > MAX_HEADER || length > size - 8) {
      throw corrupt(file, "its header claims " + length + " bytes of " + size);
    }
    ByteBuffer text = ByteBuffer.allocate((int) length);
    Safetensors.readFully(channel, text, 8);
    long dataBytes = size - 8 - length;
    Map<String, Entry> entries = new LinkedHashMap<>();
    try {
      JsonNode root = JSON.readTree(new String(text.array(), StandardCharsets.UTF_8));
      for (Map.Entry<String, JsonNode> field : root.properties()) {
        if (!field.getKey().equals("__metadata__")) {
          entries.put(field.getKey(), entry(file, field.getKey(), field.getValue(), dataBytes));
        }
      }
    } catch (JsonProcessingException e) {
      throw corrupt(file, "its header is not JSON: " + e.getOriginalMessage());
    }
    checkCover(file, entries, dataBytes);
    return new SafetensorsHeader(entries, 8 + length);
  }

  private static Entry entry(Path file, String name, JsonNode node, long dataBytes) {
    String typeName = node.path("dtype").asText();
    ElementType type = ElementType.named(typeName);
    if (type == null && !STORED_ONLY.contains(typeName)
        || !node.path("shape").isArray()
        || node.path("data_offsets").size() != 2) {
      throw corrupt(file, "its header does not describe " + name);
    }
    long[] shape = new long[node.path("shape").size()];
    long bytes = type == null ? 1 : type.bytes;
    for (int i = 0; i < shape.length; i++) {
      shape[i] = node.path("shape").get(i).asLong(-1);
      if (shape[i] < 0 || (shape[i] > 0 && bytes > Long.MAX_VALUE / shape[i])) {
        throw corrupt(file, "its header gives " + name + " a size of " + shape[i]);
      }
      bytes *= shape[i];
    }
    long begin = node.path("data_offsets").get(0).asLong(-1);
    long end = node.path("data_offsets").get(1).asLong(-1);
    if (begin < 0 || end < begin || end > dataBytes || type != null && end - begin != bytes) {
      throw corrupt(file, String.format("%s should be at bytes %d to %d of the data, which have %d", name, begin, end, dataBytes));
    }
    return new Entry(typeName, type, shape, begin, end);
  }

  /** The format has neither gaps nor overlaps, so either is a sign of damage. */
  private static void checkCover(Path file, Map<String, Entry> entries, long dataBytes) {
    long at = 0;
    for (Entry entry : entries.values().stream().sorted(Comparator.comparingLong(Entry::begin).thenComparingLong(Entry::end)).toList()) {
      if (entry.begin() != at) {
        throw corrupt(file, "its tensors leave out or share bytes " + Math.min(at, entry.begin()) + " to " + Math.max(at, entry.begin()));
      }
      at = entry.end();
    }
    if (at != dataBytes) {
      throw corrupt(file, "its tensors have " + at + " bytes, but the file has " + dataBytes + " of data");
    }
  }

  private static CheckpointException corrupt(Path file, String why) {
    return new CheckpointException(file + " is damaged: " + why);
  }
}

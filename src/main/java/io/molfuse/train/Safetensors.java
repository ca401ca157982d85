// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * Files of named tensors in the safetensors format: the header's length as a little-endian 64-bit number, a JSON header with
 * element type, shape and byte range of each tensor, then the tensors' bytes, row-major and little-endian.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class Safetensors {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final Map<ScalarType, String> TYPE_NAMES = new EnumMap<>(ScalarType.class);
  private static final int MAX_HEADER = 100_000_000;
  private static final int CHUNK = 1 << 24;

  static {
    TYPE_NAMES.put(ScalarType.Float, "F32");
    TYPE_NAMES.put(ScalarType.Double, "F64");
    TYPE_NAMES.put(ScalarType.Half, "F16");
    TYPE_NAMES.put(ScalarType.BFloat16, "BF16");
    TYPE_NAMES.put(ScalarType.Long, "I64");
    TYPE_NAMES.put(ScalarType.Int, "I32");
    TYPE_NAMES.put(ScalarType.Short, "I16");
    TYPE_NAMES.put(ScalarType.Char, "I8");
    TYPE_NAMES.put(ScalarType.Byte, "U8");
    TYPE_NAMES.put(ScalarType.Bool, "BOOL");
  }

  private record Entry(ScalarType type, long[] shape, long begin, long end) {}

  private record Header(Map<String, Entry> entries, long dataStart) {}

  private Safetensors() {}

  /**
   * Writes a file and forces it to the disk.
   *
   * @param file created or replaced
   * @param tensors by name, on any device
   * @param metadata text kept in the header
   * @throws IOException if the disk is full or the like; what was written then is incomplete
   */
  public static void write(Path file, Map<String, Tensor> tensors, Map<String, String> metadata) throws IOException {
    byte[] header = header(tensors, metadata);
    try (FileChannel channel =
        FileChannel.open(
            file, StandardOpenOption.WRITE, StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING)) {
      ByteBuffer head = ByteBuffer.allocate(8 + header.length).order(ByteOrder.LITTLE_ENDIAN);
      writeFully(channel, head.putLong(header.length).put(header).flip());
      for (Tensor tensor : tensors.values()) {
        try (PointerScope scope = new PointerScope()) {
          Tensor dense = tensor.detach().cpu().contiguous();
          for (long at = 0; at < dense.nbytes(); at += CHUNK) {
            writeFully(channel, bytes(dense, at));
          }
        }
      }
      channel.force(true);
    }
  }

  private static byte[] header(Map<String, Tensor> tensors, Map<String, String> metadata) throws IOException {
    ObjectNode root = JSON.createObjectNode();
    if (!metadata.isEmpty()) {
      root.set("__metadata__", JSON.valueToTree(metadata));
    }
    long offset = 0;
    for (Map.Entry<String, Tensor> entry : tensors.entrySet()) {
      Tensor tensor = entry.getValue();
      String type;
      try (PointerScope scope = new PointerScope()) {
        type = TYPE_NAMES.get(tensor.scalar_type().intern());
      }
      if (type == null) {
        throw new IllegalArgumentException(entry.getKey() + " has an element type that safetensors files cannot hold");
      }
      ObjectNode node = root.putObject(entry.getKey()).put("dtype", type);
      ArrayNode shape = node.putArray("shape");
      Arrays.stream(shapeOf(tensor)).forEach(shape::add);
      node.putArray("data_offsets").add(offset).add(offset + tensor.nbytes());
      offset += tensor.nbytes();
    }
    byte[] text = JSON.writeValueAsBytes(root);
    // The format asks for a start of the data at a multiple of 8, reached by spaces.
    byte[] padded = Arrays.copyOf(text, (text.length + 7) / 8 * 8);
    Arrays.fill(padded, text.length, padded.length, (byte) ' ');
    return padded;
  }

  /**
   * Reads a file into existing tensors.
   *
   * @param file a safetensors file that holds exactly these tensors
   * @param tensors what to overwrite, on any device
   * @throws CheckpointException if it is missing, cut off, or holds other names, shapes or element types
   */
  public static void readInto(Path file, Map<String, Tensor> tensors) {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      Header header = readHeader(file, channel);
      for (Map.Entry<String, Tensor> named : tensors.entrySet()) {
        check(file, named.getKey(), header.entries.get(named.getKey()), named.getValue());
      }
      for (String name : header.entries.keySet()) {
        if (!tensors.containsKey(name)) {
          throw new CheckpointException(file + " holds a tensor " + name + " that the model does not have");
        }
      }
      for (Map.Entry<String, Tensor> named : tensors.entrySet()) {
        Entry entry = header.entries.get(named.getKey());
        try (PointerScope scope = new PointerScope()) {
          Tensor values = torch.empty(entry.shape, new TensorOptions(entry.type), null);
          readInto(channel, header, entry, values);
          named.getValue().detach().copy_(values);
        }
      }
    } catch (IOException e) {
      throw unreadable(file, e);
    }
  }

  private static void check(Path file, String name, Entry entry, Tensor tensor) {
    if (entry == null) {
      throw new CheckpointException(file + " lacks the tensor " + name);
    }
    try (PointerScope scope = new PointerScope()) {
      ScalarType type = tensor.scalar_type().intern();
      long[] shape = shapeOf(tensor);
      if (type != entry.type || !Arrays.equals(shape, entry.shape)) {
        throw new CheckpointException(
            String.format(
                "%s holds %s as %s %s, but the model needs %s %s",
                file,
                name,
                TYPE_NAMES.get(entry.type),
                Arrays.toString(entry.shape),
                TYPE_NAMES.get(type),
                Arrays.toString(shape)));
      }
    }
  }

  private static Header readHeader(Path file, FileChannel channel) throws IOException {
    long size = channel.size();
    ByteBuffer lengthBytes = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
    if (size < 8) {
      throw corrupt(file, "it has only " + size + " bytes");
    }
    readFully(channel, lengthBytes, 0);
    long length = lengthBytes.flip().getLong();
    if (length < 2 || length > MAX_HEADER || length > size - 8) {
      throw corrupt(file, "its header claims " + length + " bytes of " + size);
    }
    ByteBuffer text = ByteBuffer.allocate((int) length);
    readFully(channel, text, 8);
    Map<String, Entry> entries = new LinkedHashMap<>();
    try {
      JsonNode root = JSON.readTree(new String(text.array(), StandardCharsets.UTF_8));
      for (Map.Entry<String, JsonNode> field : root.properties()) {
        if (!field.getKey().equals("__metadata__")) {
          entries.put(field.getKey(), entry(file, field.getKey(), field.getValue(), size - 8 - length));
        }
      }
    } catch (com.fasterxml.jackson.core.JsonProcessingException e) {
      throw corrupt(file, "its header is not JSON");
    }
    return new Header(entries, 8 + length);
  }

  private static Entry entry(Path file, String name, JsonNode node, long dataBytes) {
    ScalarType type = null;
    for (Map.Entry<ScalarType, String> known : TYPE_NAMES.entrySet()) {
      if (known.getValue().equals(node.path("dtype").asText())) {
        type = known.getKey();
      }
    }
    if (type == null || !node.path("shape").isArray() || node.path("data_offsets").size() != 2) {
      throw corrupt(file, "its header does not describe " + name);
    }
    long[] shape = new long[node.path("shape").size()];
    long bytes = elementSize(type);
    for (int i = 0; i < shape.length; i++) {
      shape[i] = node.path("shape").get(i).asLong(-1);
      if (shape[i] < 0 || (shape[i] > 0 && bytes > Long.MAX_VALUE / shape[i])) {
        throw corrupt(file, "its header gives " + name + " a size of " + shape[i]);
      }
      bytes *= shape[i];
    }
    long begin = node.path("data_offsets").get(0).asLong(-1);
    long end = node.path("data_offsets").get(1).asLong(-1);
    if (begin < 0 || end - begin != bytes || end > dataBytes) {
      throw corrupt(
          file,
          String.format("%s should be at bytes %d to %d of the data, which have %d", name, begin, end, dataBytes));
    }
    return new Entry(type, shape, begin, end);
  }

  private static int elementSize(ScalarType type) {
    return switch (TYPE_NAMES.get(type)) {
      case "F64", "I64" -> 8;
      case "F32", "I32" -> 4;
      case "F16", "BF16", "I16" -> 2;
      default -> 1;
    };
  }

  private static void readInto(FileChannel channel, Header header, Entry entry, Tensor tensor) throws IOException {
    for (long at = 0; at < entry.end - entry.begin; at += CHUNK) {
      try (PointerScope scope = new PointerScope()) {
        readFully(channel, bytes(tensor, at), header.dataStart + entry.begin + at);
      }
    }
  }

  /** The bytes of a dense CPU tensor from a position on, at most CHUNK of them. */
  private static ByteBuffer bytes(Tensor dense, long at) {
    BytePointer pointer = new BytePointer(dense.data_ptr()).position(at);
    return pointer.limit(Math.min(dense.nbytes(), at + CHUNK)).asByteBuffer();
  }

  private static long[] shapeOf(Tensor tensor) {
    long[] shape = new long[(int) tensor.dim()];
    for (int i = 0; i < shape.length; i++) {
      shape[i] = tensor.size(i);
    }
    return shape;
  }

  private static void writeFully(FileChannel channel, ByteBuffer buffer) throws IOException {
    while (buffer.hasRemaining()) {
      channel.write(buffer);
    }
  }

  private static void readFully(FileChannel channel, ByteBuffer buffer, long position) throws IOException {
    while (buffer.hasRemaining()) {
      int count = channel.read(buffer, position);
      if (count < 0) {
        throw new IOException("it ends too early");
      }
      position += count;
    }
  }

  private static CheckpointException corrupt(Path file, String why) {
    return new CheckpointException(file + " is damaged: " + why);
  }

  private static CheckpointException unreadable(Path file, IOException e) {
    String why = Files.exists(file) ? e.getMessage() : "there is no such file";
    return new CheckpointException("cannot read " + file + ": " + why, e);
  }
}

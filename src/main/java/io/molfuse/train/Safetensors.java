// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.molfuse.train.SafetensorsHeader.Entry;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;

/**
 * Files of named tensors in the safetensors format: the header's length as a little-endian 64-bit number, a JSON header with
 * element type, shape and byte range of each tensor, then the tensors' bytes, row-major and little-endian.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class Safetensors {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final int CHUNK = 1 << 24;

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
      ElementType type = typeOf(tensor);
      if (type == null) {
        throw new IllegalArgumentException(entry.getKey() + " has an element type that safetensors files cannot hold");
      }
      ObjectNode node = root.putObject(entry.getKey()).put("dtype", type.name());
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
      SafetensorsHeader header = SafetensorsHeader.read(file, channel);
      require(file, header, tensors);
      for (Map.Entry<String, Tensor> named : tensors.entrySet()) {
        copyInto(channel, header, header.entries().get(named.getKey()), named.getValue());
      }
    } catch (IOException e) {
      throw unreadable(file, e);
    }
  }

  /**
   * Reads all tensors of a file.
   *
   * @param file a safetensors file
   * @return by name in the file's order, on the CPU, in the caller's scope
   * @throws CheckpointException if it is missing, damaged, or has an element type that libtorch cannot compute with
   */
  public static Map<String, Tensor> read(Path file) {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      SafetensorsHeader header = SafetensorsHeader.read(file, channel);
      Map<String, Tensor> tensors = new LinkedHashMap<>();
      for (Map.Entry<String, Entry> named : header.entries().entrySet()) {
        Entry entry = named.getValue();
        if (entry.type() == null) {
          throw new CheckpointException(
              file + " holds " + named.getKey() + " as " + entry.typeName() + ", which libtorch cannot compute with");
        }
        Tensor values = empty(entry);
        fill(channel, header, entry, values);
        tensors.put(named.getKey(), values);
      }
      return tensors;
    } catch (IOException e) {
      throw unreadable(file, e);
    }
  }

  /**
   * Loads weights that another program saved, by name. A file's tensor may have any type whose values all fit into the target's, such as
   * bfloat16 for float32. Nothing is overwritten unless all that is wanted can be had.
   *
   * @param file a safetensors file
   * @param tensors what to overwrite by name, on any device
   * @param options prefixes, and whether all names must match
   * @return what was loaded and what was not
   * @throws CheckpointException if the file is missing or damaged, or, unless partial, does not match; its message is the report
   */
  public static LoadReport load(Path file, Map<String, Tensor> tensors, LoadOptions options) {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      SafetensorsHeader header = SafetensorsHeader.read(file, channel);
      Map<String, Entry> wanted = new LinkedHashMap<>();
      LoadReport.Builder report = new LoadReport.Builder(file);
      header.entries().forEach(
          (stored, entry) -> {
            String name = options.targetName(stored);
            Tensor target = tensors.get(name);
            if (target == null) {
              report.unexpected(stored);
            } else if (wanted.containsKey(name)) {
              throw new CheckpointException(file + " holds two tensors that the prefixes make " + name);
            } else {
              wanted.put(name, entry);
              report.compare(name, entry, typeOf(target), shapeOf(target));
            }
          });
      tensors.keySet().stream().filter(name -> !wanted.containsKey(name)).forEach(report::missing);
      LoadReport done = report.build();
      if (!done.complete() && !options.partial()) {
        throw new CheckpointException(done.text());
      }
      for (String name : done.loaded()) {
        copyInto(channel, header, wanted.get(name), tensors.get(name));
      }
      return done;
    } catch (IOException e) {
      throw unreadable(file, e);
    }
  }

  /** Checks names, shapes and types as {@link #readInto} does, and overwrites nothing. */
  static void require(Path file, Map<String, Tensor> tensors) {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      require(file, SafetensorsHeader.read(file, channel), tensors);
    } catch (IOException e) {
      throw unreadable(file, e);
    }
  }

  private static void require(Path file, SafetensorsHeader header, Map<String, Tensor> tensors) {
    for (Map.Entry<String, Tensor> named : tensors.entrySet()) {
      check(file, named.getKey(), header.entries().get(named.getKey()), named.getValue());
    }
    for (String name : header.entries().keySet()) {
      if (!tensors.containsKey(name)) {
        throw new CheckpointException(file + " holds a tensor " + name + " that the model does not have");
      }
    }
  }

  private static void check(Path file, String name, Entry entry, Tensor tensor) {
    if (entry == null) {
      throw new CheckpointException(file + " lacks the tensor " + name);
    }
    ElementType type = typeOf(tensor);
    long[] shape = shapeOf(tensor);
    if (type != entry.type() || !Arrays.equals(shape, entry.shape())) {
      throw new CheckpointException(
          String.format(
              "%s holds %s as %s %s, but the model needs %s %s",
              file, name, entry.typeName(), Arrays.toString(entry.shape()), type, Arrays.toString(shape)));
    }
  }

  /** Null for a type that safetensors files do not have. */
  private static ElementType typeOf(Tensor tensor) {
    try (PointerScope scope = new PointerScope()) {
      return ElementType.of(tensor.scalar_type().intern());
    }
  }

  private static Tensor empty(Entry entry) {
    return torch.empty(entry.shape(), new TensorOptions(entry.type().scalarType), null);
  }

  private static void copyInto(FileChannel channel, SafetensorsHeader header, Entry entry, Tensor target) throws IOException {
    try (PointerScope scope = new PointerScope()) {
      Tensor values = empty(entry);
      fill(channel, header, entry, values);
      target.detach().copy_(values);
    }
  }

  private static void fill(FileChannel channel, SafetensorsHeader header, Entry entry, Tensor tensor) throws IOException {
    for (long at = 0; at < entry.end() - entry.begin(); at += CHUNK) {
      try (PointerScope scope = new PointerScope()) {
        readFully(channel, bytes(tensor, at), header.dataStart() + entry.begin() + at);
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

  static void readFully(FileChannel channel, ByteBuffer buffer, long position) throws IOException {
    while (buffer.hasRemaining()) {
      int count = channel.read(buffer, position);
      if (count < 0) {
        throw new IOException("it ends too early");
      }
      position += count;
    }
  }

  private static CheckpointException unreadable(Path file, IOException e) {
    String why = Files.exists(file) ? e.getMessage() : "there is no such file";
    return new CheckpointException("cannot read " + file + ": " + why, e);
  }
}

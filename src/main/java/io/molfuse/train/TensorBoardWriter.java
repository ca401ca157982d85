// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import java.util.zip.CRC32C;

/**
 * Writes one event file that TensorBoard shows: scalars, and texts in Markdown. A file is a sequence of TFRecords (length, data, and a
 * masked CRC-32C of each, little-endian), each of them an Event as TensorFlow's event.proto and summary.proto have it. A folder may hold
 * several files of one run; they are made so that their names sort by age, the order in which TensorBoard reads them.
 *
 * <p>Not for several threads at once.
 */
public final class TensorBoardWriter implements AutoCloseable {
  private static final String VERSION = "brain.Event:2";
  private static final Pattern NAME = Pattern.compile("events\\.out\\.tfevents\\.(\\d{10})\\..*");
  private static final int MASK = 0xa282ead8;

  // Fields of the protocol buffers.
  private static final int EVENT_WALL_TIME = 1;
  private static final int EVENT_STEP = 2;
  private static final int EVENT_FILE_VERSION = 3;
  private static final int EVENT_SUMMARY = 5;
  private static final int EVENT_SESSION_LOG = 7;
  private static final int SESSION_LOG_STATUS = 1;
  private static final int SESSION_START = 1;
  private static final int SUMMARY_VALUE = 1;
  private static final int VALUE_TAG = 1;
  private static final int VALUE_SIMPLE = 2;
  private static final int VALUE_TENSOR = 8;
  private static final int VALUE_METADATA = 9;
  private static final int METADATA_PLUGIN = 1;
  private static final int METADATA_DATA_CLASS = 4;
  private static final int DATA_CLASS_TENSOR = 2;
  private static final int PLUGIN_NAME = 1;
  private static final int TENSOR_TYPE = 1;
  private static final int TYPE_STRING = 7;
  private static final int TENSOR_SHAPE = 2;
  private static final int TENSOR_STRING = 8;
  private static final int SHAPE_DIMENSION = 2;
  private static final int DIMENSION_SIZE = 1;

  /** A message of protocol buffers in the making. */
  private static final class Message {
    private static final int VARINT = 0;
    private static final int FIXED64 = 1;
    private static final int BYTES = 2;
    private static final int FIXED32 = 5;

    private final ByteArrayOutputStream out = new ByteArrayOutputStream();

    private Message key(int field, int type) {
      varint((long) field << 3 | type);
      return this;
    }

    private void varint(long value) {
      long left = value;
      while ((left & ~0x7fL) != 0) {
        out.write((int) (left & 0x7f | 0x80));
        left >>>= 7;
      }
      out.write((int) left);
    }

    Message number(int field, long value) {
      key(field, VARINT).varint(value);
      return this;
    }

    Message real(int field, double value) {
      key(field, FIXED64).out.writeBytes(littleEndian(8).putDouble(value).array());
      return this;
    }

    Message real(int field, float value) {
      key(field, FIXED32).out.writeBytes(littleEndian(4).putFloat(value).array());
      return this;
    }

    Message bytes(int field, byte[] value) {
      key(field, BYTES).varint(value.length);
      out.writeBytes(value);
      return this;
    }

    Message text(int field, String value) {
      return bytes(field, value.getBytes(StandardCharsets.UTF_8));
    }

    Message message(int field, Message value) {
      return bytes(field, value.out.toByteArray());
    }
  }

  private final Path file;
  private final OutputStream out;

  private TensorBoardWriter(Path file, OutputStream out) {
    this.file = file;
    this.out = out;
  }

  /**
   * Begins a file for a run's first steps.
   *
   * @param folder of the run, made if need be
   * @return the writer
   * @throws UncheckedIOException if it cannot be written
   */
  public static TensorBoardWriter open(Path folder) {
    try {
      Files.createDirectories(folder);
      Path file = folder.resolve(name(folder));
      OutputStream out =
          new BufferedOutputStream(Files.newOutputStream(file, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE));
      TensorBoardWriter writer = new TensorBoardWriter(file, out);
      writer.write(event(0).text(EVENT_FILE_VERSION, VERSION));
      writer.flush();
      return writer;
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write events to " + folder + ": " + e, e);
    }
  }

  /**
   * Begins a file for a resumed run. TensorBoard forgets what earlier files have of later steps.
   *
   * @param folder of the run
   * @param purgeStep first step that is made again
   * @return the writer
   * @throws UncheckedIOException if it cannot be written
   */
  public static TensorBoardWriter resume(Path folder, long purgeStep) {
    TensorBoardWriter writer = open(folder);
    writer.write(event(purgeStep).message(EVENT_SESSION_LOG, new Message().number(SESSION_LOG_STATUS, SESSION_START)));
    writer.flush();
    return writer;
  }

  /** The time in seconds decides the order of files, so two of one second must not have the same. */
  private static String name(Path folder) throws IOException {
    long seconds = System.currentTimeMillis() / 1000;
    List<String> names;
    try (Stream<Path> files = Files.list(folder)) {
      names = files.map(each -> each.getFileName().toString()).toList();
    }
    for (String each : names) {
      Matcher matcher = NAME.matcher(each);
      if (matcher.matches()) {
        seconds = Math.max(seconds, Long.parseLong(matcher.group(1)) + 1);
      }
    }
    return String.format("events.out.tfevents.%010d.molfuse.%d", seconds, ProcessHandle.current().pid());
  }

  /** @return the file */
  public Path file() {
    return file;
  }

  /**
   * Writes a point of a curve.
   *
   * @param tag name of the curve; what stands before its first slash is the group it is shown in
   * @param value kept as float32; may be infinite or NaN
   * @param step x coordinate
   * @throws UncheckedIOException if it cannot be written
   */
  public void scalar(String tag, double value, long step) {
    write(summary(step, new Message().text(VALUE_TAG, tag).real(VALUE_SIMPLE, (float) value)));
  }

  /**
   * Writes a text.
   *
   * @param tag its name
   * @param markdown the text
   * @param step that it belongs to
   * @throws UncheckedIOException if it cannot be written
   */
  public void text(String tag, String markdown, long step) {
    Message metadata =
        new Message()
            .message(METADATA_PLUGIN, new Message().text(PLUGIN_NAME, "text"))
            .number(METADATA_DATA_CLASS, DATA_CLASS_TENSOR);
    Message shape = new Message().message(SHAPE_DIMENSION, new Message().number(DIMENSION_SIZE, 1));
    Message tensor =
        new Message().number(TENSOR_TYPE, TYPE_STRING).message(TENSOR_SHAPE, shape).text(TENSOR_STRING, markdown);
    write(
        summary(
            step, new Message().text(VALUE_TAG, tag).message(VALUE_TENSOR, tensor).message(VALUE_METADATA, metadata)));
  }

  private static Message summary(long step, Message value) {
    return event(step).message(EVENT_SUMMARY, new Message().message(SUMMARY_VALUE, value));
  }

  private static Message event(long step) {
    return new Message().real(EVENT_WALL_TIME, System.currentTimeMillis() * 1e-3).number(EVENT_STEP, step);
  }

  private void write(Message event) {
    byte[] data = event.out.toByteArray();
    byte[] length = littleEndian(8).putLong(data.length).array();
    try {
      out.write(length);
      out.write(littleEndian(4).putInt(maskedCrc(length)).array());
      out.write(data);
      out.write(littleEndian(4).putInt(maskedCrc(data)).array());
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write " + file + ": " + e, e);
    }
  }

  /** A checksum of data that holds checksums is a poor one, so TFRecord rotates it and adds a constant. */
  private static int maskedCrc(byte[] data) {
    CRC32C crc = new CRC32C();
    crc.update(data);
    return Integer.rotateRight((int) crc.getValue(), 15) + MASK;
  }

  private static ByteBuffer littleEndian(int bytes) {
    return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
  }

  /**
   * Hands what was written to the operating system, so that readers see it.
   *
   * @throws UncheckedIOException if it cannot be written
   */
  public void flush() {
    try {
      out.flush();
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write " + file + ": " + e, e);
    }
  }

  @Override
  public void close() {
    try {
      out.close();
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write " + file + ": " + e, e);
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.DeviceMemory;
import io.molfuse.ops.Molfuse;
import io.molfuse.ops.MolfuseException;
import java.util.List;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A device has no memory for what was asked of it. Training can go on with less once what the failed step held is released, which
 * its scope does, and the gradients are dropped.
 */
public final class DeviceOutOfMemoryException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** What libtorch, CUDA, cuBLAS, cuDNN and molfuse say when memory runs out: JavaCPP passes on the text of an exception only. */
  private static final List<String> MARKS =
      List.of(
          "out of memory",
          "can't allocate memory",
          "cuda_error_out_of_memory",
          "cudaerrormemoryallocation",
          "cublas_status_alloc_failed",
          "cudnn_status_alloc_failed",
          "std::bad_alloc");

  /** JavaCPP's errors are of the type that the JVM's own are of, some of which mention memory that is no device's either. */
  private static final List<String> JAVACPP = List.of("physical memory usage is too high", "cannot allocate new ");

  private static final List<String> DEVICES = List.of("cuda", "cublas", "cudnn", "gpu");

  private static final Pattern SIZE = Pattern.compile("(\\d+(?:\\.\\d+)?) (bytes|[KMGT]iB)");
  private static final Pattern NUMBER = Pattern.compile("\\bGPU (\\d+)\\b");
  private static final Pattern BYTES = Pattern.compile("you tried to allocate (\\d+) bytes");

  private final long requested;
  private final long allocated;
  private final long reserved;

  private DeviceOutOfMemoryException(String message, long requested, long allocated, long reserved, Throwable cause) {
    super(message, cause);
    this.requested = requested;
    this.allocated = allocated;
    this.reserved = reserved;
  }

  /**
   * Tells whether a failure, or what caused it, is that memory ran out.
   *
   * @param failure from libtorch, from an operator or from anywhere else
   * @return whether its text or its type says so
   */
  public static boolean isOutOfMemory(Throwable failure) {
    return root(failure) != null;
  }

  /**
   * Makes such a failure one of this type, as {@code catch (RuntimeException | OutOfMemoryError e) { throw mapped(e); }} does. The
   * heap of the JVM is none of a device's: its own OutOfMemoryError is not mapped.
   *
   * @param failure from libtorch, from an operator or from anywhere else
   * @return of this type if memory ran out, else the failure itself if it is unchecked; an Error is thrown
   */
  public static RuntimeException mapped(Throwable failure) {
    Throwable root = root(failure);
    if (root instanceof DeviceOutOfMemoryException known) {
      return known;
    }
    if (root != null) {
      return of(failure, MolfuseException.reason(root));
    }
    if (failure instanceof Error error) {
      throw error;
    }
    return failure instanceof RuntimeException unchecked ? unchecked : new IllegalStateException(failure);
  }

  private static Throwable root(Throwable failure) {
    Throwable first = null;
    int depth = 0;
    for (Throwable e = failure; e != null && depth < 16; e = e.getCause(), depth++) {
      if (e instanceof DeviceOutOfMemoryException) {
        return e;
      }
      if (e instanceof OutOfMemoryError) {
        // Whatever wraps it often repeats its text, which decides alone.
        return says(e, JAVACPP) ? e : null;
      }
      if (first == null && says(e, MARKS)) {
        first = e;
      }
    }
    return first;
  }

  private static boolean says(Throwable e, List<String> marks) {
    if (e.getMessage() == null) {
      return false;
    }
    String text = MolfuseException.reason(e).toLowerCase(Locale.ROOT);
    return marks.stream().anyMatch(text::contains);
  }

  private static DeviceOutOfMemoryException of(Throwable failure, String text) {
    long requested = size(text, "Tried to allocate ");
    Matcher bytes = BYTES.matcher(text);
    if (requested < 0 && bytes.find()) {
      requested = Long.parseLong(bytes.group(1));
    }
    long allocated = size(text, "Of the allocated memory ");
    long unallocated = size(text, "is allocated by PyTorch, and ");
    long reserved = allocated >= 0 && unallocated >= 0 ? allocated + unallocated : -1;
    if (allocated < 0) {
      // CUDA's own messages have no numbers, but libtorch knows them.
      DeviceMemory memory = memoryOf(text);
      allocated = memory == null ? -1 : memory.allocated();
      reserved = memory == null ? -1 : memory.reserved();
    }
    String known =
        (requested < 0 ? "" : ", asked for " + words(requested))
            + (allocated < 0 ? "" : ", " + words(allocated) + " are in use")
            + (reserved < 0 ? "" : " of " + words(reserved) + " reserved");
    return new DeviceOutOfMemoryException(
        "the device has no memory left" + known + ". Try a smaller batch. (" + text + ")", requested, allocated, reserved, failure);
  }

  private static DeviceMemory memoryOf(String text) {
    try {
      int device = isOfDevice(text) ? device(text, Molfuse.cudaDevice(0).count()) : -1;
      return device < 0 ? null : Molfuse.deviceMemory(device);
    } catch (RuntimeException | LinkageError e) {
      // What is not known is left out.
      return null;
    }
  }

  /** Whether a text is about a device's memory, not that of the CPU. */
  static boolean isOfDevice(String text) {
    String lower = text.toLowerCase(Locale.ROOT);
    return DEVICES.stream().anyMatch(lower::contains);
  }

  /** Number of the device that a text names, else of the only one; -1 if that leaves several. */
  static int device(String text, int count) {
    Matcher number = NUMBER.matcher(text);
    if (number.find()) {
      return Integer.parseInt(number.group(1));
    }
    return count == 1 ? 0 : -1;
  }

  /** The size that follows a phrase, -1 without it. */
  private static long size(String text, String phrase) {
    int at = text.indexOf(phrase);
    if (at < 0) {
      return -1;
    }
    Matcher size = SIZE.matcher(text).region(at + phrase.length(), text.length());
    if (!size.lookingAt()) {
      return -1;
    }
    long unit =
        switch (size.group(2)) {
          case "KiB" -> 1L << 10;
          case "MiB" -> 1L << 20;
          case "GiB" -> 1L << 30;
          case "TiB" -> 1L << 40;
          default -> 1;
        };
    return Math.round(Double.parseDouble(size.group(1)) * unit);
  }

  static String words(long bytes) {
    String[] units = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double size = bytes;
    int unit = 0;
    while (size >= 1024 && unit < units.length - 1) {
      size /= 1024;
      unit++;
    }
    return unit == 0 ? bytes + " bytes" : String.format(Locale.ROOT, "%.2f %s", size, units[unit]);
  }

  /** @return bytes that were asked for; -1 if that is not known */
  public long requested() {
    return requested;
  }

  /** @return bytes that tensors held on the device; -1 if that is not known */
  public long allocated() {
    return allocated;
  }

  /** @return bytes that libtorch's allocator had taken from the driver; -1 if that is not known */
  public long reserved() {
    return reserved;
  }
}

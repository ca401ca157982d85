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
          "std::bad_alloc",
          "physical memory usage is too high",
          "cannot allocate new");

  private static final Pattern SIZE = Pattern.compile("(\\d+(?:\\.\\d+)?) (bytes|[KMGT]iB)");
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
    int depth = 0;
    for (Throwable e = failure; e != null && depth < 16; e = e.getCause(), depth++) {
      if (e instanceof DeviceOutOfMemoryException || saysSo(e)) {
        return e;
      }
    }
    return null;
  }

  private static boolean saysSo(Throwable e) {
    if (e.getMessage() == null) {
      return false;
    }
    String text = MolfuseException.reason(e).toLowerCase(Locale.ROOT);
    return MARKS.stream().anyMatch(text::contains);
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
      // CUDA's own messages and molfuse's have no numbers, but libtorch knows them.
      try {
        DeviceMemory memory = Molfuse.deviceMemory(0);
        allocated = memory.allocated();
        reserved = memory.reserved();
      } catch (RuntimeException | LinkageError e) {
        allocated = -1;
        reserved = -1;
      }
    }
    String known =
        (requested < 0 ? "" : ", asked for " + words(requested))
            + (allocated < 0 ? "" : ", " + words(allocated) + " are in use")
            + (reserved < 0 ? "" : " of " + words(reserved) + " reserved");
    return new DeviceOutOfMemoryException(
        "the device has no memory left" + known + ". Try a smaller batch. (" + text + ")", requested, allocated, reserved, failure);
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

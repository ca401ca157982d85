// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.bytedeco.javacpp.Pointer;

/** Peak memory of the process, by Linux's accounts. */
final class ResidentMemory {
  private ResidentMemory() {}

  /** MiB by which the resident set's peak rises above what was resident before; null where that cannot be told. */
  static Double peakOf(Runnable call) {
    try {
      // What was freed before goes back to the system, or its reuse would hide the need for it.
      Pointer.trimMemory();
      Files.writeString(Path.of("/proc/self/clear_refs"), "5");
      double before = status("VmRSS:");
      call.run();
      return (status("VmHWM:") - before) / 1024;
    } catch (IOException e) {
      return null;
    }
  }

  private static double status(String field) throws IOException {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith(field)) {
        return Double.parseDouble(line.substring(field.length()).replace("kB", "").trim());
      }
    }
    throw new IOException("no " + field);
  }
}

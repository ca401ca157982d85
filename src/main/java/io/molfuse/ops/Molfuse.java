// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

/** The native library as a whole. Operators load it on first use; nothing here needs to be called before them. */
public final class Molfuse {
  private Molfuse() {}

  /**
   * Loads libtorch and the molfuse libraries now instead of at the first operator.
   *
   * @throws MolfuseException if they cannot be loaded, saying which and why
   */
  public static void load() {
    Native.load();
  }

  /** @return version of libmolfuse, such as "0.1.0" */
  public static String version() {
    return Native.version();
  }

  /** @return what the libraries can do on this machine */
  public static Capabilities capabilities() {
    return CapabilitiesJson.parse(Native.info());
  }

  /**
   * Forces the CPU vector level of the process, for tests and measurements.
   *
   * @param level "baseline", "avx2", "avx512" or "auto"
   * @throws IllegalArgumentException for another word
   * @throws MolfuseException if the machine lacks the level
   */
  public static void setCpuLevel(String level) {
    Native.setCpuLevel(Checks.notNull("level", level));
  }
}

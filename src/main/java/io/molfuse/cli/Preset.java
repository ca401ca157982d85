// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Locale;

/** Sizes of the model with the training that suits them: presets/NAME.yaml over presets/defaults.yaml. */
final class Preset {
  /** The presets there are. */
  enum Name {
    TINY,
    QUICK,
    SMALL,
    MEDIUM,
    LARGE;

    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  /** Those that {@link #forData} chooses from. */
  static final List<Name> BY_DATA = List.of(Name.SMALL, Name.MEDIUM, Name.LARGE);

  private static final String DEFAULTS = "defaults";

  /** Numbers of molecules from which on a data set is medium and large. */
  static final int MEDIUM_DATA = 50_000;

  private static final int LARGE_DATA = 500_000;

  /** CPU threads from which on the small model learns as many molecules in the same time as the quick one on two. */
  private static final int MANY_THREADS = 8;

  private Preset() {}

  static Configuration load(Name name) {
    return Configuration.of(settings(name));
  }

  /** The values of all keys, whatever the preset. */
  static Setting defaults() {
    return read(DEFAULTS);
  }

  /** The values of all keys in a preset, which is named among them. */
  static Setting settings(Name name) {
    Setting named = new Setting.Scalar(name.toString(), new Origin(Origin.Layer.BUNDLED, "preset " + name, 0));
    return defaults().with(read(name.toString())).with(List.of("preset"), named);
  }

  private static Setting read(String name) {
    return YamlSettings.parse(text(name), new Origin(Origin.Layer.BUNDLED, "preset " + name, 1));
  }

  private static String text(String name) {
    try (InputStream file = Preset.class.getResourceAsStream("presets/" + name + ".yaml")) {
      return new String(file.readAllBytes(), StandardCharsets.UTF_8);
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read the preset " + name, e);
    }
  }

  /** The preset that gets somewhere in a few minutes. */
  static Name forMachine(int threads, boolean gpu) {
    return gpu || threads >= MANY_THREADS ? Name.SMALL : Name.QUICK;
  }

  /** The preset for so many molecules. */
  static Name forData(int molecules) {
    if (molecules < MEDIUM_DATA) {
      return Name.SMALL;
    }
    return molecules <= LARGE_DATA ? Name.MEDIUM : Name.LARGE;
  }
}

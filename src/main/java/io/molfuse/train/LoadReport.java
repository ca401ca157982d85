// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * What became of the tensors of a file and a model.
 *
 * @param file where the tensors came from
 * @param loaded names in the model
 * @param converted those of the loaded whose type in the file was another, with both types
 * @param missing names in the model that the file lacks
 * @param unexpected names in the file that the model lacks
 * @param mismatched names in the model with the shapes or types that differ
 */
public record LoadReport(
    Path file, List<String> loaded, List<String> converted, List<String> missing, List<String> unexpected, List<String> mismatched) {
  private static final int SHOWN = 20;

  /** @return whether every tensor of the model was loaded and every tensor of the file used */
  public boolean complete() {
    return missing.isEmpty() && unexpected.isEmpty() && mismatched.isEmpty();
  }

  /** @return one line, and one for each kind of difference with up to 20 names */
  public String text() {
    StringBuilder text = new StringBuilder(file.toString()).append(complete() ? " matches: " : " does not match the model: ");
    text.append(loaded.size()).append(" tensors fit");
    append(text, "converted", converted);
    append(text, "missing in the file", missing);
    append(text, "unexpected in the file", unexpected);
    append(text, "other shapes or types", mismatched);
    return text.toString();
  }

  private static void append(StringBuilder text, String kind, List<String> names) {
    if (!names.isEmpty()) {
      text.append("\n  ").append(kind).append(" (").append(names.size()).append("): ");
      text.append(String.join(", ", names.subList(0, Math.min(SHOWN, names.size()))));
      text.append(names.size() > SHOWN ? ", ..." : "");
    }
  }

  /** Collects the lists. */
  static final class Builder {
    private final Path file;
    private final List<String> loaded = new ArrayList<>();
    private final List<String> converted = new ArrayList<>();
    private final List<String> missing = new ArrayList<>();
    private final List<String> unexpected = new ArrayList<>();
    private final List<String> mismatched = new ArrayList<>();

    Builder(Path file) {
      this.file = file;
    }

    void missing(String name) {
      missing.add(name);
    }

    void unexpected(String name) {
      unexpected.add(name);
    }

    void compare(String name, SafetensorsHeader.Entry entry, ElementType type, long[] shape) {
      boolean fits = entry.type() != null && type != null && entry.type().fitsInto(type);
      if (!fits || !Arrays.equals(entry.shape(), shape)) {
        mismatched.add(
            String.format(
                "%s is %s %s, but the model needs %s %s",
                name,
                entry.typeName(),
                Arrays.toString(entry.shape()),
                type,
                Arrays.toString(shape)));
        return;
      }
      loaded.add(name);
      if (entry.type() != type) {
        converted.add(name + " " + entry.typeName() + " to " + type);
      }
    }

    LoadReport build() {
      return new LoadReport(
          file, List.copyOf(loaded), List.copyOf(converted), List.copyOf(missing), List.copyOf(unexpected), List.copyOf(mismatched));
    }
  }
}

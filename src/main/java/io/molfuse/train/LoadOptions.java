// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.LinkedHashMap;
import java.util.Map;

/** How {@link Safetensors#load} matches the names of a file with those of a model. Each method gives a changed copy. */
public final class LoadOptions {
  private final Map<String, String> prefixes;
  private final boolean partial;

  private LoadOptions(Map<String, String> prefixes, boolean partial) {
    this.prefixes = prefixes;
    this.partial = partial;
  }

  /** @return names as they are, and all of them must match */
  public static LoadOptions strict() {
    return new LoadOptions(Map.of(), false);
  }

  /**
   * Replaces the start of names. Of several prefixes that fit, the first given counts; each name is changed once.
   *
   * @param inFile such as "model.encoder."; empty for every name
   * @param inModel what to put there, such as ""
   * @return with this prefix
   */
  public LoadOptions prefix(String inFile, String inModel) {
    Map<String, String> more = new LinkedHashMap<>(prefixes);
    more.putIfAbsent(inFile, inModel);
    return new LoadOptions(more, partial);
  }

  /**
   * Allows names on one side only, shapes that differ and types that would lose values: such tensors are left out and reported.
   *
   * @return loading what fits
   */
  public LoadOptions allowPartial() {
    return new LoadOptions(prefixes, true);
  }

  boolean partial() {
    return partial;
  }

  String targetName(String stored) {
    for (Map.Entry<String, String> prefix : prefixes.entrySet()) {
      if (stored.startsWith(prefix.getKey())) {
        return prefix.getValue() + stored.substring(prefix.getKey().length());
      }
    }
    return stored;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import java.util.Collection;

/** What a user may have meant by a key that does not exist. */
final class NearestKey {
  private NearestKey() {}

  /**
   * The known key with the fewest differences. Keys in the same place come first; one elsewhere, as if the user had forgotten the
   * way to it, costs one more.
   *
   * @param unknown path of dots
   * @param everywhere paths of all keys
   * @param here paths of the keys in the same mapping, at least one
   * @return a path
   */
  static String of(String unknown, Collection<String> everywhere, Collection<String> here) {
    String nearest = null;
    int least = Integer.MAX_VALUE;
    for (String path : here) {
      int distance = distance(last(unknown), last(path));
      if (distance < least) {
        nearest = path;
        least = distance;
      }
    }
    for (String path : everywhere) {
      int distance = Math.min(distance(unknown, path), 1 + distance(last(unknown), last(path)));
      if (distance < least) {
        nearest = path;
        least = distance;
      }
    }
    return nearest;
  }

  private static String last(String path) {
    return path.substring(path.lastIndexOf('.') + 1);
  }

  /** Insertions, deletions and replacements that make one of the other (Levenshtein 1966). */
  static int distance(String from, String to) {
    int[] row = new int[to.length() + 1];
    for (int j = 0; j < row.length; j++) {
      row[j] = j;
    }
    for (int i = 1; i <= from.length(); i++) {
      int diagonal = row[0];
      row[0] = i;
      for (int j = 1; j < row.length; j++) {
        int replaced = diagonal + (from.charAt(i - 1) == to.charAt(j - 1) ? 0 : 1);
        diagonal = row[j];
        row[j] = Math.min(replaced, 1 + Math.min(row[j], row[j - 1]));
      }
    }
    return row[to.length()];
  }
}

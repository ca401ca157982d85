// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;

/**
 * The order in which CPython (3.7 to 3.13 at least) pops a set of small non-negative integers that was filled in ascending order.
 * The reference starts its augmenting paths in that order, and another order can give another Kekule structure.
 *
 * <p>A set is a hash table with a power of two of slots; an integer hashes to itself; pop takes the first slot in use from where
 * the last pop left off.
 */
final class CPythonSetOrder {
  private static final int LINEAR_PROBES = 9;
  private static final int PERTURB_SHIFT = 5;
  private static final int MIN_SIZE = 8;
  private static final int EMPTY = -1;

  private CPythonSetOrder() {}

  /**
   * @param values ascending, each at least 0, no duplicates
   * @return the same values in the order of removal
   */
  static int[] of(int[] values) {
    int[] table = empty(MIN_SIZE);
    int used = 0;
    for (int value : values) {
      insert(table, value);
      used++;
      int mask = table.length - 1;
      if (used * 5 >= mask * 3) {
        table = grow(table, used > 50_000 ? used * 2 : used * 4);
      }
    }
    int[] order = new int[values.length];
    int count = 0;
    for (int value : table) {
      if (value != EMPTY) {
        order[count++] = value;
      }
    }
    return order;
  }

  private static int[] empty(int size) {
    int[] table = new int[size];
    Arrays.fill(table, EMPTY);
    return table;
  }

  private static int[] grow(int[] table, int atLeast) {
    int size = MIN_SIZE;
    while (size <= atLeast) {
      size <<= 1;
    }
    int[] larger = empty(size);
    for (int value : table) {
      if (value != EMPTY) {
        insert(larger, value);
      }
    }
    return larger;
  }

  private static void insert(int[] table, int value) {
    int mask = table.length - 1;
    int perturb = value;
    int slot = value & mask;
    while (true) {
      int probes = slot + LINEAR_PROBES <= mask ? LINEAR_PROBES : 0;
      for (int i = 0; i <= probes; i++) {
        if (table[slot + i] == EMPTY) {
          table[slot + i] = value;
          return;
        }
      }
      perturb >>>= PERTURB_SHIFT;
      slot = (slot * 5 + 1 + perturb) & mask;
    }
  }
}

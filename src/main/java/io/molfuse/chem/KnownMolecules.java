// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/**
 * A set of molecules by the 64-bit hashes of their canonical SMILES: 16 to 32 bytes a molecule. Of 30,000 molecules asked for against
 * a million known ones, one is taken for known by mistake with a probability below 2e-9.
 *
 * <p>Not thread-safe while molecules are added.
 */
public final class KnownMolecules {
  // Open addressing with linear probing, at most half full. 0 marks a free slot; the hash 0 itself is noted apart.
  private long[] table;
  private int size;
  private boolean hasZero;

  /** @param expected number of molecules to make room for; more can be added */
  public KnownMolecules(int expected) {
    if (expected < 0) {
      throw new IllegalArgumentException("expected must be at least 0, but is " + expected);
    }
    int slots = 16;
    while (slots < 2L * expected && slots < 1 << 30) {
      slots <<= 1;
    }
    table = new long[slots];
  }

  /**
   * @param dataset a data set
   * @return all its molecules
   */
  public static KnownMolecules of(MoleculeDataset dataset) {
    KnownMolecules known = new KnownMolecules(dataset.size());
    for (int entry = 0; entry < dataset.size(); entry++) {
      known.add(dataset.smiles(entry));
    }
    return known;
  }

  /**
   * @param dataset a data set
   * @param entries entries of it, such as the training side of a split
   * @return those molecules
   */
  public static KnownMolecules of(MoleculeDataset dataset, int[] entries) {
    KnownMolecules known = new KnownMolecules(entries.length);
    for (int entry : entries) {
      known.add(dataset.smiles(entry));
    }
    return known;
  }

  /**
   * @param canonicalSmiles as {@link Chemistry#canonical} gives it
   * @return whether it was not known before
   */
  public boolean add(String canonicalSmiles) {
    return add(Hashes.of(canonicalSmiles));
  }

  boolean add(long hash) {
    if (hash == 0) {
      boolean isNew = !hasZero;
      hasZero = true;
      size += isNew ? 1 : 0;
      return isNew;
    }
    if (2L * (size + 1) > table.length) {
      grow();
    }
    int slot = slot(hash);
    if (table[slot] == hash) {
      return false;
    }
    table[slot] = hash;
    size++;
    return true;
  }

  /**
   * @param canonicalSmiles as {@link Chemistry#canonical} gives it
   * @return whether it is known
   */
  public boolean contains(String canonicalSmiles) {
    long hash = Hashes.of(canonicalSmiles);
    return hash == 0 ? hasZero : table[slot(hash)] == hash;
  }

  /** @return number of molecules */
  public int size() {
    return size;
  }

  private int slot(long hash) {
    int mask = table.length - 1;
    int slot = (int) hash & mask;
    while (table[slot] != 0 && table[slot] != hash) {
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  private void grow() {
    if (table.length == 1 << 30) {
      throw new IllegalStateException("more than " + (1 << 29) + " molecules");
    }
    long[] old = table;
    table = new long[2 * old.length];
    for (long hash : old) {
      if (hash != 0) {
        table[slot(hash)] = hash;
      }
    }
  }
}

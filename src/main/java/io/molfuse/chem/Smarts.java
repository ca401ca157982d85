// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;

/**
 * A SMARTS pattern (Daylight Theory Manual, "SMARTS"), with RDKit's reading where the manual leaves a choice: r is the size of the
 * smallest ring, R the number of smallest rings, H counts every hydrogen, v is the valence of the kekulised form, symbols of two letters
 * such as [Se] are aromatic atoms too, and parts parted by dots may match anywhere. Made by {@link SmartsReader}; no stereo, no component grouping, no reactions.
 */
final class Smarts {
  /** Whether an atom fits. */
  @FunctionalInterface
  interface AtomTest {
    boolean fits(PerceivedMolecule molecule, int atom);
  }

  /** Whether a bond fits. */
  @FunctionalInterface
  interface BondTest {
    boolean fits(PerceivedMolecule molecule, int bond);
  }

  /** A query bond from an atom to an earlier one. */
  record Link(int target, BondTest test) {}

  private final AtomTest[] atoms;
  private final Link[][] links;

  /** @param links for each atom its bonds to earlier atoms, empty for the first of each part */
  Smarts(AtomTest[] atoms, Link[][] links) {
    this.atoms = atoms;
    this.links = links;
  }

  /** @throws IllegalArgumentException if the pattern cannot be read */
  static Smarts of(String pattern) {
    return new SmartsReader(pattern).read();
  }

  /** Whether the pattern occurs. */
  boolean matches(PerceivedMolecule molecule) {
    Search search = new Search(molecule);
    for (int atom = 0; atom < molecule.count; atom++) {
      if (search.from(atom)) {
        return true;
      }
    }
    return false;
  }

  /** Whether the pattern occurs with its first atom at the one given. */
  boolean matchesAt(PerceivedMolecule molecule, int atom) {
    return atoms[0].fits(molecule, atom) && (atoms.length == 1 || new Search(molecule).from(atom));
  }

  /** Every occurrence of a pattern of two atoms, as {first, second}; two that hold the same atoms are one. */
  int[][] pairs(PerceivedMolecule molecule) {
    if (atoms.length != 2) {
      throw new IllegalArgumentException("pairs are of patterns of two atoms, this one has " + atoms.length);
    }
    int[][] found = new int[molecule.bondCount][];
    int size = 0;
    boolean[] seen = new boolean[molecule.bondCount];
    Link link = links[1][0];
    for (int first = 0; first < molecule.count; first++) {
      if (!atoms[0].fits(molecule, first)) {
        continue;
      }
      for (int edge = molecule.rowPtr[first]; edge < molecule.rowPtr[first + 1]; edge++) {
        int bond = molecule.bondTo[edge];
        int second = molecule.neighbour[edge];
        if (!seen[bond] && link.test().fits(molecule, bond) && atoms[1].fits(molecule, second)) {
          seen[bond] = true;
          found[size++] = new int[] {first, second};
        }
      }
    }
    return Arrays.copyOf(found, size);
  }

  /** Number of atoms that fit a pattern of one atom. */
  int countAtoms(PerceivedMolecule molecule) {
    int found = 0;
    for (int atom = 0; atom < molecule.count; atom++) {
      found += matchesAt(molecule, atom) ? 1 : 0;
    }
    return found;
  }

  private final class Search {
    private final PerceivedMolecule molecule;
    private int[] matched;
    private boolean[] used;

    Search(PerceivedMolecule molecule) {
      this.molecule = molecule;
    }

    boolean from(int atom) {
      if (!atoms[0].fits(molecule, atom)) {
        return false;
      }
      if (atoms.length == 1) {
        return true;
      }
      if (matched == null) {
        matched = new int[atoms.length];
        used = new boolean[molecule.count];
      }
      matched[0] = atom;
      used[atom] = true;
      boolean found = extend(1);
      used[atom] = false;
      return found;
    }

    private boolean extend(int query) {
      if (query == atoms.length) {
        return true;
      }
      if (links[query].length == 0) {
        for (int atom = 0; atom < molecule.count; atom++) {
          if (tries(query, atom)) {
            return true;
          }
        }
        return false;
      }
      Link first = links[query][0];
      int from = matched[first.target()];
      for (int edge = molecule.rowPtr[from]; edge < molecule.rowPtr[from + 1]; edge++) {
        if (!used[molecule.neighbour[edge]]
            && first.test().fits(molecule, molecule.bondTo[edge])
            && tries(query, molecule.neighbour[edge])) {
          return true;
        }
      }
      return false;
    }

    private boolean tries(int query, int atom) {
      if (used[atom] || !atoms[query].fits(molecule, atom)) {
        return false;
      }
      for (int i = 1; i < links[query].length; i++) {
        int bond = molecule.bond(matched[links[query][i].target()], atom);
        if (bond < 0 || !links[query][i].test().fits(molecule, bond)) {
          return false;
        }
      }
      matched[query] = atom;
      used[atom] = true;
      boolean found = extend(query + 1);
      used[atom] = false;
      return found;
    }
  }
}

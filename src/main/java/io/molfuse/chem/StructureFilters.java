// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Optional;
import java.util.Set;

/**
 * The filters of MOSES: no ring of eight or more atoms, no charged atom, no element but C, N, S, O, F, Cl, Br and H, none of the
 * medicinal chemistry filters, and no pan-assay interference compound (J. B. Baell, G. A. Holloway, J. Med. Chem. 53 (2010) 2719-2740).
 * The patterns are those of the Python package molsets.
 */
public final class StructureFilters {
  private static final Set<Integer> ALLOWED =
      Set.of(Elements.H, Elements.C, Elements.N, Elements.O, Elements.F, Elements.S, Elements.CL, Elements.BR);
  private static final int LARGE_RING = 8;

  /** Compiled at first use. */
  private static final class Patterns {
    static final String[] NAMES = BundledTable.rows("filters.tsv").stream().map(row -> row[0]).toArray(String[]::new);
    static final Smarts[] OF = BundledTable.patterns("filters.tsv", 1).toArray(new Smarts[0]);
  }

  private StructureFilters() {}

  /**
   * @param smiles a molecule
   * @return what it is filtered out for, or empty if it passes
   * @throws MoleculeException if it is not a molecule, saying why
   */
  public static Optional<String> reason(String smiles) {
    return reason(PerceivedMolecule.of(smiles));
  }

  static Optional<String> reason(PerceivedMolecule molecule) {
    for (int[] ring : molecule.rings) {
      if (ring.length >= LARGE_RING) {
        return Optional.of("ring of " + ring.length + " atoms");
      }
    }
    for (int atom = 0; atom < molecule.count; atom++) {
      if (molecule.charge[atom] != 0) {
        return Optional.of("charged atom");
      }
      if (!ALLOWED.contains(molecule.element[atom])) {
        return Optional.of("element " + Elements.symbol(molecule.element[atom]));
      }
    }
    PerceivedMolecule full = molecule.withHydrogens();
    for (int i = 0; i < Patterns.OF.length; i++) {
      if (Patterns.OF[i].matches(full)) {
        return Optional.of(Patterns.NAMES[i]);
      }
    }
    return Optional.empty();
  }
}

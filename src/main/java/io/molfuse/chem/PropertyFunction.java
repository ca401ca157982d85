// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.List;
import java.util.Set;

/** Computes properties of molecules. Thread-safe. */
public interface PropertyFunction {
  /** @return what it can compute */
  Set<MolecularProperty> known();

  /**
   * The properties of a molecule.
   *
   * @param smiles a molecule
   * @param wanted of those known
   * @return [wanted], in the units of {@link MolecularProperty}; NaN for what this molecule has no value of
   * @throws MoleculeException if it is not a molecule
   */
  float[] of(String smiles, List<MolecularProperty> wanted);

  /** @return the library's own implementation */
  static PropertyFunction standard() {
    return StandardProperties.INSTANCE;
  }

  /**
   * Refuses what cannot be computed.
   *
   * @param wanted properties
   * @throws IllegalArgumentException naming the first that is not known
   */
  default void require(List<MolecularProperty> wanted) {
    for (MolecularProperty property : wanted) {
      if (!known().contains(property)) {
        throw new IllegalArgumentException(
            property.label() + " cannot be computed; what can be is " + known().stream().map(MolecularProperty::label).toList());
      }
    }
  }
}

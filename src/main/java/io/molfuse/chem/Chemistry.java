// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Optional;

/**
 * Whether a SMILES string is a molecule, and which. It is if it parses, can be kekulised, and no atom has more bonds than its
 * element and charge allow; see {@link MoleculeParser}. Thread-safe.
 */
public final class Chemistry {
  private Chemistry() {}

  /**
   * @param smiles any string
   * @return whether it is a molecule
   */
  public static boolean isValid(String smiles) {
    return fault(smiles).isEmpty();
  }

  /**
   * @param smiles any string
   * @return why it is not a molecule, or empty if it is one
   */
  public static Optional<String> fault(String smiles) {
    try {
      MoleculeParser.check(smiles);
      return Optional.empty();
    } catch (MoleculeException e) {
      return Optional.of(e.reason());
    }
  }

  /**
   * The SMILES string that every way of writing a molecule shares: CDK's canonical order, isotopes and stereo kept, explicit
   * hydrogens implicit, aromatic atoms in small letters. Stereo marks at atoms that are no stereo centres are kept as well.
   *
   * @param smiles a molecule
   * @return its canonical SMILES
   * @throws MoleculeException if it is not a molecule, saying why
   */
  public static String canonical(String smiles) {
    return MoleculeParser.canonical(smiles);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

/** A SMILES string that is not a molecule: it does not parse, cannot be kekulised, or an atom has a forbidden valence. */
public final class MoleculeException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final String smiles;
  private final String reason;
  private final BadRecordReport.Reason kind;

  MoleculeException(String smiles, String reason, BadRecordReport.Reason kind) {
    super(reason + ": \"" + SelfiesException.excerpt(smiles, 0) + "\"");
    this.smiles = smiles;
    this.reason = reason;
    this.kind = kind;
  }

  /** @return the string that was read */
  public String smiles() {
    return smiles;
  }

  /** @return what is wrong, without the string */
  public String reason() {
    return reason;
  }

  /** @return the class of the fault, under which reports count it */
  public BadRecordReport.Reason kind() {
    return kind;
  }
}

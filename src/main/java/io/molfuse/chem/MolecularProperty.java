// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonValue;
import java.util.Arrays;
import java.util.Locale;
import java.util.stream.Collectors;

/** A number that describes a molecule and that a model can be conditioned on. */
public enum MolecularProperty {
  /** Mean molecular weight in g/mol, implicit hydrogens included. */
  WEIGHT("weight"),
  /** Logarithm of the octanol-water partition coefficient, after Wildman &amp; Crippen 1999. */
  LOGP("logP"),
  /** Quantitative estimate of drug-likeness, 0 to 1, after Bickerton et al. 2012. */
  QED("QED"),
  /** Topological polar surface area in square angstrom, after Ertl et al. 2000. */
  TPSA("TPSA"),
  /** Number of rings, as {@link MolecularProperties#rings()} counts them. */
  RINGS("rings");

  private final String label;

  MolecularProperty(String label) {
    this.label = label;
  }

  /** @return its name in files, options and messages */
  @JsonValue
  public String label() {
    return label;
  }

  /**
   * The property of a name.
   *
   * @param label its name; capitals do not matter
   * @return the property
   * @throws IllegalArgumentException naming those there are
   */
  @JsonCreator
  public static MolecularProperty of(String label) {
    for (MolecularProperty property : values()) {
      if (property.label.toLowerCase(Locale.ROOT).equals(label.toLowerCase(Locale.ROOT))) {
        return property;
      }
    }
    throw new IllegalArgumentException(
        "unknown property " + label + "; known are " + Arrays.stream(values()).map(MolecularProperty::label).collect(Collectors.joining(", ")));
  }
}

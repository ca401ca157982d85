// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/** All of them, as {@link MolecularProperties} defines them. */
final class StandardProperties implements PropertyFunction {
  static final StandardProperties INSTANCE = new StandardProperties();

  private StandardProperties() {}

  @Override
  public Set<MolecularProperty> known() {
    return EnumSet.allOf(MolecularProperty.class);
  }

  @Override
  public float[] of(String smiles, List<MolecularProperty> wanted) {
    MolecularProperties all = MolecularProperties.of(smiles);
    float[] values = new float[wanted.size()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) value(all, wanted.get(i));
    }
    return values;
  }

  private static double value(MolecularProperties all, MolecularProperty property) {
    return switch (property) {
      case WEIGHT -> all.weight();
      case LOGP -> all.logP();
      case QED -> all.qed();
      case TPSA -> all.tpsa();
      case RINGS -> all.rings();
    };
  }
}

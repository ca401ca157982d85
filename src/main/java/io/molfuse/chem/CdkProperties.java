// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.openscience.cdk.graph.ConnectedComponents;
import org.openscience.cdk.graph.GraphUtil;
import org.openscience.cdk.interfaces.IAtomContainer;
import org.openscience.cdk.tools.manipulator.AtomContainerManipulator;

/** What CDK's core modules compute. */
final class CdkProperties implements PropertyFunction {
  static final CdkProperties INSTANCE = new CdkProperties();

  private CdkProperties() {}

  @Override
  public Set<MolecularProperty> known() {
    return EnumSet.of(MolecularProperty.WEIGHT, MolecularProperty.RINGS);
  }

  @Override
  public float[] of(String smiles, List<MolecularProperty> wanted) {
    require(wanted);
    IAtomContainer molecule = MoleculeParser.molecule(smiles);
    float[] values = new float[wanted.size()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) (wanted.get(i) == MolecularProperty.WEIGHT ? weight(molecule) : rings(molecule));
    }
    return values;
  }

  private static double weight(IAtomContainer molecule) {
    return AtomContainerManipulator.getMass(molecule, AtomContainerManipulator.MolWeight);
  }

  private static double rings(IAtomContainer molecule) {
    int fragments = new ConnectedComponents(GraphUtil.toAdjList(molecule)).nComponents();
    return molecule.getBondCount() - molecule.getAtomCount() + fragments;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;
import org.openscience.cdk.interfaces.IAtom;
import org.openscience.cdk.interfaces.IAtomContainer;
import org.openscience.cdk.interfaces.IBond;

/**
 * What the rules for valence, radicals and hybridisation look at, read once from a kekulised CDK molecule. Neighbours of each atom
 * are compressed sparse rows, ascending.
 */
final class AtomTable {
  final int count;
  final int[] element;
  final int[] charge;
  final int[] hydrogens;
  /** Sum of bond orders to the neighbours, and the hydrogens. */
  final int[] valence;
  final boolean[] aromatic;
  final int[] rowPtr;
  final int[] neighbour;
  final byte[] order;
  final boolean[] aromaticBond;

  private AtomTable(int count, int halves) {
    this.count = count;
    element = new int[count];
    charge = new int[count];
    hydrogens = new int[count];
    valence = new int[count];
    aromatic = new boolean[count];
    rowPtr = new int[count + 1];
    neighbour = new int[halves];
    order = new byte[halves];
    aromaticBond = new boolean[halves];
  }

  /** @param molecule kekulised, aromatic flags set */
  static AtomTable of(IAtomContainer molecule) {
    AtomTable table = new AtomTable(molecule.getAtomCount(), 2 * molecule.getBondCount());
    int edge = 0;
    for (int i = 0; i < table.count; i++) {
      IAtom atom = molecule.getAtom(i);
      table.element[i] = atom.getAtomicNumber();
      table.charge[i] = atom.getFormalCharge() == null ? 0 : atom.getFormalCharge();
      table.hydrogens[i] = atom.getImplicitHydrogenCount() == null ? 0 : atom.getImplicitHydrogenCount();
      table.valence[i] = table.hydrogens[i];
      table.aromatic[i] = atom.isAromatic();
      table.rowPtr[i] = edge;
      for (IBond bond : atom.bonds()) {
        byte bondOrder = orderOf(bond);
        table.insert(i, edge++, bond.getOther(atom).getIndex(), bondOrder, bond.isAromatic());
        table.valence[i] += bondOrder;
      }
    }
    table.rowPtr[table.count] = edge;
    return table;
  }

  /** Keeps the row of the atom ascending; rows have a handful of entries. */
  private void insert(int atom, int end, int target, byte bondOrder, boolean isAromatic) {
    int at = end;
    while (at > rowPtr[atom] && neighbour[at - 1] > target) {
      neighbour[at] = neighbour[at - 1];
      order[at] = order[at - 1];
      aromaticBond[at] = aromaticBond[at - 1];
      at--;
    }
    neighbour[at] = target;
    order[at] = bondOrder;
    aromaticBond[at] = isAromatic;
  }

  private static byte orderOf(IBond bond) {
    Integer order = bond.getOrder() == null ? null : bond.getOrder().numeric();
    return order == null || order == 0 ? 1 : order.byteValue();
  }

  int degree(int atom) {
    return rowPtr[atom + 1] - rowPtr[atom];
  }

  /** The molecule as a graph with the features of {@link MoleculeGraph}. */
  MoleculeGraph graph() {
    int[] hybridisation = Hybridisation.of(this);
    float[] features = new float[count * MoleculeGraph.FEATURES];
    for (int i = 0; i < count; i++) {
      int at = i * MoleculeGraph.FEATURES;
      features[at] = element[i];
      features[at + 1] = degree(i);
      features[at + 2] = charge[i];
      features[at + 3] = hybridisation[i];
      features[at + 4] = aromatic[i] ? 1 : 0;
      features[at + 5] = Valences.unpairedElectrons(this, i);
    }
    return new MoleculeGraph(features, Arrays.copyOf(rowPtr, count + 1), neighbour);
  }
}

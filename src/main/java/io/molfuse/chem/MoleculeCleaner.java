// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;
import org.openscience.cdk.graph.ConnectivityChecker;
import org.openscience.cdk.interfaces.IAtom;
import org.openscience.cdk.interfaces.IAtomContainer;
import org.openscience.cdk.interfaces.IBond;
import org.openscience.cdk.interfaces.IStereoElement;

/**
 * Takes salts and charges off a kekulised molecule.
 *
 * <p>Of several fragments the largest that holds carbon is kept: most heavy atoms, then greatest weight, then the least canonical
 * SMILES, so that it does not matter in which order they were written.
 *
 * <p>An atom of charge +1 gives up a hydrogen if it has one and no neighbour is negative; an atom of charge -1 takes a hydrogen if no
 * neighbour is positive and the neutral element may have that many bonds (after N. M. O'Boyle's "nocharge"). So acids, amines and
 * zwitterions become neutral, while nitro groups, N-oxides and quaternary ammonium stay as they are.
 */
final class MoleculeCleaner {
  /** What was done to one molecule. */
  static final class Changes {
    boolean desalted;
    boolean neutralised;
  }

  private final boolean keepSalts;
  private final boolean keepCharges;
  private final Changes changes = new Changes();
  private final String smiles;

  MoleculeCleaner(String smiles, boolean keepSalts, boolean keepCharges) {
    this.smiles = smiles;
    this.keepSalts = keepSalts;
    this.keepCharges = keepCharges;
  }

  Changes changes() {
    return changes;
  }

  /** The molecule without them; may be the same object, changed. Aromaticity must be perceived anew. */
  IAtomContainer clean(IAtomContainer molecule) {
    for (IAtom atom : molecule.atoms()) {
      if (atom.getAtomicNumber() == 0) {
        throw fault("atom " + (atom.getIndex() + 1) + " is a wildcard", BadRecordReport.Reason.WILDCARD_ATOM);
      }
    }
    IAtomContainer kept = keepSalts ? molecule : organicFragment(molecule);
    if (!keepCharges) {
      neutralise(kept);
    }
    return kept;
  }

  private MoleculeException fault(String reason, BadRecordReport.Reason kind) {
    return new MoleculeException(smiles, reason, kind);
  }

  private IAtomContainer organicFragment(IAtomContainer molecule) {
    List<IAtomContainer> fragments =
        smiles.indexOf('.') < 0
            ? List.of(molecule)
            : StreamSupport.stream(ConnectivityChecker.partitionIntoMolecules(molecule).spliterator(), false).toList();
    IAtomContainer best = null;
    for (IAtomContainer fragment : fragments) {
      boolean organic = false;
      for (IAtom atom : fragment.atoms()) {
        organic |= atom.getAtomicNumber() == Elements.C;
      }
      if (organic && (best == null || larger(fragment, best))) {
        best = fragment;
      }
    }
    if (best == null) {
      throw fault("no fragment holds carbon", BadRecordReport.Reason.NO_ORGANIC_FRAGMENT);
    }
    changes.desalted = fragments.size() > 1;
    return best;
  }

  private static boolean larger(IAtomContainer a, IAtomContainer b) {
    int heavy = MoleculeParser.heavyAtoms(a) - MoleculeParser.heavyAtoms(b);
    if (heavy != 0) {
      return heavy > 0;
    }
    int weight = Double.compare(MolecularWeight.of(a), MolecularWeight.of(b));
    if (weight != 0) {
      return weight > 0;
    }
    return MoleculeParser.canonicalCopy(a).compareTo(MoleculeParser.canonicalCopy(b)) < 0;
  }

  private void neutralise(IAtomContainer molecule) {
    List<IAtom> charged = new ArrayList<>();
    for (IAtom atom : molecule.atoms()) {
      Integer charge = atom.getFormalCharge();
      if (charge != null && (charge == 1 ? mayGive(atom) : charge == -1 && mayTake(atom))) {
        charged.add(atom);
      }
    }
    if (charged.isEmpty()) {
      return;
    }
    for (IAtom atom : charged) {
      atom.setImplicitHydrogenCount(atom.getImplicitHydrogenCount() - atom.getFormalCharge());
      atom.setFormalCharge(0);
    }
    // An atom that got or lost a hydrogen has not the neighbours any more that its configuration was given by.
    Set<IAtom> changed = Set.copyOf(charged);
    List<IStereoElement<?, ?>> kept = new ArrayList<>();
    for (IStereoElement<?, ?> element : molecule.stereoElements()) {
      if (!changed.contains(element.getFocus())) {
        kept.add(element);
      }
    }
    molecule.setStereoElements(kept.stream().map(element -> (IStereoElement) element).collect(Collectors.toList()));
    changes.neutralised = true;
  }

  private static boolean mayGive(IAtom atom) {
    return hydrogens(atom) > 0 && !hasNeighbour(atom, -1);
  }

  private static boolean mayTake(IAtom atom) {
    int bonds = hydrogens(atom) + 1;
    for (IBond bond : atom.bonds()) {
      bonds += bond.getOrder().numeric();
    }
    int most = Valences.greatest(atom.getAtomicNumber(), 0);
    return most >= bonds && !hasNeighbour(atom, 1);
  }

  private static int hydrogens(IAtom atom) {
    return atom.getImplicitHydrogenCount() == null ? 0 : atom.getImplicitHydrogenCount();
  }

  private static boolean hasNeighbour(IAtom atom, int sign) {
    for (IBond bond : atom.bonds()) {
      Integer charge = bond.getOther(atom).getFormalCharge();
      if (charge != null && Integer.signum(charge) == sign) {
        return true;
      }
    }
    return false;
  }
}

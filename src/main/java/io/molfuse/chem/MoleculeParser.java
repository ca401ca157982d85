// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.util.BitSet;
import org.openscience.cdk.aromaticity.Aromaticity;
import org.openscience.cdk.exception.CDKException;
import org.openscience.cdk.exception.InvalidSmilesException;
import org.openscience.cdk.graph.Cycles;
import org.openscience.cdk.interfaces.IAtom;
import org.openscience.cdk.interfaces.IAtomContainer;
import org.openscience.cdk.silent.SilentChemObjectBuilder;
import org.openscience.cdk.smiles.SmilesParser;
import org.openscience.cdk.tools.manipulator.AtomContainerManipulator;

/**
 * Reads SMILES into graphs with CDK. A molecule is accepted if it parses, can be kekulised, and has no atom with more bonds than
 * its element and charge allow ({@code Valences}). Explicit hydrogens that carry no information are made implicit, and aromaticity
 * is perceived anew by the Daylight model, so that it does not matter how a molecule was written. Fragments parted by dots are kept
 * as they are.
 *
 * <p>Thread-safe: CDK's parsers are kept one for each thread.
 */
public final class MoleculeParser {
  /**
   * A molecule that was read.
   *
   * @param graph its heavy atoms and bonds
   * @param canonical its canonical SMILES with isotopes and stereo, aromatic atoms in small letters
   * @param heavyAtoms number of atoms other than hydrogen
   */
  public record Molecule(MoleculeGraph graph, String canonical, int heavyAtoms) {}

  private static final ThreadLocal<SmilesParser> PARSER =
      ThreadLocal.withInitial(
          () -> {
            SmilesParser parser = new SmilesParser(SilentChemObjectBuilder.getInstance());
            // Otherwise bracket atoms that make no sense are read as atoms with a label.
            parser.setStrict(true);
            return parser;
          });

  /** A parser; they are all alike. */
  public MoleculeParser() {}

  /**
   * @param smiles one molecule, without a name behind it
   * @return graph and canonical SMILES
   * @throws MoleculeException if it is not a molecule, saying why
   */
  public Molecule parse(String smiles) {
    IAtomContainer molecule = read(smiles);
    AtomTable atoms = check(smiles, molecule);
    int heavy = 0;
    for (int element : atoms.element) {
      heavy += element == Elements.H ? 0 : 1;
    }
    return new Molecule(atoms.graph(), canonical(smiles, molecule, atoms), heavy);
  }

  /**
   * As {@link #parse} without the canonical SMILES, which takes most of its time.
   *
   * @param smiles one molecule, without a name behind it
   * @return its graph
   * @throws MoleculeException if it is not a molecule, saying why
   */
  public MoleculeGraph graph(String smiles) {
    return check(smiles, read(smiles)).graph();
  }

  /** Reads and checks a molecule and gives its canonical SMILES. */
  static String canonical(String smiles) {
    IAtomContainer molecule = read(smiles);
    return canonical(smiles, molecule, check(smiles, molecule));
  }

  /** Reads and checks a molecule. */
  static void check(String smiles) {
    check(smiles, parsed(smiles));
  }

  private static AtomTable check(String smiles, IAtomContainer molecule) {
    AtomTable atoms = AtomTable.of(molecule);
    String fault = Valences.fault(atoms);
    if (fault != null) {
      throw new MoleculeException(smiles, fault, BadRecordReport.Reason.INVALID_VALENCE);
    }
    return atoms;
  }

  private static IAtomContainer read(String smiles) {
    IAtomContainer molecule = AtomContainerManipulator.suppressHydrogens(parsed(smiles));
    Aromaticity.clear(molecule);
    // Some releases of CDK look for aromatic rings only where rings are marked.
    Cycles.markRingAtomsAndBonds(molecule);
    Aromaticity.apply(Aromaticity.Model.Daylight, molecule);
    return molecule;
  }

  private static IAtomContainer parsed(String smiles) {
    if (smiles.isEmpty()) {
      throw invalid(smiles, "empty SMILES");
    }
    String fault = SmilesSyntax.fault(smiles);
    if (fault != null) {
      throw invalid(smiles, fault);
    }
    IAtomContainer molecule;
    try {
      molecule = PARSER.get().parseSmiles(smiles);
    } catch (InvalidSmilesException e) {
      throw invalid(smiles, firstLine(e));
    } catch (RuntimeException e) {
      // Strings from outside reach corners of the parser that fail with an index or state error.
      throw invalid(smiles, "cannot be read: " + firstLine(e));
    }
    for (IAtom atom : molecule.atoms()) {
      if (atom.getAtomicNumber() == null) {
        throw invalid(smiles, "unknown element " + atom.getSymbol());
      }
    }
    BitSet lower = SmilesSyntax.lowerCaseAtoms(smiles);
    if (!lower.isEmpty()) {
      Cycles.markRingAtomsAndBonds(molecule);
      for (int i = lower.nextSetBit(0); i >= 0; i = lower.nextSetBit(i + 1)) {
        if (i < molecule.getAtomCount() && !molecule.getAtom(i).isInRing()) {
          throw invalid(smiles, "atom " + (i + 1) + " is written as aromatic but is in no ring");
        }
      }
    }
    return molecule;
  }

  private static String canonical(String smiles, IAtomContainer molecule, AtomTable atoms) {
    try {
      return CanonicalSmiles.of(molecule, atoms);
    } catch (CDKException | IOException | RuntimeException e) {
      throw invalid(smiles, "has no canonical form: " + firstLine(e));
    }
  }

  private static MoleculeException invalid(String smiles, String reason) {
    return new MoleculeException(smiles, reason, BadRecordReport.Reason.INVALID_SMILES);
  }

  private static String firstLine(Exception e) {
    String message = e.getMessage();
    if (message == null) {
      return e.getClass().getSimpleName();
    }
    int end = message.indexOf('\n');
    return (end < 0 ? message : message.substring(0, end)).strip();
  }
}

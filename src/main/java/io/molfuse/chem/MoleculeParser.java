// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.util.BitSet;
import java.util.function.Supplier;
import java.util.function.UnaryOperator;
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
 * its element and charge allow ({@code Valences}), and if it has at most {@value #MAX_HEAVY_ATOMS} heavy atoms. Explicit hydrogens that carry no information are made implicit, and aromaticity
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

  /** Larger molecules are refused: the time for their canonical form grows with a high power of their size. */
  public static final int MAX_HEAVY_ATOMS = 1000;

  /** So many characters for each heavy atom, brackets, bonds and hydrogens included, are more than molecules need. */
  private static final int MAX_CHARACTERS = 100 * MAX_HEAVY_ATOMS;

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
    return guarded(
        smiles,
        () -> {
          IAtomContainer molecule = read(smiles);
          AtomTable atoms = check(smiles, molecule);
          return new Molecule(atoms.graph(), canonical(smiles, molecule, atoms), heavyAtoms(molecule));
        });
  }

  /**
   * Reads a molecule and changes it before it is checked.
   *
   * @param use makes the result of the changed molecule, its atoms and its canonical SMILES
   */
  static <T> T parse(String smiles, UnaryOperator<IAtomContainer> change, Use<T> use) {
    return guarded(
        smiles,
        () -> {
          IAtomContainer molecule = change.apply(AtomContainerManipulator.suppressHydrogens(parsed(smiles)));
          perceiveAromaticity(molecule);
          AtomTable atoms = check(smiles, molecule);
          return use.of(molecule, atoms, canonical(smiles, molecule, atoms));
        });
  }

  /** What to make of a molecule. */
  interface Use<T> {
    T of(IAtomContainer molecule, AtomTable atoms, String canonical);
  }

  /** Canonical SMILES of a molecule that stays as it is. */
  static String canonicalCopy(IAtomContainer molecule) {
    try {
      IAtomContainer copy = molecule.clone();
      perceiveAromaticity(copy);
      return CanonicalSmiles.of(copy, AtomTable.of(copy));
    } catch (CloneNotSupportedException | CDKException | IOException e) {
      throw new IllegalStateException("a molecule that was read has no canonical form", e);
    }
  }

  /** Reads and checks a molecule and gives its canonical SMILES. */
  static String canonical(String smiles) {
    return guarded(
        smiles,
        () -> {
          IAtomContainer molecule = read(smiles);
          return canonical(smiles, molecule, check(smiles, molecule));
        });
  }

  /** Reads and checks a molecule and perceives rings and aromaticity as RDKit does. */
  static PerceivedMolecule perceived(String smiles) {
    return guarded(
        smiles,
        () -> {
          IAtomContainer molecule = AtomContainerManipulator.suppressHydrogens(parsed(smiles));
          return PerceivedMolecule.of(molecule, check(smiles, molecule));
        });
  }

  /** Reads and checks a molecule. */
  static void check(String smiles) {
    guarded(smiles, () -> check(smiles, parsed(smiles)));
  }

  /** Strings from outside reach corners of CDK that fail with an index or state error, or that recurse too deep. */
  private static <T> T guarded(String smiles, Supplier<T> work) {
    try {
      return work.get();
    } catch (MoleculeException e) {
      throw e;
    } catch (RuntimeException | StackOverflowError e) {
      throw invalid(smiles, "cannot be read: " + firstLine(e));
    }
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
    perceiveAromaticity(molecule);
    return molecule;
  }

  private static void perceiveAromaticity(IAtomContainer molecule) {
    Aromaticity.clear(molecule);
    // Some releases of CDK look for aromatic rings only where rings are marked.
    Cycles.markRingAtomsAndBonds(molecule);
    Aromaticity.apply(Aromaticity.Model.Daylight, molecule);
  }

  private static IAtomContainer parsed(String smiles) {
    if (smiles.isEmpty()) {
      throw invalid(smiles, "empty SMILES");
    }
    String fault = SmilesSyntax.fault(smiles);
    if (fault != null) {
      throw invalid(smiles, fault);
    }
    if (smiles.length() > MAX_CHARACTERS) {
      throw tooLarge(smiles, smiles.length() + " characters, at most " + MAX_CHARACTERS);
    }
    IAtomContainer molecule;
    try {
      molecule = PARSER.get().parseSmiles(smiles);
    } catch (InvalidSmilesException e) {
      throw invalid(smiles, firstLine(e));
    }
    int heavy = heavyAtoms(molecule);
    if (heavy > MAX_HEAVY_ATOMS) {
      throw tooLarge(smiles, heavy + " heavy atoms, at most " + MAX_HEAVY_ATOMS);
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
    } catch (CDKException | IOException | RuntimeException | StackOverflowError e) {
      throw invalid(smiles, "has no canonical form: " + firstLine(e));
    }
  }

  private static MoleculeException invalid(String smiles, String reason) {
    return new MoleculeException(smiles, reason, BadRecordReport.Reason.INVALID_SMILES);
  }

  private static MoleculeException tooLarge(String smiles, String reason) {
    return new MoleculeException(smiles, reason, BadRecordReport.Reason.TOO_MANY_ATOMS);
  }

  static int heavyAtoms(IAtomContainer molecule) {
    int heavy = 0;
    for (IAtom atom : molecule.atoms()) {
      heavy += Integer.valueOf(Elements.H).equals(atom.getAtomicNumber()) ? 0 : 1;
    }
    return heavy;
  }

  private static String firstLine(Throwable e) {
    String message = e.getMessage();
    if (message == null) {
      return e.getClass().getSimpleName();
    }
    int end = message.indexOf('\n');
    return (end < 0 ? message : message.substring(0, end)).strip();
  }
}

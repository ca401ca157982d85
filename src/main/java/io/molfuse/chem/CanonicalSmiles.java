// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.openscience.cdk.exception.CDKException;
import org.openscience.cdk.interfaces.IAtom;
import org.openscience.cdk.interfaces.IAtomContainer;
import org.openscience.cdk.interfaces.IBond;
import org.openscience.cdk.interfaces.IStereoElement;
import org.openscience.cdk.smiles.SmiFlavor;
import org.openscience.cdk.smiles.SmilesGenerator;
import uk.ac.ebi.beam.Functions;
import uk.ac.ebi.beam.Graph;

/**
 * One canonical SMILES with isotopes and stereo. CDK can order atoms with stereo only through the native InChI library, so the
 * order is found here: atoms are coloured by what they are, colours are refined by the colours and bonds around them and by the
 * configuration of stereo elements whose neighbours differ in colour, and ties are broken by singling out one atom of the first
 * tied colour. Where a stereo element still has tied neighbours, as in cis-1,4-dimethylcyclohexane, breaking the tie one way or
 * the other can give different strings; then all ways are tried, up to {@link #MAX_LEAVES}, and the least string is taken.
 */
final class CanonicalSmiles {
  /** Bounds the search in molecules with many interchangeable stereo centres, whose string then may depend on the input order. */
  private static final int MAX_LEAVES = 64;

  private static final ThreadLocal<SmilesGenerator> GENERATOR =
      ThreadLocal.withInitial(() -> new SmilesGenerator(SmiFlavor.Isomeric | SmiFlavor.UseAromaticSymbols));

  /** A tetrahedral centre or a double bond; for a double bond the neighbours are two at each end. */
  private static final class Stereo {
    final int[] centres;
    final int[] neighbours;
    final int parity;

    Stereo(int[] centres, int[] neighbours, int parity) {
      this.centres = centres;
      this.neighbours = neighbours;
      this.parity = parity;
    }
  }

  private final AtomTable atoms;
  private final List<Stereo> stereo = new ArrayList<>();
  private Graph written;
  private int[] writtenAt;
  private int leaves;
  private String least;

  private CanonicalSmiles(AtomTable atoms) {
    this.atoms = atoms;
  }

  static String of(IAtomContainer molecule, AtomTable atoms) throws CDKException, IOException {
    CanonicalSmiles search = new CanonicalSmiles(atoms);
    search.writtenAt = new int[atoms.count];
    search.written = Graph.fromSmiles(GENERATOR.get().create(molecule, search.writtenAt));
    for (IStereoElement<?, ?> element : molecule.stereoElements()) {
      search.add(element);
    }
    search.branch(search.refine(search.initialColours(molecule)));
    return search.least;
  }

  private void add(IStereoElement<?, ?> element) {
    if (element.getConfigClass() == IStereoElement.TH) {
      int focus = ((IAtom) element.getFocus()).getIndex();
      int[] neighbours = new int[4];
      for (int i = 0; i < 4; i++) {
        // An implicit hydrogen or lone pair is given as the centre itself.
        neighbours[i] = ((IAtom) element.getCarriers().get(i)).getIndex();
      }
      stereo.add(new Stereo(new int[] {focus}, neighbours, element.getConfigOrder() == IStereoElement.LEFT ? 0 : 1));
    } else if (element.getConfigClass() == IStereoElement.CT) {
      IBond bond = (IBond) element.getFocus();
      int begin = bond.getBegin().getIndex();
      int end = bond.getEnd().getIndex();
      int first = ((IBond) element.getCarriers().get(0)).getOther(bond.getBegin()).getIndex();
      int second = ((IBond) element.getCarriers().get(1)).getOther(bond.getEnd()).getIndex();
      int[] neighbours = {first, sibling(begin, end, first), second, sibling(end, begin, second)};
      stereo.add(new Stereo(new int[] {begin, end}, neighbours, element.getConfigOrder() == IStereoElement.TOGETHER ? 0 : 1));
    }
  }

  /** The other neighbour of a double-bonded atom, or the atom itself if that is a hydrogen or a lone pair. */
  private int sibling(int atom, int partner, int neighbour) {
    for (int edge = atoms.rowPtr[atom]; edge < atoms.rowPtr[atom + 1]; edge++) {
      int other = atoms.neighbour[edge];
      if (other != partner && other != neighbour) {
        return other;
      }
    }
    return atom;
  }

  private int[] initialColours(IAtomContainer molecule) {
    long[] keys = new long[atoms.count];
    for (int i = 0; i < atoms.count; i++) {
      Integer mass = molecule.getAtom(i).getMassNumber();
      long key = Math.min(atoms.degree(i), 31);
      key = key << 8 | atoms.element[i];
      key = key << 9 | (mass == null ? 0 : mass & 0x1FF);
      key = key << 8 | (atoms.charge[i] & 0xFF);
      key = key << 5 | (atoms.hydrogens[i] & 0x1F);
      keys[i] = key << 1 | (atoms.aromatic[i] ? 1 : 0);
    }
    return ranks(new int[atoms.count], keys);
  }

  /** Splits colours until neither neighbours nor configurations tell two atoms of one colour apart. */
  private int[] refine(int[] start) {
    int[] colours = start;
    int classes = count(colours);
    while (classes < atoms.count) {
      long[] keys = new long[atoms.count];
      for (int i = 0; i < atoms.count; i++) {
        for (int edge = atoms.rowPtr[i]; edge < atoms.rowPtr[i + 1]; edge++) {
          int bond = atoms.aromaticBond[edge] ? 5 : atoms.order[edge];
          keys[i] += Hashes.mix(8L * colours[atoms.neighbour[edge]] + bond + 1);
        }
      }
      for (Stereo element : stereo) {
        int configuration = configuration(element, colours);
        if (configuration >= 0) {
          for (int centre : element.centres) {
            keys[centre] += Hashes.mix(-1L - configuration);
          }
        }
      }
      int[] finer = ranks(colours, keys);
      int finerClasses = count(finer);
      if (finerClasses == classes) {
        break;
      }
      colours = finer;
      classes = finerClasses;
    }
    return colours;
  }

  /** The configuration seen with neighbours in the order of their colours: 0 or 1, or -1 if colours are tied. */
  private static int configuration(Stereo element, int[] colours) {
    int[] n = element.neighbours;
    int inversions = element.parity;
    if (element.centres.length == 2) {
      int a = colour(n[0], element.centres[0], colours) - colour(n[1], element.centres[0], colours);
      int b = colour(n[2], element.centres[1], colours) - colour(n[3], element.centres[1], colours);
      return a == 0 || b == 0 ? -1 : ((a > 0) != (b > 0) ? 1 : 0) ^ inversions;
    }
    for (int i = 0; i < n.length; i++) {
      for (int j = i + 1; j < n.length; j++) {
        int difference = colour(n[i], element.centres[0], colours) - colour(n[j], element.centres[0], colours);
        if (difference == 0) {
          return -1;
        }
        inversions ^= difference > 0 ? 1 : 0;
      }
    }
    return inversions;
  }

  /** Hydrogens and lone pairs, given as the centre itself, come before all atoms. */
  private static int colour(int atom, int centre, int[] colours) {
    return atom == centre ? -1 : colours[atom];
  }

  /** Colours as the number of atoms that come before, ordered by the colour so far, then by the key. */
  private static int[] ranks(int[] colours, long[] keys) {
    int n = keys.length;
    int[] order = new int[n];
    for (int i = 0; i < n; i++) {
      int at = i;
      while (at > 0 && before(i, order[at - 1], colours, keys)) {
        order[at] = order[at - 1];
        at--;
      }
      order[at] = i;
    }
    int[] ranks = new int[n];
    for (int i = 1; i < n; i++) {
      boolean same = !before(order[i - 1], order[i], colours, keys);
      ranks[order[i]] = same ? ranks[order[i - 1]] : i;
    }
    return ranks;
  }

  private static boolean before(int a, int b, int[] colours, long[] keys) {
    return colours[a] != colours[b] ? colours[a] < colours[b] : keys[a] < keys[b];
  }

  private static int count(int[] colours) {
    boolean[] seen = new boolean[colours.length];
    int count = 0;
    for (int colour : colours) {
      count += seen[colour] ? 0 : 1;
      seen[colour] = true;
    }
    return count;
  }

  private void branch(int[] colours) throws IOException {
    int[] size = new int[atoms.count];
    for (int colour : colours) {
      size[colour]++;
    }
    int tied = 0;
    while (tied < atoms.count && size[tied] < 2) {
      tied++;
    }
    if (tied == atoms.count) {
      leaves++;
      String smiles = write(colours);
      if (least == null || smiles.compareTo(least) < 0) {
        least = smiles;
      }
      return;
    }
    boolean matters = false;
    for (Stereo element : stereo) {
      matters |= configuration(element, colours) < 0;
    }
    for (int atom = 0; atom < atoms.count; atom++) {
      if (colours[atom] == tied) {
        long[] keys = new long[atoms.count];
        Arrays.fill(keys, 1);
        keys[atom] = 0;
        branch(refine(ranks(colours, keys)));
        if (!matters || leaves >= MAX_LEAVES) {
          return;
        }
      }
    }
  }

  private String write(int[] colours) throws IOException {
    int[] permutation = new int[atoms.count];
    for (int i = 0; i < atoms.count; i++) {
      permutation[writtenAt[i]] = colours[i];
    }
    Graph graph = written.permute(permutation);
    graph.sort(new Graph.VisitHighOrderFirst());
    graph = Functions.normaliseDirectionalLabels(graph);
    graph.sort(new Graph.VisitHighOrderFirst()).sort(new Graph.VisitHydrogenFirst());
    return graph.toSmiles();
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Arrays;
import java.util.BitSet;
import java.util.zip.GZIPInputStream;

/**
 * The synthetic accessibility score (P. Ertl, A. Schuffenhauer, J. Cheminform. 1 (2009) 8): how common a molecule's fragments are
 * among a million made ones, less penalties for size, stereo centres, spiro and bridgehead atoms and large rings. Fragment scores and
 * the correction for symmetric molecules are those of the contributed module SA_Score of RDKit.
 */
final class SyntheticAccessibility {
  private static final double UNKNOWN = -4;
  private static final double LEAST = -4;
  private static final double MOST = 2.5;

  /** Read at first use: two megabytes that most programs do without. */
  private static final class Scores {
    static final int[] IDENTIFIERS;
    static final float[] OF;

    static {
      try (DataInputStream in =
          new DataInputStream(new BufferedInputStream(new GZIPInputStream(BundledTable.open("sa-scores.bin.gz")), 1 << 16))) {
        IDENTIFIERS = new int[in.readInt()];
        float[] values = new float[in.readInt()];
        for (int i = 0; i < values.length; i++) {
          values[i] = in.readFloat();
        }
        // Ascending as unsigned numbers; with the highest bit turned, as signed ones.
        int identifier = Integer.MIN_VALUE;
        for (int i = 0; i < IDENTIFIERS.length; i++) {
          identifier += in.readInt();
          IDENTIFIERS[i] = identifier;
        }
        OF = new float[IDENTIFIERS.length];
        for (int i = 0; i < OF.length; i++) {
          OF[i] = values[in.readUnsignedShort()];
        }
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }

  private SyntheticAccessibility() {}

  /** @return 1, easily made, to 10 */
  static double score(PerceivedMolecule molecule) {
    int[] identifiers = MorganFingerprint.identifiers(molecule);
    Arrays.sort(identifiers);
    double fragments = 0;
    int different = 0;
    for (int i = 0; i < identifiers.length; i++) {
      different += i == 0 || identifiers[i] != identifiers[i - 1] ? 1 : 0;
      int at = Arrays.binarySearch(Scores.IDENTIFIERS, identifiers[i] ^ Integer.MIN_VALUE);
      fragments += at < 0 ? UNKNOWN : Scores.OF[at];
    }
    int atoms = molecule.count;
    double score = fragments / identifiers.length;
    score -= Math.pow(atoms, 1.005) - atoms;
    score -= Math.log10(StereoCentres.count(molecule) + 1);
    score -= Math.log10(spiroAtoms(molecule) + 1);
    score -= Math.log10(bridgeheads(molecule) + 1);
    score -= Arrays.stream(molecule.rings).anyMatch(ring -> ring.length > 8) ? Math.log10(2) : 0;
    score += atoms > different ? Math.log((double) atoms / different) / 2 : 0;
    double scaled = 11 - (score - LEAST + 1) / (MOST - LEAST) * 9;
    // Keeps the difficult end from being cut off at once.
    scaled = scaled > 8 ? 8 + Math.log(scaled - 8) : scaled;
    return Math.min(10, Math.max(1, scaled));
  }

  /** Atoms that are all that two rings have in common. */
  private static int spiroAtoms(PerceivedMolecule molecule) {
    BitSet found = new BitSet();
    for (int i = 0; i < molecule.rings.length; i++) {
      for (int j = 0; j < i; j++) {
        BitSet shared = shared(molecule.rings[i], molecule.rings[j]);
        if (shared.cardinality() == 1) {
          found.or(shared);
        }
      }
    }
    return found.cardinality();
  }

  /** Ends of the paths of more than one bond that two rings have in common. */
  private static int bridgeheads(PerceivedMolecule molecule) {
    BitSet found = new BitSet();
    for (int i = 0; i < molecule.bondRings.length; i++) {
      for (int j = 0; j < i; j++) {
        BitSet shared = shared(molecule.bondRings[i], molecule.bondRings[j]);
        if (shared.cardinality() > 1) {
          BitSet ends = new BitSet();
          shared.stream().forEach(bond -> {
            ends.flip(molecule.begin[bond]);
            ends.flip(molecule.end[bond]);
          });
          found.or(ends);
        }
      }
    }
    return found.cardinality();
  }

  private static BitSet shared(int[] first, int[] second) {
    BitSet a = new BitSet();
    BitSet b = new BitSet();
    Arrays.stream(first).forEach(a::set);
    Arrays.stream(second).forEach(b::set);
    a.and(b);
    return a;
  }
}

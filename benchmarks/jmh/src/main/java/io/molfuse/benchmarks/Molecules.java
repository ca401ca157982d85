// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.models.MoleculeBatches;
import java.util.ArrayList;
import java.util.List;

/** The first of the bundled molecules. */
final class Molecules {
  static final int BATCH = 64;
  private static MoleculeDataset loaded;

  private Molecules() {}

  static MoleculeDataset.Options options() {
    return new MoleculeDataset.Options().limit(2_000);
  }

  /** The molecules in memory; loaded once. */
  static synchronized MoleculeDataset dataset() {
    if (loaded == null) {
      loaded = MoleculeDataset.bundled("moses-25k", options());
    }
    return loaded;
  }

  static List<String> smiles(int count) {
    List<String> smiles = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      smiles.add(dataset().smiles(i));
    }
    return smiles;
  }

  static GraphBatch batch(int molecules) {
    return new MoleculeBatches(dataset(), dataset().entries(), molecules, true, 1).batch(0);
  }

  static List<GraphBatch> batches(int count) {
    MoleculeBatches source = new MoleculeBatches(dataset(), dataset().entries(), BATCH, true, 1);
    List<GraphBatch> batches = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      batches.add(source.batch(i));
    }
    return batches;
  }
}

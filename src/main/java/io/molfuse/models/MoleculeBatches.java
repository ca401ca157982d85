// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.EpochSampler;
import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.train.BatchSource;

/** Batches of a data set's entries by number. */
public final class MoleculeBatches implements BatchSource<GraphBatch> {
  private final MoleculeDataset dataset;
  private final EpochSampler sampler;

  /**
   * Batches of some of a data set's entries.
   *
   * @param dataset where the molecules are
   * @param entries which of them
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param shuffle whether each epoch has its own order
   * @param seed decides the orders
   */
  public MoleculeBatches(MoleculeDataset dataset, int[] entries, int batchSize, boolean shuffle, long seed) {
    this.dataset = dataset;
    sampler = new EpochSampler(entries, batchSize, shuffle, seed);
  }

  @Override
  public long batchesPerEpoch() {
    return sampler.batchesPerEpoch();
  }

  @Override
  public GraphBatch batch(long index) {
    int epoch = Math.toIntExact(index / sampler.batchesPerEpoch());
    int position = (int) (index % sampler.batchesPerEpoch()) * sampler.batchSize();
    EpochSampler.State wanted = new EpochSampler.State(epoch, position);
    if (!sampler.state().equals(wanted)) {
      sampler.seek(wanted);
    }
    return dataset.collate(sampler.nextBatch());
  }
}

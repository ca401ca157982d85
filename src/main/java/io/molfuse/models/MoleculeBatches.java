// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.train.BatchSource;
import io.molfuse.train.Collate;
import io.molfuse.train.DataLoader;
import io.molfuse.train.IndexedDataset;
import io.molfuse.train.Sampler;

/** Batches of a data set's entries by number, made on the calling thread; {@link #loader} makes the same ones on several. */
public final class MoleculeBatches implements BatchSource<GraphBatch> {
  private final MoleculeDataset dataset;
  private final int[] entries;
  private final int batchSize;
  private final Sampler sampler;

  /**
   * Batches of some of a data set's entries.
   *
   * @param dataset where the molecules are
   * @param entries which of them; at least one
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param shuffle whether each epoch has its own order
   * @param seed decides the orders
   */
  public MoleculeBatches(MoleculeDataset dataset, int[] entries, int batchSize, boolean shuffle, long seed) {
    if (entries.length == 0) {
      throw new IllegalArgumentException("entries must not be empty");
    }
    if (batchSize < 1) {
      throw new IllegalArgumentException("batchSize must be at least 1, but is " + batchSize);
    }
    this.dataset = dataset;
    this.entries = entries.clone();
    this.batchSize = batchSize;
    sampler = sampler(entries, shuffle, seed);
  }

  /**
   * A loader of the same batches in the same order.
   *
   * @param dataset where the molecules are
   * @param entries which of them; at least one
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param shuffle whether each epoch has its own order
   * @param seed decides the orders
   * @return settings, to which threads and prefetch can be added
   */
  public static DataLoader.Builder<GraphBatch> loader(
      MoleculeDataset dataset, int[] entries, int batchSize, boolean shuffle, long seed) {
    int[] own = entries.clone();
    IndexedDataset<Integer> samples =
        new IndexedDataset<>() {
          @Override
          public long size() {
            return own.length;
          }

          @Override
          public Integer get(long index) {
            return own[(int) index];
          }
        };
    Collate<Integer, GraphBatch> collate = batch -> dataset.collate(batch.stream().mapToInt(Integer::intValue).toArray());
    return DataLoader.<Integer, GraphBatch>of(samples, collate)
        .sampler(sampler(entries, shuffle, seed))
        .batchSize(batchSize);
  }

  private static Sampler sampler(int[] entries, boolean shuffle, long seed) {
    return shuffle ? Sampler.shuffled(entries.length, seed) : Sampler.sequential(entries.length);
  }

  @Override
  public long batchesPerEpoch() {
    return (entries.length - 1) / batchSize + 1;
  }

  @Override
  public GraphBatch batch(long index) {
    long epoch = index / batchesPerEpoch();
    int first = (int) (index % batchesPerEpoch()) * batchSize;
    int[] batch = new int[Math.min(batchSize, entries.length - first)];
    for (int i = 0; i < batch.length; i++) {
      batch[i] = entries[(int) sampler.index(epoch, first + i)];
    }
    return dataset.collate(batch);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** Batches of samples that have numbers: which ones is decided in order, reading and joining them is anybody's work. */
final class IndexedPlan<S, B> implements BatchWorkers.Plan<B> {
  private final IndexedDataset<S> dataset;
  private final Collate<S, ? extends B> collate;
  private final DataLoader.Layout layout;
  private final boolean oneEpoch;
  private final Set<Long> skipped;
  private long epoch;
  private long batch;

  IndexedPlan(
      IndexedDataset<S> dataset, Collate<S, ? extends B> collate, DataLoader.Layout layout, DataLoader.Range range) {
    this.dataset = dataset;
    this.collate = collate;
    this.layout = layout;
    oneEpoch = range.oneEpoch();
    skipped = new HashSet<>(range.from().ahead());
    epoch = range.from().epoch();
    batch = range.from().batch();
  }

  @Override
  public BatchWorkers.Job<B> next() {
    while (skipped.remove(batch)) {
      batch++;
    }
    if (batch >= layout.batchesPerEpoch()) {
      if (oneEpoch) {
        return null;
      }
      epoch++;
      batch = 0;
    }
    long ofEpoch = epoch;
    long number = batch++;
    long first = number * layout.batchSize();
    long[] indices = new long[(int) Math.min(layout.batchSize(), layout.sampler().length() - first)];
    try {
      for (int i = 0; i < indices.length; i++) {
        indices[i] = layout.sampler().index(ofEpoch, first + i);
      }
    } catch (RuntimeException e) {
      throw new DataLoaderException("the sampler failed at", ofEpoch, number, -1, e);
    }
    return new BatchWorkers.Job<>(ofEpoch, number, () -> make(ofEpoch, number, indices));
  }

  private B make(long ofEpoch, long number, long[] indices) {
    List<S> samples = new ArrayList<>(indices.length);
    for (long index : indices) {
      try {
        samples.add(dataset.get(index));
      } catch (Throwable e) {
        throw new DataLoaderException("could not read", ofEpoch, number, index, e);
      }
    }
    return joined(collate, samples, ofEpoch, number);
  }

  static <S, B> B joined(Collate<S, ? extends B> collate, List<S> samples, long epoch, long batch) {
    try {
      return collate.collate(samples);
    } catch (Throwable e) {
      throw new DataLoaderException("could not make", epoch, batch, -1, e);
    }
  }
}

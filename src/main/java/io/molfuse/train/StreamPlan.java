// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** Batches of samples that come one after the other: reading them is done in order, joining them is anybody's work. */
final class StreamPlan<S, B> implements BatchWorkers.Plan<B> {
  private final StreamingDataset<S> dataset;
  private final Collate<S, ? extends B> collate;
  private final DataLoader.Layout layout;
  private final boolean oneEpoch;
  private final Set<Long> skipped;
  private long epoch;
  private long batch;
  private SampleStream<S> stream;

  StreamPlan(
      StreamingDataset<S> dataset, Collate<S, ? extends B> collate, DataLoader.Layout layout, DataLoader.Range range) {
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
    while (true) {
      List<S> samples = new ArrayList<>();
      try {
        read(samples);
      } catch (Throwable e) {
        throw new DataLoaderException("could not read", epoch, batch, batch * layout.batchSize() + samples.size(), e);
      }
      boolean more = samples.size() == layout.batchSize() || (!samples.isEmpty() && !layout.dropLast());
      checkSize(more);
      long ofEpoch = epoch;
      long number = batch++;
      if (more && !skipped.remove(number)) {
        return new BatchWorkers.Job<>(ofEpoch, number, () -> IndexedPlan.joined(collate, samples, ofEpoch, number));
      }
      if (!more && oneEpoch) {
        return null;
      }
      if (!more) {
        close();
        epoch++;
        batch = 0;
      }
    }
  }

  private void read(List<S> samples) throws Exception {
    if (stream == null) {
      stream = dataset.open(epoch);
      stream.skip(batch * layout.batchSize() * layout.worldSize() + layout.rank());
    }
    while (samples.size() < layout.batchSize()) {
      S sample = stream.next();
      if (sample == null) {
        return;
      }
      samples.add(sample);
      stream.skip(layout.worldSize() - 1L);
    }
  }

  /** Numbers of batches count on every epoch having as many. */
  private void checkSize(boolean more) {
    long expected = layout.batchesPerEpoch();
    if (expected >= 0 && more != batch < expected) {
      throw new DataLoaderException("could not read", epoch, batch, -1, new IllegalStateException(
          "by the size of the data set an epoch has " + expected + " batches, but this one has " + (more ? "more" : batch)));
    }
  }

  @Override
  public void close() {
    SampleStream<S> open = stream;
    stream = null;
    if (open != null) {
      try {
        open.close();
      } catch (IOException | RuntimeException e) {
        throw new DataLoaderException("could not close what was read for", epoch, batch, -1, e);
      }
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;

/** A stream's samples in another order, by drawing each from a buffer. */
final class ShuffleBuffer<S> implements StreamingDataset<S> {
  private final StreamingDataset<S> dataset;
  private final int capacity;
  private final long seed;

  ShuffleBuffer(StreamingDataset<S> dataset, int capacity, long seed) {
    if (capacity < 1) {
      throw new IllegalArgumentException("buffer must be at least 1, but is " + capacity);
    }
    this.dataset = dataset;
    this.capacity = capacity;
    this.seed = seed;
  }

  @Override
  public long size() {
    return dataset.size();
  }

  @Override
  public SampleStream<S> open(long epoch) throws Exception {
    SampleStream<S> stream = dataset.open(epoch);
    SplittableRandom random = new SplittableRandom(Seeds.mix(seed, epoch));
    List<S> buffer = new ArrayList<>();
    return new SampleStream<>() {
      @Override
      public S next() throws Exception {
        while (buffer.size() < capacity) {
          S sample = stream.next();
          if (sample == null) {
            break;
          }
          buffer.add(sample);
        }
        if (buffer.isEmpty()) {
          return null;
        }
        int last = buffer.size() - 1;
        S drawn = buffer.set(random.nextInt(last + 1), buffer.get(last));
        buffer.remove(last);
        return drawn;
      }

      @Override
      public void close() throws IOException {
        stream.close();
      }
    };
  }
}

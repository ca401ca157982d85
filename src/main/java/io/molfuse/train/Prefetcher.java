// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;

/**
 * Makes the next few batches of a source on a background thread while the current one trains.
 *
 * @param <B> a batch
 */
final class Prefetcher<B> implements AutoCloseable {
  private record Item<B>(B batch, Throwable failure) {}

  private final BlockingQueue<Item<B>> queue;
  private final Thread thread;
  private volatile boolean closed;

  Prefetcher(BatchSource<B> source, long firstIndex, int ahead) {
    queue = new ArrayBlockingQueue<>(ahead);
    thread = new Thread(() -> produce(source, firstIndex), "molfuse-batches");
    thread.setDaemon(true);
    thread.start();
  }

  private void produce(BatchSource<B> source, long firstIndex) {
    try {
      for (long index = firstIndex; !closed; index++) {
        Item<B> item;
        try {
          item = new Item<>(source.batch(index), null);
        } catch (RuntimeException | Error failure) {
          item = new Item<>(null, failure);
        }
        queue.put(item);
        if (item.failure != null) {
          return;
        }
      }
    } catch (InterruptedException stopped) {
      // close() interrupts the thread: nothing is left to do.
    }
  }

  B next() throws InterruptedException {
    Item<B> item = queue.take();
    if (item.failure != null) {
      throw new TrainingException("could not make a batch: " + item.failure.getMessage(), item.failure);
    }
    return item.batch;
  }

  @Override
  public void close() {
    closed = true;
    thread.interrupt();
  }
}

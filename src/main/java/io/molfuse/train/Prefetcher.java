// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

/**
 * Makes the next few batches of a source on a background thread while the current one trains. A {@link DataLoader} has threads for
 * that already, and is asked directly.
 *
 * @param <B> a batch
 */
final class Prefetcher<B> implements AutoCloseable {
  private final DataLoader<B> loader;
  private final BatchWorkers<B> workers;
  private final BatchWorkers.Pass<B> pass;
  private long next;

  Prefetcher(BatchSource<B> source, long firstIndex, int ahead) {
    next = firstIndex;
    loader = source instanceof DataLoader<B> given ? given : null;
    workers = loader == null ? new BatchWorkers<>("molfuse-batches", 1, ahead, true, DataLoader::closeQuietly) : null;
    pass = loader == null ? workers.start(plan(source, firstIndex)) : null;
  }

  private static <B> BatchWorkers.Plan<B> plan(BatchSource<B> source, long firstIndex) {
    long[] index = {firstIndex};
    return () -> {
      long number = index[0]++;
      return new BatchWorkers.Job<>(0, number, () -> source.batch(number));
    };
  }

  B next() throws InterruptedException {
    try {
      return loader == null ? workers.take(pass).value() : loader.take(next++);
    } catch (InterruptedException e) {
      throw e;
    } catch (Throwable failure) {
      throw new TrainingException("could not make a batch: " + failure.getMessage(), failure);
    }
  }

  @Override
  public void close() {
    if (loader == null) {
      workers.close();
    } else {
      loader.idle();
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.List;
import java.util.TreeSet;
import java.util.function.Consumer;

/**
 * Makes batches of a data set on threads of its own, ahead of whoever takes them. The sequence of batches depends on the data set, the
 * sampler and the batch size, not on the number of threads.
 *
 * <p>It is a {@link BatchSource}, for a {@link Trainer}, and gives {@link #epoch single epochs} to a loop of one's own; one use at a
 * time, from one thread at a time. When a batch cannot be made, whoever would have taken it gets a {@link DataLoaderException}, and
 * the loader closes itself.
 *
 * @param <B> a batch. One that is {@link AutoCloseable} is closed if it was made in vain; one that is taken is the taker's.
 */
public final class DataLoader<B> implements BatchSource<B>, AutoCloseable {
  /**
   * Where to go on.
   *
   * @param epoch from 0
   * @param batch batches of the epoch before this one were all taken
   * @param ahead batches after that one which were taken, too, ascending; only an unordered loader has any
   */
  public record Position(long epoch, long batch, List<Long> ahead) {
    /**
     * The place of the numbers.
     *
     * @param epoch at least 0
     * @param batch at least 0
     * @param ahead not null
     */
    public Position {
      if (epoch < 0 || batch < 0) {
        throw new IllegalArgumentException("epoch and batch must be at least 0, but are " + epoch + " and " + batch);
      }
      ahead = List.copyOf(ahead);
    }

    /**
     * The place after some batches of an epoch.
     *
     * @param epoch at least 0
     * @param batch at least 0
     */
    public Position(long epoch, long batch) {
      this(epoch, batch, List.of());
    }
  }

  /**
   * How to load. Not thread-safe.
   *
   * @param <B> a batch
   */
  public static final class Builder<B> {
    private final PlanFactory<B> plans;
    private final long size;
    private final boolean indexed;
    private Sampler sampler;
    private int rank;
    private int worldSize = 1;
    private int batchSize = 1;
    private int workers = Math.min(Runtime.getRuntime().availableProcessors(), 8);
    private int prefetch;
    private boolean ordered = true;
    private boolean dropLast;
    private Consumer<? super B> release = DataLoader::closeQuietly;

    private Builder(PlanFactory<B> plans, long size, boolean indexed) {
      this.plans = plans;
      this.size = size;
      this.indexed = indexed;
    }

    /**
     * @param samples samples of a batch, at least 1; 1 unless set
     * @return this
     */
    public Builder<B> batchSize(int samples) {
      batchSize = atLeast("batchSize", samples, 1);
      return this;
    }

    /**
     * @param given the order of an indexed data set; {@link Sampler#sequential} unless set. Its {@link Sampler#shard} is the way to
     *     share it out among processes.
     * @return this
     */
    public Builder<B> sampler(Sampler given) {
      if (!indexed) {
        throw new IllegalArgumentException("sampler: a streaming data set has its own order; use shuffled() and shard()");
      }
      sampler = given;
      return this;
    }

    /**
     * Takes every worldSize-th sample of a streaming data set, beginning with the rank-th.
     *
     * @param rank 0 to worldSize-1
     * @param worldSize number of processes that share the samples
     * @return this
     */
    public Builder<B> shard(int rank, int worldSize) {
      if (indexed) {
        throw new IllegalArgumentException("shard: share an indexed data set out with Sampler.shard");
      }
      if (rank < 0 || rank >= worldSize) {
        throw new IllegalArgumentException("rank must be 0 to worldSize-1, but is " + rank + " of " + worldSize);
      }
      this.rank = rank;
      this.worldSize = worldSize;
      return this;
    }

    /**
     * @param threads threads that make batches, at least 1; the number of processors, at most 8, unless set
     * @return this
     */
    public Builder<B> workers(int threads) {
      workers = atLeast("workers", threads, 1);
      return this;
    }

    /**
     * @param batches most batches made or being made and not yet taken, at least 1; two a thread unless set
     * @return this
     */
    public Builder<B> prefetch(int batches) {
      prefetch = atLeast("prefetch", batches, 1);
      return this;
    }

    /**
     * @param inOrder false gives each batch as soon as it is made, so that a slow one holds up no other; then the loader is no
     *     {@link BatchSource}. True unless set.
     * @return this
     */
    public Builder<B> ordered(boolean inOrder) {
      ordered = inOrder;
      return this;
    }

    /**
     * @param drop true leaves out the last batch of an epoch if it has fewer samples than the others; false unless set
     * @return this
     */
    public Builder<B> dropLast(boolean drop) {
      dropLast = drop;
      return this;
    }

    /**
     * @param releaser gets batches that were made in vain; closes what is {@link AutoCloseable} unless set. Any thread may call it.
     * @return this
     */
    public Builder<B> release(Consumer<? super B> releaser) {
      release = releaser;
      return this;
    }

    /**
     * Makes the loader. Its threads start with its first use.
     *
     * @return the loader; close it
     * @throws IllegalArgumentException if there is no batch to an epoch
     */
    public DataLoader<B> build() {
      return new DataLoader<>(this);
    }

    private static int atLeast(String name, int value, int least) {
      if (value < least) {
        throw new IllegalArgumentException(name + " must be at least " + least + ", but is " + value);
      }
      return value;
    }
  }

  /** What a plan depends on beside the data. */
  record Layout(Sampler sampler, int rank, int worldSize, int batchSize, boolean dropLast, long batchesPerEpoch) {}

  /** Which batches: from a place on, of that epoch or of all that follow. */
  record Range(Position from, boolean oneEpoch) {}

  interface PlanFactory<B> {
    BatchWorkers.Plan<B> plan(Layout layout, Range range);
  }

  /**
   * The batches of one epoch.
   *
   * @param <B> a batch
   */
  public static final class Epoch<B> implements AutoCloseable {
    private final DataLoader<B> loader;
    private final BatchWorkers.Pass<B> pass;
    private final long epoch;
    private long batch;
    private final TreeSet<Long> ahead;

    private Epoch(DataLoader<B> loader, BatchWorkers.Pass<B> pass, Position from) {
      this.loader = loader;
      this.pass = pass;
      epoch = from.epoch;
      batch = from.batch;
      ahead = new TreeSet<>(from.ahead);
    }

    /**
     * Takes a batch; waits until it is made.
     *
     * @return the batch, the caller's; null at the end of the epoch
     * @throws DataLoaderException if it could not be made
     * @throws IllegalStateException if the loader was closed or another epoch begun
     * @throws InterruptedException if the thread was interrupted
     */
    public B next() throws InterruptedException {
      BatchWorkers.Made<B> made = loader.take(pass);
      if (made == null) {
        return null;
      }
      ahead.add(made.batch());
      while (ahead.remove(batch)) {
        batch++;
      }
      return made.value();
    }

    /** @return where {@link DataLoader#resume} goes on after the batches that were taken */
    public Position position() {
      return new Position(epoch, batch, List.copyOf(ahead));
    }

    /** Ends the epoch and releases the batches that were made in vain. The loader's threads stay for the next one. */
    @Override
    public void close() {
      if (loader.workers.isCurrent(pass)) {
        loader.workers.stop();
      }
    }
  }

  private final PlanFactory<B> plans;
  private final Layout layout;
  private final boolean ordered;
  private final BatchWorkers<B> workers;
  private BatchWorkers.Pass<B> running;
  private long next = -1;

  private DataLoader(Builder<B> b) {
    Sampler sampler = b.sampler == null ? Sampler.sequential(Math.max(0, b.size)) : b.sampler;
    long samples = b.indexed ? sampler.length() : b.size < 0 ? -1 : sampler.shard(b.rank, b.worldSize, Sampler.Tail.KEEP).length();
    long batches = samples < 0 ? -1 : samples / b.batchSize + (b.dropLast || samples % b.batchSize == 0 ? 0 : 1);
    if (batches == 0) {
      throw new IllegalArgumentException("there is no batch of " + b.batchSize + " in " + samples + " samples");
    }
    plans = b.plans;
    layout = new Layout(sampler, b.rank, b.worldSize, b.batchSize, b.dropLast, batches);
    ordered = b.ordered;
    int bound = b.prefetch > 0 ? b.prefetch : 2 * b.workers;
    workers = new BatchWorkers<>("molfuse-loader", b.workers, bound, b.ordered, b.release::accept);
  }

  /**
   * Loads samples by number.
   *
   * @param dataset the samples
   * @param collate joins them
   * @param <S> a sample
   * @param <B> a batch
   * @return settings
   */
  public static <S, B> Builder<B> of(IndexedDataset<S> dataset, Collate<S, ? extends B> collate) {
    return new Builder<>((layout, range) -> new IndexedPlan<>(dataset, collate, layout, range), dataset.size(), true);
  }

  /**
   * Loads samples that come one after the other. One thread reads them at a time; they are joined on all.
   *
   * @param dataset the samples
   * @param collate joins them
   * @param <S> a sample
   * @param <B> a batch
   * @return settings
   */
  public static <S, B> Builder<B> of(StreamingDataset<S> dataset, Collate<S, ? extends B> collate) {
    return new Builder<>((layout, range) -> new StreamPlan<>(dataset, collate, layout, range), dataset.size(), false);
  }

  /**
   * Begins an epoch. One begun before is over.
   *
   * @param epoch from 0
   * @return its batches
   */
  public Epoch<B> epoch(long epoch) {
    return resume(new Position(epoch, 0));
  }

  /**
   * Goes on in an epoch. One begun before is over.
   *
   * @param position what {@link Epoch#position} gave for the same data, sampler and batch size; the number of threads may differ
   * @return the batches of the epoch that were not taken yet
   */
  public Epoch<B> resume(Position position) {
    next = -1;
    return new Epoch<>(this, workers.start(plans.plan(layout, new Range(position, true))), position);
  }

  /**
   * {@inheritDoc}
   *
   * @throws IllegalStateException for a streaming data set of unknown size
   */
  @Override
  public long batchesPerEpoch() {
    if (layout.batchesPerEpoch < 0) {
      throw new IllegalStateException("the data set does not know its size, so its batches cannot be counted");
    }
    return layout.batchesPerEpoch;
  }

  /**
   * {@inheritDoc}
   *
   * <p>The batches after this one are made in advance: asking for them in order costs no wait, asking for another one makes new
   * ones.
   *
   * @throws DataLoaderException if it could not be made
   * @throws IllegalStateException if the loader is unordered, closed, or streaming with an unknown size
   */
  @Override
  public B batch(long index) {
    try {
      return take(index);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while waiting for a batch", e);
    }
  }

  B take(long index) throws InterruptedException {
    if (!ordered) {
      throw new IllegalStateException("an unordered loader has no numbered batches");
    }
    long perEpoch = batchesPerEpoch();
    if (index < 0) {
      throw new IllegalArgumentException("index must be at least 0, but is " + index);
    }
    if (index != next || !workers.isCurrent(running)) {
      running = workers.start(plans.plan(layout, new Range(new Position(index / perEpoch, index % perEpoch), false)));
    }
    // Until the batch is here, as after an interrupt, nobody knows which one comes next.
    next = -1;
    BatchWorkers.Made<B> made = take(running);
    if (made.epoch() != index / perEpoch || made.batch() != index % perEpoch) {
      throw new IllegalStateException(
          "batch " + made.batch() + " of epoch " + made.epoch() + " came instead of number " + index + " of all");
    }
    next = index + 1;
    return made.value();
  }

  /** Releases what was made in advance; the threads stay. */
  void idle() {
    next = -1;
    workers.stop();
  }

  private BatchWorkers.Made<B> take(BatchWorkers.Pass<B> pass) throws InterruptedException {
    try {
      return workers.take(pass);
    } catch (InterruptedException | IllegalStateException e) {
      throw e;
    } catch (DataLoaderException e) {
      close();
      throw e;
    } catch (Throwable e) {
      close();
      throw new IllegalStateException("the loader failed", e);
    }
  }

  /** Ends the threads and releases the batches that were made in vain. Whoever waits for a batch gets an exception. */
  @Override
  public void close() {
    workers.close();
  }

  static void closeQuietly(Object batch) {
    if (batch instanceof AutoCloseable closeable) {
      try {
        closeable.close();
      } catch (Exception e) {
        // Nobody has this batch, so nobody misses what it could not do.
      }
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import java.util.stream.LongStream;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

class DataLoaderTest {
  /** The numbers 0 to size-1, some of them slower than others. */
  private static IndexedDataset<Long> numbers(long size, boolean uneven) {
    return new IndexedDataset<>() {
      @Override
      public long size() {
        return size;
      }

      @Override
      public Long get(long index) throws InterruptedException {
        if (uneven && index % 7 == 0) {
          Thread.sleep(1);
        }
        return index;
      }
    };
  }

  private static StreamingDataset<Long> stream(long size, boolean sized) {
    return new StreamingDataset<>() {
      @Override
      public SampleStream<Long> open(long epoch) {
        long[] at = {0};
        return () -> at[0] < size ? (Long) at[0]++ : null;
      }

      @Override
      public long size() {
        return sized ? size : -1;
      }
    };
  }

  private static <B> List<B> rest(DataLoader.Epoch<B> epoch) throws InterruptedException {
    List<B> batches = new ArrayList<>();
    for (B batch = epoch.next(); batch != null; batch = epoch.next()) {
      batches.add(batch);
    }
    return batches;
  }

  private static List<Long> flat(List<List<Long>> batches) {
    return batches.stream().flatMap(List::stream).toList();
  }

  private static List<Long> range(long size) {
    return LongStream.range(0, size).boxed().toList();
  }

  private static List<Thread> threads() {
    return Thread.getAllStackTraces().keySet().stream()
        .filter(thread -> thread.getName().startsWith("molfuse-loader") || thread.getName().startsWith("molfuse-batches"))
        .collect(Collectors.toList());
  }

  @Property(tries = 60)
  void everySampleExactlyOnceAnEpoch(
      @ForAll @IntRange(min = 1, max = 90) int size,
      @ForAll @IntRange(min = 1, max = 11) int batchSize,
      @ForAll @IntRange(min = 1, max = 5) int workers,
      @ForAll @IntRange(min = 1, max = 9) int prefetch,
      @ForAll @IntRange(min = 1, max = 3) int worldSize,
      @ForAll boolean ordered,
      @ForAll boolean streaming)
      throws InterruptedException {
    for (long epoch = 0; epoch < 2; epoch++) {
      List<Long> seen = new ArrayList<>();
      for (int rank = 0; rank < worldSize && rank < size; rank++) {
        Sampler shard = Sampler.shuffled(size, 5).shard(rank, worldSize, Sampler.Tail.KEEP);
        DataLoader.Builder<List<Long>> builder =
            streaming
                ? DataLoader.of(stream(size, rank % 2 == 0).shuffled(7, 3), (List<Long> samples) -> samples).shard(rank, worldSize)
                : DataLoader.of(numbers(size, true), (List<Long> samples) -> samples).sampler(shard);
        try (DataLoader<List<Long>> loader =
            builder.batchSize(batchSize).workers(workers).prefetch(prefetch).ordered(ordered).build()) {
          seen.addAll(flat(rest(loader.epoch(epoch))));
        }
      }
      assertThat(seen).containsExactlyInAnyOrderElementsOf(range(size));
    }
  }

  @Test
  @Timeout(60)
  void theSequenceDoesNotDependOnTheThreads() throws InterruptedException {
    List<List<Long>> alone = sequence(1, 1);
    assertThat(sequence(4, 7)).isEqualTo(alone);
    assertThat(sequence(3, 2)).isEqualTo(alone);
    assertThat(flat(alone)).isNotEqualTo(range(100));
  }

  private static List<List<Long>> sequence(int workers, int prefetch) throws InterruptedException {
    try (DataLoader<List<Long>> loader =
        DataLoader.of(numbers(100, true), (List<Long> samples) -> samples)
            .sampler(Sampler.shuffled(100, 1)).batchSize(6).workers(workers).prefetch(prefetch).build()) {
      return rest(loader.epoch(3));
    }
  }

  @Test
  @Timeout(60)
  void unorderedGivesWhatIsReadyAndLosesNothing() throws InterruptedException {
    CountDownLatch first = new CountDownLatch(1);
    try (DataLoader<Long> loader =
        DataLoader.of(
                numbers(20, false),
                (List<Long> samples) -> {
                  if (samples.get(0) == 0) {
                    first.await();
                  }
                  return samples.get(0);
                })
            .workers(2).prefetch(4).ordered(false).build()) {
      DataLoader.Epoch<Long> epoch = loader.epoch(0);
      List<Long> seen = new ArrayList<>();
      for (int i = 0; i < 19; i++) {
        seen.add(epoch.next());
      }
      assertThat(seen).doesNotContain(0L);
      first.countDown();
      assertThat(epoch.next()).isZero();
      assertThat(epoch.next()).isNull();
    }
  }

  @Test
  @Timeout(60)
  void lastBatchIsKeptOrDropped() throws InterruptedException {
    for (boolean streaming : new boolean[] {false, true}) {
      for (boolean drop : new boolean[] {false, true}) {
        DataLoader.Builder<List<Long>> builder =
            streaming
                ? DataLoader.of(stream(10, true), (List<Long> samples) -> samples)
                : DataLoader.of(numbers(10, false), (List<Long> samples) -> samples);
        try (DataLoader<List<Long>> loader = builder.batchSize(4).dropLast(drop).workers(2).build()) {
          assertThat(loader.batchesPerEpoch()).isEqualTo(drop ? 2 : 3);
          List<List<Long>> batches = rest(loader.epoch(0));
          assertThat(batches).hasSize(drop ? 2 : 3);
          assertThat(flat(batches)).isEqualTo(range(drop ? 8 : 10));
        }
      }
    }
  }

  @Test
  @Timeout(60)
  void goesOnFromAnyPositionOfAnyEpoch() throws InterruptedException {
    for (boolean streaming : new boolean[] {false, true}) {
      try (DataLoader<List<Long>> loader = loader(streaming, 3, true);
          DataLoader<List<Long>> resumed = loader(streaming, 2, true)) {
        for (long number = 0; number < 3; number++) {
          List<List<Long>> whole = rest(loader.epoch(number));
          for (int stop = 0; stop <= whole.size(); stop++) {
            DataLoader.Epoch<List<Long>> begun = loader.epoch(number);
            for (int i = 0; i < stop; i++) {
              begun.next();
            }
            assertThat(begun.position()).isEqualTo(new DataLoader.Position(number, stop));
            assertThat(rest(resumed.resume(begun.position()))).isEqualTo(whole.subList(stop, whole.size()));
          }
        }
      }
    }
  }

  @Test
  @Timeout(60)
  void anUnorderedEpochGoesOnWithoutWhatWasTaken() throws InterruptedException {
    Random random = new Random(4);
    for (boolean streaming : new boolean[] {false, true}) {
      for (int stop = 0; stop <= 9; stop++) {
        try (DataLoader<List<Long>> loader = loader(streaming, 4, false)) {
          DataLoader.Epoch<List<Long>> begun = loader.epoch(1);
          List<Long> seen = new ArrayList<>();
          for (int i = 0; i < stop; i++) {
            seen.addAll(begun.next());
            Thread.sleep(random.nextInt(3));
          }
          seen.addAll(flat(rest(loader.resume(begun.position()))));
          assertThat(seen).containsExactlyInAnyOrderElementsOf(range(50));
        }
      }
    }
  }

  private static DataLoader<List<Long>> loader(boolean streaming, int workers, boolean ordered) {
    DataLoader.Builder<List<Long>> builder =
        streaming
            ? DataLoader.of(stream(50, false).shuffled(9, 2), (List<Long> samples) -> samples)
            : DataLoader.of(numbers(50, true), (List<Long> samples) -> samples).sampler(Sampler.shuffled(50, 2));
    return builder.batchSize(6).workers(workers).ordered(ordered).build();
  }

  @Test
  @Timeout(60)
  void isABatchSourceThroughAllEpochs() throws InterruptedException {
    for (boolean streaming : new boolean[] {false, true}) {
      DataLoader.Builder<List<Long>> builder =
          streaming
              ? DataLoader.of(stream(20, true).shuffled(5, 1), (List<Long> samples) -> samples)
              : DataLoader.of(numbers(20, true), (List<Long> samples) -> samples).sampler(Sampler.shuffled(20, 1));
      try (DataLoader<List<Long>> loader = builder.batchSize(6).workers(3).build()) {
        List<List<Long>> expected = new ArrayList<>();
        for (long epoch = 0; epoch < 3; epoch++) {
          expected.addAll(rest(loader.epoch(epoch)));
        }
        for (int from : new int[] {0, 5, 2, 9}) {
          for (int i = from; i < expected.size(); i++) {
            assertThat(loader.batch(i)).isEqualTo(expected.get(i));
          }
        }
      }
    }
  }

  @Test
  @Timeout(60)
  void afterAnInterruptTheNextBatchIsTheOneThatIsAskedFor() {
    try (DataLoader<List<Long>> loader = DataLoader.of(numbers(40, false), (List<Long> samples) -> samples).batchSize(4).build()) {
      for (long i = 0; i < 5; i++) {
        assertThat(loader.batch(i)).startsWith(4 * i);
      }
      Thread.currentThread().interrupt();
      assertThatThrownBy(() -> loader.batch(5)).isInstanceOf(IllegalStateException.class).hasMessageContaining("interrupted");
      assertThat(Thread.interrupted()).isTrue();
      assertThat(loader.batch(6)).startsWith(24L);
      assertThat(loader.batch(5)).startsWith(20L);
    }
  }

  @Test
  @Timeout(60)
  void validationLeavesNoBatchesPrefetched() throws InterruptedException {
    AtomicInteger made = new AtomicInteger();
    AtomicInteger released = new AtomicInteger();
    int validated;
    try (DataLoader<float[]> validation =
            DataLoader.of(
                    numbers(3, false),
                    (List<Long> samples) -> {
                      made.incrementAndGet();
                      return LineTask.batches(3).batch(samples.get(0));
                    })
                .workers(2).prefetch(4).release(batch -> released.incrementAndGet()).build();
        LineTask task = new LineTask(1, 0.2);
        Trainer<float[]> trainer = new Trainer<>(task, LineTask.batches(40), config(3)).validation(validation)) {
      List<Integer> times = new ArrayList<>();
      trainer
          .listener(
              new TrainingListener() {
                @Override
                public void validated(long step, Map<String, Double> losses, boolean best) {
                  times.add(1);
                }
              })
          .run();
      validated = 3 * times.size();
      assertThat(validated).isPositive();
      // The loader is still open. What was being made when the validation ended is released as soon as it is made.
      while (made.get() != validated + released.get()) {
        Thread.sleep(1);
      }
    }
  }

  @Test
  @Timeout(60)
  void aTrainerContinuesOnALoaderBitForBit() {
    List<float[]> rows = new ArrayList<>();
    for (int i = 0; i < 40; i++) {
      rows.add(LineTask.batches(40).batch(i));
    }
    float[] straight = train(rows, null, new ArrayList<>());
    List<TrainingState> stopped = new ArrayList<>();
    List<float[]> kept = new ArrayList<>();
    TrainingConfig config = config(13);
    try (DataLoader<float[]> loader = rowsLoader(rows, 3);
        LineTask task = new LineTask(1, 0.2);
        Trainer<float[]> trainer = new Trainer<>(task, loader, config)) {
      stopped.add(trainer.run().state());
      assertThat(threads()).isNotEmpty();
      // What a checkpoint holds, without the file: the same trainer's state taken over below.
      try (LineTask second = new LineTask(9, 0.2);
          DataLoader<float[]> other = rowsLoader(rows, 1);
          Trainer<float[]> rest = new Trainer<>(second, other, config(30))) {
        copy(task.parameters().tensors(), second.parameters().tensors());
        copy(trainer.optimizer().state(), rest.optimizer().state());
        rest.resume(stopped.get(0)).run();
        kept.add(second.values());
      }
    }
    assertThat(kept.get(0)).isEqualTo(straight);
    assertThat(threads()).isEmpty();
  }

  @SuppressWarnings("try") // A guard does its work by being open.
  private static void copy(Map<String, Tensor> from, Map<String, Tensor> to) {
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      from.forEach((name, tensor) -> to.get(name).copy_(tensor));
    }
  }

  private static TrainingConfig config(long steps) {
    LearningRateSchedule constant = new LearningRateSchedule(LearningRateSchedule.Kind.CONSTANT, 0, 1);
    return new TrainingConfig(0, steps, 0, 0.05, Map.of(), constant, 0, 1, 1, 7, 0, 5);
  }

  private static DataLoader<float[]> rowsLoader(List<float[]> rows, int workers) {
    return DataLoader.of(IndexedDataset.of(rows), (List<float[]> batch) -> batch.get(0))
        .sampler(Sampler.shuffled(rows.size(), 3)).workers(workers).build();
  }

  private static float[] train(List<float[]> rows, TrainingState from, List<TrainingState> states) {
    try (DataLoader<float[]> loader = rowsLoader(rows, 2);
        LineTask task = new LineTask(1, 0.2);
        Trainer<float[]> trainer = new Trainer<>(task, loader, config(30))) {
      states.add(trainer.run().state());
      return task.values();
    }
  }

  @Test
  @Timeout(60)
  void neverMakesMoreThanTheBound() throws Exception {
    AtomicInteger made = new AtomicInteger();
    AtomicInteger taken = new AtomicInteger();
    AtomicInteger most = new AtomicInteger();
    try (DataLoader<Long> loader =
        DataLoader.of(
                numbers(200, false),
                (List<Long> samples) -> {
                  most.accumulateAndGet(made.incrementAndGet() - taken.get(), Math::max);
                  return samples.get(0);
                })
            .workers(4).prefetch(5).build()) {
      DataLoader.Epoch<Long> epoch = loader.epoch(0);
      for (long i = 0; i < 200; i++) {
        // Now and then all that fits: the count is exact while this thread waits, else at most one too small.
        while (i % 40 == 0 && made.get() - taken.get() < 5) {
          Thread.sleep(1);
        }
        taken.incrementAndGet();
        assertThat(epoch.next()).isEqualTo(i);
      }
    }
    assertThat(most.get()).isEqualTo(5);
  }

  @Test
  @Timeout(60)
  void theBoundHoldsAlsoWhenEpochsAreLeft() throws InterruptedException {
    AtomicInteger alive = new AtomicInteger();
    AtomicInteger most = new AtomicInteger();
    try (DataLoader<Long> loader =
        DataLoader.of(
                numbers(50, false),
                (List<Long> samples) -> {
                  most.accumulateAndGet(alive.incrementAndGet(), Math::max);
                  try {
                    Thread.sleep(samples.get(0) % 3);
                  } catch (InterruptedException e) {
                    // The end of the loader: there is no batch to release.
                    alive.decrementAndGet();
                    throw e;
                  }
                  return samples.get(0);
                })
            .workers(4).prefetch(4).release(batch -> alive.decrementAndGet()).build()) {
      for (long number = 0; number < 40; number++) {
        try (DataLoader.Epoch<Long> epoch = loader.epoch(number)) {
          while (number == 0 && alive.get() < 4) {
            Thread.sleep(1);
          }
          for (long i = 0; i < number % 4; i++) {
            // Before, as the room that next() makes may be used at once.
            alive.decrementAndGet();
            assertThat(epoch.next()).isEqualTo(i);
          }
        }
      }
    }
    assertThat(most.get()).isEqualTo(4);
    assertThat(alive.get()).isZero();
  }

  @Test
  @Timeout(60)
  void aStreamIsShuffledByABuffer() throws InterruptedException {
    List<List<Long>> orders = new ArrayList<>();
    for (int seed = 0; seed < 2; seed++) {
      try (DataLoader<List<Long>> loader =
          DataLoader.of(stream(100, true).shuffled(20, seed), (List<Long> samples) -> samples).batchSize(100).build()) {
        for (long number = 0; number < 2; number++) {
          List<Long> order = flat(rest(loader.epoch(number)));
          assertThat(order).containsExactlyInAnyOrderElementsOf(range(100)).isNotEqualTo(range(100));
          // The first is one of the twenty that the buffer held.
          assertThat(order.get(0)).isLessThan(20);
          orders.add(order);
        }
      }
    }
    assertThat(orders).doesNotHaveDuplicates();
  }

  @Test
  @Timeout(60)
  void aFailingDatasetIsTheConsumersFailure() throws InterruptedException {
    IOException cause = new IOException("the disk is gone");
    IndexedDataset<Long> failing =
        new IndexedDataset<>() {
          @Override
          public long size() {
            return 100;
          }

          @Override
          public Long get(long index) throws IOException {
            if (index == 57) {
              throw cause;
            }
            return index;
          }
        };
    for (int workers = 1; workers <= 4; workers++) {
      DataLoader<List<Long>> loader =
          DataLoader.of(failing, (List<Long> samples) -> samples).batchSize(10).workers(workers).build();
      DataLoader.Epoch<List<Long>> epoch = loader.epoch(2);
      for (int i = 0; i < 5; i++) {
        assertThat(epoch.next()).hasSize(10);
      }
      assertThatThrownBy(epoch::next)
          .isInstanceOfSatisfying(
              DataLoaderException.class,
              e -> {
                assertThat(e.epoch()).isEqualTo(2);
                assertThat(e.batch()).isEqualTo(5);
                assertThat(e.sample()).isEqualTo(57);
              })
          .hasMessage("could not read sample 57 of batch 5 of epoch 2: the disk is gone")
          .hasCause(cause);
      assertThat(threads()).isEmpty();
      assertThatThrownBy(epoch::next).isInstanceOf(IllegalStateException.class).hasMessageContaining("closed");
    }
  }

  @Test
  @Timeout(60)
  void aFailingCollateOrStreamIsTheConsumersFailure() throws InterruptedException {
    DataLoader<Long> collating =
        DataLoader.of(
                numbers(10, false),
                (List<Long> samples) -> {
                  if (samples.get(0) == 3) {
                    throw new StackOverflowError("too deep");
                  }
                  return samples.get(0);
                })
            .workers(3).build();
    DataLoader.Epoch<Long> epoch = collating.epoch(0);
    assertThat(List.of(epoch.next(), epoch.next(), epoch.next())).containsExactly(0L, 1L, 2L);
    assertThatThrownBy(epoch::next)
        .isInstanceOf(DataLoaderException.class)
        .hasMessage("could not make batch 3 of epoch 0: too deep")
        .hasCauseInstanceOf(StackOverflowError.class);

    AtomicInteger closed = new AtomicInteger();
    StreamingDataset<Long> torn =
        number ->
            new SampleStream<>() {
              private long at;

              @Override
              public Long next() throws IOException {
                if (at == 5) {
                  throw new IOException("torn");
                }
                return at++;
              }

              @Override
              public void close() {
                closed.incrementAndGet();
              }
            };
    DataLoader<List<Long>> streaming = DataLoader.of(torn, (List<Long> samples) -> samples).batchSize(2).workers(3).build();
    DataLoader.Epoch<List<Long>> read = streaming.epoch(0);
    assertThat(read.next()).containsExactly(0L, 1L);
    assertThat(read.next()).containsExactly(2L, 3L);
    assertThatThrownBy(read::next).hasMessage("could not read sample 5 of batch 2 of epoch 0: torn");
    assertThat(closed).hasValue(1);
    assertThat(threads()).isEmpty();
  }

  @Test
  @Timeout(60)
  void aStreamOfAnotherSizeThanItSaysIsAFailure() {
    for (long real : new long[] {9, 16}) {
      StreamingDataset<Long> wrong =
          new StreamingDataset<>() {
            @Override
            public SampleStream<Long> open(long epoch) throws Exception {
              return stream(real, true).open(epoch);
            }

            @Override
            public long size() {
              return 12;
            }
          };
      try (DataLoader<List<Long>> loader = DataLoader.of(wrong, (List<Long> samples) -> samples).batchSize(4).dropLast(true).build()) {
        assertThatThrownBy(() -> rest(loader.epoch(0)))
            .isInstanceOf(DataLoaderException.class)
            .hasMessageContaining("an epoch has 3 batches, but this one has " + (real == 9 ? "2" : "more"));
      }
    }
  }

  @Test
  @Timeout(60)
  void closingEarlyEndsBlockedThreads() throws Exception {
    CountDownLatch never = new CountDownLatch(1);
    CountDownLatch inside = new CountDownLatch(2);
    DataLoader<Long> stuck =
        DataLoader.of(
                numbers(10, false),
                (List<Long> samples) -> {
                  inside.countDown();
                  never.await();
                  return samples.get(0);
                })
            .workers(2).build();
    DataLoader.Epoch<Long> epoch = stuck.epoch(0);
    AtomicReference<Throwable> thrown = new AtomicReference<>();
    Thread consumer =
        new Thread(
            () -> {
              try {
                epoch.next();
              } catch (Throwable e) {
                thrown.set(e);
              }
            });
    consumer.start();
    inside.await();
    stuck.close();
    consumer.join();
    assertThat(thrown.get()).isInstanceOf(IllegalStateException.class).hasMessage("the loader is closed");
    assertThat(threads()).isEmpty();

    // Producers that wait for room, in the middle of an epoch.
    DataLoader<Long> full = DataLoader.of(numbers(1000, false), (List<Long> samples) -> samples.get(0)).workers(3).build();
    assertThat(full.epoch(0).next()).isZero();
    assertThat(threads()).hasSize(3);
    full.close();
    full.close();
    assertThat(threads()).isEmpty();
    assertThatThrownBy(() -> full.epoch(1)).isInstanceOf(IllegalStateException.class);
  }

  @Test
  @Timeout(60)
  void threadsLiveThroughEpochsAndBatchesMadeInVainAreReleased() throws InterruptedException {
    ConcurrentHashMap<Object, Boolean> open = new ConcurrentHashMap<>();
    class Batch implements AutoCloseable {
      Batch() {
        open.put(this, true);
      }

      @Override
      public void close() {
        open.remove(this);
      }
    }
    try (DataLoader<Batch> loader = DataLoader.of(numbers(40, true), samples -> new Batch()).batchSize(3).workers(3).build()) {
      List<Thread> first = null;
      for (long number = 0; number < 20; number++) {
        try (DataLoader.Epoch<Batch> epoch = loader.epoch(number)) {
          for (int i = 0; i <= number % 5; i++) {
            try (Batch batch = epoch.next()) {
              assertThat(open).containsKey(batch);
            }
          }
        }
        first = first == null ? threads() : first;
        assertThat(threads()).containsExactlyInAnyOrderElementsOf(first).hasSize(3);
      }
      // A batch that was being made when its epoch ended is released when it is done.
      rest(loader.epoch(0)).forEach(Batch::close);
    }
    assertThat(open).isEmpty();
  }

  @Test
  @Timeout(60)
  void anEpochIsOverWhenAnotherBegins() throws InterruptedException {
    try (DataLoader<List<Long>> loader = loader(false, 2, true)) {
      DataLoader.Epoch<List<Long>> first = loader.epoch(0);
      first.next();
      DataLoader.Epoch<List<Long>> second = loader.epoch(0);
      assertThatThrownBy(first::next).isInstanceOf(IllegalStateException.class).hasMessageContaining("another one was begun");
      first.close();
      assertThat(rest(second)).hasSize(9);
    }
  }

  @Test
  @Timeout(60)
  void badSettingsAreNamed() {
    DataLoader.Builder<List<Long>> indexed = DataLoader.of(numbers(3, false), (List<Long> samples) -> samples);
    assertThatThrownBy(() -> indexed.batchSize(0)).hasMessage("batchSize must be at least 1, but is 0");
    assertThatThrownBy(() -> indexed.workers(0)).hasMessageContaining("workers");
    assertThatThrownBy(() -> indexed.prefetch(0)).hasMessageContaining("prefetch");
    assertThatThrownBy(() -> indexed.shard(0, 2)).hasMessageContaining("Sampler.shard");
    assertThatThrownBy(() -> indexed.batchSize(4).dropLast(true).build()).hasMessage("there is no batch of 4 in 3 samples");
    DataLoader.Builder<List<Long>> streaming = DataLoader.of(stream(3, false), (List<Long> samples) -> samples);
    assertThatThrownBy(() -> streaming.sampler(Sampler.sequential(3))).hasMessageContaining("streaming");
    assertThatThrownBy(() -> streaming.shard(2, 2)).hasMessageContaining("rank");
    try (DataLoader<List<Long>> loader = streaming.build()) {
      assertThatThrownBy(loader::batchesPerEpoch).hasMessageContaining("does not know its size");
    }
    try (DataLoader<List<Long>> loader = loader(false, 1, false)) {
      assertThatThrownBy(() -> loader.batch(0)).hasMessageContaining("unordered");
    }
  }
}

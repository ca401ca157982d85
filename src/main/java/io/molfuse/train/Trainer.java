// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.LongSupplier;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;

/**
 * The training loop. Each step lives in one {@link PointerScope}, so that nothing native waits for the garbage collector, and
 * takes its randomness from the seed and its number, so that a resumed run goes on as if it had not been interrupted.
 *
 * @param <B> a batch
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class Trainer<B> implements AutoCloseable {
  private static final int BATCHES_AHEAD = 4;

  /** Why a run ended. */
  public enum Ending {
    /** All steps are done. */
    FINISHED,
    /** The time is up. */
    TIME_UP,
    /** Someone asked for it. */
    STOPPED
  }

  /**
   * The end of a run.
   *
   * @param ending why it ended
   * @param state how far it came
   * @param checkpoint the last checkpoint's folder, null without a writer
   */
  public record Result(Ending ending, TrainingState state, Path checkpoint) {}

  private final TrainingTask<B> task;
  private final BatchSource<B> batches;
  private final TrainingConfig config;
  private final AdamW optimizer;
  private final List<TrainingListener> listeners = new ArrayList<>();
  private final long totalSteps;
  private final int logEvery;
  private BatchSource<B> validation;
  private CheckpointWriter writer;
  private TrainingState state = TrainingState.START;
  private long resumedAt;
  private Path checkpoint;
  private LongSupplier nanos = System::nanoTime;
  private volatile boolean stopRequested;

  /**
   * Makes a run at its start.
   *
   * @param task what to train; stays the caller's
   * @param batches training data
   * @param config how to train
   */
  public Trainer(TrainingTask<B> task, BatchSource<B> batches, TrainingConfig config) {
    this.task = task;
    this.batches = batches;
    this.config = config;
    optimizer = new AdamW(task.parameters(), config.rateFactors(), config.weightDecay());
    totalSteps = config.totalSteps(batches.batchesPerEpoch());
    logEvery = config.logEvery() > 0 ? config.logEvery() : (int) Math.max(1, Math.min(totalSteps / 100, 20));
  }

  /**
   * Validates after each epoch and at the end.
   *
   * @param batches one epoch of it is used each time
   * @return this
   */
  public Trainer<B> validation(BatchSource<B> batches) {
    validation = batches;
    return this;
  }

  /**
   * Saves checkpoints.
   *
   * @param checkpoints where to
   * @return this
   */
  public Trainer<B> checkpoints(CheckpointWriter checkpoints) {
    writer = checkpoints;
    return this;
  }

  /**
   * Adds a listener.
   *
   * @param listener told of every step
   * @return this
   */
  public Trainer<B> listener(TrainingListener listener) {
    listeners.add(listener);
    return this;
  }

  /**
   * Continues an earlier run. The parameters and {@link #optimizer()}'s state must be loaded, too.
   *
   * @param earlier its state
   * @return this
   */
  public Trainer<B> resume(TrainingState earlier) {
    state = earlier;
    resumedAt = earlier.step();
    return this;
  }

  /** Goes by another clock than the machine's, in nanoseconds. */
  Trainer<B> clock(LongSupplier other) {
    nanos = other;
    return this;
  }

  /** @return the optimiser, for loading its state */
  public AdamW optimizer() {
    return optimizer;
  }

  /** @return optimiser steps of the run, Long.MAX_VALUE if only time ends it */
  public long totalSteps() {
    return totalSteps;
  }

  /** Ends the run after the current step, with a checkpoint. May be called from any thread. */
  public void requestStop() {
    stopRequested = true;
  }

  /**
   * Trains until the run is over.
   *
   * @return how it ended
   * @throws TrainingException if the loss is no longer finite or a batch cannot be made
   * @throws CheckpointException if a checkpoint cannot be saved
   */
  public Result run() {
    Clock clock = new Clock(nanos, state.elapsedSeconds());
    double savedAt = clock.elapsed();
    Meter meter = new Meter(clock.elapsed());
    boolean unsaved = false;
    boolean unvalidated = false;
    Ending ending = Ending.FINISHED;
    try (Prefetcher<B> source = new Prefetcher<>(batches, state.step() * config.accumulation(), BATCHES_AHEAD)) {
      while (state.step() < totalSteps) {
        if (stopRequested) {
          ending = Ending.STOPPED;
          break;
        }
        if (config.maxSeconds() > 0 && clock.elapsed() >= config.maxSeconds()) {
          ending = Ending.TIME_UP;
          break;
        }
        step(source, clock, meter);
        unsaved = true;
        unvalidated = true;
        boolean best = false;
        if (endsEpoch() && state.step() < totalSteps) {
          best = validate();
          unvalidated = false;
        }
        boolean due =
            config.checkpointSeconds() > 0
                ? clock.elapsed() - savedAt >= config.checkpointSeconds()
                : endsEpoch() && state.step() < totalSteps;
        if (best || due) {
          save(best);
          unsaved = false;
          savedAt = clock.elapsed();
        }
      }
      // Whoever asked for a stop does not want to wait for a validation.
      boolean best = unvalidated && ending != Ending.STOPPED && validate();
      // Parameters that were saved when their time came are saved again if they turn out to be the best.
      if (unsaved || best) {
        save(best);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new TrainingException("training was interrupted", e);
    }
    return new Result(ending, state, checkpoint);
  }

  private void step(Prefetcher<B> source, Clock clock, Meter meter) throws InterruptedException {
    long number = state.step() + 1;
    double progress = progress(state.step(), clock.elapsed());
    double time = timeShare(clock.elapsed());
    boolean warmingUp = !state.warmedUp() && config.schedule().warmingUp(state.step(), time);
    double warmupProgress = state.warmedUp() ? state.warmupProgress() : progress;
    double rate =
        config.learningRate()
            * (warmingUp
                ? config.schedule().warmup(state.step(), time)
                : config.schedule().decay(progress, warmupProgress));
    long samples = 0;
    Map<String, Double> values = null;
    boolean logged = number % logEvery == 0 || number == 1 || number == totalSteps;
    try (PointerScope scope = new PointerScope()) {
      task.parameters().dropGradients();
      Losses losses = null;
      for (int i = 0; i < config.accumulation(); i++) {
        B batch = source.next();
        samples += task.samples(batch);
        losses = task.train(batch, Seeds.mix(config.seed(), state.step(), i));
        Tensor loss =
            config.accumulation() == 1
                ? losses.total()
                : losses.total().mul(new Scalar(1.0 / config.accumulation()));
        loss.backward();
      }
      losses.with(
          "grad_norm", optimizer.clipGradients(config.clipNorm() > 0 ? config.clipNorm() : Double.POSITIVE_INFINITY));
      // Reading costs nothing on the CPU, where it also stops a bad step before it reaches the parameters.
      if (logged || !losses.total().is_cuda()) {
        values = losses.read();
        requireFinite(number, values);
      }
      optimizer.step(rate);
    }
    double elapsed = clock.elapsed();
    state =
        new TrainingState(
            number,
            state.samples() + samples,
            elapsed,
            !warmingUp,
            warmupProgress,
            state.bestLoss(),
            state.bestStep());
    meter.add(samples);
    if (values != null) {
      StepReport report =
          new StepReport(
              number,
              totalSteps,
              progress(number, elapsed),
              (number * config.accumulation() - 1) / batches.batchesPerEpoch() + 1,
              values,
              rate,
              meter.rate(elapsed),
              elapsed,
              logged);
      listeners.forEach(listener -> listener.step(report));
    }
    if (logged) {
      meter.restart(elapsed);
    }
  }

  private void requireFinite(long step, Map<String, Double> values) {
    for (Map.Entry<String, Double> value : values.entrySet()) {
      if (!Double.isFinite(value.getValue()) && !value.getKey().equals("perplexity")) {
        throw new TrainingException(
            String.format(
                "%s became %s at step %d, so training was stopped. %s Try a smaller learning rate.",
                value.getKey(),
                value.getValue(),
                step,
                kept()));
      }
    }
  }

  private String kept() {
    if (checkpoint != null) {
      return "The checkpoint " + checkpoint + " is kept.";
    }
    return resumedAt > 0
        ? "The checkpoint of step " + resumedAt + " that the run was resumed from is kept."
        : "No checkpoint was saved yet.";
  }

  private double progress(long steps, double elapsed) {
    double bySteps = totalSteps == Long.MAX_VALUE ? 0 : (double) steps / totalSteps;
    return Math.min(1, Math.max(bySteps, timeShare(elapsed)));
  }

  /** How much of the run's time is over; 0 without a limit. */
  private double timeShare(double elapsed) {
    return config.maxSeconds() > 0 ? elapsed / config.maxSeconds() : 0;
  }

  private boolean endsEpoch() {
    long batchesUsed = state.step() * config.accumulation();
    long before = batchesUsed - config.accumulation();
    return batchesUsed / batches.batchesPerEpoch() > before / batches.batchesPerEpoch();
  }

  /** Whether the validation loss is smaller than ever before; false without validation data. */
  private boolean validate() {
    if (validation == null) {
      return false;
    }
    Map<String, Double> means = validationMeans();
    boolean best = means.get("total_loss") < state.bestLoss();
    if (best) {
      state = state.best(means.get("total_loss"));
    }
    listeners.forEach(listener -> listener.validated(state.step(), means, best));
    return best;
  }

  /** Mean losses over the validation data, each batch weighted by its samples. */
  private Map<String, Double> validationMeans() {
    Map<String, Double> sums = new LinkedHashMap<>();
    long samples = 0;
    for (long i = 0; i < validation.batchesPerEpoch(); i++) {
      B batch = validation.batch(i);
      int count = task.samples(batch);
      samples += count;
      try (PointerScope scope = new PointerScope();
          NoGradGuard noGrad = new NoGradGuard()) {
        task.evaluate(batch, Seeds.mix(config.seed(), -1, i))
            .read()
            .forEach((name, value) -> sums.merge(name, value * count, Double::sum));
      }
    }
    if (validation instanceof DataLoader<B> loader) {
      // The batches of the next validation are not wanted before it.
      loader.idle();
    }
    long total = samples;
    sums.replaceAll((name, sum) -> sum / total);
    return sums;
  }

  private void save(boolean best) {
    if (writer == null) {
      return;
    }
    checkpoint =
        writer.save(state, optimizer, best ? List.of(RunDirectory.LAST, RunDirectory.BEST) : List.of(RunDirectory.LAST));
    listeners.forEach(listener -> listener.saved(state.step(), checkpoint));
  }

  /** Releases the optimiser's state. */
  @Override
  public void close() {
    optimizer.close();
  }

  /** Time spent in the loop, over all sittings of a resumed run. */
  private static final class Clock {
    private final LongSupplier nanos;
    private final long start;
    private final double before;

    Clock(LongSupplier nanos, double before) {
      this.nanos = nanos;
      this.before = before;
      start = nanos.getAsLong();
    }

    double elapsed() {
      return before + (nanos.getAsLong() - start) * 1e-9;
    }
  }

  /** Samples per second since the last restart. */
  private static final class Meter {
    private long samples;
    private double since;

    Meter(double now) {
      since = now;
    }

    void add(long count) {
      samples += count;
    }

    double rate(double now) {
      return samples / Math.max(1e-9, now - since);
    }

    void restart(double now) {
      samples = 0;
      since = now;
    }
  }
}

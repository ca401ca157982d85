// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.Molfuse;
import io.molfuse.train.PerformanceMonitor.Phase;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.LongSupplier;
import java.util.function.Predicate;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;

/**
 * The training loop. Each step lives in one {@link PointerScope}, so that nothing native waits for the garbage collector, and
 * takes its randomness from the seed and its number, so that a resumed run goes on as if it had not been interrupted.
 *
 * @param <B> a batch
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class Trainer<B> implements AutoCloseable {
  /** Steps that the means in reports are over. */
  public static final int AVERAGED_STEPS = 100;

  private static final int BATCHES_AHEAD = 4;

  /** Why a run ended. */
  public enum Ending {
    /** All steps are done. */
    FINISHED,
    /** The time is up. */
    TIME_UP,
    /** Someone asked for it. */
    STOPPED,
    /** Validation got no better. */
    EARLY_STOPPED,
    /** It came as far as it was to come for now; see {@link Trainer#pauseWhen}. */
    PAUSED
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
  private final Precision.Choice precision;
  private final AdamW optimizer;
  private final GradScaler scaler;
  private final MovingAverages averages = new MovingAverages(AVERAGED_STEPS);
  private final PendingValues pending = new PendingValues(AVERAGED_STEPS);
  private final List<TrainingListener> listeners = new ArrayList<>();
  private final long totalSteps;
  private final int logEvery;
  private BatchSource<B> validation;
  private CheckpointWriter writer;
  private NanGuard guard = NanGuard.stopping();
  private EarlyStopping stopping;
  private TrainingState state = TrainingState.START;
  private long resumedAt;
  private Path checkpoint;
  private LongSupplier nanos = System::nanoTime;
  private Predicate<TrainingState> pause = state -> false;
  private volatile boolean stopRequested;

  /**
   * Makes a run at its start.
   *
   * @param task what to train; stays the caller's
   * @param batches training data
   * @param config how to train
   * @throws IllegalArgumentException if the parameters' device cannot do the configuration's precision
   */
  public Trainer(TrainingTask<B> task, BatchSource<B> batches, TrainingConfig config) {
    this.task = task;
    this.batches = batches;
    this.config = config;
    precision = choose(config.precision(), task.parameters());
    scaler = precision.scaler();
    optimizer = new AdamW(task.parameters(), config.rateFactors(), config.weightDecay());
    totalSteps = config.totalSteps(batches.batchesPerEpoch());
    logEvery = config.logEvery() > 0 ? config.logEvery() : (int) Math.max(1, Math.min(totalSteps / 100, 20));
  }

  private static Precision.Choice choose(Precision wanted, ParameterSet parameters) {
    try (Device device = parameters.parameters().get(0).tensor().device()) {
      return wanted.on(device.is_cuda() ? Molfuse.cudaDevice(Math.max(0, device.index())) : null);
    }
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
   * Says what becomes of steps whose loss or gradients are not finite. Unless called, the first ends the run.
   *
   * @param policy stays the caller's
   * @return this
   */
  public Trainer<B> nanGuard(NanGuard policy) {
    guard = policy;
    return this;
  }

  /**
   * Ends the run when validation gets no better, and puts the best weights into the model at the end of a run that nobody stopped. The
   * last checkpoint has the last weights all the same, so that the run can go on from it.
   *
   * @param patience stays the caller's
   * @return this
   */
  public Trainer<B> earlyStopping(EarlyStopping patience) {
    stopping = patience;
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
   * Continues an earlier run. The parameters and {@link #optimizer()}'s state must be loaded, too; with a loss scale, averages or early
   * stopping, {@link #resume(TrainingState, LoopState, Map)} is for their states.
   *
   * @param earlier its state
   * @return this
   */
  public Trainer<B> resume(TrainingState earlier) {
    state = earlier;
    resumedAt = earlier.step();
    return this;
  }

  /**
   * Continues an earlier run with all that the loop remembered. The parameters and {@link #optimizer()}'s state must be loaded, too, and
   * {@link #earlyStopping} be called before. A scale is left alone if the run had none, as on a device of another precision.
   *
   * @param earlier its state
   * @param loop what {@link #loopState()} was then
   * @param bestWeights those of the best checkpoint, for early stopping; may be empty without it or before the first validation
   * @return this
   * @throws IllegalArgumentException if the data are cut into batches in another way than then, or the best weights do not fit
   */
  public Trainer<B> resume(TrainingState earlier, LoopState loop, Map<String, Tensor> bestWeights) {
    resume(earlier);
    DataLoader.Position here = position();
    if (!here.equals(loop.position())) {
      throw new IllegalArgumentException(
          String.format(
              "position: step %d was before batch %d of epoch %d, but with these data and settings it is before batch %d of epoch %d",
              earlier.step(), loop.position().batch(), loop.position().epoch(), here.batch(), here.epoch()));
    }
    if (loop.scaler() != null) {
      scaler.load(loop.scaler());
    }
    averages.load(loop.averages());
    if (stopping != null && loop.stopping() != null) {
      stopping.load(loop.stopping(), bestWeights);
    }
    return this;
  }

  /** @return what the loop remembers at this step, for a checkpoint. Waits for the device where there is a loss scale */
  public LoopState loopState() {
    return new LoopState(scaler.state(), averages.state(), stopping == null ? null : stopping.state(), position());
  }

  private DataLoader.Position position() {
    long batch = state.step() * config.accumulation();
    return new DataLoader.Position(batch / batches.batchesPerEpoch(), batch % batches.batchesPerEpoch());
  }

  /**
   * Ends the sitting early, with a validation and a checkpoint. Unlike a smaller number of steps this leaves the learning rate's course as
   * it is, so a run that was paused ends where a straight one does; only the validation of the pause is one more.
   *
   * @param reached asked on the training thread before each step
   * @return this
   */
  public Trainer<B> pauseWhen(Predicate<TrainingState> reached) {
    pause = reached;
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

  /** @return the loss scale, for saving and loading its state; one that is not enabled unless the precision is FP16 */
  public GradScaler scaler() {
    return scaler;
  }

  /** @return the means over the last steps, for saving and loading their state */
  public MovingAverages averages() {
    return averages;
  }

  /** @return what the configuration's precision comes to on the parameters' device */
  public Precision.Choice precision() {
    return precision;
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
   * @throws DeviceOutOfMemoryException if a step needs more memory than there is
   * @throws CheckpointException if a checkpoint cannot be saved
   */
  public Result run() {
    try {
      tell(listener -> listener.started(new RunStart(config, precision, state, totalSteps)));
      Result result = loop();
      if (stopping != null && result.ending() != Ending.STOPPED && result.ending() != Ending.PAUSED) {
        stopping.restore();
      }
      tell(listener -> listener.ended(result));
      return result;
    } catch (RuntimeException | Error failure) {
      for (TrainingListener listener : listeners) {
        try {
          listener.failed(failure);
        } catch (RuntimeException another) {
          failure.addSuppressed(another);
        }
      }
      throw failure;
    } finally {
      pending.close();
    }
  }

  private void tell(Consumer<TrainingListener> what) {
    listeners.forEach(what);
  }

  private Result loop() {
    Clock clock = new Clock(nanos, state.elapsedSeconds());
    double savedAt = clock.elapsed();
    Meter meter = new Meter(clock.elapsed());
    boolean unsaved = false;
    boolean unvalidated = false;
    Ending ending = Ending.FINISHED;
    try (BackendSettings.Applied settings = precision.precision() == Precision.TF32 ? precision.backend().apply() : null;
        Prefetcher<B> source = new Prefetcher<>(batches, state.step() * config.accumulation(), BATCHES_AHEAD)) {
      while (state.step() < totalSteps) {
        if (stopRequested) {
          ending = Ending.STOPPED;
          break;
        }
        if (config.maxSeconds() > 0 && clock.elapsed() >= config.maxSeconds()) {
          ending = Ending.TIME_UP;
          break;
        }
        if (stopping != null && stopping.exhausted()) {
          ending = Ending.EARLY_STOPPED;
          break;
        }
        if (pause.test(state)) {
          ending = Ending.PAUSED;
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
    boolean logged = number % logEvery == 0 || number == 1 || number == totalSteps;
    Computed done;
    try {
      done = compute(source, number, rate, logged);
    } catch (TrainingException e) {
      throw e;
    } catch (RuntimeException | OutOfMemoryError e) {
      task.parameters().dropGradients();
      throw DeviceOutOfMemoryException.mapped(e);
    }
    tell(listener -> listener.issued(number, done.samples()));
    double elapsed = clock.elapsed();
    state =
        new TrainingState(
            number,
            state.samples() + done.samples(),
            elapsed,
            !warmingUp,
            warmupProgress,
            state.bestLoss(),
            state.bestStep());
    meter.add(done.samples());
    if (done.values() != null) {
      StepReport report =
          new StepReport(
              number,
              totalSteps,
              progress(number, elapsed),
              (number * config.accumulation() - 1) / batches.batchesPerEpoch() + 1,
              done.values(),
              averages.means(),
              rate,
              meter.rate(elapsed),
              elapsed,
              logged);
      tell(listener -> listener.step(report));
    }
    if (logged) {
      meter.restart(elapsed);
    }
  }

  /**
   * What a step came to.
   *
   * @param samples it trained on
   * @param values it reports; null if they were not read
   */
  private record Computed(long samples, Map<String, Double> values) {}

  private Computed compute(Prefetcher<B> source, long number, double rate, boolean logged) throws InterruptedException {
    long samples = 0;
    Map<String, Double> values = null;
    GradientAccumulator accumulator = new GradientAccumulator(config.accumulation());
    try (PointerScope scope = new PointerScope()) {
      task.begin(state.step());
      task.parameters().dropGradients();
      Losses losses = null;
      for (int i = 0; i < config.accumulation(); i++) {
        begin(Phase.LOAD);
        B batch = source.next();
        end(Phase.LOAD);
        samples += task.samples(batch);
        begin(Phase.FORWARD);
        try (Autocast region = precision.autocast()) {
          losses = task.train(batch, Seeds.mix(config.seed(), state.step(), i));
        }
        end(Phase.FORWARD);
        begin(Phase.BACKWARD);
        Checkpointing.backward(scaler.scale(accumulator.share(losses.total())));
        end(Phase.BACKWARD);
      }
      begin(Phase.OPTIMIZER);
      accumulator.finish(optimizer);
      scaler.unscale(optimizer);
      Tensor norm = optimizer.clipGradients(config.clipNorm() > 0 ? config.clipNorm() : Double.POSITIVE_INFINITY);
      losses.with("grad_norm", norm);
      Tensor bad = guard.skips() ? guard.bad(losses.total(), norm) : null;
      guard.report(losses);
      pending.add(losses);
      // Reading costs nothing on the CPU, where it also stops a bad step before it reaches the parameters.
      if (logged || !losses.total().is_cuda()) {
        values = readValues(number);
      }
      if (bad != null && !scaler.enabled()) {
        optimizer.step(rate, null, bad);
      } else {
        scaler.step(optimizer, rate);
      }
      scaler.update();
      end(Phase.OPTIMIZER);
    }
    return new Computed(samples, values);
  }

  private void begin(Phase phase) {
    for (TrainingListener listener : listeners) {
      listener.begin(phase);
    }
  }

  private void end(Phase phase) {
    for (TrainingListener listener : listeners) {
      listener.end(phase);
    }
  }

  /** The values of a step; those of steps that were not read before it go into the averages. */
  private Map<String, Double> readValues(long number) {
    List<Map<String, Double>> steps = pending.read();
    for (int i = 0; i < steps.size(); i++) {
      long step = number - (steps.size() - 1 - i);
      guard.complaint(steps.get(i), scaler)
          .ifPresent(
              reason -> {
                throw new TrainingException(
                    String.format(
                        "%s at step %d, so training was stopped. %s Try a smaller learning rate.", reason, step, kept()));
              });
      steps.get(i).remove(NanGuard.IN_A_ROW);
      Map<String, Double> averaged = new LinkedHashMap<>(steps.get(i));
      averaged.remove(NanGuard.SKIPPED);
      averages.add(averaged);
    }
    Map<String, Double> values = steps.get(steps.size() - 1);
    if (scaler.enabled()) {
      values.put("loss_scale", scaler.scale());
    }
    return values;
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
    Map<String, Double> means;
    try (Autocast region = precision.autocast()) {
      means = validationMeans();
    }
    boolean best = means.get("total_loss") < state.bestLoss();
    if (best) {
      state = state.best(means.get("total_loss"));
    }
    if (stopping != null) {
      stopping.update(state.step(), means.get("total_loss"));
    }
    tell(listener -> listener.validated(state.step(), means, best));
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
    tell(listener -> listener.saved(state.step(), checkpoint));
  }

  /** Releases the state of the optimiser and of the loss scale. */
  @Override
  public void close() {
    pending.close();
    scaler.close();
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

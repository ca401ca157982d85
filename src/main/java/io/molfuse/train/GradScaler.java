// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import io.molfuse.ops.StepOps;
import java.util.IdentityHashMap;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.MemoryFormatOptional;
import org.bytedeco.pytorch.Optimizer;
import org.bytedeco.pytorch.OptimizerParamGroupVector;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * Dynamic loss scaling (Micikevicius et al. 2018) with the semantics and defaults of PyTorch's torch.amp.GradScaler: the loss is
 * multiplied by a scale before backward so that small gradients stay above float16's smallest number; a step whose gradients are not
 * finite is skipped and makes the scale smaller, and many good ones in a row make it larger.
 *
 * <pre>{@code
 * scaler.scale(loss).backward();
 * scaler.unscale(optimizer);              // only to clip or look at gradients
 * optimizer.clipGradients(1.0);
 * scaler.step(optimizer, learningRate);
 * scaler.update();
 * }</pre>
 *
 * <p>With a {@link ScalableOptimizer} such as {@link AdamW} no call here waits for the device but those that say so; the scale lives on
 * the device of the first loss. Several optimizers may step between two updates, each once: an overflow skips only its own optimizer,
 * and the scale shrinks for all. One thread at a time.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class GradScaler implements AutoCloseable {
  private enum Stage {
    READY,
    UNSCALED,
    STEPPED
  }

  /** What happened to an optimizer since the last update. */
  private static final class Progress {
    Stage stage = Stage.READY;
    boolean checked;
    Tensor foundInf;
  }

  /** Settings of a scaler. */
  public static final class Options {
    private boolean enabled = true;
    private double initialScale = 65536;
    private double growthFactor = 2.0;
    private double backoffFactor = 0.5;
    private int growthInterval = 2000;

    private Options() {}

    /**
     * @param enabled whether to scale; a scaler that does not passes everything through. True unless set
     * @return this
     */
    public Options enabled(boolean enabled) {
      this.enabled = enabled;
      return this;
    }

    /**
     * @param scale at the start, positive; 2^16 unless set
     * @return this
     */
    public Options initialScale(double scale) {
      if (!(scale > 0) || Double.isInfinite(scale)) {
        throw new IllegalArgumentException("initial_scale: expected a positive number, got " + scale);
      }
      initialScale = scale;
      return this;
    }

    /**
     * @param factor of the scale after growthInterval good steps in a row, above 1; 2 unless set
     * @return this
     */
    public Options growthFactor(double factor) {
      if (!(factor > 1) || Double.isInfinite(factor)) {
        throw new IllegalArgumentException("growth_factor: expected a number above 1, got " + factor);
      }
      growthFactor = factor;
      return this;
    }

    /**
     * @param factor of the scale after a skipped step, between 0 and 1; 0.5 unless set
     * @return this
     */
    public Options backoffFactor(double factor) {
      if (!(factor > 0 && factor < 1)) {
        throw new IllegalArgumentException("backoff_factor: expected a number between 0 and 1, got " + factor);
      }
      backoffFactor = factor;
      return this;
    }

    /**
     * @param steps good ones in a row before the scale grows, at least 1; 2000 unless set
     * @return this
     */
    public Options growthInterval(int steps) {
      if (steps < 1) {
        throw new IllegalArgumentException("growth_interval: expected at least 1, got " + steps);
      }
      growthInterval = steps;
      return this;
    }

    /** @return a scaler with these settings */
    public GradScaler build() {
      return new GradScaler(this);
    }
  }

  /**
   * A scaler's state, for checkpoints.
   *
   * @param scale factor of the loss
   * @param growthFactor see {@link Options}
   * @param backoffFactor see {@link Options}
   * @param growthInterval see {@link Options}
   * @param growthTracker good steps in a row
   */
  public record State(
      @JsonProperty("scale") double scale,
      @JsonProperty("growth_factor") double growthFactor,
      @JsonProperty("backoff_factor") double backoffFactor,
      @JsonProperty("growth_interval") int growthInterval,
      @JsonProperty("growth_tracker") int growthTracker) {}

  private final boolean enabled;
  private double growthFactor;
  private double backoffFactor;
  private int growthInterval;
  // Until the first loss tells the device.
  private double firstScale;
  private int firstTracker;
  private Tensor scale;
  private Tensor growthTracker;
  private final Map<Object, Progress> optimizers = new IdentityHashMap<>();

  private GradScaler(Options options) {
    enabled = options.enabled;
    firstScale = options.initialScale;
    growthFactor = options.growthFactor;
    backoffFactor = options.backoffFactor;
    growthInterval = options.growthInterval;
  }

  /** @return the usual settings, to be changed */
  public static Options options() {
    return new Options();
  }

  /** @return whether it scales */
  public boolean enabled() {
    return enabled;
  }

  /**
   * Multiplies a loss by the scale.
   *
   * @param loss any shape, with a history, on any device
   * @return the product, in the caller's scope; the loss itself if not enabled
   */
  public Tensor scale(Tensor loss) {
    if (!enabled) {
      return loss;
    }
    start(loss);
    Tensor beside = scaleBeside(loss);
    Tensor product = loss.mul(beside);
    if (beside != scale) {
      beside.close();
    }
    return product;
  }

  /** The scale on a loss's device: a copy, which nothing waits for, on another one than the first loss's. */
  private Tensor scaleBeside(Tensor loss) {
    try (Device here = loss.device();
        Device home = scale.device();
        MemoryFormatOptional any = new MemoryFormatOptional()) {
      return here.equals(home) ? scale : scale.to(here, ScalarType.Float, true, false, any);
    }
  }

  /**
   * Divides an optimizer's gradients by the scale, once between two updates, so that they can be clipped or looked at.
   *
   * @param optimizer whose gradients
   * @throws IllegalStateException if this was done already, the optimizer has stepped, or gradients are float16
   */
  public void unscale(ScalableOptimizer optimizer) {
    if (enabled) {
      try (PointerScope scope = new PointerScope()) {
        unscale(optimizer, optimizer.gradients());
      }
    }
  }

  /**
   * As {@link #unscale(ScalableOptimizer)} for an optimizer of libtorch.
   *
   * @param optimizer the same object each time
   */
  public void unscale(Optimizer optimizer) {
    if (enabled) {
      try (PointerScope scope = new PointerScope()) {
        unscale(optimizer, gradients(optimizer));
      }
    }
  }

  private void unscale(Object optimizer, TensorVector gradients) {
    Progress progress = progress(optimizer);
    if (progress.stage == Stage.UNSCALED) {
      throw new IllegalStateException("unscale was already called for this optimizer since the last update");
    }
    if (progress.stage == Stage.STEPPED) {
      throw new IllegalStateException("unscale is called after step");
    }
    for (long i = 0; i < gradients.size(); i++) {
      if (gradients.get(i).defined() && gradients.get(i).scalar_type().intern() == ScalarType.Half) {
        throw new IllegalStateException("a float16 gradient cannot be unscaled: keep parameters in float32 and use Autocast");
      }
    }
    // In float64, as 1/scale may not be a float32.
    check(progress, gradients, scale.to(ScalarType.Double).reciprocal().to(ScalarType.Float));
    progress.stage = Stage.UNSCALED;
  }

  /**
   * The optimizer's step, which is skipped if a gradient is not finite. Unscales what {@link #unscale(ScalableOptimizer)} has not.
   *
   * @param optimizer with gradients of a scaled loss
   * @param learningRate the base rate of the step
   * @throws IllegalStateException for a second step of this optimizer since the last update, or without any gradient
   */
  public void step(ScalableOptimizer optimizer, double learningRate) {
    if (!enabled) {
      optimizer.step(learningRate, null, null);
      return;
    }
    try (PointerScope scope = new PointerScope()) {
      Progress progress = notStepped(optimizer);
      boolean unscaled = progress.stage == Stage.UNSCALED;
      if (!unscaled) {
        // Looks for infinities without changing anything: the step itself divides.
        check(progress, optimizer.gradients(), torch.ones_like(scale));
      }
      requireGradients(progress);
      optimizer.step(learningRate, unscaled ? null : scale, progress.foundInf);
      progress.stage = Stage.STEPPED;
    }
  }

  /**
   * As {@link #step(ScalableOptimizer, double)} for an optimizer of libtorch, which cannot skip by itself: waits for the device.
   *
   * @param optimizer the same object each time
   */
  public void step(Optimizer optimizer) {
    try (PointerScope scope = new PointerScope()) {
      if (!enabled) {
        optimizer.step();
        return;
      }
      Progress progress = notStepped(optimizer);
      if (progress.stage == Stage.READY) {
        unscale(optimizer, gradients(optimizer));
      }
      requireGradients(progress);
      if (progress.foundInf.item_float() == 0) {
        optimizer.step();
      }
      progress.stage = Stage.STEPPED;
    }
  }

  /**
   * Moves the scale after the steps of all optimizers.
   *
   * @throws IllegalStateException if no optimizer was unscaled or stepped since the last update
   */
  public void update() {
    if (!enabled) {
      return;
    }
    try (PointerScope scope = new PointerScope()) {
      Tensor foundInf = null;
      for (Progress progress : optimizers.values()) {
        if (progress.checked) {
          foundInf = foundInf == null ? progress.foundInf : foundInf.maximum(progress.foundInf);
        }
      }
      if (foundInf == null) {
        throw new IllegalStateException("update is called before step or unscale");
      }
      StepOps.updateScale(scale, growthTracker, foundInf, growthFactor, backoffFactor, growthInterval);
      reset();
    }
  }

  /**
   * Sets the scale instead of moving it.
   *
   * @param newScale positive
   */
  public void update(double newScale) {
    if (!(newScale > 0) || Double.isInfinite(newScale)) {
      throw new IllegalArgumentException("new_scale: expected a positive number, got " + newScale);
    }
    if (!enabled) {
      return;
    }
    firstScale = newScale;
    try (PointerScope scope = new PointerScope()) {
      if (scale != null) {
        scale.fill_(new Scalar(newScale));
      }
      reset();
    }
  }

  /**
   * Whether an optimizer's gradients were not finite. Waits for the device.
   *
   * @param optimizer that was unscaled or stepped since the last update
   * @return true if its step is or was skipped
   */
  public boolean overflowed(Object optimizer) {
    Progress progress = optimizers.get(optimizer);
    return progress != null && progress.checked && progress.foundInf.item_float() != 0;
  }

  /** @return the scale; 1 if not enabled. Waits for the device */
  public double scale() {
    return !enabled ? 1 : scale == null ? firstScale : scale.item_float();
  }

  /** @return the state, null if not enabled. Waits for the device */
  public State state() {
    if (!enabled) {
      return null;
    }
    int tracker = growthTracker == null ? firstTracker : growthTracker.item_int();
    return new State(scale(), growthFactor, backoffFactor, growthInterval, tracker);
  }

  /**
   * Takes over a state. Nothing if not enabled.
   *
   * @param state of an enabled scaler
   */
  public void load(State state) {
    if (!enabled) {
      return;
    }
    if (state == null) {
      throw new IllegalArgumentException("state: expected that of an enabled scaler, got null");
    }
    new Options()
        .initialScale(state.scale())
        .growthFactor(state.growthFactor())
        .backoffFactor(state.backoffFactor())
        .growthInterval(state.growthInterval());
    growthFactor = state.growthFactor();
    backoffFactor = state.backoffFactor();
    growthInterval = state.growthInterval();
    firstScale = state.scale();
    firstTracker = state.growthTracker();
    if (scale != null) {
      try (PointerScope scope = new PointerScope()) {
        scale.fill_(new Scalar(firstScale));
        growthTracker.fill_(new Scalar(firstTracker));
      }
    }
  }

  /** Releases the state. */
  @Override
  public void close() {
    optimizers.values().forEach(progress -> release(progress.foundInf));
    optimizers.clear();
    release(scale);
    release(growthTracker);
    scale = null;
    growthTracker = null;
  }

  private static void release(Tensor tensor) {
    if (tensor != null) {
      tensor.releaseReference();
    }
  }

  private void start(Tensor loss) {
    if (scale != null) {
      return;
    }
    try (PointerScope scope = new PointerScope()) {
      scale = torch.full(new long[0], new Scalar(firstScale), options(ScalarType.Float, loss));
      growthTracker = torch.full(new long[0], new Scalar(firstTracker), options(ScalarType.Int, loss));
      scale.retainReference();
      growthTracker.retainReference();
    }
  }

  private static TensorOptions options(ScalarType type, Tensor beside) {
    return new TensorOptions(type).device(beside.options().device_opt());
  }

  private Progress progress(Object optimizer) {
    if (scale == null) {
      throw new IllegalStateException("no loss was scaled yet: call scale(loss) before backward");
    }
    Progress progress = optimizers.computeIfAbsent(optimizer, key -> new Progress());
    if (progress.foundInf == null) {
      progress.foundInf = torch.zeros_like(scale);
      progress.foundInf.retainReference();
    }
    return progress;
  }

  private Progress notStepped(Object optimizer) {
    Progress progress = progress(optimizer);
    if (progress.stage == Stage.STEPPED) {
      throw new IllegalStateException("step was already called for this optimizer since the last update");
    }
    return progress;
  }

  private static void check(Progress progress, TensorVector gradients, Tensor factor) {
    for (long i = 0; i < gradients.size() && !progress.checked; i++) {
      progress.checked = gradients.get(i).defined();
    }
    StepOps.unscale(gradients, factor, progress.foundInf);
  }

  private static void requireGradients(Progress progress) {
    if (!progress.checked) {
      throw new IllegalStateException("the optimizer has no gradients to check: call backward before step");
    }
  }

  private void reset() {
    for (Progress progress : optimizers.values()) {
      progress.stage = Stage.READY;
      progress.checked = false;
      progress.foundInf.zero_();
    }
  }

  private static TensorVector gradients(Optimizer optimizer) {
    TensorVector gradients = new TensorVector();
    OptimizerParamGroupVector groups = optimizer.param_groups();
    for (long i = 0; i < groups.size(); i++) {
      TensorVector parameters = groups.get(i).params();
      for (long j = 0; j < parameters.size(); j++) {
        gradients.push_back(parameters.get(j).grad());
      }
    }
    return gradients;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * Exponential moving average of weights (Polyak &amp; Juditsky 1992): average = decay * average + (1 - decay) * weight after each step,
 * starting with the weights. The averages of 16-bit weights are float32.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class WeightAverage implements AutoCloseable {
  private final double decay;
  private final Map<String, Tensor> weights = new LinkedHashMap<>();
  private final Map<String, Tensor> averages = new LinkedHashMap<>();
  private boolean applied;

  /**
   * Starts with the present weights.
   *
   * @param weights by name, floating-point; handles of its own keep them alive
   * @param decay in [0,1)
   */
  public WeightAverage(Map<String, Tensor> weights, double decay) {
    if (!(decay >= 0 && decay < 1)) {
      throw new IllegalArgumentException("decay: expected a number in [0,1), got " + decay);
    }
    this.decay = decay;
    try (PointerScope scope = new PointerScope()) {
      weights.forEach(
          (name, weight) -> {
            ScalarType type = weight.scalar_type().intern();
            boolean narrow = type == ScalarType.Half || type == ScalarType.BFloat16;
            Tensor average = narrow ? weight.detach().to(ScalarType.Float) : weight.detach().clone();
            Tensor handle = weight.detach();
            average.retainReference();
            handle.retainReference();
            averages.put(name, average);
            this.weights.put(name, handle);
          });
    }
  }

  /** Takes the present weights in. Does not wait for a device. */
  public void update() {
    notApplied();
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      Scalar share = new Scalar(1 - decay);
      averages.forEach((name, average) -> average.lerp_(weights.get(name).to(average.scalar_type()), share));
    }
  }

  /** @return the averages by name, for checkpoints; they may be overwritten with those of one */
  public Map<String, Tensor> state() {
    return Collections.unmodifiableMap(averages);
  }

  /**
   * Puts the averages into the model until the result is closed, such as for validation; then the weights are back, bit for bit.
   *
   * @return to be closed before the next {@link #update()}
   */
  public Applied apply() {
    notApplied();
    Map<String, Tensor> kept = new LinkedHashMap<>();
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      weights.forEach(
          (name, weight) -> {
            Tensor copy = weight.clone();
            copy.retainReference();
            kept.put(name, copy);
            weight.copy_(averages.get(name));
          });
    }
    applied = true;
    return new Applied(kept);
  }

  private void notApplied() {
    if (applied) {
      throw new IllegalStateException("the averages are in the model: close what apply returned first");
    }
  }

  /** The time during which a model has its averages. */
  public final class Applied implements AutoCloseable {
    private final Map<String, Tensor> kept;

    private Applied(Map<String, Tensor> kept) {
      this.kept = kept;
    }

    /** Puts the weights back. A second call does nothing. */
    @Override
    public void close() {
      try (NoGradGuard noGrad = new NoGradGuard()) {
        kept.forEach(
            (name, copy) -> {
              weights.get(name).copy_(copy);
              copy.releaseReference();
            });
      }
      if (!kept.isEmpty()) {
        kept.clear();
        applied = false;
      }
    }
  }

  /** Releases the averages. */
  @Override
  public void close() {
    averages.values().forEach(Tensor::releaseReference);
    weights.values().forEach(Tensor::releaseReference);
    averages.clear();
    weights.clear();
  }
}

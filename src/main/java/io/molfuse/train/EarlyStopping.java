// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;

/**
 * Ends a run whose validation loss gets no better, and puts the best weights back. The weights with the smallest loss are kept in the
 * host's memory; how much better a loss has to be concerns the patience only.
 *
 * <pre>{@code
 * if (stopping.update(step, validationLoss)) {
 *   break;
 * }
 * ...
 * stopping.restore();
 * }</pre>
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class EarlyStopping implements AutoCloseable {
  /**
   * A state, for checkpoints. The best weights are not part of it: they are those of the best checkpoint.
   *
   * @param bestLoss smallest validation loss; null before the first
   * @param bestStep when it was reached
   * @param reference the loss that the next must be smaller than by the least difference; null before the first
   * @param waited validations since the reference
   */
  public record State(
      @JsonProperty("best_loss") Double bestLoss,
      @JsonProperty("best_step") long bestStep,
      @JsonProperty("reference") Double reference,
      @JsonProperty("waited") int waited) {}

  private final int patience;
  private final double minDelta;
  private final Map<String, Tensor> weights = new LinkedHashMap<>();
  private final Map<String, Tensor> best = new LinkedHashMap<>();
  private State state = new State(null, 0, null, 0);

  /**
   * Begins without a loss.
   *
   * @param weights of the model, by name, with buffers such as running means; must stay open as long as this
   * @param patience validations without progress until the run ends, at least 1
   * @param minDelta what a loss must be smaller by to be progress, at least 0
   */
  public EarlyStopping(Map<String, Tensor> weights, int patience, double minDelta) {
    if (patience < 1) {
      throw new IllegalArgumentException("patience: expected at least 1, got " + patience);
    }
    if (!(minDelta >= 0) || Double.isInfinite(minDelta)) {
      throw new IllegalArgumentException("min_delta: expected a number of at least 0, got " + minDelta);
    }
    this.patience = patience;
    this.minDelta = minDelta;
    this.weights.putAll(weights);
  }

  /**
   * Takes in a validation of the present weights. One that is not finite is no progress.
   *
   * @param step steps done
   * @param loss mean validation loss
   * @return whether the run should end
   */
  public boolean update(long step, double loss) {
    boolean progress =
        Double.isFinite(loss) && (state.reference() == null || loss < state.reference() - minDelta);
    boolean smallest = Double.isFinite(loss) && (state.bestLoss() == null || loss < state.bestLoss());
    if (smallest) {
      keep(weights);
    }
    state =
        new State(
            smallest ? Double.valueOf(loss) : state.bestLoss(),
            smallest ? step : state.bestStep(),
            progress ? Double.valueOf(loss) : state.reference(),
            progress ? 0 : state.waited() + 1);
    return exhausted();
  }

  /** @return whether patience is at its end */
  public boolean exhausted() {
    return state.waited() >= patience;
  }

  /**
   * Puts the best weights into the model.
   *
   * @return false if there are none yet; then the model stays as it is
   */
  public boolean restore() {
    try (NoGradGuard noGrad = new NoGradGuard()) {
      best.forEach((name, copy) -> weights.get(name).copy_(copy));
    }
    return !best.isEmpty();
  }

  /** @return the best weights by name, on the host; empty before the first validation */
  public Map<String, Tensor> bestWeights() {
    return Collections.unmodifiableMap(best);
  }

  /** @return how far patience is */
  public State state() {
    return state;
  }

  /**
   * Takes over a state and the weights that go with it.
   *
   * @param state of earlier
   * @param bestWeights such as a model with the best checkpoint's weights; copied. May be empty if there was no validation yet
   * @throws IllegalArgumentException if weights are missing or have other shapes
   */
  public void load(State state, Map<String, Tensor> bestWeights) {
    if (state.bestLoss() != null || !bestWeights.isEmpty()) {
      weights.forEach((name, weight) -> requireLike(name, weight, bestWeights.get(name)));
      keep(bestWeights);
    }
    this.state = state;
  }

  private static void requireLike(String name, Tensor weight, Tensor given) {
    if (given == null || !Arrays.equals(given.shape(), weight.shape())) {
      throw new IllegalArgumentException(
          String.format(
              "best_weights: expected %s of shape %s, got %s",
              name, Arrays.toString(weight.shape()), given == null ? "none" : Arrays.toString(given.shape())));
    }
  }

  private void keep(Map<String, Tensor> from) {
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      for (String name : weights.keySet()) {
        Tensor value = from.get(name).detach();
        Tensor copy = best.get(name);
        if (copy == null) {
          copy = value.is_cuda() ? value.cpu() : value.clone();
          copy.retainReference();
          best.put(name, copy);
        } else {
          copy.copy_(value);
        }
      }
    }
  }

  /** Releases the best weights. */
  @Override
  public void close() {
    best.values().forEach(Tensor::releaseReference);
    best.clear();
  }
}

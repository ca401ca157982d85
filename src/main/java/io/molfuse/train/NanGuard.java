// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * What becomes of a step whose loss or gradients are not finite: the run ends, or the step is left out. While a {@link GradScaler} looks
 * for its scale, gradients that are not finite are no error; the scaler skips such steps by itself.
 *
 * <pre>{@code
 * Tensor norm = optimizer.clipGradients(1.0);
 * Tensor bad = guard.bad(loss, norm);          // 0 or 1, on the device
 * optimizer.step(rate, null, bad);             // with 1 nothing changes
 * guard.complaint(values, scaler).ifPresent(...); // where values are read anyway
 * }</pre>
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class NanGuard implements AutoCloseable {
  /** Exponential of a mean loss: infinite while a model knows nothing, and of no consequence. */
  private static final Set<String> HARMLESS = Set.of("perplexity");

  private static final String NORM = "grad_norm";

  /** Gradients that float16 cannot hold at a loss scale as small as this are none that a smaller scale would help. */
  private static final double SMALLEST_SCALE = 0x1p-16;

  /** Name under which the number of steps left out is reported. */
  public static final String SKIPPED = "skipped_steps";

  static final String IN_A_ROW = "skipped_in_a_row";

  private final long mostInARow;
  private Tensor skipped;
  private Tensor inARow;

  private NanGuard(long mostInARow) {
    this.mostInARow = mostInARow;
  }

  /** @return a guard that ends the run at the first value that is not finite */
  public static NanGuard stopping() {
    return new NanGuard(0);
  }

  /**
   * A guard that leaves out bad steps: neither parameters nor moments change. What the forward pass itself changed, such as running means,
   * stays changed.
   *
   * @param mostInARow of them before the run ends, at least 1
   * @return the guard; close it after the run
   */
  public static NanGuard skipping(long mostInARow) {
    if (mostInARow < 1) {
      throw new IllegalArgumentException("most_in_a_row: expected at least 1, got " + mostInARow);
    }
    return new NanGuard(mostInARow);
  }

  /** @return whether bad steps are left out */
  public boolean skips() {
    return mostInARow > 0;
  }

  /**
   * Looks at a step, and counts it if it is bad. Waits for no device. Call once a step, of a guard that skips.
   *
   * @param loss scalar
   * @param gradNorm scalar on the same device
   * @return float32 [], 1 if one of them is not finite, else 0: for {@link ScalableOptimizer#step(double, Tensor, Tensor)}; in the
   *     caller's scope
   */
  public Tensor bad(Tensor loss, Tensor gradNorm) {
    Tensor finite = torch.isfinite(loss.detach()).logical_and(torch.isfinite(gradNorm.detach()));
    Tensor bad = finite.logical_not().to(ScalarType.Float).reshape(new long[0]);
    if (skipped == null) {
      skipped = torch.zeros_like(bad);
      inARow = torch.zeros_like(bad);
      skipped.retainReference();
      inARow.retainReference();
    }
    try (PointerScope scope = new PointerScope()) {
      skipped.add_(bad);
      inARow.add_(bad).mul_(bad);
    }
    return bad;
  }

  /** Adds the counts to what a step reports; nothing before {@link #bad}. */
  void report(Losses losses) {
    if (skipped != null) {
      losses.with(SKIPPED, skipped.clone()).with(IN_A_ROW, inARow.clone());
    }
  }

  /** @return bad steps so far. Waits for the device */
  public long skippedSteps() {
    return skipped == null ? 0 : Math.round(skipped.item_float());
  }

  /**
   * Why a run should end.
   *
   * @param values of a step: losses, and the gradients' norm as "grad_norm"
   * @param scaler of the loss; one that is not enabled, or null, for none. Asked for its scale, which waits for the device, only if the
   *     norm is not finite
   * @return the reason in words; nothing if the run may go on
   */
  public Optional<String> complaint(Map<String, Double> values, GradScaler scaler) {
    boolean scaling = scaler != null && scaler.enabled();
    if (skips()) {
      double row = values.containsKey(IN_A_ROW) ? values.get(IN_A_ROW) : inARow == null ? 0 : inARow.item_float();
      if (!scaling && row > mostInARow) {
        return Optional.of(String.format("the loss or its gradients were not finite in %.0f steps in a row", row));
      }
    }
    for (Map.Entry<String, Double> value : values.entrySet()) {
      String name = value.getKey();
      if (Double.isFinite(value.getValue()) || HARMLESS.contains(name)) {
        continue;
      }
      if (scaling && (name.equals(NORM) || skips())) {
        double scale = scaler.scale();
        if (scale < SMALLEST_SCALE) {
          return Optional.of(String.format("%s is %s even at a loss scale of %.1e", name, value.getValue(), scale));
        }
      } else if (!skips()) {
        return Optional.of(name + " became " + value.getValue());
      }
    }
    return Optional.empty();
  }

  /** Forgets the counts. */
  @Override
  public void close() {
    if (skipped != null) {
      skipped.releaseReference();
      inARow.releaseReference();
      skipped = null;
      inARow = null;
    }
  }
}

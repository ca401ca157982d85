// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;

/**
 * A {@link PointerScope} for one step: what is allocated on this thread while it is open is released when it is closed, but for what
 * {@link #keep} was called for.
 *
 * <pre>{@code
 * Tensor loss;
 * try (StepScope step = new StepScope()) {
 *   loss = step.keep(forward(batch));   // lives on; everything else of the step does not
 * }
 * }</pre>
 */
public final class StepScope implements AutoCloseable {
  private final PointerScope around = PointerScope.getInnerScope();
  private final PointerScope scope = new PointerScope();

  /** Opens a scope on this thread, in that which is open, if any. */
  public StepScope() {}

  /**
   * Lets a result outlive this scope.
   *
   * @param result made in this scope
   * @param <P> its type
   * @return the result, which belongs to the scope around this one; without one, the caller closes it
   */
  public <P extends Pointer> P keep(P result) {
    if (around != null) {
      around.attach(result);
    } else {
      result.retainReference();
    }
    return result;
  }

  /** Releases what was not kept. */
  @Override
  public void close() {
    scope.close();
  }
}

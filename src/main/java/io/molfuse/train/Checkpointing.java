// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.MolfuseException;
import io.molfuse.ops.Recomputation;
import java.util.ArrayList;
import java.util.List;
import java.util.function.UnaryOperator;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.GradMode;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/**
 * Gradient checkpointing (Chen et al. 2016): a segment of a model keeps only its inputs, and runs a second time in backward. A model
 * of n equal segments stores n inputs and one segment's intermediate results instead of n segments', for one more forward pass.
 *
 * <pre>{@code
 * Tensor x = input;
 * for (Layer layer : layers) {
 *   x = Checkpointing.run(x, layer::forward);
 * }
 * Checkpointing.backward(loss(x));
 * }</pre>
 *
 * <p>The second run has the first one's autocast settings and the same numbers from libtorch's default generators (the CPU's, and those
 * of the inputs' CUDA devices), which it leaves as it found them; so its results, and the gradients, are the same bit for bit, given that
 * the function depends on nothing that changes in between. A gradient that several parts of a model add to may be added in another
 * order. What else a function does, such as updating running statistics, happens twice: ask {@link #recomputing()}.
 *
 * <p>Parameters that the function uses without getting them as inputs receive their gradients as in any backward. What has a history,
 * such as another layer's result, must be an input: the second run would go through a captured one's graph as far as the parameters, and
 * whoever uses it, too, would find that graph released. Segments may contain segments. Not supported, with an error in backward: gradients
 * of chosen tensors only (libtorch's grad, or backward with inputs), and differentiating the gradients again.
 *
 * <p>While a segment runs a second time, no other thread may draw from the same default generators: its numbers would depend on the
 * moment, and the segment's would not be the first run's. Threads that prepare data draw from generators of their own ({@link Collate}).
 *
 * <p>The function is called once here, and again by the thread that libtorch runs backward on: the caller's for the CPU, one of
 * libtorch's for a CUDA device, on the stream of the forward pass. Its tensors belong to a scope that is closed at the end of the
 * call. Exceptions of the second run end backward: {@link #backward} throws them with their cause, and
 * {@link Tensor#backward()} as a RuntimeException whose message names them ({@link Recomputation#failure} has the exception).
 */
@SuppressWarnings("try") // A guard does its work by being open.
public final class Checkpointing {
  private static final ThreadLocal<Integer> DEPTH = ThreadLocal.withInitial(() -> 0);
  private static final String RELEASED_GRAPH = "backward through the graph a second time";
  private static final String REMEDY =
      "if a checkpointed function captures a tensor with a history, pass it as an input instead: "
          + "Checkpointing.run(List.of(x, captured), ...)";

  private Checkpointing() {}

  /**
   * Runs a segment. Without gradients enabled the function runs this once, and nothing is kept.
   *
   * @param inputs tensors of any type, and among them whatever the function uses that has a history; unlike what it captures they are
   *     kept for backward, also beyond their scope
   * @param function makes outputs of the inputs, the same number each time; what it returns may include inputs
   * @return the outputs, which belong to the caller's innermost scope
   */
  public static List<Tensor> run(List<Tensor> inputs, UnaryOperator<List<Tensor>> function) {
    if (!GradMode.is_enabled()) {
      return runOnce(inputs, function);
    }
    AutocastState autocast = AutocastState.current();
    RandomState random = RandomState.capture(inputs);
    try (TensorVector outputs = new TensorVector()) {
      try {
        firstRun(inputs, function, outputs, autocast);
      } catch (RuntimeException | Error e) {
        random.close();
        throw e;
      }
      return Recomputation.connect(inputs, outputs, new Rerun(function, outputs.size(), random, autocast.withoutCache()));
    }
  }

  private static void firstRun(
      List<Tensor> inputs, UnaryOperator<List<Tensor>> function, TensorVector outputs, AutocastState autocast) {
    try (NoGradGuard noGrad = new NoGradGuard()) {
      // A copy of a parameter that is cast here has no history, so the cache must not hand it to anyone else.
      autocast.withoutCache().apply();
      call(inputs, function, outputs);
    } finally {
      autocast.apply();
    }
  }

  private static List<Tensor> runOnce(List<Tensor> inputs, UnaryOperator<List<Tensor>> function) {
    try (TensorVector outputs = new TensorVector()) {
      call(inputs, function, outputs);
      List<Tensor> handles = new ArrayList<>();
      for (long i = 0; i < outputs.size(); i++) {
        handles.add(new Tensor(outputs.get(i)));
      }
      return handles;
    }
  }

  private static void call(List<Tensor> inputs, UnaryOperator<List<Tensor>> function, TensorVector outputs) {
    // Without a scope of its own, the function's intermediate results would live as long as the step's.
    try (PointerScope scope = new PointerScope()) {
      function.apply(inputs).forEach(outputs::push_back);
    }
  }

  /**
   * As {@link #run(List, UnaryOperator)} with one input and one output.
   *
   * @param input any type
   * @param function makes the output
   * @return the output, which belongs to the caller's innermost scope
   */
  public static Tensor run(Tensor input, UnaryOperator<Tensor> function) {
    return run(List.of(input), inputs -> List.of(function.apply(inputs.get(0)))).get(0);
  }

  /**
   * {@link Tensor#backward()} whose exception has what a segment threw as its cause.
   *
   * @param loss scalar with a history
   * @throws MolfuseException if a segment throws, or if libtorch fails
   */
  public static void backward(Tensor loss) {
    withRemedy(() -> Recomputation.backward(loss));
  }

  /** libtorch advises to retain a graph that was released, which nobody can ask of a second run. */
  private static void withRemedy(Runnable backward) {
    try {
      backward.run();
    } catch (MolfuseException e) {
      String text = String.valueOf(e.getMessage());
      if (!text.contains(RELEASED_GRAPH) || text.contains(REMEDY)) {
        throw e;
      }
      throw new MolfuseException(text + " (" + REMEDY + ")", e);
    }
  }

  /** @return whether the calling code is part of a segment's second run */
  public static boolean recomputing() {
    return DEPTH.get() > 0;
  }

  /** @return segments that a backward may still run again: those of graphs that are still referred to */
  public static int pending() {
    return Recomputation.pending();
  }

  private record Rerun(UnaryOperator<List<Tensor>> function, long outputs, RandomState random, AutocastState autocast)
      implements Recomputation.Segment {
    @Override
    public void backward(TensorVector inputs, TensorVector gradOutputs, TensorVector gradInputs) {
      List<Tensor> again = new ArrayList<>();
      for (long i = 0; i < inputs.size(); i++) {
        // A handle of its own, that a function may keep: the one returned points into a vector that goes with this call.
        again.add(new Tensor(inputs.get(i)));
      }
      List<Tensor> results = forward(again);
      if (results.size() != outputs) {
        throw new IllegalStateException(
            "a checkpointed function gave " + outputs + " tensors in the forward pass and " + results.size() + " in backward");
      }
      TensorVector roots = new TensorVector();
      TensorVector gradients = new TensorVector();
      for (int i = 0; i < outputs; i++) {
        if (results.get(i).requires_grad() && gradOutputs.get(i).defined()) {
          roots.push_back(results.get(i));
          gradients.push_back(gradOutputs.get(i));
        }
      }
      if (!roots.empty()) {
        withRemedy(
            () -> Recomputation.backward(() -> torch.backward(roots, gradients, new BoolOptional(), false, new TensorVector())));
      }
      for (int i = 0; i < again.size(); i++) {
        if (again.get(i).requires_grad()) {
          gradInputs.put(i, again.get(i).grad());
        }
      }
    }

    private List<Tensor> forward(List<Tensor> inputs) {
      AutocastState autocastHere = AutocastState.current();
      DEPTH.set(DEPTH.get() + 1);
      try (RandomState randomHere = RandomState.capture(inputs)) {
        try {
          random.restore();
          autocast.apply();
          return function.apply(inputs);
        } finally {
          autocastHere.apply();
          randomHere.restore();
        }
      } finally {
        DEPTH.set(DEPTH.get() - 1);
      }
    }

    @Override
    public void close() {
      random.close();
    }
  }
}

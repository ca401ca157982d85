// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.function.UnaryOperator;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * An operator at one size, by molfuse and by peers: the result, or the result and the gradients of every input that needs one. A peer
 * whose numbers differ by more than {@link #allowed} of the largest does something else, and is not timed.
 */
@SuppressWarnings("try") // A scope does its work by being open.
final class Operator {
  /**
   * What one way works on.
   *
   * @param inputs of the function
   * @param upstream gradient of the result
   * @param function the operator
   * @param shared brings the result and the gradients of inputs to the layout that the ways share
   */
  private record Form(Tensor[] inputs, Tensor upstream, Function<Tensor[], Tensor> function, UnaryOperator<Tensor> shared) {}

  private final Settings settings;
  private final Inputs.Dtype dtype;
  private final Map<String, Form> forms = new LinkedHashMap<>();
  private Runnable afterComparing = () -> {};
  private boolean comparable = true;

  Operator(Settings settings, Inputs.Dtype dtype, Tensor[] inputs, Tensor upstream, Function<Tensor[], Tensor> molfuse) {
    this.settings = settings;
    this.dtype = dtype;
    forms.put("molfuse", new Form(inputs, upstream, molfuse, UnaryOperator.identity()));
  }

  Operator peer(String name, Function<Tensor[], Tensor> function) {
    Form ours = forms.get("molfuse");
    return peer(name, ours.inputs, ours.upstream, function, UnaryOperator.identity());
  }

  /** A peer whose tensors lie differently. */
  Operator peer(String name, Tensor[] inputs, Tensor upstream, Function<Tensor[], Tensor> function, UnaryOperator<Tensor> shared) {
    forms.put(name, new Form(inputs, upstream, function, shared));
    return this;
  }

  /** For what is random in a way of its own in each: nothing is compared. */
  Operator random() {
    comparable = false;
    return this;
  }

  /** Randomness that is off while results are compared, and is turned on here. */
  Operator afterComparing(Runnable action) {
    afterComparing = action;
    return this;
  }

  /** What may be run and timed. */
  Comparison comparison(Pass pass, Cost cost) {
    Comparison comparison = new Comparison().cost(cost);
    if (pass == Pass.BOTH && !settings.cuda()) {
      comparison.measuringMemory();
    }
    Form ours = forms.get("molfuse");
    comparison.add(Way.ours(() -> run(ours, pass)));
    forms.forEach(
        (name, form) -> {
          if (form == ours || !settings.peers()) {
            return;
          }
          double disagreement = comparable ? disagreement(ours, form) : 0;
          if (comparable) {
            comparison.disagreement(name, disagreement);
          }
          if (disagreement <= allowed()) {
            comparison.add(Way.peer(name, () -> run(form, pass)));
          } else {
            comparison.absent(name, "differs by " + disagreement + " of the largest number");
          }
        });
    afterComparing.run();
    return comparison;
  }

  private double allowed() {
    return dtype == Inputs.Dtype.F32 ? 1e-3 : 5e-2;
  }

  private void run(Form form, Pass pass) {
    try (PointerScope scope = new PointerScope()) {
      Tensor result = form.function.apply(form.inputs);
      if (pass == Pass.BOTH) {
        gradients(form, result);
      }
      settings.synchronize();
    }
  }

  private static TensorVector gradients(Form form, Tensor result) {
    TensorVector leaves = new TensorVector();
    for (Tensor input : form.inputs) {
      if (input.requires_grad()) {
        leaves.push_back(input);
      }
    }
    return torch.grad(new TensorVector(result), leaves, new TensorVector(form.upstream), new BoolOptional(false), false, false);
  }

  private static double disagreement(Form ours, Form theirs) {
    try (PointerScope scope = new PointerScope()) {
      List<Tensor> a = numbers(ours);
      List<Tensor> b = numbers(theirs);
      double worst = 0;
      for (int n = 0; n < a.size(); n++) {
        double largest = b.get(n).abs().max().item_double();
        double difference = a.get(n).sub(b.get(n)).abs().max().item_double() / Math.max(1e-30, largest);
        // Not a number stays not a number in a sum only.
        worst = Double.isNaN(difference) ? Double.POSITIVE_INFINITY : Math.max(worst, difference);
      }
      return worst;
    }
  }

  private static List<Tensor> numbers(Form form) {
    List<Tensor> numbers = new ArrayList<>();
    Tensor result = form.function.apply(form.inputs);
    numbers.add(form.shared.apply(result.detach()).to(ScalarType.Double));
    TensorVector gradients = gradients(form, result);
    for (long n = 0; n < gradients.size(); n++) {
      numbers.add(form.shared.apply(gradients.get(n)).to(ScalarType.Double));
    }
    return numbers;
  }
}

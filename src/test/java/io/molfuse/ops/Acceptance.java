// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * The acceptance rule of every operator: with ref64 the formula in f64 and eager libtorch's unfused result in the operator's
 * own type on the same inputs, max|x - ref64| &lt;= 2 max|eager - ref64| + atol, for outputs and gradients.
 */
final class Acceptance {
  private Acceptance() {}

  /** Outputs from inputs. The inputs are contiguous leaves: a formula that wants views makes them itself. */
  interface Formula {
    Tensor[] apply(Tensor[] inputs);
  }

  static void check(Formula fused, Formula formula, ScalarType type, Tensor... inputs) {
    check(fused, formula, type, new double[inputs.length], inputs);
  }

  /** extra: added to the atol of each input's gradient, for one whose error no rounding of its own size bounds. */
  static void check(Formula fused, Formula formula, ScalarType type, double[] extra, Tensor... inputs) {
    Tensor[] ours = leaves(inputs, type);
    Tensor[] eager = leaves(inputs, type);
    Tensor[] exact = leaves(ours, ScalarType.Double);
    Tensor[] oursOut = fused.apply(ours);
    Tensor[] eagerOut = formula.apply(eager);
    Tensor[] exactOut = formula.apply(exact);
    assertThat(oursOut).as("number of outputs").hasSameSizeAs(exactOut);
    for (int i = 0; i < oursOut.length; i++) {
      close("output " + i, oursOut[i], eagerOut[i], exactOut[i], type, magnitude(exactOut[i]), 0);
    }
    Random random = new Random(99);
    Tensor[] upstream = new Tensor[oursOut.length];
    for (int i = 0; i < upstream.length; i++) {
      upstream[i] = Tensors.normal(random, type, exactOut[i].shape());
    }
    List<Tensor> oursGrad = gradients(oursOut, ours, upstream);
    List<Tensor> eagerGrad = gradients(eagerOut, eager, upstream);
    List<Tensor> exactGrad = gradients(exactOut, exact, upstream);
    // Gradients are sums of terms of one size: one that cancels to zero still carries the rounding of its terms.
    double magnitude = 1;
    for (Tensor grad : exactGrad) {
      magnitude = Math.max(magnitude, magnitude(grad));
    }
    for (int i = 0; i < inputs.length; i++) {
      close("gradient of input " + i, oursGrad.get(i), eagerGrad.get(i), exactGrad.get(i), type, magnitude, extra[i]);
    }
  }

  private static double magnitude(Tensor tensor) {
    return Math.max(1, Tensors.maxAbs(Tensors.values(tensor)));
  }

  static void close(
      String what, Tensor ours, Tensor eager, Tensor exact, ScalarType type, double magnitude, double extra) {
    assertThat(ours.shape()).as("shape of %s", what).isEqualTo(exact.shape());
    double[] reference = Tensors.values(exact);
    assertThat(reference).as("reference of %s", what).doesNotContain(Double.NaN);
    double error = Tensors.maxDifference(Tensors.values(ours), reference);
    double eagerError = Tensors.maxDifference(Tensors.values(eager), reference);
    assertThat(error)
        .as("error of %s %s, type %s, magnitude %.3g, eager's error %.3g", what, Arrays.toString(exact.shape()), type, magnitude, eagerError)
        .isLessThanOrEqualTo(2 * eagerError + atol(type, Checks.type(ours)) * magnitude + extra);
  }

  /** A few roundings of the accumulators, one of the result. In f64 eager is the reference, so both errors are in here. */
  private static double atol(ScalarType type, ScalarType result) {
    double accumulators = type == ScalarType.Double ? 1e-12 : 8 * Tensors.epsilon(ScalarType.Float);
    return accumulators + 0.5 * Tensors.epsilon(result);
  }

  /** Gradients of sum(outputs * upstream); zeros where an output does not depend on an input. */
  static List<Tensor> gradients(Tensor[] outputs, Tensor[] inputs, Tensor[] upstream) {
    TensorVector differentiable = new TensorVector();
    TensorVector grads = new TensorVector();
    for (int i = 0; i < outputs.length; i++) {
      if (outputs[i].requires_grad()) {
        differentiable.push_back(outputs[i]);
        grads.push_back(upstream[i].to(Checks.type(outputs[i])));
      }
    }
    TensorVector result =
        torch.grad(differentiable, new TensorVector(inputs), grads, new BoolOptional(true), false, true);
    List<Tensor> list = new ArrayList<>();
    for (int i = 0; i < inputs.length; i++) {
      Tensor grad = new Tensor(result.get(i));
      list.add(grad.defined() ? grad : torch.zeros_like(inputs[i]));
    }
    return list;
  }

  static Tensor[] leaves(Tensor[] inputs, ScalarType type) {
    Tensor[] leaves = new Tensor[inputs.length];
    for (int i = 0; i < inputs.length; i++) {
      leaves[i] = Tensors.leaf(inputs[i], type);
    }
    return leaves;
  }

  /**
   * Compares the f64 gradient of sum(outputs * random weights) with central differences, for every element of every input.
   * The step of 1e-6 leaves about 1e-9 of rounding and truncation for values near one.
   */
  static void checkFiniteDifferences(Formula fused, Tensor... inputs) {
    Tensor[] leaves = leaves(inputs, ScalarType.Double);
    Tensor[] outputs = fused.apply(leaves);
    Random random = new Random(7);
    Tensor[] upstream = new Tensor[outputs.length];
    for (int i = 0; i < outputs.length; i++) {
      upstream[i] = outputs[i].requires_grad()
          ? Tensors.normal(random, ScalarType.Double, outputs[i].shape())
          : Tensors.zeros(ScalarType.Double, outputs[i].shape());
    }
    List<Tensor> analytic = gradients(outputs, leaves, upstream);
    double step = 1e-6;
    for (int i = 0; i < inputs.length; i++) {
      double[] base = Tensors.values(leaves[i]);
      double[] expected = Tensors.values(analytic.get(i));
      double scale = Math.max(1, Tensors.maxAbs(expected));
      for (int n = 0; n < base.length; n++) {
        double difference =
            (weightedSum(fused, leaves, i, base, n, step, upstream) - weightedSum(fused, leaves, i, base, n, -step, upstream))
                / (2 * step);
        assertThat(expected[n])
            .as("gradient of input %d, element %d", i, n)
            .isCloseTo(difference, org.assertj.core.data.Offset.offset(2e-7 * scale));
      }
    }
  }

  private static double weightedSum(
      Formula fused, Tensor[] leaves, int input, double[] base, int element, double step, Tensor[] weights) {
    double[] moved = base.clone();
    moved[element] += step;
    Tensor[] inputs = leaves.clone();
    inputs[input] = Tensors.of(moved, leaves[input].shape());
    Tensor[] outputs = fused.apply(inputs);
    double sum = 0;
    for (int i = 0; i < outputs.length; i++) {
      double[] out = Tensors.values(outputs[i]);
      double[] weight = Tensors.values(weights[i]);
      for (int n = 0; n < out.length; n++) {
        sum += out[n] * weight[n];
      }
    }
    return sum;
  }
}

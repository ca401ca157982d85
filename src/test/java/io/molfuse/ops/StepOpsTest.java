// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.AttentionArgumentsTest.refused;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;

/** OPERATORS.md 6: the operators of an optimiser step. */
class StepOpsTest extends InScope {
  @Test
  void unscaleMultipliesInPlaceAndFindsNothingInFiniteGradients() {
    Tensor a = Tensors.of(new double[] {8, -16}, 2).to(ScalarType.Float);
    Tensor b = Tensors.of(new double[] {32}, 1).to(ScalarType.Double);
    Tensor found = StepOps.unscale(Arrays.asList(a, null, new Tensor(), b), scalar(0.125));
    assertThat(Tensors.values(a)).containsExactly(1, -2);
    assertThat(Tensors.values(b)).containsExactly(4);
    assertThat(Checks.type(found)).isEqualTo(ScalarType.Float);
    assertThat(Tensors.values(found)).containsExactly(0);
  }

  @Test
  void unscaleFindsInfinityAndNanInAnyType() {
    for (ScalarType type : new ScalarType[] {ScalarType.Float, ScalarType.Half, ScalarType.BFloat16, ScalarType.Double}) {
      for (double bad : new double[] {Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY}) {
        Tensor fine = Tensors.full(1, ScalarType.Float, 1000);
        Tensor broken = Tensors.full(1, type, 777);
        broken.narrow(0, 776, 1).fill_(new Scalar(bad));
        assertThat(Tensors.values(StepOps.unscale(List.of(fine, broken), scalar(1)))).containsExactly(1);
      }
    }
  }

  @Test
  void aSharedFlagIsNeverSetBack() {
    Tensor found = scalar(0);
    StepOps.unscale(new TensorVector(Tensors.full(Double.NaN, ScalarType.Float, 2)), scalar(1), found);
    StepOps.unscale(new TensorVector(Tensors.full(1, ScalarType.Float, 2)), scalar(1), found);
    assertThat(Tensors.item(found)).isEqualTo(1);
  }

  @Test
  void theScaleGrowsAfterTheIntervalAndBacksOffAtOnce() {
    Tensor scale = scalar(1024);
    Tensor tracker = Tensors.ints(0);
    double[] expected = {1024, 1024, 2048, 1024, 1024, 1024, 2048};
    boolean[] overflow = {false, false, false, true, false, false, false};
    for (int step = 0; step < expected.length; step++) {
      StepOps.updateScale(scale, tracker, scalar(overflow[step] ? 1 : 0), 2, 0.5, 3);
      assertThat(Tensors.item(scale)).as("after step %d", step).isEqualTo(expected[step]);
    }
    assertThat(Tensors.item(tracker)).isZero();
  }

  @Test
  void fusedAdamWFollowsLoshchilovAndHutter() {
    adamW(false, false);
  }

  @Test
  void fusedAdamWFollowsReddisAmsGrad() {
    adamW(true, false);
  }

  @Test
  void fusedAdamWCanMaximize() {
    adamW(false, true);
  }

  @Test
  void fusedAdamWDividesByTheGradScale() {
    Group plain = new Group(3);
    Group scaled = new Group(3);
    List<Tensor> grads = plain.randomGrads(new Random(2), 1);
    List<Tensor> scaledGrads = plain.randomGrads(new Random(2), 256);
    StepOps.fusedAdamW(plain.params, grads, plain.m, plain.v, plain.steps, StepOps.adamW());
    StepOps.fusedAdamW(
        scaled.params, scaledGrads, scaled.m, scaled.v, scaled.steps, StepOps.adamW().scaled(scalar(256), scalar(0)));
    for (int i = 0; i < plain.params.size(); i++) {
      assertThat(Tensors.maxDifference(Tensors.values(plain.params.get(i)), Tensors.values(scaled.params.get(i)))).isLessThan(1e-6);
    }
  }

  @Test
  void fusedAdamWSkipsTheWholeStepOnInfinity() {
    Group group = new Group(3);
    List<Tensor> before = group.copies();
    StepOps.fusedAdamW(
        group.params, group.randomGrads(new Random(2), Double.POSITIVE_INFINITY), group.m, group.v, group.steps,
        StepOps.adamW().scaled(scalar(2), scalar(1)));
    List<Tensor> after = group.copies();
    for (int i = 0; i < before.size(); i++) {
      assertThat(after.get(i).equal(before.get(i))).as("tensor %d", i).isTrue();
    }
  }

  @Test
  void parametersWithoutGradientAreSkipped() {
    Group group = new Group(2);
    Tensor before = group.params.get(1).clone();
    List<Tensor> grads = Arrays.asList(group.randomGrads(new Random(2), 1).get(0), null);
    StepOps.fusedAdamW(group.params, grads, group.m, group.v, group.steps, StepOps.adamW());
    assertThat(group.params.get(1).equal(before)).isTrue();
    assertThat(Tensors.item(group.steps.get(0))).isEqualTo(1);
    assertThat(Tensors.item(group.steps.get(1))).isZero();
  }

  @Test
  void parametersThatRequireGradientsMayBeGiven() {
    Group group = new Group(1);
    Tensor leaf = Tensors.leaf(group.params.get(0));
    StepOps.fusedAdamW(
        List.of(leaf), group.randomGrads(new Random(2), 1), group.m, group.v, group.steps, StepOps.adamW().learningRate(0.1));
    assertThat(leaf.equal(group.params.get(0))).isFalse();
    assertThat(leaf.is_leaf()).isTrue();
  }

  @Test
  void clippingReturnsTheNormBeforeAndScalesToTheLimit() {
    Tensor a = Tensors.of(new double[] {3, 0}, 2).to(ScalarType.Float);
    Tensor b = Tensors.of(new double[] {-4}, 1).to(ScalarType.Float);
    Tensor norm = StepOps.clipGradNorm(Arrays.asList(a, null, b), 1);
    assertThat(Tensors.item(norm)).isCloseTo(5, within(1e-6));
    assertThat(Tensors.values(a)[0]).isCloseTo(0.6, within(1e-5));
    assertThat(Tensors.values(b)[0]).isCloseTo(-0.8, within(1e-5));
  }

  @Test
  void clippingLeavesSmallGradientsAlone() {
    Tensor a = Tensors.of(new double[] {0.3, 0.4}, 2).to(ScalarType.Float);
    double[] before = Tensors.values(a);
    assertThat(Tensors.item(StepOps.clipGradNorm(List.of(a), 1))).isCloseTo(0.5, within(1e-6));
    assertThat(Tensors.values(a)).isEqualTo(before);
  }

  @Test
  void clippingKnowsOtherNorms() {
    double[] values = {3, -4, 1};
    double[] types = {1, 2, 3, Double.POSITIVE_INFINITY};
    double[] norms = {8, Math.sqrt(26), Math.cbrt(27 + 64 + 1), 4};
    for (int i = 0; i < types.length; i++) {
      TensorVector grads = new TensorVector(Tensors.of(values, 3));
      Tensor norm = StepOps.clipGradNorm(grads, 100, types[i]);
      assertThat(Checks.type(norm)).isEqualTo(ScalarType.Double);
      assertThat(Tensors.item(norm)).as("norm %s", types[i]).isCloseTo(norms[i], within(1e-9));
    }
  }

  @Test
  void noGradientsHaveNormZero() {
    assertThat(Tensors.item(StepOps.clipGradNorm(List.of(), 1))).isZero();
  }

  @Test
  void wrongArgumentsAreRefused() {
    Tensor grad = Tensors.full(1, ScalarType.Float, 3);
    refused("inv_scale", "null", () -> StepOps.unscale(List.of(grad), null));
    refused("inv_scale", "float64", () -> StepOps.unscale(List.of(grad), Tensors.full(1, ScalarType.Double, 1)));
    refused("inv_scale", "[3]", () -> StepOps.unscale(List.of(grad), grad));
    refused("grads", "null", () -> StepOps.unscale((List<Tensor>) null, scalar(1)));
    refused("grads[0]", "Long", () -> StepOps.unscale(List.of(Tensors.longs(1)), scalar(1)));
    refused("growth_tracker", "float32", () -> StepOps.updateScale(scalar(1), scalar(1), scalar(0), 2, 0.5, 10));
    refused("growth_factor", "0.5", () -> StepOps.updateScale(scalar(1), Tensors.ints(0), scalar(0), 0.5, 0.5, 10));
    refused("backoff_factor", "2", () -> StepOps.updateScale(scalar(1), Tensors.ints(0), scalar(0), 2, 2, 10));
    refused("growth_interval", "0", () -> StepOps.updateScale(scalar(1), Tensors.ints(0), scalar(0), 2, 0.5, 0));
    refused("max_norm", "-1", () -> StepOps.clipGradNorm(List.of(grad), -1));
    refused("norm_type", "0", () -> StepOps.clipGradNorm(new TensorVector(grad), 1, 0));
    refused("beta1", "1.0", () -> StepOps.adamW().betas(1, 0.9));
    refused("lr", "NaN", () -> StepOps.adamW().learningRate(Double.NaN));
    refused("lr", "-1", () -> step(new Group(1), StepOps.adamW().learningRate(-1)));
    refused("found_inf", "[3]", () -> step(new Group(1), StepOps.adamW().scaled(scalar(1), grad)));
    Tensor closedTensor = Tensors.full(1, ScalarType.Float, 3);
    closedTensor.close();
    refused("grads[1]", "closed", () -> StepOps.unscale(List.of(grad, closedTensor), scalar(1)));
    refused("grads[1]", "closed", () -> StepOps.clipGradNorm(List.of(grad, closedTensor), 1));
    TensorVector closed = new TensorVector(grad);
    closed.close();
    refused("grads", "closed", () -> StepOps.unscale(closed, scalar(1)));
    refused("grads", "closed", () -> StepOps.clipGradNorm(closed, 1));
    TensorVector one = new TensorVector(grad);
    refused("params", "closed", () -> StepOps.fusedAdamW(closed, one, one, one, one, StepOps.adamW()));
    refused("exp_avg_sqs", "closed", () -> StepOps.fusedAdamW(one, one, one, closed, one, StepOps.adamW()));
    Group group = new Group(2);
    refused("grads", "1", () -> StepOps.fusedAdamW(group.params, List.of(grad), group.m, group.v, group.steps, StepOps.adamW()));
    refused("exp_avgs", "[3]", () -> StepOps.fusedAdamW(
        group.params, group.randomGrads(new Random(1), 1), List.of(grad, grad), group.v, group.steps, StepOps.adamW()));
  }

  private static void step(Group group, StepOps.AdamW options) {
    StepOps.fusedAdamW(group.params, group.randomGrads(new Random(1), 1), group.m, group.v, group.steps, options);
  }

  private static void adamW(boolean amsgrad, boolean maximize) {
    Group group = new Group(4);
    TensorVector maxima = new TensorVector(group.params.stream().map(p -> Tensors.multiply(p, 0)).toArray(Tensor[]::new));
    double lr = 0.01;
    double decay = 0.1;
    List<double[]> params = new ArrayList<>();
    List<double[]> moments = new ArrayList<>();
    for (Tensor param : group.params) {
      params.add(Tensors.values(param));
      moments.add(new double[3 * Math.toIntExact(param.numel())]);
    }
    for (int step = 1; step <= 5; step++) {
      List<Tensor> grads = group.randomGrads(new Random(step), 1.0 / step);
      StepOps.fusedAdamW(
          new TensorVector(group.params.toArray(new Tensor[0])), new TensorVector(grads.toArray(new Tensor[0])),
          new TensorVector(group.m.toArray(new Tensor[0])), new TensorVector(group.v.toArray(new Tensor[0])),
          amsgrad ? maxima : null, new TensorVector(group.steps.toArray(new Tensor[0])),
          StepOps.adamW().learningRate(lr).betas(0.8, 0.95).weightDecay(decay).epsilon(1e-6).maximize(maximize));
      for (int i = 0; i < params.size(); i++) {
        double[] grad = Tensors.values(grads.get(i));
        double[] p = params.get(i);
        double[] state = moments.get(i);
        for (int n = 0; n < p.length; n++) {
          double g = maximize ? -grad[n] : grad[n];
          state[3 * n] = 0.8 * state[3 * n] + 0.2 * g;
          state[3 * n + 1] = 0.95 * state[3 * n + 1] + 0.05 * g * g;
          state[3 * n + 2] = Math.max(state[3 * n + 2], state[3 * n + 1]);
          double second = amsgrad ? state[3 * n + 2] : state[3 * n + 1];
          p[n] -= lr * decay * p[n];
          p[n] -= lr / (1 - Math.pow(0.8, step)) * state[3 * n]
              / (Math.sqrt(second) / Math.sqrt(1 - Math.pow(0.95, step)) + 1e-6);
        }
        assertThat(Tensors.maxDifference(Tensors.values(group.params.get(i)), p)).as("step %d, parameter %d", step, i).isLessThan(2e-6);
        assertThat(Tensors.item(group.steps.get(i))).isEqualTo(step);
      }
    }
  }

  private static Tensor scalar(double value) {
    return Tensors.full(value, ScalarType.Float, 1);
  }

  private static final class Group {
    final List<Tensor> params = new ArrayList<>();
    final List<Tensor> m = new ArrayList<>();
    final List<Tensor> v = new ArrayList<>();
    final List<Tensor> steps = new ArrayList<>();

    Group(int count) {
      Random random = new Random(count);
      for (int i = 0; i < count; i++) {
        params.add(Tensors.normal(random, ScalarType.Float, 3 + i, 5));
        m.add(Tensors.zeros(ScalarType.Float, 3 + i, 5));
        v.add(Tensors.zeros(ScalarType.Float, 3 + i, 5));
        steps.add(Tensors.zeros(ScalarType.Float));
      }
    }

    List<Tensor> randomGrads(Random random, double size) {
      List<Tensor> grads = new ArrayList<>();
      for (Tensor param : params) {
        grads.add(Tensors.normal(random, size, ScalarType.Float, param.shape()));
      }
      return grads;
    }

    List<Tensor> copies() {
      List<Tensor> copies = new ArrayList<>();
      for (List<Tensor> list : List.of(params, m, v, steps)) {
        list.forEach(tensor -> copies.add(tensor.clone()));
      }
      return copies;
    }
  }
}

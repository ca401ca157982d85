// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Map;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Test;

@SuppressWarnings("try")
class AdamWTest {
  @Test
  void followsTheFormulaWithGroupRatesAndDecayOfMatricesOnly() {
    try (ParameterSet set = new ParameterSet();
        PointerScope scope = new PointerScope()) {
      Tensor matrix = set.parameter("matrix", "decoder", Tensor.create(new float[] {0.5f, -1f}, 1, 2));
      Tensor vector = set.parameter("vector", "encoder", Tensor.create(new float[] {2f}, 1));
      Tensor unused = set.parameter("unused", "encoder", Tensor.create(new float[] {7f}, 1));
      try (AdamW optimizer = new AdamW(set, Map.of("decoder", 1.2), 0.1)) {
        Reference m0 = new Reference(0.5, 1.2, 0.1);
        Reference m1 = new Reference(-1, 1.2, 0.1);
        Reference v = new Reference(2, 1, 0);
        for (int step = 1; step <= 5; step++) {
          set.dropGradients();
          Tensor loss = matrix.mul(matrix).sum().add(vector.mul(vector).mul(vector).sum());
          loss.backward();
          optimizer.step(0.01);
          m0.step(2 * m0.value, 0.01, step);
          m1.step(2 * m1.value, 0.01, step);
          v.step(3 * v.value * v.value, 0.01, step);
        }
        assertThat((double) at(matrix, 0)).isCloseTo(m0.value, within(1e-5));
        assertThat((double) at(matrix, 1)).isCloseTo(m1.value, within(1e-5));
        assertThat((double) at(vector, 0)).isCloseTo(v.value, within(1e-5));
        assertThat(at(unused, 0)).isEqualTo(7f);
        assertThat(optimizer.state()).containsKeys("exp_avg.matrix", "exp_avg_sq.vector", "step.unused");
        assertThat(at(optimizer.state().get("step.vector"), 0)).isEqualTo(5f);
        assertThat(at(optimizer.state().get("step.unused"), 0)).isZero();
      }
    }
  }

  @Test
  void clipsTheJointNorm() {
    try (ParameterSet set = new ParameterSet();
        PointerScope scope = new PointerScope()) {
      Tensor a = set.parameter("a", "g", Tensor.create(new float[] {3f}, 1));
      Tensor b = set.parameter("b", "g", Tensor.create(new float[] {4f}, 1));
      try (AdamW optimizer = new AdamW(set, Map.of(), 0)) {
        a.mul(a).sum().add(b.mul(b).sum()).backward();
        assertThat(optimizer.clipGradients(Double.POSITIVE_INFINITY).item_float()).isCloseTo(10f, within(1e-5f));
        assertThat(at(a.grad(), 0)).isEqualTo(6f);
        assertThat(optimizer.clipGradients(1).item_float()).isCloseTo(10f, within(1e-5f));
        assertThat(at(a.grad(), 0)).isCloseTo(0.6f, within(1e-5f));
        assertThat(at(b.grad(), 0)).isCloseTo(0.8f, within(1e-5f));
      }
    }
  }

  private static float at(Tensor tensor, int index) {
    return new FloatPointer(tensor.data_ptr()).get(index);
  }

  /** Loshchilov and Hutter 2019, algorithm 2, in double. */
  private static final class Reference {
    double value;
    final double factor;
    final double decay;
    double first;
    double second;

    Reference(double value, double factor, double decay) {
      this.value = value;
      this.factor = factor;
      this.decay = decay;
    }

    void step(double gradient, double baseRate, int number) {
      double rate = baseRate * factor;
      value -= rate * decay * value;
      first = 0.9 * first + 0.1 * gradient;
      second = 0.999 * second + 0.001 * gradient * gradient;
      double unbiased = first / (1 - Math.pow(0.9, number));
      value -= rate * unbiased / (Math.sqrt(second / (1 - Math.pow(0.999, number))) + 1e-8);
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;

@SuppressWarnings("try")
class WeightAverageTest {
  @Test
  void followsTheFormula() {
    try (PointerScope scope = new PointerScope()) {
      Tensor weight = torch.ones(2).set_requires_grad(true);
      Tensor half = torch.ones(2).to(ScalarType.BFloat16);
      try (WeightAverage average = new WeightAverage(Map.of("w", weight, "h", half), 0.9)) {
        double expected = 1;
        for (int step = 1; step <= 6; step++) {
          add(weight, 0.5);
          add(half, 0.5);
          average.update();
          expected = 0.9 * expected + 0.1 * (1 + 0.5 * step);
          assertThat((double) CheckpointingTest.numbers(average.state().get("w"))[1]).isCloseTo(expected, within(1e-6));
          // 16 bits could not hold it.
          assertThat((double) CheckpointingTest.numbers(average.state().get("h"))[0]).isCloseTo(expected, within(1e-6));
        }
        assertThat(average.state().get("h").scalar_type().intern()).isEqualTo(ScalarType.Float);
        assertThat(CheckpointingTest.numbers(weight)).containsExactly(4f, 4f);
      }
    }
  }

  @Test
  void theModelHasTheAveragesForATimeAndThenItsWeightsBitForBit() {
    try (PointerScope scope = new PointerScope()) {
      Tensor weight = torch.randn(7).set_requires_grad(true);
      try (WeightAverage average = new WeightAverage(Map.of("w", weight), 0.5)) {
        add(weight, 1);
        average.update();
        float[] before = CheckpointingTest.numbers(weight);
        try (WeightAverage.Applied applied = average.apply()) {
          assertThat(CheckpointingTest.numbers(weight)).isEqualTo(CheckpointingTest.numbers(average.state().get("w")));
          assertThat(CheckpointingTest.numbers(weight)[0]).isCloseTo(before[0] - 0.5f, within(1e-6f));
          assertThatThrownBy(average::update).isInstanceOf(IllegalStateException.class);
          assertThatThrownBy(average::apply).isInstanceOf(IllegalStateException.class);
          applied.close();
        }
        assertThat(CheckpointingTest.numbers(weight)).isEqualTo(before);
        assertThat(weight.requires_grad()).isTrue();
        average.update();
      }
      assertThatThrownBy(() -> new WeightAverage(Map.of(), 1)).hasMessageContaining("decay");
    }
  }

  private static void add(Tensor tensor, double value) {
    try (NoGradGuard noGrad = new NoGradGuard()) {
      tensor.add_(new Scalar(value));
    }
  }
}

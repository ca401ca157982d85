// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;

@SuppressWarnings("try")
class GradientAccumulatorTest {
  @Test
  void aShortLastGroupHasTheGradientOfItsBatchesAsOne() {
    try (PointerScope scope = new PointerScope();
        ParameterSet set = new ParameterSet()) {
      Seeds.seedLibtorch(3);
      Tensor weight = set.parameter("weight", "g", torch.randn(2, 5));
      set.parameter("unused", "g", torch.randn(2));
      Tensor rows = torch.randn(5 * 4, 5);
      Tensor targets = torch.randn(5 * 4, 2);
      try (AdamW optimizer = new AdamW(set, Map.of(), 0)) {
        GradientAccumulator accumulator = new GradientAccumulator(3);
        int[] sizes = {3, 2};
        int batch = 0;
        for (int size : sizes) {
          optimizer.dropGradients();
          loss(weight, rows.narrow(0, (long) batch * 4, size * 4L), targets.narrow(0, (long) batch * 4, size * 4L)).backward();
          float[] expected = CheckpointingTest.numbers(weight.grad());
          optimizer.dropGradients();
          for (int i = 0; i < size; i++) {
            assertThat(accumulator.full()).isFalse();
            accumulator
                .share(loss(weight, rows.narrow(0, batch * 4L, 4), targets.narrow(0, batch * 4L, 4)))
                .backward();
            assertThat(accumulator.count()).isEqualTo(i + 1);
            batch++;
          }
          assertThat(accumulator.full()).isEqualTo(size == 3);
          assertThat(accumulator.finish(optimizer)).isEqualTo(size);
          assertThat(CheckpointingTest.numbers(weight.grad())).containsExactly(expected, within(1e-6f));
        }
      }
    }
  }

  @Test
  void aShortGroupOfSeveralOptimizersIsMultipliedInAllOfThem() {
    try (PointerScope scope = new PointerScope();
        ParameterSet first = new ParameterSet();
        ParameterSet second = new ParameterSet()) {
      Tensor a = first.parameter("a", "g", torch.ones(2));
      Tensor b = second.parameter("b", "g", torch.ones(3));
      try (AdamW one = new AdamW(first, Map.of(), 0);
          AdamW other = new AdamW(second, Map.of(), 0)) {
        GradientAccumulator accumulator = new GradientAccumulator(4);
        accumulator.share(a.sum().add(b.sum())).backward();
        assertThatThrownBy(accumulator::finish).isInstanceOf(IllegalArgumentException.class).hasMessageContaining("optimizers");
        assertThat(accumulator.finish(one, other)).isEqualTo(1);
        assertThat(CheckpointingTest.numbers(a.grad())).containsExactly(1f, 1f);
        assertThat(CheckpointingTest.numbers(b.grad())).containsExactly(1f, 1f, 1f);
      }
    }
  }

  @Test
  void refusesEmptyAndOverfullGroups() {
    try (PointerScope scope = new PointerScope();
        ParameterSet set = new ParameterSet()) {
      Tensor weight = set.parameter("weight", "g", torch.ones(2));
      try (AdamW optimizer = new AdamW(set, Map.of(), 0)) {
        GradientAccumulator accumulator = new GradientAccumulator(1);
        assertThatThrownBy(() -> accumulator.finish(optimizer)).isInstanceOf(IllegalStateException.class);
        Tensor loss = weight.sum();
        assertThat(accumulator.share(loss)).isSameAs(loss);
        assertThatThrownBy(() -> accumulator.share(loss)).isInstanceOf(IllegalStateException.class);
      }
      assertThatThrownBy(() -> new GradientAccumulator(0)).hasMessageContaining("accumulation");
    }
  }

  private static Tensor loss(Tensor weight, Tensor rows, Tensor targets) {
    return torch.mse_loss(torch.linear(rows, weight, new TensorOptional()), targets);
  }
}

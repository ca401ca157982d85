// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;

@SuppressWarnings("try")
class DefaultGeneratorTest {
  @Test
  void drawsRepeatAfterAStateIsRestored() {
    try (PointerScope scope = new PointerScope()) {
      Tensor state = DefaultGenerator.state(DefaultGenerator.CPU);
      Tensor first = torch.rand(7);
      assertThat(torch.rand(7).equal(first)).isFalse();
      DefaultGenerator.restore(DefaultGenerator.CPU, state);
      assertThat(torch.rand(7).equal(first)).isTrue();
    }
  }

  @Test
  void aGpusDrawsRepeatOrTheGpuIsMissed() {
    if (!torch.cuda_is_available()) {
      assertThatThrownBy(() -> DefaultGenerator.state(0)).isInstanceOf(MolfuseException.class);
      return;
    }
    try (PointerScope scope = new PointerScope()) {
      Tensor there = torch.zeros(7).cuda();
      Tensor state = DefaultGenerator.state(0);
      Tensor first = torch.rand_like(there);
      DefaultGenerator.restore(0, state);
      assertThat(torch.rand_like(there).equal(first)).isTrue();
    }
  }

  @Test
  void refusesWhatIsNoDeviceOrNoState() {
    try (PointerScope scope = new PointerScope()) {
      assertThatThrownBy(() -> DefaultGenerator.state(-2)).isInstanceOf(IllegalArgumentException.class).hasMessageContaining("device");
      assertThatThrownBy(() -> DefaultGenerator.restore(DefaultGenerator.CPU, torch.zeros(3))).isInstanceOf(MolfuseException.class);
      assertThatThrownBy(() -> DefaultGenerator.restore(DefaultGenerator.CPU, null)).isInstanceOf(IllegalArgumentException.class);
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;

class HostReadsTest extends InScope {
  @Test
  void countsReadingsAndNothingElse() {
    Tensor x = Tensors.full(1, ScalarType.Float, 3);
    try (HostReads reads = HostReads.count()) {
      x.add(x).sum().reshape(1).clone().copy_(x.narrow(0, 0, 1));
      assertThat(reads.soFar()).isZero();
      x.sum().item_float();
      assertThat(reads.soFar()).isEqualTo(1);
      x.equal(x.clone());
      assertThat(reads.soFar()).isEqualTo(2);
      x.nonzero();
      assertThat(reads.soFar()).isEqualTo(3);
    }
  }

  @Test
  void nestsAndEnds() {
    Tensor one = Tensors.full(1, ScalarType.Float);
    HostReads outer = HostReads.count();
    one.item_float();
    try (HostReads inner = HostReads.count()) {
      one.item_float();
      assertThat(inner.soFar()).isEqualTo(1);
    }
    one.item_float();
    assertThat(outer.soFar()).isEqualTo(3);
    outer.close();
    outer.close();
    one.item_float();
    assertThat(outer.soFar()).isEqualTo(3);
    assertThatThrownBy(() -> Native.countHostReads(false)).isInstanceOf(IllegalArgumentException.class);
  }

  @Test
  void otherThreadsDoNotCount() throws InterruptedException {
    try (HostReads reads = HostReads.count()) {
      Thread other =
          new Thread(
              () -> {
                try (Tensor one = torch.ones(1)) {
                  one.item_float();
                }
              });
      other.start();
      other.join();
      assertThat(reads.soFar()).isZero();
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.concurrent.atomic.AtomicReference;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@SuppressWarnings("try")
class AutocastTest {
  private PointerScope scope;
  private Tensor weight;
  private Tensor x;
  private AutocastState before;

  @BeforeEach
  void openScope() {
    scope = new PointerScope();
    weight = torch.randn(4, 4).set_requires_grad(true);
    x = torch.randn(3, 4);
    before = AutocastState.current();
  }

  @AfterEach
  void everythingIsAsBefore() {
    assertThat(AutocastState.current()).isEqualTo(before);
    scope.close();
  }

  @ParameterizedTest
  @EnumSource(value = ScalarType.class, names = {"BFloat16", "Half"})
  void productsRunInTheTypeAndGradientsAreThoseOfTheParameters(ScalarType type) {
    Tensor out;
    try (Autocast region = Autocast.on(DeviceType.CPU, type)) {
      out = product();
      assertThat(type(out)).isEqualTo(type);
      assertThat(type(torch.mse_loss(out, out.detach()))).isEqualTo(ScalarType.Float);
    }
    assertThat(type(product())).isEqualTo(ScalarType.Float);
    out.to(ScalarType.Float).sum().backward();
    assertThat(type(weight.grad())).isEqualTo(ScalarType.Float);
  }

  @Test
  void regionsNestAndTheInnerOneDecides() {
    try (Autocast outer = Autocast.on(DeviceType.CPU, ScalarType.BFloat16)) {
      try (Autocast off = Autocast.off(DeviceType.CPU)) {
        assertThat(type(product())).isEqualTo(ScalarType.Float);
        try (Autocast again = Autocast.on(DeviceType.CPU, ScalarType.Half)) {
          assertThat(type(product())).isEqualTo(ScalarType.Half);
        }
        assertThat(type(product())).isEqualTo(ScalarType.Float);
      }
      assertThat(type(product())).isEqualTo(ScalarType.BFloat16);
    }
  }

  @Test
  void anInnerRegionOfAnotherTypeIsNotHandedTheCopiesOfTheOuterOne() {
    try (Autocast outer = Autocast.on(DeviceType.CPU, ScalarType.BFloat16)) {
      assertThat(type(product())).isEqualTo(ScalarType.BFloat16);
      try (Autocast inner = Autocast.on(DeviceType.CPU, ScalarType.Half)) {
        assertThat(type(product())).isEqualTo(ScalarType.Half);
      }
      assertThat(type(product())).isEqualTo(ScalarType.BFloat16);
    }
  }

  @Test
  void restoresAfterAnException() {
    assertThatThrownBy(
            () -> {
              try (Autocast outer = Autocast.on(DeviceType.CPU, ScalarType.BFloat16);
                  Autocast inner = Autocast.off(DeviceType.CPU)) {
                throw new IllegalStateException("in between");
              }
            })
        .hasMessage("in between");
    assertThat(type(product())).isEqualTo(ScalarType.Float);
  }

  @Test
  void theCopiesOfParametersGoWithTheOutermostRegion() {
    Tensor old;
    try (Autocast outer = Autocast.on(DeviceType.CPU, ScalarType.BFloat16)) {
      old = product();
      add(1);
      // The copy is still in use: that is why it must go at the end.
      assertThat(product().equal(old)).isTrue();
      try (Autocast inner = Autocast.on(DeviceType.CPU, ScalarType.BFloat16)) {
        assertThat(product().equal(old)).isTrue();
      }
      assertThat(product().equal(old)).isTrue();
    }
    try (Autocast next = Autocast.on(DeviceType.CPU, ScalarType.BFloat16)) {
      assertThat(product().equal(old)).isFalse();
    }
  }

  @Test
  void otherThreadsAreNotAffectedAndCannotCloseIt() throws InterruptedException {
    AtomicReference<Boolean> enabled = new AtomicReference<>();
    AtomicReference<Throwable> thrown = new AtomicReference<>();
    try (Autocast region = Autocast.on(DeviceType.CPU, ScalarType.BFloat16)) {
      Thread other =
          new Thread(
              () -> {
                enabled.set(torch.is_autocast_enabled(DeviceType.CPU));
                try {
                  region.close();
                } catch (IllegalStateException e) {
                  thrown.set(e);
                }
              });
      other.start();
      other.join();
      assertThat(type(product())).isEqualTo(ScalarType.BFloat16);
    }
    assertThat(enabled.get()).isFalse();
    assertThat(thrown.get()).hasMessageContaining("belongs to the thread that began it");
  }

  @Test
  void closesOnceAndInOrder() {
    Autocast outer = Autocast.on(DeviceType.CPU, ScalarType.BFloat16);
    Autocast inner = Autocast.on(DeviceType.CPU, ScalarType.Half);
    assertThatThrownBy(outer::close).isInstanceOf(IllegalStateException.class).hasMessageContaining("within this one");
    assertThat(type(product())).isEqualTo(ScalarType.Half);
    inner.close();
    inner.close();
    assertThat(type(product())).isEqualTo(ScalarType.BFloat16);
    outer.close();
  }

  @Test
  void settingsForCudaAreKeptApart() {
    try (Autocast region = Autocast.on(DeviceType.CUDA, ScalarType.BFloat16)) {
      assertThat(torch.is_autocast_enabled(DeviceType.CUDA)).isTrue();
      assertThat(torch.get_autocast_dtype(DeviceType.CUDA).intern()).isEqualTo(ScalarType.BFloat16);
      assertThat(type(product())).isEqualTo(ScalarType.Float);
    }
  }

  @Test
  void refusesOtherTypesAndDevices() {
    assertThatThrownBy(() -> Autocast.on(DeviceType.CPU, ScalarType.Float))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("BFloat16 or Half");
    assertThatThrownBy(() -> Autocast.on(DeviceType.MPS, ScalarType.Half)).hasMessageContaining("CPU or CUDA");
  }

  private Tensor product() {
    return torch.linear(x, weight, new TensorOptional());
  }

  private void add(double value) {
    try (NoGradGuard noGrad = new NoGradGuard()) {
      weight.add_(new Scalar(value));
    }
  }

  private static ScalarType type(Tensor tensor) {
    return tensor.scalar_type().intern();
  }
}

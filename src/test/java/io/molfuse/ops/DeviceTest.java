// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Every operator through Java on the device that {@code -Dmolfuse.test.device} names ("cpu" if absent, or "cuda"), against the operator on
 * the CPU in f64.
 */
class DeviceTest extends InScope {
  private static final String DEVICE = System.getProperty("molfuse.test.device", "cpu");
  private static final boolean CUDA = DEVICE.startsWith("cuda");
  private static final ScalarType[] TYPES = {ScalarType.Float, ScalarType.BFloat16, ScalarType.Half};

  @ParameterizedTest
  @EnumSource(Operators.class)
  void resultsAndGradientsAreThoseOfTheCpu(Operators operator) {
    for (ScalarType type : TYPES) {
      Tensor[] inputs = operator.inputs(type);
      List<Tensor> here = run(operator, on(DEVICE, inputs), type);
      List<Tensor> sameType = run(operator, inputs, type);
      List<Tensor> exact = run(operator, inputs, ScalarType.Double);
      assertThat(here).hasSameSizeAs(exact);
      double magnitude = exact.stream().mapToDouble(x -> Tensors.maxAbs(Tensors.values(x))).reduce(1, Math::max);
      for (int i = 0; i < here.size(); i++) {
        assertThat(here.get(i).is_cuda()).isEqualTo(CUDA);
        Acceptance.close("result " + i, here.get(i), sameType.get(i), exact.get(i), type, magnitude, 0);
      }
    }
  }

  @ParameterizedTest
  @EnumSource(Operators.class)
  void twoRunsAgreeBitForBit(Operators operator) {
    for (ScalarType type : TYPES) {
      Tensor[] inputs = on(DEVICE, operator.inputs(type));
      List<Tensor> first = run(operator, inputs, type);
      List<Tensor> second = run(operator, inputs, type);
      for (int i = 0; i < first.size(); i++) {
        assertThat(Tensors.values(second.get(i))).as("result %d in %s", i, type).isEqualTo(Tensors.values(first.get(i)));
      }
    }
  }

  @Test
  void tensorsOnDifferentDevicesAreRefused() {
    String elsewhere = CUDA ? "cpu" : "meta";
    Tensor mean = on(DEVICE, Tensors.normal(new Random(1), ScalarType.Float, 3, 4))[0];
    Tensor logVar = on(elsewhere, mean)[0];
    assertThatThrownBy(() -> Reparameterize.apply(mean, logVar, 1))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("log_var")
        .hasMessageContaining("device");
  }

  @Test
  void theDeviceIsDescribed() {
    CudaDevice device = Molfuse.cudaDevice(0);
    assertThat(device.usable() || !CUDA).as(device.reason()).isTrue();
  }

  private static Tensor[] on(String device, Tensor... tensors) {
    return Arrays.stream(tensors).map(x -> x.to(new Device(device), Checks.type(x))).toArray(Tensor[]::new);
  }

  /** Outputs, then gradients. */
  private static List<Tensor> run(Operators operator, Tensor[] inputs, ScalarType type) {
    Tensor[] leaves = Acceptance.leaves(inputs, type);
    Tensor[] outputs = operator.apply(leaves);
    Random random = new Random(31);
    Tensor[] upstream =
        Stream.of(outputs)
            .map(out -> Tensors.beside(out, Tensors.normal(random, ScalarType.BFloat16, out.shape()).to(type)))
            .toArray(Tensor[]::new);
    List<Tensor> results = new ArrayList<>(List.of(outputs));
    results.addAll(Acceptance.gradients(outputs, leaves, upstream));
    return results;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import java.util.Random;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class MolfuseTest extends InScope {
  private static final List<String> LEVELS = List.of("baseline", "avx2", "avx512");

  @AfterEach
  void resetLevel() {
    Molfuse.setCpuLevel("auto");
  }

  @Test
  void versionAndCapabilitiesAreKnown() {
    Molfuse.load();
    assertThat(Molfuse.version()).matches("\\d+\\.\\d+\\.\\d+.*");
    Capabilities capabilities = Molfuse.capabilities();
    assertThat(capabilities.version()).isEqualTo(Molfuse.version());
    assertThat(capabilities.libtorch()).startsWith("2.");
    assertThat(LEVELS).contains(capabilities.cpuVectorLevel(), capabilities.cpuVectorBest());
    assertThat(capabilities.cpuThreads()).isPositive();
    assertThat(capabilities.cudaUsable() || !capabilities.cudaReason().isEmpty()).isTrue();
    assertThat(capabilities.cudnnUsable() || !capabilities.cudnnReason().isEmpty()).isTrue();
  }

  @Test
  void memoryThatRunsOutIsSaidAndTheNextCallWorks() {
    Tensor small = Tensors.normal(new Random(1), ScalarType.Float, 1, 1);
    Tensor huge = small.expand(1L << 20, 1L << 24);
    assertThatThrownBy(() -> Reparameterize.apply(huge, huge, 1))
        .isInstanceOf(MolfuseException.class)
        .hasMessageContaining("memory")
        .hasMessageNotContaining("Exception raised from");
    assertThat(Tensors.allFinite(Reparameterize.apply(small, small, 1))).isTrue();
  }

  @Test
  void devicesAreDescribedWhereThereAreNone() {
    Capabilities capabilities = Molfuse.capabilities();
    CudaDevice device = Molfuse.cudaDevice(0);
    assertThat(device.runtimeVersion() > 0).isEqualTo(capabilities.cudaCompiled());
    assertThat(device.usable() || !device.reason().isEmpty()).isTrue();
    assertThat(Molfuse.cudaDevices()).hasSize(device.count());
    if (device.count() == 0) {
      assertThat(device.usable()).isFalse();
      assertThat(device.reason()).isEqualTo(capabilities.cudaReason());
      assertThat(device.name()).isEmpty();
    } else {
      assertThat(device.name()).isNotEmpty();
      assertThat(device.totalMemory()).isPositive();
      AttentionArgumentsTest.refused("device", "" + device.count(), () -> Molfuse.cudaDevice(device.count()));
    }
    AttentionArgumentsTest.refused("device", "-1", () -> Molfuse.cudaDevice(-1));
  }

  @Test
  void devicesAreReadFromJson() {
    CudaDevice read = CapabilitiesJson.device(
        1, "{\"device_count\":2,\"usable\":true,\"reason\":\"\",\"name\":\"A GPU\",\"compute_major\":9,\"compute_minor\":0,"
            + "\"multiprocessors\":132,\"shared_memory_per_block\":232448,\"total_memory\":150754820096,\"driver_version\":13000,"
            + "\"runtime_version\":13010}");
    assertThat(read).isEqualTo(
        new CudaDevice(1, 2, true, "", "A GPU", 9, 0, 132, 232448, 150754820096L, 13000, 13010));
    assertThat(read.computeCapability()).isEqualTo("9.0");
    assertThat(CudaDevice.version(read.runtimeVersion())).isEqualTo("13.1");
    assertThat(CudaDevice.version(0)).isNull();
  }

  @Test
  void everyVectorLevelOfTheMachineMatchesTheFormulas() {
    int best = LEVELS.indexOf(Molfuse.capabilities().cpuVectorBest());
    for (String level : LEVELS.subList(0, best + 1)) {
      Molfuse.setCpuLevel(level);
      assertThat(Molfuse.capabilities().cpuVectorLevel()).isEqualTo(level);
      for (ScalarType type : new ScalarType[] {ScalarType.Float, ScalarType.BFloat16, ScalarType.Half, ScalarType.Double}) {
        new AttentionCase(2, 2, 17, 21, 40).bias(1, 2, 17, 21).causal().check(type);
        new VaeLossCase(2, 5, 39, 7).check(type);
      }
    }
  }

  @Test
  void anUnknownVectorLevelIsRefused() {
    AttentionArgumentsTest.refused("level", "sse9", () -> Molfuse.setCpuLevel("sse9"));
    AttentionArgumentsTest.refused("level", "null", () -> Molfuse.setCpuLevel(null));
  }

  @Test
  void theAttentionBackendIsASetting() {
    try {
      for (String backend : new String[] {"own", "cudnn", "auto"}) {
        Molfuse.setAttentionBackend(backend);
        assertThat(Molfuse.capabilities().attentionBackend()).isEqualTo(backend);
      }
      AttentionArgumentsTest.refused("backend", "fastest", () -> Molfuse.setAttentionBackend("fastest"));
      AttentionArgumentsTest.refused("backend", "null", () -> Molfuse.setAttentionBackend(null));
    } finally {
      Molfuse.setAttentionBackend("auto");
    }
  }

  @Test
  void capabilitiesAreReadFromJson() {
    Capabilities read = CapabilitiesJson.parse(
        "{ \"version\" : \"1.2.3\",\"libtorch\":\"2.10\", \"cpu_vector_level\":\"avx2\",\"cpu_vector_best\":\"avx512\", "
            + "\"cpu_threads\": 12 ,\"cuda_compiled\":true,\"cuda_usable\":false,\"cuda_reason\":\"no \\\"driver\\\" \\u00e9\\n\","
            + "\"cudnn_usable\":true,\"cudnn_reason\":null,\"cudnn_version\":91900,\"attention_backend\":\"own\",\"new_field\":-1.5e3}");
    assertThat(read)
        .isEqualTo(new Capabilities("1.2.3", "2.10", "avx2", "avx512", 12, true, false, "no \"driver\" é\n", true, "", 91900, "own"));
    for (String broken : new String[] {"", "{", "{\"a\"}", "[1]", "{\"a\":x}", "{\"a\":1", "{\"a\":\"\\u12\"}", "{\"a\":\"\\"}) {
      assertThatThrownBy(() -> CapabilitiesJson.parse(broken)).as(broken).isInstanceOf(MolfuseException.class);
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.molfuse.ops.CudaDevice;
import io.molfuse.ops.Molfuse;
import java.util.List;
import org.bytedeco.openblas.global.openblas_nolapack;
import org.bytedeco.pytorch.Context;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.Float32MatmulPrecision;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.Isolated;

/** The switches themselves work without a device, so a made-up one stands for what a machine can do. */
@Isolated
@SuppressWarnings("try")
class BackendSettingsTest {
  private static final CudaDevice AMPERE = PrecisionTest.device(8, 0);
  private static final CudaDevice NONE = new CudaDevice(0, 0, false, "no driver", "", 0, 0, 0, 0, 0, 0, 13000);

  private List<Object> before;

  @BeforeEach
  void remember() {
    before = state();
  }

  @AfterEach
  void everythingIsAsBefore() {
    assertThat(state()).isEqualTo(before);
  }

  private static List<Object> state() {
    Context context = torch.globalContext();
    return List.of(
        context.float32MatmulPrecision().intern(),
        context.allowTF32CuBLAS(),
        context.allowTF32CuDNN(),
        context.benchmarkCuDNN(),
        context.deterministicCuDNN(),
        context.deterministicAlgorithms(),
        torch.get_num_threads(),
        openblas_nolapack.blas_get_num_threads());
  }

  private static BackendSettings everything() {
    Context context = torch.globalContext();
    return BackendSettings.unchanged()
        .tf32Matmul(true)
        .tf32Cudnn(!context.allowTF32CuDNN())
        .cudnnBenchmark(true)
        .cudnnDeterministic(true)
        .deterministicAlgorithms(true)
        .matmulPrecision(BackendSettings.MatmulPrecision.MEDIUM)
        .threads(torch.get_num_threads() + 1);
  }

  @Test
  void setsEverythingAndPutsItBack() {
    boolean cudnn = torch.globalContext().allowTF32CuDNN();
    int threads = torch.get_num_threads();
    try (BackendSettings.Applied applied = everything().apply(AMPERE, false, true)) {
      assertThat(state())
          .containsExactly(Float32MatmulPrecision.MEDIUM, true, !cudnn, true, true, true, threads + 1, threads + 1);
    }
  }

  @Test
  void numbersOfThreadsThatDifferArePutBackEach() {
    int threads = torch.get_num_threads();
    int blas = openblas_nolapack.blas_get_num_threads();
    try {
      Threads.set(2, 1);
      List<Object> here = state();
      BackendSettings.unchanged().threads(2).apply().close();
      assertThat(state()).isEqualTo(here);
    } finally {
      Threads.set(threads, blas);
    }
  }

  @Test
  void putsBackAfterAnExceptionAndNests() {
    assertThatThrownBy(
            () -> {
              try (BackendSettings.Applied outer = everything().apply(AMPERE, false, true);
                  BackendSettings.Applied inner = BackendSettings.unchanged().tf32Matmul(false).apply(AMPERE, false, true)) {
                assertThat(torch.globalContext().allowTF32CuBLAS()).isFalse();
                throw new IllegalStateException("in between");
              }
            })
        .hasMessage("in between");
  }

  @Test
  void whatIsNotSetStays() {
    try (BackendSettings.Applied applied = BackendSettings.unchanged().deterministicAlgorithms(true).apply()) {
      assertThat(torch.globalContext().deterministicAlgorithms()).isTrue();
      List<Object> rest = state();
      assertThat(rest.subList(0, 5)).isEqualTo(before.subList(0, 5));
      assertThat(rest.subList(6, 8)).isEqualTo(before.subList(6, 8));
      applied.close();
      torch.globalContext().setDeterministicAlgorithms(true, false);
      // Closed already: the second time does nothing.
      applied.close();
      assertThat(torch.globalContext().deterministicAlgorithms()).isTrue();
      torch.globalContext().setDeterministicAlgorithms(false, false);
    }
  }

  @Test
  void refusesByNameWhatTheDeviceCannotDoAndChangesNothing() {
    refuses(BackendSettings.unchanged().threads(1).tf32Matmul(true), NONE, "tf32 for matrix products: needs a CUDA device");
    refuses(BackendSettings.unchanged().threads(1).tf32Matmul(true), PrecisionTest.device(7, 5), "Test GPU (compute capability 7.5)");
    refuses(BackendSettings.unchanged().tf32Cudnn(true), NONE, "tf32 for cuDNN: needs a CUDA device");
    refuses(
        BackendSettings.unchanged().cudnnBenchmark(true),
        NONE,
        "cuDNN benchmark: needs a CUDA device and cuDNN, but there is no usable CUDA device: no driver");
    refuses(BackendSettings.unchanged().cudnnDeterministic(true), NONE, "cuDNN deterministic");
    refuses(BackendSettings.unchanged().matmulPrecision(BackendSettings.MatmulPrecision.HIGH), NONE, "matmul precision high");
    refuses(
        BackendSettings.unchanged().matmulPrecision(BackendSettings.MatmulPrecision.HIGHEST).tf32Matmul(true), AMPERE, "contradicts");
    assertThatThrownBy(() -> BackendSettings.unchanged().threads(0)).hasMessageContaining("threads");
    assertThatThrownBy(() -> BackendSettings.unchanged().tf32Cudnn(true).apply(AMPERE, false, false)).hasMessageContaining("needs cuDNN");
  }

  private static void refuses(BackendSettings settings, CudaDevice device, String message) {
    List<Object> before = state();
    assertThatThrownBy(() -> settings.apply(device, false, true))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining(message);
    assertThat(state()).isEqualTo(before);
  }

  @Test
  void asksThisMachine() {
    boolean ampere = Molfuse.cudaDevice(0).usable() && Molfuse.cudaDevice(0).computeMajor() >= 8;
    BackendSettings settings = BackendSettings.unchanged().tf32Matmul(true);
    if (ampere) {
      settings.apply().close();
    } else {
      assertThatThrownBy(settings::apply).hasMessageContaining("tf32 for matrix products");
    }
    // Off is always possible.
    BackendSettings.unchanged().tf32Matmul(false).cudnnBenchmark(false).cudnnDeterministic(false).tf32Cudnn(false).apply().close();
  }

  @Test
  void logsWhatIsSet() {
    assertThat(PrecisionTest.logged(() -> BackendSettings.unchanged().deterministicAlgorithms(false).threads(2).apply().close()))
        .containsExactly("backend settings: deterministic algorithms off, threads 2");
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.read.ListAppender;
import io.molfuse.ops.CudaDevice;
import io.molfuse.ops.Molfuse;
import java.util.List;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.slf4j.LoggerFactory;

@SuppressWarnings("try")
class PrecisionTest {
  static CudaDevice device(int major, int minor) {
    return device(0, major, minor);
  }

  static CudaDevice device(int index, int major, int minor) {
    return new CudaDevice(index, 2, true, "", "Test GPU", major, minor, 108, 166912, 1L << 36, 13000, 13000);
  }

  @Test
  void autoTakesWhatTheDeviceIsFastIn() {
    assertThat(Precision.AUTO.on(device(9, 0)).precision()).isEqualTo(Precision.BF16);
    assertThat(Precision.AUTO.on(device(8, 0)).precision()).isEqualTo(Precision.BF16);
    assertThat(Precision.AUTO.on(device(7, 5)).precision()).isEqualTo(Precision.FP16);
    assertThat(Precision.AUTO.on(device(7, 0)).scaling()).isTrue();
    assertThat(Precision.AUTO.on(device(6, 1)).precision()).isEqualTo(Precision.FP32);
    assertThat(Precision.AUTO.on(null).precision()).isEqualTo(Precision.FP32);
    assertThat(Precision.AUTO.on(device(8, 0)).scaling()).isFalse();
  }

  @Test
  void oneLogLineSaysWhichAndWhy() {
    assertThat(logged(() -> Precision.AUTO.on(device(7, 5))))
        .containsExactly(
            "precision fp16 with a dynamic loss scale: chosen because Test GPU (compute capability 7.5) has float16 but no bfloat16");
    assertThat(logged(() -> Precision.AUTO.on(null)))
        .containsExactly("precision fp32: chosen because the model runs on the CPU, where 16 bits save no time");
  }

  static List<String> logged(Runnable action) {
    Logger logger = (Logger) LoggerFactory.getLogger("io.molfuse.train");
    Level before = logger.getLevel();
    ListAppender<ILoggingEvent> lines = new ListAppender<>();
    lines.start();
    logger.addAppender(lines);
    logger.setLevel(Level.INFO);
    try {
      action.run();
    } finally {
      logger.setLevel(before);
      logger.detachAppender(lines);
    }
    return lines.list.stream().map(ILoggingEvent::getFormattedMessage).toList();
  }

  @Test
  void refusesWhatADeviceCannotDoByName() {
    assertThatThrownBy(() -> Precision.TF32.on(null)).isInstanceOf(IllegalArgumentException.class).hasMessageContaining("precision tf32");
    assertThatThrownBy(() -> Precision.BF16.on(device(7, 5)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("precision bf16: needs compute capability 8.0 or newer, but this is Test GPU (compute capability 7.5)");
    CudaDevice none = new CudaDevice(0, 0, false, "no driver", "", 0, 0, 0, 0, 0, 0, 13000);
    assertThatThrownBy(() -> Precision.FP16.on(none)).hasMessageContaining("no driver");
  }

  @Test
  void aChoiceBringsItsRegionItsScalerAndItsSettings() {
    Precision.Choice half = Precision.FP16.on(null);
    try (Autocast region = half.autocast();
        GradScaler scaler = half.scaler()) {
      assertThat(torch.get_autocast_dtype(DeviceType.CPU).intern()).isEqualTo(ScalarType.Half);
      assertThat(torch.is_autocast_enabled(DeviceType.CPU)).isTrue();
      assertThat(scaler.enabled()).isTrue();
    }
    try (Autocast region = Precision.BF16.on(null).autocast();
        GradScaler scaler = Precision.BF16.on(null).scaler()) {
      assertThat(torch.get_autocast_dtype(DeviceType.CPU).intern()).isEqualTo(ScalarType.BFloat16);
      assertThat(scaler.enabled()).isFalse();
      try (Autocast off = Precision.FP32.on(null).autocast()) {
        assertThat(torch.is_autocast_enabled(DeviceType.CPU)).isFalse();
      }
    }
    assertThat(Precision.TF32.on(device(8, 6)).backend()).hasToString("tf32 for matrix products on, tf32 for cuDNN on");
    assertThat(half.backend()).hasToString("none changed");
    assertThat(half.cuda()).isNull();
  }

  @Test
  void aChoiceIsCheckedAgainstItsOwnDevice() {
    CudaDevice second = device(1, 8, 6);
    Precision.Choice choice = Precision.TF32.on(second);
    assertThat(choice.cuda()).isSameAs(second);
    if (Molfuse.capabilities().cudnnUsable()) {
      choice.backend().apply().close();
    } else {
      // As far as its device goes it could: what lacks is the library.
      assertThatThrownBy(() -> choice.backend().apply())
          .hasMessageContaining("needs cuDNN, but there is Test GPU (compute capability 8.6)");
    }
  }
}

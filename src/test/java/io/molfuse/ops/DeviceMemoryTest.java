// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assumptions.assumeThat;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;

class DeviceMemoryTest {
  @Test
  void memoryIsThatOfTheDeviceOrRefused() {
    if (!torch.cuda_is_available()) {
      assertThatThrownBy(() -> Molfuse.deviceMemory(0))
          .isInstanceOf(MolfuseException.class)
          .hasMessageContaining("unsupported").hasMessageContaining("accelerators only");
      assertThatThrownBy(() -> Molfuse.resetPeakMemory(0)).isInstanceOf(MolfuseException.class);
      assertThatThrownBy(() -> Molfuse.emptyDeviceCache(0)).isInstanceOf(MolfuseException.class);
      return;
    }
    Molfuse.resetPeakMemory(0);
    DeviceMemory memory = Molfuse.deviceMemory(0);
    assertThat(memory.total()).isPositive();
    assertThat(memory.free()).isBetween(0L, memory.total());
    assertThat(memory.peakAllocated()).isGreaterThanOrEqualTo(memory.allocated());
    assertThat(memory.reserved()).isGreaterThanOrEqualTo(memory.allocated());
  }

  /** In a process of its own: in this one another test may have used the device. */
  @Test
  void beforeTheFirstUseOfADeviceNothingIsAllocated() throws Exception {
    assumeThat(torch.cuda_is_available()).isTrue();
    Process process =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-cp", System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")), BeforeUse.class.getName())
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as("exit code; output: %s", output).isZero();
    assertThat(output.strip()).endsWith("0 0 true");
  }

  static final class BeforeUse {
    public static void main(String[] args) {
      Molfuse.resetPeakMemory(0);
      Molfuse.emptyDeviceCache(0);
      DeviceMemory memory = Molfuse.deviceMemory(0);
      System.out.println(memory.allocated() + " " + memory.peakAllocated() + " " + (memory.total() > 0));
    }
  }

  @Test
  void utilizationIsAPercentageOrUnknown() {
    Integer percent = Molfuse.deviceUtilization(0);
    if (percent != null) {
      assertThat(percent).isBetween(0, 100);
    }
    // No machine has so many.
    assertThat(Molfuse.deviceUtilization(127)).isNull();
  }

  @Test
  void numbersThatAreNoDeviceAreArgumentErrors() {
    assertThatThrownBy(() -> Molfuse.deviceMemory(-1)).isInstanceOf(IllegalArgumentException.class).hasMessageContaining("device");
    assertThatThrownBy(() -> Molfuse.deviceUtilization(-1)).isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(() -> Molfuse.deviceUtilization(128)).isInstanceOf(IllegalArgumentException.class);
  }

  @Test
  void memoryIsReadFromItsJson() {
    assertThat(
            CapabilitiesJson.memory(
                "{\"allocated\":1,\"reserved\":2,\"peak_allocated\":3,\"peak_reserved\":4,\"free\":5,\"total\":150323855360}"))
        .isEqualTo(new DeviceMemory(1, 2, 3, 4, 5, 150323855360L));
  }
}

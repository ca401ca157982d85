// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assumptions.assumeThat;

import java.util.ArrayList;
import java.util.List;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.DeviceOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What SlowSide stands for, on a real GPU where there is one; and what is said where there is none. */
@SuppressWarnings("try")
class AcceleratorSideTest {
  @Test
  void withoutAGpuItsAbsenceIsNamed() {
    assumeThat(torch.cuda_is_available()).isFalse();
    assertThatThrownBy(() -> new AcceleratorSide(new Device("cuda")))
        .isInstanceOf(TrainingException.class)
        .hasMessageStartingWith("the device cannot be used: ")
        .hasMessageNotContaining("frame #0");
  }

  @Test
  @Timeout(60)
  void batchesArriveWholeThoughTheSlotsAreUsedAgain() throws InterruptedException {
    assumeThat(torch.cuda_is_available()).isTrue();
    int count = 64;
    int width = 1 << 20;
    Device device = new Device("cuda:0");
    try (PinnedBuffer buffer = new PinnedBuffer(device, 64)) {
      assertThat(buffer.pinned()).isTrue();
    }
    try (PerformanceMonitor monitor = PerformanceMonitor.of(device);
        StagingRing ring = new StagingRing(device, 3).monitor(monitor);
        PointerScope scope = new PointerScope()) {
      List<Tensor> sums = new ArrayList<>();
      for (int i = 0; i < count; i++) {
        StagingRing.Slot slot = ring.acquire();
        Tensor host = slot.tensor(ScalarType.Long, width);
        assertThat(host.is_pinned()).isTrue();
        host.fill_(new Scalar(i));
        try (PointerScope step = new PointerScope();
            Transfer transfer = slot.submit()) {
          monitor.begin(PerformanceMonitor.Phase.FORWARD);
          Tensor batch = transfer.take().get(0);
          Tensor sum = batch.sum();
          sum.retainReference();
          sums.add(sum);
          monitor.end(PerformanceMonitor.Phase.FORWARD);
        }
        monitor.step(1);
      }
      for (int i = 0; i < count; i++) {
        Tensor sum = sums.get(i).cpu();
        assertThat(new LongPointer(sum.data_ptr()).get()).isEqualTo((long) i * width);
        sums.get(i).releaseReference();
      }
      // All work is done, since its results are here; the last events follow within moments.
      while (monitor.summary().steps() < count) {
        Thread.sleep(1);
      }
      PerformanceSummary summary = monitor.summary();
      assertThat(summary.steps()).isEqualTo(count);
      assertThat(summary.transferMillis()).isPositive();
      assertThat(summary.forwardMillis()).isPositive();
      assertThat(summary.devicePeakBytes()).isGreaterThanOrEqualTo(8L * width);
    }
  }

  @Test
  void aFullGpuIsRecognised() {
    assumeThat(torch.cuda_is_available()).isTrue();
    Throwable thrown = null;
    try (PointerScope scope = new PointerScope()) {
      TensorOptions options = new TensorOptions(ScalarType.Byte).device(new DeviceOptional(new Device("cuda:0")));
      torch.empty(new long[] {1L << 46}, options, null);
    } catch (RuntimeException e) {
      thrown = e;
    }
    assertThat(DeviceOutOfMemoryException.isOutOfMemory(thrown)).isTrue();
    DeviceOutOfMemoryException mapped = (DeviceOutOfMemoryException) DeviceOutOfMemoryException.mapped(thrown);
    assertThat(mapped.requested()).isEqualTo(1L << 46);
    assertThat(mapped.allocated()).isGreaterThanOrEqualTo(0);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** All of libtorch's autocast settings of a thread, for the CPU and for CUDA devices. */
record AutocastState(boolean cpu, ScalarType cpuType, boolean cuda, ScalarType cudaType, boolean cache) {
  /** The calling thread's. */
  static AutocastState current() {
    return new AutocastState(
        torch.is_autocast_enabled(DeviceType.CPU),
        torch.get_autocast_dtype(DeviceType.CPU).intern(),
        torch.is_autocast_enabled(DeviceType.CUDA),
        torch.get_autocast_dtype(DeviceType.CUDA).intern(),
        torch.is_autocast_cache_enabled());
  }

  /** Makes it the calling thread's. */
  void apply() {
    torch.set_autocast_enabled(DeviceType.CPU, cpu);
    torch.set_autocast_dtype(DeviceType.CPU, cpuType);
    torch.set_autocast_enabled(DeviceType.CUDA, cuda);
    torch.set_autocast_dtype(DeviceType.CUDA, cudaType);
    torch.set_autocast_cache_enabled(cache);
  }

  AutocastState with(DeviceType device, boolean enabled, ScalarType type) {
    return device == DeviceType.CPU
        ? new AutocastState(enabled, type, cuda, cudaType, cache)
        : new AutocastState(cpu, cpuType, enabled, type, cache);
  }

  AutocastState withoutCache() {
    return new AutocastState(cpu, cpuType, cuda, cudaType, false);
  }

  ScalarType type(DeviceType device) {
    return device == DeviceType.CPU ? cpuType : cudaType;
  }
}

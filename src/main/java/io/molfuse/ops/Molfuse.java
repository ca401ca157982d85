// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.ArrayList;
import java.util.List;

/** The native library as a whole. Operators load it on first use; nothing here needs to be called before them. */
public final class Molfuse {
  private Molfuse() {}

  /**
   * Loads libtorch and the molfuse libraries now instead of at the first operator.
   *
   * @throws MolfuseException if they cannot be loaded, saying which and why
   */
  public static void load() {
    Native.load();
  }

  /** @return version of libmolfuse, such as "0.1.0" */
  public static String version() {
    return Native.version();
  }

  /** @return what the libraries can do on this machine */
  public static Capabilities capabilities() {
    return CapabilitiesJson.parse(Native.info());
  }

  /**
   * Describes a CUDA device without using it. Device 0 may be asked for on every machine: where there is none, the answer says why.
   *
   * @param index number of the device, from 0
   * @return what is known of it
   * @throws IllegalArgumentException for a negative number, or one not below the number of devices where there are any
   */
  public static CudaDevice cudaDevice(int index) {
    return CapabilitiesJson.device(index, Native.deviceInfo(index));
  }

  /** @return the CUDA devices of this machine, in order; empty where there are none, or the build holds no CUDA kernels */
  public static List<CudaDevice> cudaDevices() {
    CudaDevice first = cudaDevice(0);
    List<CudaDevice> devices = new ArrayList<>();
    for (int i = 0; i < first.count(); i++) {
      devices.add(i == 0 ? first : cudaDevice(i));
    }
    return List.copyOf(devices);
  }

  /**
   * Memory of an accelerator. Does not wait for it.
   *
   * @param index number of the device, from 0
   * @return what is in use, by libtorch's allocator and by the driver
   * @throws IllegalArgumentException for a negative number
   * @throws MolfuseException where there is no such device
   */
  public static DeviceMemory deviceMemory(int index) {
    return CapabilitiesJson.memory(Native.deviceMemory(index));
  }

  /**
   * Starts the peaks of {@link #deviceMemory} again from what is in use now.
   *
   * @param index number of the device, from 0
   * @throws IllegalArgumentException for a negative number
   * @throws MolfuseException where there is no such device
   */
  public static void resetPeakMemory(int index) {
    Native.resetPeakMemory(index);
  }

  /**
   * Gives memory that libtorch's allocator holds but does not use back to the driver, as after an allocation that failed. Waits for
   * the device.
   *
   * @param index number of the device, from 0
   * @throws IllegalArgumentException for a negative number
   * @throws MolfuseException where there is no such device
   */
  public static void emptyDeviceCache(int index) {
    Native.emptyDeviceCache(index);
  }

  /**
   * How busy a CUDA device was lately, by NVML, which comes with the driver.
   *
   * @param index number of the device, from 0
   * @return percent of the last moments in which a kernel ran; null where there is no such device or no NVML
   * @throws IllegalArgumentException for a negative number
   */
  public static Integer deviceUtilization(int index) {
    long percent = Native.deviceUtilization(index);
    return percent < 0 ? null : (Integer) (int) percent;
  }

  /**
   * Forces the CPU vector level of the process, for tests and measurements.
   *
   * @param level "baseline", "avx2", "avx512" or "auto"
   * @throws IllegalArgumentException for another word
   * @throws MolfuseException if the machine lacks the level
   */
  public static void setCpuLevel(String level) {
    Native.setCpuLevel(Checks.notNull("level", level));
  }

  /**
   * Chooses what computes attention and its gradients on a GPU in all later calls of the process. The environment variable
   * MOLFUSE_ATTENTION_BACKEND does the same at the start.
   *
   * @param backend "auto", the default: whichever was measured to be faster, if it can do the problem; "own": molfuse's kernels; "cudnn":
   *     cuDNN, or a {@link MolfuseException} from the operator that says why not
   * @throws IllegalArgumentException for another word
   */
  public static void setAttentionBackend(String backend) {
    Native.setAttentionBackend(Checks.notNull("backend", backend));
  }

  /**
   * Lets the operators of this package compute with chains of libtorch's own operators, forward and backward, to see what fusing brings
   * or whether a kernel is the cause of a difference. In all later calls of the process, but for packed and cached attention and the
   * optimizer's operators, which have no such chain. Dropout and noise then come from libtorch's default generator, whatever seeds say.
   *
   * @param fused false for chains; true, as at the start, for this library's kernels
   */
  public static void setFused(boolean fused) {
    Unfused.set(!fused);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

/**
 * A CUDA device as libmolfuse sees it, or why there is none. Where there is none, all that describes one is empty or 0.
 *
 * @param index number of the device
 * @param count devices there are
 * @param usable whether operators can run on it
 * @param reason why {@code usable} is false; else empty
 * @param name name of the device
 * @param computeMajor compute capability before the point
 * @param computeMinor compute capability after the point
 * @param multiprocessors number of multiprocessors
 * @param sharedMemoryPerBlock bytes of shared memory that a block may ask for
 * @param totalMemory bytes of memory
 * @param driverVersion CUDA version that the driver supports, 13000 for 13.0; 0 if there is no driver
 * @param runtimeVersion CUDA version of this build; 0 if it holds no CUDA kernels
 */
public record CudaDevice(
    int index,
    int count,
    boolean usable,
    String reason,
    String name,
    int computeMajor,
    int computeMinor,
    int multiprocessors,
    long sharedMemoryPerBlock,
    long totalMemory,
    int driverVersion,
    int runtimeVersion) {

  /** @return compute capability, such as "9.0" */
  public String computeCapability() {
    return computeMajor + "." + computeMinor;
  }

  /**
   * A version as CUDA counts it, in words.
   *
   * @param number such as 13000
   * @return such as "13.0"; null for 0
   */
  public static String version(int number) {
    return number == 0 ? null : number / 1000 + "." + number % 1000 / 10;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

/**
 * Memory of an accelerator in bytes. What libtorch's caching allocator has reserved but not allocated is its own to give out again.
 *
 * @param allocated in use by tensors
 * @param reserved taken from the driver
 * @param peakAllocated most that was allocated at once, since the start or {@link Molfuse#resetPeakMemory}
 * @param peakReserved most that was reserved at once, since the same
 * @param free what the driver has left for all processes
 * @param total what the device has
 */
public record DeviceMemory(long allocated, long reserved, long peakAllocated, long peakReserved, long free, long total) {}

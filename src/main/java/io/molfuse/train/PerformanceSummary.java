// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import com.fasterxml.jackson.databind.annotation.JsonNaming;
import java.util.Locale;

/**
 * Means over the steps that were measured, and readings of the machine. Null is what this machine does not tell.
 *
 * @param steps optimiser steps
 * @param samples samples of all steps
 * @param samplesPerSecond throughput
 * @param stepMillis from the end of one step to the end of the next
 * @param loadMillis of a step, waiting for batches
 * @param transferMillis of a step, copying to the device, wherever that was timed
 * @param forwardMillis of a step, on the device
 * @param backwardMillis of a step, on the device
 * @param optimizerMillis of a step, on the device
 * @param deviceAllocatedBytes in use by tensors at the last reading; null on the CPU
 * @param deviceReservedBytes taken from the driver by libtorch's allocator at the last reading; null on the CPU
 * @param devicePeakBytes most that was allocated at once since the process began; null on the CPU
 * @param deviceUtilization mean percentage of time in which the device was busy, by NVML; null on the CPU or without NVML
 * @param processMemoryBytes resident memory of the process at the last reading
 * @param processCpu mean share of all processors that the process used, 0 to 1
 * @param bottleneck what to improve first
 */
@JsonNaming(PropertyNamingStrategies.SnakeCaseStrategy.class)
public record PerformanceSummary(
    long steps,
    long samples,
    double samplesPerSecond,
    double stepMillis,
    double loadMillis,
    double transferMillis,
    double forwardMillis,
    double backwardMillis,
    double optimizerMillis,
    Long deviceAllocatedBytes,
    Long deviceReservedBytes,
    Long devicePeakBytes,
    Double deviceUtilization,
    long processMemoryBytes,
    double processCpu,
    Bottleneck bottleneck) {
  private static final ObjectMapper JSON = new ObjectMapper();

  /** @return one JSON object; names in snake case, the bottleneck as its constant's name */
  public String json() {
    try {
      return JSON.writeValueAsString(this);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException(e);
    }
  }

  /** @return a few lines for people */
  public String text() {
    StringBuilder text = new StringBuilder();
    line(text, "%d steps of %.2f ms, %.1f samples/s", steps, stepMillis, samplesPerSecond);
    line(
        text,
        "load %.2f ms, transfer %.2f ms, forward %.2f ms, backward %.2f ms, optimizer %.2f ms",
        loadMillis, transferMillis, forwardMillis, backwardMillis, optimizerMillis);
    if (deviceAllocatedBytes != null) {
      line(
          text,
          "device memory %s allocated, %s reserved, %s peak",
          DeviceOutOfMemoryException.words(deviceAllocatedBytes),
          DeviceOutOfMemoryException.words(deviceReservedBytes),
          DeviceOutOfMemoryException.words(devicePeakBytes));
    }
    if (deviceUtilization != null) {
      line(text, "device busy %.0f %% of the time", deviceUtilization);
    }
    line(
        text,
        "process memory %s, processors %.0f %% used",
        DeviceOutOfMemoryException.words(processMemoryBytes),
        100 * processCpu);
    line(text, "%s", bottleneck.hint());
    return text.toString();
  }

  private static void line(StringBuilder text, String format, Object... values) {
    text.append(text.length() == 0 ? "" : "\n").append(String.format(Locale.ROOT, format, values));
  }
}

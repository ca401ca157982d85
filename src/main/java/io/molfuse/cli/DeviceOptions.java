// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.ops.Capabilities;
import io.molfuse.ops.Molfuse;
import io.molfuse.train.Threads;
import org.bytedeco.pytorch.global.torch.DeviceType;
import picocli.CommandLine.Option;

/** Where to compute. */
final class DeviceOptions {
  /** What the user may ask for. */
  enum Choice {
    AUTO,
    CPU,
    CUDA;

    @Override
    public String toString() {
      return name().toLowerCase(java.util.Locale.ROOT);
    }
  }

  @Option(
      names = "--device",
      paramLabel = "DEVICE",
      defaultValue = "auto",
      description = "cpu, cuda, or auto (default: ${DEFAULT-VALUE}). The model runs on the CPU until all its operators have CUDA kernels.")
  private Choice choice;

  @Option(
      names = "--threads",
      paramLabel = "N",
      defaultValue = "0",
      description = "CPU threads (default: one per core).")
  private int threads;

  /** Sets the threads and checks that the device is there. */
  DeviceType select() {
    if (threads < 0) {
      throw new UsageException("--threads must be at least 1, but is " + threads);
    }
    Molfuse.load();
    if (threads > 0) {
      Threads.set(threads);
    }
    Capabilities capabilities = Molfuse.capabilities();
    if (choice == Choice.CUDA) {
      throw new FailureException(
          capabilities.cudaUsable()
              ? "--device cuda: attention and the linear loss, which the model needs, have no CUDA kernels yet"
              : "--device cuda: no GPU can be used: " + capabilities.cudaReason());
    }
    return DeviceType.CPU;
  }
}

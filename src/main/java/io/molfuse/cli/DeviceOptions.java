// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.ops.Capabilities;
import io.molfuse.ops.Molfuse;
import io.molfuse.train.Threads;
import org.bytedeco.pytorch.global.torch;
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
      description = "cpu, cuda, or auto: cuda where it can be used (default: ${DEFAULT-VALUE}).")
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
    if (choice == Choice.CPU) {
      return DeviceType.CPU;
    }
    String obstacle = obstacle(Molfuse.capabilities());
    if (obstacle == null) {
      return DeviceType.CUDA;
    }
    if (choice == Choice.CUDA) {
      throw new FailureException("--device cuda: no GPU can be used: " + obstacle);
    }
    return DeviceType.CPU;
  }

  /** Why no GPU can be used; null if one can. */
  private static String obstacle(Capabilities capabilities) {
    if (!capabilities.cudaUsable()) {
      return capabilities.cudaReason();
    }
    return torch.cuda_is_available()
        ? null
        : "libtorch sees none, as its CPU build does not; set MOLFUSE_GPU=1 to run on the CUDA build";
  }
}

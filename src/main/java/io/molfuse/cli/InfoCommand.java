// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.ops.Capabilities;
import io.molfuse.ops.CudaDevice;
import io.molfuse.ops.Molfuse;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.bytedeco.pytorch.global.torch;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** What the libraries are and can do here. */
@Command(name = "info", description = "Shows versions, the machine, and which backends can be used.")
final class InfoCommand implements Callable<Integer> {
  /** What is said of a version that there is none of. */
  private static final Map<String, String> MISSING =
      Map.of(
          "cuda", "not in this build of libtorch",
          "cudnn", "not in this build of libtorch",
          "attention_cudnn", "none was found",
          "cuda_driver", "none",
          "cuda_runtime", "not in this build of molfuse");

  private final Console console;

  @Mixin private CommonOptions common;

  @Option(names = "--json", description = "Write one JSON object.")
  private boolean json;

  InfoCommand(Console console) {
    this.console = console;
  }

  @Override
  public Integer call() {
    Capabilities found = Molfuse.capabilities();
    Map<String, Object> info = new LinkedHashMap<>();
    info.put("molfuse", found.version());
    info.put("libtorch", found.libtorch());
    boolean cuda = torch.hasCUDA();
    info.put("cuda", cuda ? cudaVersion(torch.getCUDAHooks().versionCUDART()) : null);
    info.put("cudnn", cuda && torch.getCUDAHooks().hasCuDNN() ? cudnnVersion(torch.getCUDAHooks().versionCuDNN()) : null);
    info.put("java", System.getProperty("java.version"));
    info.put("cpu_vector_level", found.cpuVectorLevel());
    info.put("cpu_vector_best", found.cpuVectorBest());
    info.put("cpu_threads", found.cpuThreads());
    CudaDevice first = Molfuse.cudaDevice(0);
    info.put("cuda_driver", CudaDevice.version(first.driverVersion()));
    info.put("cuda_runtime", CudaDevice.version(first.runtimeVersion()));
    info.put("gpus", gpus());
    Map<String, Object> backends = new LinkedHashMap<>();
    backends.put("cpu", backend(true, ""));
    backends.put("cuda", backend(found.cudaUsable(), found.cudaReason()));
    backends.put("cudnn", backend(found.cudnnUsable(), found.cudnnReason()));
    info.put("attention_backend", found.attentionBackend());
    info.put("attention_cudnn", found.cudnnVersion() == 0 ? null : cudnnVersion(found.cudnnVersion()));
    info.put("backends", backends);
    if (json) {
      console.json(info);
    } else {
      print(info, backends);
    }
    return Main.SUCCESS;
  }

  private void print(Map<String, Object> info, Map<String, Object> backends) {
    info.forEach(
        (name, value) -> {
          if (value == null) {
            line(name.replace('_', ' '), MISSING.get(name));
          } else if (name.equals("gpus")) {
            List<?> gpus = (List<?>) value;
            line(name, gpus.isEmpty() ? "none" : String.join(", ", gpus.stream().map(InfoCommand::gpu).toList()));
          } else if (!name.equals("backends")) {
            line(name.replace('_', ' '), value.toString());
          }
        });
    backends.forEach(
        (name, backend) -> {
          Map<?, ?> values = (Map<?, ?>) backend;
          line("backend " + name, (Boolean) values.get("usable") ? "usable" : "not usable: " + values.get("reason"));
        });
  }

  private static String gpu(Object described) {
    Map<?, ?> gpu = (Map<?, ?>) described;
    return "%s %s (%.1f GiB, compute capability %s, %s multiprocessors)"
        .formatted(
            gpu.get("index"), gpu.get("name"), (Long) gpu.get("memory_bytes") / (double) (1L << 30), gpu.get("compute_capability"),
            gpu.get("multiprocessors"));
  }

  private void line(String name, String value) {
    console.out().printf("%-18s%s%n", name, value);
  }

  private static Map<String, Object> backend(boolean usable, String reason) {
    Map<String, Object> backend = new LinkedHashMap<>();
    backend.put("usable", usable);
    backend.put("reason", usable ? null : reason);
    return backend;
  }

  private static List<Map<String, Object>> gpus() {
    List<Map<String, Object>> gpus = new ArrayList<>();
    for (CudaDevice device : Molfuse.cudaDevices()) {
      Map<String, Object> gpu = new LinkedHashMap<>();
      gpu.put("index", device.index());
      gpu.put("name", device.name());
      gpu.put("memory_bytes", device.totalMemory());
      gpu.put("compute_capability", device.computeCapability());
      gpu.put("multiprocessors", device.multiprocessors());
      gpu.put("shared_memory_per_block_bytes", device.sharedMemoryPerBlock());
      gpu.put("usable", device.usable());
      gpu.put("reason", device.usable() ? null : device.reason());
      gpus.add(gpu);
    }
    return gpus;
  }

  /** CUDA counts 13.1 as 13010. */
  private static String cudaVersion(long number) {
    return number / 1000 + "." + number % 1000 / 10;
  }

  /** cuDNN counts 9.19.0 as 91900. */
  private static String cudnnVersion(long number) {
    return number / 10000 + "." + number % 10000 / 100 + "." + number % 100;
  }
}

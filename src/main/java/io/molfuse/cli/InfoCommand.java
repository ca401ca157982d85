// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import io.molfuse.ops.Capabilities;
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
    info.put("gpus", gpus());
    Map<String, Object> backends = new LinkedHashMap<>();
    backends.put("cpu", backend(true, ""));
    backends.put("cuda", backend(found.cudaUsable(), found.cudaReason()));
    backends.put("cudnn", backend(found.cudnnUsable(), found.cudnnReason()));
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
            line(name, "not in this build of libtorch");
          } else if (name.equals("gpus")) {
            List<?> gpus = (List<?>) value;
            line(name, gpus.isEmpty() ? "none" : String.join(", ", gpus.stream().map(String::valueOf).toList()));
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
    int count = torch.cuda_is_available() ? torch.cuda_device_count() : 0;
    for (int i = 0; i < count; i++) {
      gpus.add(Map.of("index", i));
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

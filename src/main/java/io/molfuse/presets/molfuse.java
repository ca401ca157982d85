// SPDX-License-Identifier: Apache-2.0
package io.molfuse.presets;

import org.bytedeco.javacpp.annotation.Platform;
import org.bytedeco.javacpp.annotation.Properties;
import org.bytedeco.javacpp.tools.Info;
import org.bytedeco.javacpp.tools.InfoMap;
import org.bytedeco.javacpp.tools.InfoMapper;

/**
 * JavaCPP's configuration for {@code torch/molfuse_torch.h}, from which the build generates {@link MolfuseNative}. It inherits
 * libtorch's preset, so that the functions take and return {@link org.bytedeco.pytorch.Tensor} and its relatives, and so that
 * libtorch's libraries are loaded before ours.
 *
 * <p>The name is in lower case, as JavaCPP presets are named after the library they configure.
 */
@Properties(
    inherit = org.bytedeco.pytorch.presets.torch.class,
    value =
        @Platform(
            value = "linux",
            compiler = "cpp17",
            include = "molfuse_torch.h",
            // The inherited headers are libtorch's whole C++ interface. Ours includes what its functions need, and the inherited
            // type map alone tells the parser which Java classes exist.
            exclude = {
              "torch/torch.h",
              "torch/script.h",
              "ATen/autocast_mode.h",
              "torch/csrc/inductor/aoti_runner/model_container_runner_cpu.h",
              "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp",
              "torch/csrc/distributed/c10d/PrefixStore.hpp",
              "torch/csrc/distributed/c10d/FileStore.hpp",
              "torch/csrc/distributed/c10d/TCPStore.hpp",
              "torch/csrc/distributed/c10d/logger.hpp",
              "torch/csrc/jit/runtime/instruction.h",
              "torch/csrc/jit/serialization/source_range_serialization.h",
              "torch/csrc/jit/frontend/resolver.h",
              "torch/csrc/jit/frontend/tree_views.h",
              "torch/csrc/jit/serialization/storage_context.h",
              "datasets.h",
              "pytorch_adapters.h",
              "gloo/common/logging.cc"
            },
            link = {"molfuse", "molfuse_torch"},
            library = "jnimolfuse"),
    target = "io.molfuse.presets",
    global = "io.molfuse.presets.MolfuseNative")
public class molfuse implements InfoMapper {
  @Override
  public void map(InfoMap infoMap) {
    // Every other type in use is in libtorch's map.
    infoMap.put(new Info("molfuse::torch_api::recompute_callback").valueTypes("RecomputeCallback").pointerTypes("RecomputeCallback"));
  }
}

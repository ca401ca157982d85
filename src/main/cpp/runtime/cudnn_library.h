// SPDX-License-Identifier: Apache-2.0
// libcudnn 9, looked for when it is first asked for: the build needs its headers only, and a machine without it lacks nothing but a backend.
#pragma once

#include <string>

namespace molfuse {

/// The oldest cuDNN whose attention is used. Those before compute the gradients of key counts that are no multiple of 128 only with lengths
/// that the host copies into the workspace at each call, which a CUDA graph would not repeat.
constexpr int kLowestCudnn = 91501;

struct CudnnLibrary {
  bool usable = false;
  int version = 0;     ///< 91900 for 9.19.0; 0: not found
  std::string reason;  ///< why it is not usable
};

/// What there is now. It is looked for again until it was found once: libtorch's GPU build may bring it along later.
/// MOLFUSE_CUDNN in the environment names the library, or its folder, or is "off"; else the one that the process has loaded, else the
/// loader's.
CudnnLibrary cudnn_library();

/// "9.19.0" for 91900.
std::string cudnn_version_text(int version);

}  // namespace molfuse

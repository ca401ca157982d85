// SPDX-License-Identifier: Apache-2.0
// What an error of the CUDA runtime means to the caller: a status and a text. Errors are plain numbers here (a cudaError_t), so that this
// is compiled and tested where there is no CUDA.
#pragma once

#include "runtime/check.h"

namespace molfuse {

constexpr int kDeviceOutOfMemory = 2;

/// Where a CUDA error came up. Names may be empty, device -1 for none.
struct DeviceErrorContext {
  const char* function = "";     ///< of the C interface
  const char* doing = "";        ///< the step that failed: a kernel's name, or words
  int device = -1;
  const char* device_name = "";
};

/// name and description: what the runtime calls the error.
Error device_error(int error, const char* name, const char* description, const DeviceErrorContext& where);

/// Why no device can be used, given the error of asking for their number. Versions as CUDA counts them, 13000 for 13.0; driver 0: none.
std::string no_device_text(int error, const char* description, int driver_version, int runtime_version);

/// "13.0" for 13000.
std::string cuda_version_text(int version);

/// True if after this error every later call of the process fails too.
bool ends_process(int error);

}  // namespace molfuse

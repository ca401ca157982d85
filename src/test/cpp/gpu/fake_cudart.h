// SPDX-License-Identifier: Apache-2.0
// A CUDA runtime that does nothing but keep books and fail when asked to: for the tests of what calls it, where there is no GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <set>
#include <string>
#include <vector>

namespace fake_cudart {

struct Launch {
  const void* kernel;
  int device;
  unsigned blocks, threads;
  size_t shared;
  cudaStream_t stream;
};

struct State {
  int devices = 64;
  int driver_version = 13000;
  cudaError_t count_error = cudaSuccess;  ///< of cudaGetDeviceCount, until changed

  std::string failing;  ///< the function whose next call fails
  cudaError_t error = cudaSuccess;
  bool capturing = false;  ///< a stream is captured in the global mode, by whatever thread

  int current_device = 0;
  cudaError_t last_error = cudaSuccess;
  cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
  std::set<void*> device_memory, host_memory;
  std::vector<Launch> launches;
  size_t asked_shared = 0;  ///< by cudaFuncSetAttribute
};
State& state();

/// The one whose compute capability is 7.5; the others' is 9.0.
constexpr int kOldDevice = 60;

}  // namespace fake_cudart

// SPDX-License-Identifier: Apache-2.0
#include "gpu/fake_cudart.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

using fake_cudart::state;

namespace {

cudaError_t result(const char* function, bool refused_in_capture = false) {
  cudaError_t error = cudaSuccess;
  if (refused_in_capture && state().capturing && state().capture_mode != cudaStreamCaptureModeRelaxed) {
    error = cudaErrorStreamCaptureUnsupported;
  }
  if (state().failing == function) {
    state().failing.clear();
    error = state().error;
  }
  if (error != cudaSuccess) state().last_error = error;
  return error;
}

}  // namespace

fake_cudart::State& fake_cudart::state() {
  static State state;
  return state;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = state().count_error == cudaSuccess ? state().devices : 0;
  return state().count_error;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = state().driver_version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  std::memset(static_cast<void*>(properties), 0, sizeof *properties);
  std::snprintf(properties->name, sizeof properties->name, "Device number %d", device);
  properties->major = device == fake_cudart::kOldDevice ? 7 : 9;
  properties->minor = device == fake_cudart::kOldDevice ? 5 : 0;
  properties->multiProcessorCount = 100 + device;
  properties->sharedMemPerBlockOptin = 200 << 10;
  properties->totalGlobalMem = size_t{80} << 30;
  return result("cudaGetDeviceProperties");
}
cudaError_t cudaGetDevice(int* device) {
  *device = state().current_device;
  return result("cudaGetDevice");
}
cudaError_t cudaSetDevice(int device) {
  const cudaError_t error = result("cudaSetDevice");
  if (error == cudaSuccess) state().current_device = device;
  return error;
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  const cudaError_t error = result("cudaHostAlloc", true);
  if (error == cudaSuccess) state().host_memory.insert(*memory = std::malloc(bytes));
  return error;
}
cudaError_t cudaFreeHost(void* memory) {
  state().host_memory.erase(memory);
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return result("cudaHostGetDevicePointer");
}
cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t) {
  const cudaError_t error = result("cudaMallocAsync");
  if (error == cudaSuccess) state().device_memory.insert(*memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  return error;
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  state().device_memory.erase(memory);
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  const cudaError_t error = result("cudaMemsetAsync");
  if (error == cudaSuccess) std::memset(memory, value, bytes);
  return error;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
  state().asked_shared = static_cast<size_t>(value);
  return result("cudaFuncSetAttribute");
}
cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void**, size_t shared, cudaStream_t stream) {
  const cudaError_t error = result("cudaLaunchKernel", true);  // the first launch loads the kernel's code
  if (error == cudaSuccess) state().launches.push_back({kernel, state().current_device, grid.x, block.x, shared, stream});
  return error;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, state().capture_mode);
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return std::exchange(state().last_error, cudaSuccess); }
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorOfTheTest"; }
const char* cudaGetErrorString(cudaError_t) { return "an error that was asked for"; }

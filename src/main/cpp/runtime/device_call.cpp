// SPDX-License-Identifier: Apache-2.0
// DeviceCall over the CUDA runtime.
#if defined(MOLFUSE_WITH_CUDA) && !defined(MOLFUSE_SIMT)
#include "runtime/device_call.h"

#include <cuda_runtime_api.h>

#include <mutex>

namespace molfuse {
namespace {

constexpr int kMaxDevices = 64;
// The oldest architecture that the library holds code for.
constexpr int kLowestCapability = 80;

[[noreturn]] void throw_cuda(const char* doing, cudaError_t error) {
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not sticky: the device can go on
    throw Error{MOLFUSE_OUT_OF_MEMORY, std::string("out of device memory: ") + doing};
  }
  const cudaError_t sticky = cudaGetLastError();
  std::string text = std::string("CUDA: ") + doing + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")";
  if (sticky == error && cudaPeekAtLastError() != cudaSuccess) text += "; the process can no longer use the device";
  throw Error{MOLFUSE_INTERNAL_ERROR, text};
}

void check_cuda(const char* doing, cudaError_t error) {
  if (error != cudaSuccess) throw_cuda(doing, error);
}

struct Device {
  std::once_flag once;
  DeviceInfo info{};
  unsigned long long* report_host = nullptr;  // pinned: written by kernels, read here without waiting
  unsigned long long* report_device = nullptr;
  std::string failure;
};

Device& device_at(int index) {
  static Device devices[kMaxDevices];
  Device& device = devices[index];
  std::call_once(device.once, [&] {
    auto attribute = [&](cudaDeviceAttr which) {
      int value = 0;
      if (cudaDeviceGetAttribute(&value, which, index) != cudaSuccess) device.failure = "its attributes cannot be read";
      return value;
    };
    device.info.index = index;
    device.info.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
    device.info.major = attribute(cudaDevAttrComputeCapabilityMajor);
    device.info.minor = attribute(cudaDevAttrComputeCapabilityMinor);
    device.info.shared_per_block = static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
    if (device.failure.empty() && device.info.major * 10 + device.info.minor < kLowestCapability) {
      device.failure = "its compute capability is " + std::to_string(device.info.major) + "." + std::to_string(device.info.minor) +
                       ", this build needs 8.0 or newer";
    }
    if (!device.failure.empty()) return;
    void* host = nullptr;
    void* mapped = nullptr;
    if (cudaHostAlloc(&host, sizeof(unsigned long long), cudaHostAllocMapped | cudaHostAllocPortable) != cudaSuccess ||
        cudaHostGetDevicePointer(&mapped, host, 0) != cudaSuccess) {
      cudaGetLastError();
      device.failure = "page-locked memory cannot be allocated";
      return;
    }
    device.report_host = static_cast<unsigned long long*>(host);
    device.report_device = static_cast<unsigned long long*>(mapped);
    *device.report_host = 0;
  });
  return device;
}

cudaStream_t stream_of(const molfuse_execution& execution) { return static_cast<cudaStream_t>(execution.stream); }

}  // namespace

bool device_usable(const char** reason) {
  static thread_local std::string text;
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    cudaGetLastError();
    text = driver == 0 ? "there is no NVIDIA driver"
                       : "the driver supports CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) +
                             ", which is older than this build's " + std::to_string(CUDART_VERSION / 1000) + "." +
                             std::to_string(CUDART_VERSION % 1000 / 10);
  } else if (error != cudaSuccess) {
    text = cudaGetErrorString(error);
  } else if (count == 0) {
    text = "there is no CUDA device";
  } else {
    text.clear();
  }
  *reason = text.c_str();
  return text.empty();
}

DeviceCall::DeviceCall(const molfuse_execution& execution, const char* function) : execution_(execution) {
  const char* reason = "";
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess && !device_usable(&reason)) unsupported("%s: %s", function, reason);
  const int index = execution.device_index;
  if (index < 0 || index >= count || index >= kMaxDevices) {
    invalid("%s: execution->device_index is %d, there are %d devices", function, index, count);
  }
  check_cuda("asking for the current device", cudaGetDevice(&previous_device_));
  if (previous_device_ != index) check_cuda("changing the device", cudaSetDevice(index));
  Device& device = device_at(index);
  if (!device.failure.empty()) {
    const std::string failure = device.failure;
    if (previous_device_ != index) cudaSetDevice(previous_device_);
    unsupported("%s: device %d cannot be used: %s", function, index, failure.c_str());
  }
  device_ = &device.info;
  report_ = device.report_device;
  const unsigned long long word = __atomic_exchange_n(device.report_host, 0ull, __ATOMIC_ACQ_REL);
  if (word != 0) {
    if (previous_device_ != index) cudaSetDevice(previous_device_);
    throw_report(word);
  }
}

DeviceCall::~DeviceCall() {
  for (void* memory : allocated_) {
    if (execution_.release != nullptr) {
      execution_.release(execution_.allocator_context, memory);
    } else {
      cudaFreeAsync(memory, stream_of(execution_));
    }
  }
  if (previous_device_ != device_->index) cudaSetDevice(previous_device_);
}

void* DeviceCall::allocate(size_t bytes) {
  allocated_.reserve(allocated_.size() + 1);
  void* memory = nullptr;
  if (execution_.allocate != nullptr) {
    memory = execution_.allocate(execution_.allocator_context, bytes);
    if (memory == nullptr) throw Error{MOLFUSE_OUT_OF_MEMORY, "out of device memory: scratch of " + std::to_string(bytes) + " bytes"};
  } else {
    check_cuda("allocating scratch memory", cudaMallocAsync(&memory, bytes, stream_of(execution_)));
  }
  allocated_.push_back(memory);
  return memory;
}

void DeviceCall::zero(void* at, size_t bytes) {
  if (bytes > 0) check_cuda("setting memory to zero", cudaMemsetAsync(at, 0, bytes, stream_of(execution_)));
}

void DeviceCall::launch_kernel(const char* name, const void* kernel, Grid grid, int threads, size_t shared, void** arguments) {
  if (shared > device_->shared_per_block) {
    unsupported("%s: needs %zu bytes of shared memory in a block, the device has %zu", name, shared, device_->shared_per_block);
  }
  // More than this has to be asked for.
  if (shared > (size_t{48} << 10)) {
    check_cuda(name, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  }
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
  check_cuda(name, cudaLaunchKernel(kernel, blocks, dim3(static_cast<unsigned>(threads)), arguments, shared, stream_of(execution_)));
}

}  // namespace molfuse
#endif

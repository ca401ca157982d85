// SPDX-License-Identifier: Apache-2.0
// DeviceCall over the CUDA runtime.
#if defined(MOLFUSE_WITH_CUDA) && !defined(MOLFUSE_SIMT)
#include "runtime/device_call.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <mutex>

namespace molfuse {
namespace {

constexpr int kMaxDevices = 64;
// The oldest architecture that the library holds code for.
constexpr int kLowestCapability = 80;

// The numbers in device_error.cpp.
static_assert(cudaErrorMemoryAllocation == 2 && cudaErrorStubLibrary == 34 && cudaErrorInsufficientDriver == 35 &&
              cudaErrorCallRequiresNewerDriver == 36 && cudaErrorDevicesUnavailable == 46 && cudaErrorNoDevice == 100 &&
              cudaErrorInvalidDevice == 101 && cudaErrorInvalidKernelImage == 200 && cudaErrorNoKernelImageForDevice == 209 &&
              cudaErrorECCUncorrectable == 214 && cudaErrorInvalidPtx == 218 && cudaErrorNvlinkUncorrectable == 220 &&
              cudaErrorJitCompilerNotFound == 221 && cudaErrorUnsupportedPtxVersion == 222 && cudaErrorJitCompilationDisabled == 223 &&
              cudaErrorContained == 226 && cudaErrorInvalidResourceHandle == 400);
static_assert(cudaErrorIllegalAddress == 700 && cudaErrorLaunchOutOfResources == 701 && cudaErrorLaunchTimeout == 702 &&
              cudaErrorContextIsDestroyed == 709 && cudaErrorAssert == 710 && cudaErrorHardwareStackError == 714 &&
              cudaErrorIllegalInstruction == 715 && cudaErrorMisalignedAddress == 716 && cudaErrorInvalidAddressSpace == 717 &&
              cudaErrorInvalidPc == 718 && cudaErrorLaunchFailure == 719 && cudaErrorTensorMemoryLeak == 721 &&
              cudaErrorSystemNotReady == 802 && cudaErrorSystemDriverMismatch == 803 && cudaErrorCompatNotSupportedOnDevice == 804 &&
              cudaErrorMpsClientTerminated == 810 && cudaErrorStreamCaptureUnsupported == 900 && cudaErrorStreamCaptureInvalidated == 901 &&
              cudaErrorStreamCaptureMerge == 902 && cudaErrorStreamCaptureIsolation == 905 && cudaErrorStreamCaptureImplicit == 906 &&
              cudaErrorCapturedEvent == 907 && cudaErrorStreamCaptureWrongThread == 908 && cudaErrorExternalDevice == 911);

void check_cuda(cudaError_t error, const DeviceErrorContext& where) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // told here; the next call shall not find it again
  throw device_error(error, cudaGetErrorName(error), cudaGetErrorString(error), where);
}

/// Allocating page-locked memory and loading a kernel's code, which its first launch does, are refused while a stream is captured, unless
/// the thread says that nothing captured depends on them.
class WhileCapturing {
 public:
  WhileCapturing() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~WhileCapturing() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  WhileCapturing(const WhileCapturing&) = delete;
  WhileCapturing& operator=(const WhileCapturing&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

/// What is kept of a device. A step that fails is tried again by the next call.
struct Device {
  std::once_flag known, ready;
  DeviceInfo info{};
  unsigned long long* report_host = nullptr;  // pinned: written by kernels, read here without waiting
  unsigned long long* report_device = nullptr;
};

Device& device_at(int index, const char* function) {
  static Device devices[kMaxDevices];
  Device& device = devices[index];
  std::call_once(device.known, [&] {
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, index), {function, "reading its properties", index, ""});
    device.info = {index, properties.multiProcessorCount, properties.major, properties.minor, properties.sharedMemPerBlockOptin,
                   properties.totalGlobalMem, ""};
    std::snprintf(device.info.name, sizeof device.info.name, "%.63s", properties.name);
  });
  return device;
}

/// Makes kernels' reports of wrong values possible. The device is the current one.
void prepare_reports(Device& device, const char* function) {
  std::call_once(device.ready, [&] {
    const WhileCapturing allowed;
    const DeviceErrorContext where{function, "allocating page-locked memory", device.info.index, device.info.name};
    void* host = nullptr;
    void* mapped = nullptr;
    check_cuda(cudaHostAlloc(&host, sizeof(unsigned long long), cudaHostAllocMapped | cudaHostAllocPortable), where);
    const cudaError_t error = cudaHostGetDevicePointer(&mapped, host, 0);
    if (error != cudaSuccess) cudaFreeHost(host);
    check_cuda(error, where);
    device.report_host = static_cast<unsigned long long*>(host);
    device.report_device = static_cast<unsigned long long*>(mapped);
    *device.report_host = 0;
  });
}

std::string too_old(const DeviceInfo& info) {
  if (info.major * 10 + info.minor >= kLowestCapability) return "";
  return "its compute capability is " + std::to_string(info.major) + "." + std::to_string(info.minor) + ", this build needs 8.0 or newer";
}

cudaStream_t stream_of(const molfuse_execution& execution) { return static_cast<cudaStream_t>(execution.stream); }

struct Devices {
  int count = 0;
  cudaError_t error = cudaSuccess;
  std::string reason;  ///< why there are none
};

Devices find_devices() {
  Devices found;
  int driver = 0;
  found.error = cudaGetDeviceCount(&found.count);
  if (found.error != cudaSuccess) found.count = 0;
  found.count = std::min(found.count, kMaxDevices);
  if (found.count > 0) return found;
  cudaDriverGetVersion(&driver);
  cudaGetLastError();
  found.reason = no_device_text(found.error, cudaGetErrorString(found.error), driver, CUDART_VERSION);
  return found;
}

}  // namespace

bool device_usable(const char** reason) {
  static thread_local std::string text;
  DeviceDescription device = describe_device(0);
  text = device.reason;
  for (int index = 1; index < device.count && !device.reason.empty(); ++index) device = describe_device(index);
  if (device.reason.empty()) text.clear();
  *reason = text.c_str();
  return text.empty();
}

DeviceDescription describe_device(int index) {
  DeviceDescription result;
  cudaDriverGetVersion(&result.driver_version);
  cudaRuntimeGetVersion(&result.runtime_version);
  cudaGetLastError();
  const Devices found = find_devices();
  result.count = found.count;
  result.reason = found.reason;
  if (index >= result.count) return result;
  try {
    result.info = device_at(index, "molfuse_get_device_info").info;
    result.reason = too_old(result.info);
  } catch (const Error& error) {
    result.reason = error.text;
  }
  return result;
}

DeviceCall::DeviceCall(const molfuse_execution& execution, const char* function) : execution_(execution), function_(function) {
  const Devices found = find_devices();
  if (ends_process(found.error)) check_cuda(found.error, {function, "asking for the devices", -1, ""});
  if (found.count == 0) unsupported("%s: %s", function, found.reason.c_str());
  const int index = execution.device_index;
  if (index < 0 || index >= found.count) invalid("%s: execution->device_index is %d, there are %d devices", function, index, found.count);
  Device& device = device_at(index, function);
  device_ = &device.info;
  const std::string reason = too_old(device.info);
  if (!reason.empty()) unsupported("%s: device %d (%s) cannot be used: %s", function, index, device.info.name, reason.c_str());
  check_cuda(cudaGetDevice(&previous_device_), at("asking for the current device"));
  if (previous_device_ != index) check_cuda(cudaSetDevice(index), at("making it the current device"));
  try {
    prepare_reports(device, function);
    report_ = device.report_device;
    throw_report(__atomic_exchange_n(device.report_host, 0ull, __ATOMIC_ACQ_REL));
  } catch (...) {
    if (previous_device_ != index) cudaSetDevice(previous_device_);
    throw;
  }
}

DeviceCall::~DeviceCall() {
  release_all();
  if (previous_device_ != device_->index) cudaSetDevice(previous_device_);
}

void* DeviceCall::allocate_own(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaMallocAsync(&memory, bytes, stream_of(execution_));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check_cuda(error, at("allocating scratch memory"));
  return memory;
}

void DeviceCall::release_own(void* memory) { cudaFreeAsync(memory, stream_of(execution_)); }

void DeviceCall::zero(void* to, size_t bytes) {
  if (bytes > 0) check_cuda(cudaMemsetAsync(to, 0, bytes, stream_of(execution_)), at("setting memory to zero"));
}

void DeviceCall::external(const std::function<void()>& calls) {
  const WhileCapturing allowed;
  calls();
}

void DeviceCall::launch_kernel(const char* name, const void* kernel, Grid grid, int threads, size_t shared, void** arguments) {
  const WhileCapturing allowed;
  // More than this has to be asked for: always all there is, so that a call of another thread does not take it back before the launch.
  if (shared > (size_t{48} << 10)) {
    if (shared > device_->shared_per_block) {
      unsupported("%s: %s needs %zu bytes of shared memory for a block, this device has %zu", function_, name, shared, device_->shared_per_block);
    }
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(device_->shared_per_block)), at(name));
  }
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
  check_cuda(cudaLaunchKernel(kernel, blocks, dim3(static_cast<unsigned>(threads)), arguments, shared, stream_of(execution_)), at(name));
}

}  // namespace molfuse
#endif

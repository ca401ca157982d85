// SPDX-License-Identifier: Apache-2.0
// What libtorch's device allocator and the driver say about a device: memory in use, peaks, how busy it is. The presets reach the
// allocator only through classes of their CUDA build; this goes through its device-generic interface, which every build has.
#include <ATen/DeviceAccelerator.h>
#include <dlfcn.h>

#include <limits>
#include <string>

#include "torch/common.h"

namespace molfuse::torch_api {
namespace {

c10::DeviceIndex checked_index(int64_t device) {
  MOLFUSE_CHECK(device >= 0 && device <= std::numeric_limits<c10::DeviceIndex>::max(), "device: expected the number of a device, got ",
                device);
  return static_cast<c10::DeviceIndex>(device);
}

at::DeviceAllocator* allocator_of(int64_t device) {
  const auto index = checked_index(device);
  const auto type = at::accelerator::getAccelerator();
  TORCH_CHECK_NOT_IMPLEMENTED(type.has_value() && at::accelerator::deviceCount() > index,
                              "molfuse: unsupported: device memory is known of accelerators only, and there is none with number ", device);
  return at::getDeviceAllocator(*type);
}

/// The two libraries of the NVIDIA driver that know how busy a device is. The second is needed since NVML numbers devices as the
/// machine has them, CUDA as CUDA_VISIBLE_DEVICES lists them: the PCI address is what both agree on.
class Driver {
 public:
  Driver() {
    void* const cuda = dlopen("libcuda.so.1", RTLD_LAZY);
    void* const nvml = dlopen("libnvidia-ml.so.1", RTLD_LAZY);
    if (cuda == nullptr || nvml == nullptr) return;
    const auto cuda_init = function<int(unsigned)>(cuda, "cuInit");
    const auto nvml_init = function<int()>(nvml, "nvmlInit_v2");
    device_get_ = function<int(int*, int)>(cuda, "cuDeviceGet");
    pci_bus_id_ = function<int(char*, int, int)>(cuda, "cuDeviceGetPCIBusId");
    handle_by_pci_ = function<int(const char*, void**)>(nvml, "nvmlDeviceGetHandleByPciBusId_v2");
    utilization_ = function<int(void*, Utilization*)>(nvml, "nvmlDeviceGetUtilizationRates");
    if (cuda_init == nullptr || nvml_init == nullptr || device_get_ == nullptr || pci_bus_id_ == nullptr) return;
    usable_ = handle_by_pci_ != nullptr && utilization_ != nullptr && cuda_init(0) == 0 && nvml_init() == 0;
  }

  int64_t utilization(int device) const {
    int cuda_device = 0;
    char address[32] = {};
    void* handle = nullptr;
    Utilization rates{};
    const bool known = usable_ && device_get_(&cuda_device, device) == 0 && pci_bus_id_(address, sizeof(address), cuda_device) == 0 &&
                       handle_by_pci_(address, &handle) == 0 && utilization_(handle, &rates) == 0;
    return known ? static_cast<int64_t>(rates.gpu) : -1;
  }

 private:
  /// nvmlUtilization_t
  struct Utilization {
    unsigned gpu;
    unsigned memory;
  };

  template <typename Signature>
  static Signature* function(void* library, const char* name) {
    return reinterpret_cast<Signature*>(dlsym(library, name));
  }

  int (*device_get_)(int*, int) = nullptr;
  int (*pci_bus_id_)(char*, int, int) = nullptr;
  int (*handle_by_pci_)(const char*, void**) = nullptr;
  int (*utilization_)(void*, Utilization*) = nullptr;
  bool usable_ = false;
};

}  // namespace

std::string device_memory(int64_t device) {
  at::DeviceAllocator* const allocator = allocator_of(device);
  // Before libtorch's first use of a device the allocator knows no device at all, and asking it is an error.
  c10::CachingDeviceAllocator::DeviceStats stats;
  if (allocator->initialized()) stats = allocator->getDeviceStats(checked_index(device));
  const auto [free, total] = allocator->getMemoryInfo(checked_index(device));
  constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  std::string json = "{\"allocated\":" + std::to_string(stats.allocated_bytes[all].current);
  json += ",\"reserved\":" + std::to_string(stats.reserved_bytes[all].current);
  json += ",\"peak_allocated\":" + std::to_string(stats.allocated_bytes[all].peak);
  json += ",\"peak_reserved\":" + std::to_string(stats.reserved_bytes[all].peak);
  json += ",\"free\":" + std::to_string(free);
  json += ",\"total\":" + std::to_string(total);
  return json + "}";
}

void reset_peak_memory(int64_t device) {
  at::DeviceAllocator* const allocator = allocator_of(device);
  if (allocator->initialized()) allocator->resetPeakStats(checked_index(device));
}

void empty_device_cache(int64_t device) {
  at::DeviceAllocator* const allocator = allocator_of(device);
  if (allocator->initialized()) allocator->emptyCache();
}

int64_t device_utilization(int64_t device) {
  static const Driver driver;
  return driver.utilization(checked_index(device));
}

}  // namespace molfuse::torch_api

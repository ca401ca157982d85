// SPDX-License-Identifier: Apache-2.0
// What DeviceCall does alike on every kind of device: scratch memory, which the caller's allocator may provide, and the limits of a launch.
#include "runtime/device_call.h"

namespace molfuse {
#if defined(MOLFUSE_WITH_CUDA)

DeviceErrorContext DeviceCall::at(const char* doing) const { return {function_, doing, device_->index, device_->name}; }

void* DeviceCall::allocate(size_t bytes) {
  allocated_.reserve(allocated_.size() + 1);
  const bool callers = execution_.allocate != nullptr;
  void* memory = callers ? execution_.allocate(execution_.allocator_context, bytes) : allocate_own(bytes);
  if (memory == nullptr) {
    Error error = device_error(kDeviceOutOfMemory, "", "", at("allocating scratch memory"));
    error.text += " (" + std::to_string(bytes) + " bytes" + (callers ? " from execution->allocate)" : ")");
    throw error;
  }
  allocated_.push_back(memory);
  if (reinterpret_cast<uintptr_t>(memory) % kScratchAlignment != 0) {
    invalid("%s: execution->allocate: expected memory aligned to %zu bytes, got %p", function_, kScratchAlignment, memory);
  }
  return memory;
}

void DeviceCall::release_all() {
  for (void* memory : allocated_) {
    if (execution_.allocate != nullptr) {
      execution_.release(execution_.allocator_context, memory);
    } else {
      release_own(memory);
    }
  }
  allocated_.clear();
}

void DeviceCall::check_launch(const char* name, const Grid& grid, size_t shared) const {
  if (grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535) {
    unsupported("%s: %s: too large for one launch (%lld x %lld x %lld blocks)", function_, name, static_cast<long long>(grid.x),
                static_cast<long long>(grid.y), static_cast<long long>(grid.z));
  }
  if (shared > device_->shared_per_block) {
    unsupported("%s: device %d (%s): %s: a block needs %zu bytes of shared memory, the device has %zu", function_, device_->index,
                device_->name, name, shared, device_->shared_per_block);
  }
}

#endif
}  // namespace molfuse

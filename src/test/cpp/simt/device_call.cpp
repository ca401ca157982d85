// SPDX-License-Identifier: Apache-2.0
// DeviceCall over the simulated device: "device memory" is host memory that the tests made known, streams do not exist.
#include "runtime/device_call.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

namespace molfuse {
namespace {

unsigned long long report_word;
const simt::Memory report_memory(&report_word, sizeof report_word);

std::map<void*, std::unique_ptr<simt::Memory>>& scratch_memory() {
  static std::map<void*, std::unique_ptr<simt::Memory>> memory;
  return memory;
}

}  // namespace

bool device_usable(const char** reason) {
  *reason = "";
  return true;
}

DeviceCall::DeviceCall(const molfuse_execution& execution, const char* function) : execution_(execution) {
  static DeviceInfo info;
  if (execution.device_index != 0) invalid("%s: execution->device_index is %d, there are 1 devices", function, execution.device_index);
  info = {0, simt::settings().multiprocessors, 9, 0, simt::settings().max_shared};
  device_ = &info;
  report_ = &report_word;
  const unsigned long long word = report_word;
  report_word = 0;
  throw_report(word);
}

DeviceCall::~DeviceCall() {
  for (void* memory : allocated_) {
    scratch_memory().erase(memory);
    if (execution_.release != nullptr) {
      execution_.release(execution_.allocator_context, memory);
    } else {
      std::free(memory);
    }
  }
}

void* DeviceCall::allocate(size_t bytes) {
  void* memory = nullptr;
  // Exactly as long as asked for, so that AddressSanitizer sees accesses beyond it, and poisoned.
  if (execution_.allocate != nullptr) {
    memory = execution_.allocate(execution_.allocator_context, bytes);
    if (memory == nullptr) throw Error{MOLFUSE_OUT_OF_MEMORY, "out of device memory: scratch of " + std::to_string(bytes) + " bytes"};
  } else if (posix_memalign(&memory, 256, bytes) != 0) {
    throw std::bad_alloc();
  }
  std::memset(memory, 0xFF, bytes);
  scratch_memory()[memory] = std::make_unique<simt::Memory>(memory, bytes);
  allocated_.push_back(memory);
  return memory;
}

void DeviceCall::zero(void* at, size_t bytes) { std::memset(at, 0, bytes); }

void DeviceCall::simulate(const char* name, Grid grid, int threads, size_t shared, const std::function<void()>& body) {
  try {
    simt::run(name, {static_cast<int>(grid.x), static_cast<int>(grid.y), static_cast<int>(grid.z)}, threads, shared, body);
  } catch (const simt::Error& error) {
    throw Error{MOLFUSE_INTERNAL_ERROR, std::string("simulated device: ") + error.what()};
  }
}

}  // namespace molfuse

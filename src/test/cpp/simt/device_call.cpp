// SPDX-License-Identifier: Apache-2.0
// DeviceCall over the simulated device: "device memory" is host memory that the tests made known, streams do not exist.
#include "runtime/device_call.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include "simt/failures.h"

namespace molfuse {
namespace {

unsigned long long report_word;
const simt::Memory report_memory(&report_word, sizeof report_word);

std::map<void*, std::unique_ptr<simt::Memory>>& scratch_memory() {
  static std::map<void*, std::unique_ptr<simt::Memory>> memory;
  return memory;
}

/// Counts down to a failure; true when it is due.
bool due(int& left) { return left >= 0 && left-- == 0; }

DeviceInfo device_info() {
  const simt::Settings& settings = simt::settings();
  return {0, settings.multiprocessors, 9, 0, settings.max_shared, size_t{1} << 30, "simulated"};
}

}  // namespace

bool device_usable(const char** reason) {
  *reason = "";
  return true;
}

DeviceDescription describe_device(int index) {
  DeviceDescription result;
  result.count = 1;
  if (index == 0) result.info = device_info();
  return result;
}

DeviceCall::DeviceCall(const molfuse_execution& execution, const char* function) : execution_(execution), function_(function) {
  static DeviceInfo info;
  if (execution.device_index != 0) invalid("%s: execution->device_index is %d, there are 1 devices", function, execution.device_index);
  info = device_info();
  device_ = &info;
  report_ = &report_word;
  const unsigned long long word = report_word;
  report_word = 0;
  throw_report(word);
}

DeviceCall::~DeviceCall() { release_all(); }

void* DeviceCall::allocate_own(size_t bytes) {
  if (due(simt::failures().allocation)) return nullptr;
  void* memory = nullptr;
  // Exactly as long as asked for, so that AddressSanitizer sees accesses beyond it, and poisoned.
  if (posix_memalign(&memory, kScratchAlignment, bytes) != 0) throw std::bad_alloc();
  std::memset(memory, 0xFF, bytes);
  scratch_memory()[memory] = std::make_unique<simt::Memory>(memory, bytes);
  return memory;
}

void DeviceCall::release_own(void* memory) {
  scratch_memory().erase(memory);
  std::free(memory);
}

void DeviceCall::zero(void* to, size_t bytes) { std::memset(to, 0, bytes); }

void DeviceCall::external(const std::function<void()>& calls) { calls(); }

void DeviceCall::simulate(const char* name, Grid grid, int threads, size_t shared, const std::function<void()>& body) {
  if (due(simt::failures().launch)) throw device_error(simt::failures().error, "simulated", "a failure that was asked for", at(name));
  try {
    simt::run(name, {static_cast<int>(grid.x), static_cast<int>(grid.y), static_cast<int>(grid.z)}, threads, shared, body);
  } catch (const simt::Error& error) {
    throw Error{MOLFUSE_INTERNAL_ERROR, std::string("simulated device: ") + error.what()};
  }
}

}  // namespace molfuse

simt::Failures& simt::failures() {
  static Failures failures;
  return failures;
}

int simt::scratch_blocks() { return static_cast<int>(molfuse::scratch_memory().size()); }

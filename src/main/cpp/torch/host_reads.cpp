// SPDX-License-Identifier: Apache-2.0
// Counts the operators that take values to the host, by libtorch's observer of operators: each makes the host wait for a device.
#include <ATen/record_function.h>

#include <array>
#include <cstring>

#include "torch/common.h"

namespace molfuse::torch_ops {
namespace {

struct Watch {
  int64_t watchers = 0;
  int64_t reads = 0;
  at::CallbackHandle handle{};
};
thread_local Watch watch;

/// Whether the first two inputs are a destination on the CPU and a source elsewhere.
bool copies_to_host(const at::RecordFunction& function) {
  const auto inputs = function.inputs();
  return inputs.size() >= 2 && inputs[0].isTensor() && inputs[1].isTensor() && inputs[0].toTensor().defined() &&
         inputs[1].toTensor().defined() && inputs[0].toTensor().is_cpu() && !inputs[1].toTensor().is_cpu();
}

std::unique_ptr<at::ObserverContext> observe(const at::RecordFunction& function) {
  // Every reading of a number ends in the first; the others wait for a count or an answer.
  static constexpr std::array reading = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero"};
  for (const char* name : reading) {
    if (std::strcmp(function.name(), name) == 0) ++watch.reads;
  }
  if (std::strcmp(function.name(), "aten::copy_") == 0 && copies_to_host(function)) ++watch.reads;
  return nullptr;
}

}  // namespace
}  // namespace molfuse::torch_ops

namespace molfuse::torch_api {

void count_host_reads(bool on) {
  auto& watch = torch_ops::watch;
  MOLFUSE_CHECK(on || watch.watchers > 0, "on: expected true, since this thread counts no reads, got false");
  if (on && watch.watchers++ == 0) {
    watch.handle = at::addThreadLocalCallback(
        at::RecordFunctionCallback(torch_ops::observe).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  } else if (!on && --watch.watchers == 0) {
    at::removeCallback(watch.handle);
  }
}

int64_t host_reads() { return torch_ops::watch.reads; }

}  // namespace molfuse::torch_api

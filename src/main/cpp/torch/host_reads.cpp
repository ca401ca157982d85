// SPDX-License-Identifier: Apache-2.0
// Counts the operators that take values to the host, by libtorch's observer of operators: each makes the host wait for a device.
#include <ATen/record_function.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "torch/common.h"

namespace molfuse::torch_ops {
namespace {

struct Watch {
  int64_t watchers = 0;
  int64_t reads = 0;
  int64_t depth = 0;  // operators that the present one is called by
  at::CallbackHandle handle{};
};
thread_local Watch watch;

bool is_one_of(const char* name, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* other) { return std::strcmp(name, other) == 0; });
}

/// Every reading of a number ends in the first; the others wait for a count or an answer.
bool reads(const char* name) { return is_one_of(name, {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero"}); }

/// Names under which a caller reads a number, which are no reason of an operator's own.
bool is_item(const char* name) { return is_one_of(name, {"aten::item", "aten::is_nonzero"}); }

bool on_cpu(const c10::IValue& input) { return input.isTensor() && input.toTensor().defined() && input.toTensor().is_cpu(); }

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
  const char* name = function.name();
  const auto inputs = function.inputs();
  if (reads(name)) {
    // Kernels for the CPU look into tensors on the CPU; their counterparts for a device do not.
    if (watch.depth == 0 || !(inputs.size() >= 1 && on_cpu(inputs[0]))) ++watch.reads;
  } else if (std::strcmp(name, "aten::copy_") == 0) {
    if (inputs.size() >= 2 && on_cpu(inputs[0]) && inputs[1].isTensor() && !on_cpu(inputs[1])) ++watch.reads;
  }
  if (!reads(name) && !is_item(name)) ++watch.depth;
  return nullptr;
}

void end(const at::RecordFunction& function, at::ObserverContext*) {
  if (!reads(function.name()) && !is_item(function.name())) --watch.depth;
}

}  // namespace
}  // namespace molfuse::torch_ops

namespace molfuse::torch_api {

void count_host_reads(bool on) {
  auto& watch = torch_ops::watch;
  MOLFUSE_CHECK(on || watch.watchers > 0, "on: expected true, since this thread counts no reads, got false");
  if (on && watch.watchers++ == 0) {
    watch.depth = 0;
    watch.handle = at::addThreadLocalCallback(
        at::RecordFunctionCallback(torch_ops::begin, torch_ops::end).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  } else if (!on && --watch.watchers == 0) {
    at::removeCallback(watch.handle);
  }
}

int64_t host_reads() { return torch_ops::watch.reads; }

}  // namespace molfuse::torch_api

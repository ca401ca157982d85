// SPDX-License-Identifier: Apache-2.0
// The state of libtorch's default generators, with the lock that libtorch's own draws hold: the presets reach the generators, but not their
// mutex.
#include <ATen/Context.h>

#include <limits>
#include <mutex>

#include "torch/common.h"

namespace molfuse::torch_api {
namespace {

at::Generator generator_of(int64_t device) {
  MOLFUSE_CHECK(device >= -1 && device <= std::numeric_limits<c10::DeviceIndex>::max(),
                "device: expected -1 for the CPU or the number of a CUDA device, got ", device);
  const at::Device where = device < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device));
  return at::globalContext().defaultGenerator(where);
}

}  // namespace

at::Tensor generator_state(int64_t device) {
  at::Generator generator = generator_of(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

void set_generator_state(int64_t device, const at::Tensor& state) {
  torch_ops::check_defined("state", state);
  at::Generator generator = generator_of(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

}  // namespace molfuse::torch_api

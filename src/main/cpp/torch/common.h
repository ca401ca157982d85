// SPDX-License-Identifier: Apache-2.0
// What the operator families of libmolfuse_torch share: views of tensors for the C interface, the execution context, error
// mapping, and the small pieces of autograd and dispatcher use that would otherwise be written five times.
#pragma once

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <string>

#include "molfuse/runtime.h"
#include "torch/molfuse_torch.h"

#define MOLFUSE_CHECK(condition, ...) TORCH_CHECK_VALUE(condition, "molfuse: invalid argument: ", __VA_ARGS__)

namespace molfuse::torch_ops {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline bool has(const OptionalTensor& tensor) { return tensor.has_value() && tensor->defined(); }
inline Tensor value_or_undefined(const OptionalTensor& tensor) { return has(tensor) ? *tensor : Tensor(); }
inline OptionalTensor optional_of(const Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : std::nullopt; }

/// The type of accumulators and statistics of values of this type.
inline at::ScalarType statistics_type(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

/// Raises the error a failed C call left behind.
void check_status(molfuse_status status, const char* op);

/// View of a tensor for the C interface; left_pad leading dimensions of size 1 are added up to to_dims. An empty tensor
/// gets a data pointer too, since NULL means absent there.
molfuse_tensor view(const char* name, const Tensor& tensor, int64_t to_dims = 0);
inline molfuse_tensor view(const char* name, const OptionalTensor& tensor, int64_t to_dims = 0) {
  return has(tensor) ? view(name, *tensor, to_dims) : molfuse_tensor{};
}

/// Where a tensor lives, as the C interface wants it. The tensor's device is current while this lives.
class Execution {
 public:
  explicit Execution(const Tensor& tensor);
  const molfuse_execution* get() const { return &execution_; }

 private:
  c10::OptionalDeviceGuard guard_;
  molfuse_execution execution_{};
};

// ---- argument checks: sizes are compared as SymInt so that meta kernels share them ---------------------------------------

void check_defined(const char* name, const Tensor& tensor);
void check_dims(const char* name, const Tensor& tensor, int64_t dims, const char* expected);
void check_size(const char* name, const Tensor& tensor, int64_t dim, const c10::SymInt& expected, const char* expected_text);
void check_same_sizes(const char* name, const Tensor& tensor, const char* other_name, const Tensor& other);
void check_float(const char* name, const Tensor& tensor);
void check_index(const char* name, const Tensor& tensor);
void check_same_type(const char* name, const Tensor& tensor, const char* other_name, const Tensor& other);
/// Type T itself or the statistics type of T.
void check_type_or_statistics(const char* name, const Tensor& tensor, at::ScalarType type);
void check_same_device(const char* name, const Tensor& tensor, const char* other_name, const Tensor& other);
void check_probability(const char* name, double p);
/// For a tensor that is written in place while other is read. (That it does not overlap itself the C interface checks.)
void check_no_overlap(const char* name, const Tensor& tensor, const char* other_name, const Tensor& other);

/// The tensor itself if its last dimension is contiguous, else a contiguous copy. Meta kernels use it too: the strides of
/// outputs follow from it.
inline Tensor rows_contiguous(const Tensor& tensor) {
  return tensor.dim() == 0 || tensor.sym_size(-1) <= 1 || tensor.sym_stride(-1) == 1 ? tensor : tensor.contiguous();
}

/// Whether values cannot be read now: a graph is being traced (torch.compile, FakeTensor), or another mode or subclass sees the calls.
bool is_traced(const Tensor& tensor);

/// What the random numbers of a call are made from.
struct Randomness {
  c10::SymInt seed = 0;
  c10::SymInt offset = 0;
  OptionalTensor drawn_seed;  ///< int64 [] on the CPU: the seed instead, where a traced graph draws it anew each time it runs
};

/// The caller's seed, or one drawn from torch's default CPU generator, so that torch.manual_seed makes runs repeat. input tells whether
/// the call is traced.
Randomness randomness_of(const Tensor& input, const std::optional<c10::SymInt>& seed, const c10::SymInt& offset, bool used);

/// The same for the C interface, as kernels are given it.
molfuse_philox philox_of(int64_t seed, int64_t offset, const OptionalTensor& drawn_seed);

// ---- dispatcher and autograd ---------------------------------------------------------------------------------------------

/// Typed handle of an operator of this library.
template <class Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

inline bool requires_grad(const OptionalTensor& tensor) { return has(tensor) && tensor->requires_grad(); }

inline bool has_tangent(const Tensor& tensor) { return tensor.defined() && tensor._fw_grad(/*level=*/0).defined(); }
inline bool has_tangent(const OptionalTensor& tensor) { return has(tensor) && has_tangent(*tensor); }

/// No operator has a forward-mode derivative: without this, a tangent would be dropped and count as zero.
template <class... Tensors>
void refuse_forward_mode(const char* op, const Tensors&... inputs) {
  TORCH_CHECK_NOT_IMPLEMENTED(!(has_tangent(inputs) || ...), "molfuse: unsupported: forward-mode differentiation of molfuse::", op);
}

/// Makes differentiating these gradients again raise, once somebody tries, instead of giving wrong numbers. inputs are all
/// tensors the gradients were computed from.
void refuse_double_backward(const char* op, const variable_list& inputs, variable_list& gradients);

/// Tensor cast as torch's lower_precision_fp autocast policy does; f64 and integers stay.
Tensor autocast_lower(const Tensor& tensor, at::DeviceType device);

/// The device type of an autocast kernel registered for both.
inline at::DeviceType autocast_device(const Tensor& tensor) { return tensor.is_cuda() ? at::kCUDA : at::kCPU; }

/// Keeps autocast off while an autocast kernel calls its operator again.
class WithoutAutocast {
 public:
  explicit WithoutAutocast(at::DeviceType device)
      : guard_(device == at::kCUDA ? c10::DispatchKey::AutocastCUDA : c10::DispatchKey::AutocastCPU) {}

 private:
  c10::impl::ExcludeDispatchKeyGuard guard_;
};

}  // namespace molfuse::torch_ops

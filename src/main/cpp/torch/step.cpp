// SPDX-License-Identifier: Apache-2.0
// The operators of an optimiser step, over libtorch's own multi-tensor kernels, which the presets do not expose:
// molfuse::amp_unscale_, amp_update_scale_, fused_adamw_ and clip_grad_norm_. None of them reads a value back from a device.
#include <cmath>
#include <limits>

#include "torch/common.h"

namespace molfuse::torch_ops {
namespace {

/// Indices of tensors that share device and element type: libtorch's multi-tensor kernels want them apart.
struct Group {
  c10::Device device;
  at::ScalarType type;
  std::vector<size_t> members;

  std::vector<Tensor> of(at::TensorList tensors) const {
    std::vector<Tensor> result;
    result.reserve(members.size());
    for (size_t member : members) result.push_back(tensors[member]);
    return result;
  }
};

/// Groups of the gradients that are defined.
std::vector<Group> group_gradients(at::TensorList grads) {
  std::vector<Group> groups;
  for (size_t i = 0; i < grads.size(); ++i) {
    const Tensor& grad = grads[i];
    if (!grad.defined()) continue;
    MOLFUSE_CHECK(grad.layout() == at::kStrided, "grads[", i, "]: expected a dense gradient, got layout ", grad.layout());
    MOLFUSE_CHECK(at::isFloatingType(grad.scalar_type()), "grads[", i, "]: expected a floating-point gradient, got ",
                  grad.scalar_type());
    Group* group = nullptr;
    for (Group& candidate : groups) {
      if (candidate.device == grad.device() && candidate.type == grad.scalar_type()) group = &candidate;
    }
    if (group == nullptr) {
      groups.push_back({grad.device(), grad.scalar_type(), {}});
      group = &groups.back();
    }
    group->members.push_back(i);
  }
  return groups;
}

void check_scalar(const char* name, const Tensor& tensor, at::ScalarType type) {
  check_defined(name, tensor);
  MOLFUSE_CHECK(tensor.sym_numel() == 1, name, ": expected one element, got shape ", tensor.sym_sizes());
  MOLFUSE_CHECK(tensor.scalar_type() == type, name, ": expected element type ", type, ", got ", tensor.scalar_type());
}

Tensor on_device(const Tensor& tensor, c10::Device device) {
  return tensor.device() == device ? tensor : tensor.to(device, tensor.scalar_type(), /*non_blocking=*/true);
}

void amp_unscale(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale) {
  const at::NoGradGuard no_grad;
  check_scalar("found_inf", found_inf, at::kFloat);
  check_scalar("inv_scale", inv_scale, at::kFloat);
  for (const Group& group : group_gradients(grads)) {
    Tensor group_found_inf = on_device(found_inf, group.device);
    at::_amp_foreach_non_finite_check_and_unscale_(group.of(grads), group_found_inf, on_device(inv_scale, group.device));
    if (!group_found_inf.is_same(found_inf)) {
      Tensor all = found_inf;
      at::maximum_out(all, found_inf, on_device(group_found_inf, found_inf.device()));
    }
  }
}

void amp_update_scale(const Tensor& scale, const Tensor& growth_tracker, const Tensor& found_inf, double growth_factor,
                      double backoff_factor, int64_t growth_interval) {
  const at::NoGradGuard no_grad;
  check_scalar("scale", scale, at::kFloat);
  check_scalar("growth_tracker", growth_tracker, at::kInt);
  check_scalar("found_inf", found_inf, at::kFloat);
  check_same_device("growth_tracker", growth_tracker, "scale", scale);
  MOLFUSE_CHECK(growth_factor >= 1.0 && std::isfinite(growth_factor), "growth_factor: expected at least 1, got ", growth_factor);
  MOLFUSE_CHECK(backoff_factor > 0.0 && backoff_factor <= 1.0, "backoff_factor: expected a number in (0, 1], got ",
                backoff_factor);
  MOLFUSE_CHECK(growth_interval >= 1, "growth_interval: expected at least 1, got ", growth_interval);
  Tensor updated_scale = scale, updated_tracker = growth_tracker;
  at::_amp_update_scale_(updated_scale, updated_tracker, on_device(found_inf, scale.device()), growth_factor, backoff_factor,
                         growth_interval);
}

struct AdamwLists {
  at::TensorList params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps;
};

void check_like_param(const char* name, size_t i, const Tensor& tensor, const Tensor& param) {
  MOLFUSE_CHECK(tensor.defined(), name, "[", i, "]: expected a tensor, got an undefined one");
  MOLFUSE_CHECK(tensor.sym_sizes() == param.sym_sizes(), name, "[", i, "]: expected the shape of params[", i, "], ", param.sym_sizes(),
                ", got ", tensor.sym_sizes());
  MOLFUSE_CHECK(tensor.scalar_type() == param.scalar_type(), name, "[", i, "]: expected the element type of params[", i, "], ",
                param.scalar_type(), ", got ", tensor.scalar_type());
  MOLFUSE_CHECK(tensor.device() == param.device(), name, "[", i, "]: expected device ", param.device(), ", got ",
                tensor.device());
  // The kernels walk all five arrays of a parameter with one index.
  MOLFUSE_CHECK(tensor.sym_strides() == param.sym_strides() && param.is_non_overlapping_and_dense(), name, "[", i,
                "]: expected the dense strides of params[", i, "], ", param.sym_strides(), ", got ", tensor.sym_strides());
}

void check_adamw(const AdamwLists& lists, const std::vector<Group>& groups, bool amsgrad) {
  const auto check_length = [&](const char* name, at::TensorList list, size_t expected) {
    MOLFUSE_CHECK(list.size() == expected, name, ": expected ", expected, " tensors, one per parameter, got ", list.size());
  };
  const size_t count = lists.params.size();
  check_length("grads", lists.grads, count);
  check_length("exp_avgs", lists.exp_avgs, count);
  check_length("exp_avg_sqs", lists.exp_avg_sqs, count);
  check_length("state_steps", lists.state_steps, count);
  if (amsgrad) check_length("max_exp_avg_sqs", lists.max_exp_avg_sqs, count);
  for (const Group& group : groups) {
    for (size_t i : group.members) {
      const Tensor& param = lists.params[i];
      MOLFUSE_CHECK(param.defined(), "params[", i, "]: expected a tensor, got an undefined one");
      check_like_param("grads", i, lists.grads[i], param);
      check_like_param("exp_avgs", i, lists.exp_avgs[i], param);
      check_like_param("exp_avg_sqs", i, lists.exp_avg_sqs[i], param);
      if (amsgrad) check_like_param("max_exp_avg_sqs", i, lists.max_exp_avg_sqs[i], param);
      const Tensor& step = lists.state_steps[i];
      MOLFUSE_CHECK(step.defined() && step.scalar_type() == at::kFloat && step.sym_numel() == 1 && step.device() == param.device(),
                    "state_steps[", i, "]: expected one f32 element on ", param.device());
    }
  }
}

void fused_adamw(at::TensorList params, at::TensorList grads, at::TensorList exp_avgs, at::TensorList exp_avg_sqs,
                 at::TensorList max_exp_avg_sqs, at::TensorList state_steps, double lr, double beta1, double beta2,
                 double weight_decay, double eps, bool amsgrad, bool maximize, const OptionalTensor& grad_scale,
                 const OptionalTensor& found_inf) {
  const at::NoGradGuard no_grad;
  MOLFUSE_CHECK(lr >= 0.0 && std::isfinite(lr), "lr: expected a finite number of at least 0, got ", lr);
  MOLFUSE_CHECK(beta1 >= 0.0 && beta1 < 1.0, "beta1: expected a number in [0, 1), got ", beta1);
  MOLFUSE_CHECK(beta2 >= 0.0 && beta2 < 1.0, "beta2: expected a number in [0, 1), got ", beta2);
  MOLFUSE_CHECK(weight_decay >= 0.0, "weight_decay: expected at least 0, got ", weight_decay);
  MOLFUSE_CHECK(eps >= 0.0, "eps: expected at least 0, got ", eps);
  if (has(grad_scale)) check_scalar("grad_scale", *grad_scale, at::kFloat);
  if (has(found_inf)) check_scalar("found_inf", *found_inf, at::kFloat);
  MOLFUSE_CHECK(grads.size() == params.size(), "grads: expected ", params.size(), " tensors, one per parameter, got ", grads.size());
  const std::vector<Group> groups = group_gradients(grads);
  check_adamw({params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps}, groups, amsgrad);
  for (const Group& group : groups) {
    const std::vector<Tensor> steps = group.of(state_steps);
    const OptionalTensor scale = has(grad_scale) ? OptionalTensor(on_device(*grad_scale, group.device)) : std::nullopt;
    const OptionalTensor skip = has(found_inf) ? OptionalTensor(on_device(*found_inf, group.device)) : std::nullopt;
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(group.of(params), group.of(grads), group.of(exp_avgs), group.of(exp_avg_sqs),
                      amsgrad ? group.of(max_exp_avg_sqs) : std::vector<Tensor>(), steps, lr, beta1, beta2, weight_decay, eps,
                      amsgrad, maximize, scale, skip);
    // A skipped step does not count; found_inf is 0 or 1, so no value has to be read to know.
    if (skip.has_value()) at::_foreach_sub_(steps, std::vector<Tensor>(steps.size(), skip->reshape({})));
  }
}

Tensor clip_grad_norm(at::TensorList grads, double max_norm, double norm_type) {
  const at::NoGradGuard no_grad;
  MOLFUSE_CHECK(max_norm >= 0.0, "max_norm: expected at least 0, got ", max_norm);
  MOLFUSE_CHECK(norm_type > 0.0, "norm_type: expected a positive number or infinity, got ", norm_type);
  const std::vector<Group> groups = group_gradients(grads);
  if (groups.empty()) return at::zeros({}, at::kFloat);
  bool any_double = false;
  for (const Group& group : groups) any_double = any_double || group.type == at::kDouble;
  const c10::Device device = groups.front().device;
  const auto norm_dtype = any_double ? at::kDouble : at::kFloat;  // a norm of many f16 values would overflow in f16
  std::vector<Tensor> norms;
  for (const Group& group : groups) {
    for (Tensor& norm : at::_foreach_norm(group.of(grads), norm_type, statistics_type(group.type))) {
      norms.push_back(norm.to(device, norm_dtype, /*non_blocking=*/true));
    }
  }
  const Tensor total_norm = norms.size() == 1 ? norms.front() : at::linalg_vector_norm(at::stack(norms), norm_type);
  // Multiplying by a clamped 1 instead of testing whether to clip: the test would have to wait for the device.
  const Tensor coefficient = (max_norm / (total_norm + 1e-6)).clamp_max(1.0);
  for (const Group& group : groups) {
    at::_foreach_mul_(group.of(grads), coefficient.to(group.device, statistics_type(group.type), /*non_blocking=*/true));
  }
  return total_norm;
}

TORCH_LIBRARY_FRAGMENT(molfuse, m) {
  m.def("amp_unscale_(Tensor(a!)[] grads, Tensor(b!) found_inf, Tensor inv_scale) -> ()", TORCH_FN(amp_unscale));
  m.def(
      "amp_update_scale_(Tensor(a!) scale, Tensor(b!) growth_tracker, Tensor found_inf, float growth_factor=2.0, "
      "float backoff_factor=0.5, int growth_interval=2000) -> ()",
      TORCH_FN(amp_update_scale));
  m.def(
      "fused_adamw_(Tensor(a!)[] params, Tensor(b!)[] grads, Tensor(c!)[] exp_avgs, Tensor(d!)[] exp_avg_sqs, "
      "Tensor(e!)[] max_exp_avg_sqs, Tensor(f!)[] state_steps, float lr, float beta1=0.9, float beta2=0.999, "
      "float weight_decay=0.01, float eps=1e-8, bool amsgrad=False, bool maximize=False, Tensor? grad_scale=None, "
      "Tensor? found_inf=None) -> ()",
      TORCH_FN(fused_adamw));
  m.def("clip_grad_norm_(Tensor(a!)[] grads, float max_norm, float norm_type=2.0) -> Tensor", TORCH_FN(clip_grad_norm));
}

}  // namespace
}  // namespace molfuse::torch_ops

// The C++ functions call the implementation directly: it needs nothing of the dispatcher itself, and a schema's Tensor[] has
// no room for undefined gradients.
namespace molfuse::torch_api {

void amp_unscale_(const std::vector<at::Tensor>& grads, at::Tensor found_inf, const at::Tensor& inv_scale) {
  torch_ops::amp_unscale(grads, found_inf, inv_scale);
}

void amp_update_scale_(at::Tensor scale, at::Tensor growth_tracker, const at::Tensor& found_inf, double growth_factor,
                       double backoff_factor, int64_t growth_interval) {
  torch_ops::amp_update_scale(scale, growth_tracker, found_inf, growth_factor, backoff_factor, growth_interval);
}

void fused_adamw_(const std::vector<at::Tensor>& params, const std::vector<at::Tensor>& grads,
                  const std::vector<at::Tensor>& exp_avgs, const std::vector<at::Tensor>& exp_avg_sqs,
                  const std::vector<at::Tensor>& max_exp_avg_sqs, const std::vector<at::Tensor>& state_steps, double lr,
                  double beta1, double beta2, double weight_decay, double eps, bool amsgrad, bool maximize,
                  const std::optional<at::Tensor>& grad_scale, const std::optional<at::Tensor>& found_inf) {
  torch_ops::fused_adamw(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps, lr, beta1, beta2, weight_decay,
                         eps, amsgrad, maximize, grad_scale, found_inf);
}

at::Tensor clip_grad_norm_(const std::vector<at::Tensor>& grads, double max_norm, double norm_type) {
  return torch_ops::clip_grad_norm(grads, max_norm, norm_type);
}

}  // namespace molfuse::torch_api

// SPDX-License-Identifier: Apache-2.0
// Helpers of the tests of libmolfuse_torch.
#pragma once

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "torch/molfuse_torch.h"

namespace molfuse::test {

namespace api = molfuse::torch_api;
using at::Tensor;
using OptionalTensor = std::optional<at::Tensor>;
using Tensors = std::vector<Tensor>;

inline at::TensorOptions f64() { return at::TensorOptions(at::kDouble); }

/// A leaf holding the values of tensor.
inline Tensor leaf(const Tensor& tensor, at::ScalarType type) { return tensor.detach().to(type).clone().requires_grad_(true); }

inline Tensors gradients(const Tensor& loss, const Tensors& inputs) {
  return torch::autograd::grad({loss}, inputs, {}, /*retain_graph=*/true, /*create_graph=*/false, /*allow_unused=*/true);
}

inline double max_abs(const Tensor& tensor) { return tensor.numel() == 0 ? 0.0 : tensor.abs().max().item<double>(); }

/// The acceptance rule of OPERATORS.md: at most twice the error of the unfused result in the same element type.
inline void expect_as_good_as_eager(const char* what, const Tensor& actual, const Tensor& eager, const Tensor& reference,
                                    double atol) {
  ASSERT_TRUE(actual.defined()) << what;
  ASSERT_EQ(actual.sizes(), reference.sizes()) << what;
  const double error = max_abs(actual.to(at::kDouble) - reference), allowed = 2 * max_abs(eager.to(at::kDouble) - reference) + atol;
  EXPECT_LE(error, allowed) << what << " (NaN fails too)";
}

/// Small absolute tolerance for values around one.
inline double small_atol(at::ScalarType type) {
  switch (type) {
    case at::kDouble: return 1e-12;
    case at::kFloat: return 2e-6;
    case at::kHalf: return 1e-3;
    default: return 8e-3;
  }
}

using Formula = std::function<Tensors(const Tensors& inputs)>;

/// Runs fused in each element type and compares outputs and gradients of every input with unfused, itself run in the same
/// type and in f64.
inline void compare_with_eager(const Tensors& inputs64, const Formula& fused, const Formula& unfused,
                               std::initializer_list<at::ScalarType> types) {
  for (const auto type : types) {
    SCOPED_TRACE(c10::toString(type));
    const auto run = [&](const Formula& formula, at::ScalarType in) {
      // The reference sees the same rounded inputs.
      Tensors inputs;
      for (const Tensor& input : inputs64) inputs.push_back(leaf(input.to(type), in));
      const Tensors outputs = formula(inputs);
      Tensor loss = at::zeros({}, f64());
      for (size_t o = 0; o < outputs.size(); ++o) {
        const Tensor weight = at::cos(at::arange(outputs[o].numel(), f64()) + static_cast<double>(o)).view(outputs[o].sizes());
        loss = loss + (outputs[o].to(at::kDouble) * weight.to(type).to(at::kDouble)).sum();
      }
      Tensors results = outputs;
      for (const Tensor& gradient : gradients(loss, inputs)) results.push_back(gradient);
      return results;
    };
    const Tensors actual = run(fused, type), eager = run(unfused, type), reference = run(unfused, at::kDouble);
    ASSERT_EQ(actual.size(), reference.size());
    for (size_t r = 0; r < reference.size(); ++r) {
      expect_as_good_as_eager(("result " + std::to_string(r)).c_str(), actual[r], eager[r], reference[r],
                               small_atol(type) * std::max(1.0, max_abs(reference[r])));
    }
  }
}

/// Central differences in f64 against autograd, for every element of every input.
inline void check_gradients(const Tensors& inputs64, const Formula& formula, double tolerance = 1e-7) {
  const auto loss_of = [&](const Tensors& inputs) {
    Tensor loss = at::zeros({}, f64());
    for (const Tensor& output : formula(inputs)) {
      loss = loss + (output * at::cos(at::arange(output.numel(), f64())).view(output.sizes())).sum();
    }
    return loss;
  };
  Tensors inputs;
  for (const Tensor& input : inputs64) inputs.push_back(leaf(input, at::kDouble));
  const Tensors analytic = gradients(loss_of(inputs), inputs);
  const at::NoGradGuard no_grad;
  const double step = 1e-5;
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_TRUE(analytic[i].defined()) << "input " << i;
    const Tensor gradient = analytic[i].contiguous();
    double* values = inputs[i].mutable_data_ptr<double>();
    for (int64_t n = 0; n < inputs[i].numel(); ++n) {
      const double value = values[n];
      values[n] = value + step;
      const double above = loss_of(inputs).item<double>();
      values[n] = value - step;
      const double below = loss_of(inputs).item<double>();
      values[n] = value;
      const double numeric = (above - below) / (2 * step);
      ASSERT_NEAR(gradient.const_data_ptr<double>()[n], numeric, tolerance * (1 + std::abs(numeric)))
          << "input " << i << ", element " << n;
    }
  }
}

/// Expects action to throw an error whose text starts with prefix and contains every one of parts.
template <class Action>
void expect_error(Action&& action, const std::string& prefix, std::initializer_list<const char*> parts) {
  try {
    action();
  } catch (const std::exception& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.rfind(prefix, 0), 0U) << text.substr(0, 300);
    for (const char* part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text.substr(0, 300);
    return;
  }
  ADD_FAILURE() << "no error; expected " << prefix;
}

template <class Action>
void expect_invalid(Action&& action, std::initializer_list<const char*> parts) {
  expect_error(std::forward<Action>(action), "molfuse: invalid argument: ", parts);
}

/// First-order gradients with create_graph work; differentiating them again raises.
inline void expect_double_backward_refused(const Tensor& output, const Tensors& inputs, const char* op) {
  const Tensors first = torch::autograd::grad({output.pow(2).sum()}, inputs, {}, true, /*create_graph=*/true);
  for (const Tensor& gradient : first) ASSERT_TRUE(gradient.defined());
  expect_error([&] { torch::autograd::grad({first.back().pow(2).sum()}, {inputs.back()}); }, "molfuse: unsupported: ",
               {"double backward", op});
}

/// Calls action with a copy of input that has a forward-mode tangent; it must raise, with or without grad mode, rather than
/// drop the tangent.
template <class Action>
void expect_forward_mode_refused(const Tensor& input, const char* op, Action&& action) {
  const uint64_t level = torch::autograd::ForwardADLevel::get_next_idx();
  {
    const Tensor dual = input.detach().clone();
    dual._set_fw_grad(at::ones_like(dual), level, /*is_inplace_op=*/false);
    for (const bool grad_mode : {true, false}) {
      const at::AutoGradMode mode(grad_mode);
      expect_error([&] { action(dual); }, "molfuse: unsupported: ", {"forward-mode", op});
    }
  }
  torch::autograd::ForwardADLevel::release_idx(level);
}

class Autocast {
 public:
  explicit Autocast(at::ScalarType type) {
    at::autocast::set_autocast_dtype(at::kCPU, type);
    at::autocast::set_autocast_enabled(at::kCPU, true);
  }
  ~Autocast() {
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
  }
};

inline Tensor meta(const Tensor& tensor) { return tensor.detach().to(at::kMeta); }

}  // namespace molfuse::test

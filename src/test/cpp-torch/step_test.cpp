// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "support.h"

namespace molfuse::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Tensors some_gradients() {
  return {at::randn({5, 3}), Tensor(), at::randn({7}).to(at::kBFloat16), at::randn({2, 2}, f64()), at::randn({4})};
}

Tensors copies(const Tensors& tensors) {
  Tensors result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.defined() ? tensor.clone() : Tensor());
  return result;
}

TEST(Step, UnscaleMultipliesGradientsOfAnyTypeAndFindsInfinity) {
  at::manual_seed(1);
  const Tensors before = some_gradients();
  Tensors grads = copies(before);
  const Tensor found_inf = at::zeros({1}), inv_scale = at::full({}, 0.25);
  api::amp_unscale_(grads, found_inf, inv_scale);
  EXPECT_EQ(found_inf.item<float>(), 0);
  for (size_t i = 0; i < grads.size(); ++i) {
    EXPECT_TRUE(!before[i].defined() || at::equal(grads[i], before[i] * 0.25)) << i;
  }
  for (const double bad : {kInfinity, -kInfinity, std::nan("")}) {
    found_inf.zero_();
    grads = copies(before);
    grads[2][6] = bad;
    api::amp_unscale_(grads, found_inf, inv_scale);
    EXPECT_EQ(found_inf.item<float>(), 1) << bad;
  }
  api::amp_unscale_(before, found_inf, inv_scale);
  EXPECT_EQ(found_inf.item<float>(), 1) << "never set back to 0";
  api::amp_unscale_({}, found_inf, inv_scale);
  api::amp_unscale_({Tensor()}, found_inf, inv_scale);
}

TEST(Step, ScaleBacksOffAndGrows) {
  const Tensor scale = at::full({}, 8.0f), tracker = at::zeros({}, at::kInt), found = at::ones({}), fine = at::zeros({});
  api::amp_update_scale_(scale, tracker, found, 2.0, 0.5, 2);
  EXPECT_EQ(scale.item<float>(), 4);
  api::amp_update_scale_(scale, tracker, fine, 2.0, 0.5, 2);
  EXPECT_EQ(scale.item<float>(), 4);
  EXPECT_EQ(tracker.item<int>(), 1);
  api::amp_update_scale_(scale, tracker, fine, 2.0, 0.5, 2);
  EXPECT_EQ(scale.item<float>(), 8);
  EXPECT_EQ(tracker.item<int>(), 0);
}

struct AdamwState {
  Tensors params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps;

  AdamwState() {
    at::manual_seed(2);
    for (const auto& shape : std::vector<std::vector<int64_t>>{{33, 5}, {7}, {2, 3, 4}}) {
      params.push_back(at::randn(shape));
      grads.push_back(at::randn(shape));
      exp_avgs.push_back(at::zeros(shape));
      exp_avg_sqs.push_back(at::zeros(shape));
      max_exp_avg_sqs.push_back(at::zeros(shape));
      steps.push_back(at::zeros({}));
    }
  }

  void step(bool amsgrad = false, const OptionalTensor& grad_scale = {}, const OptionalTensor& found_inf = {}) {
    api::fused_adamw_(params, grads, exp_avgs, exp_avg_sqs, amsgrad ? max_exp_avg_sqs : Tensors{}, steps, 0.01, 0.9, 0.99, 0.1,
                      1e-8, amsgrad, false, grad_scale, found_inf);
  }
};

/// One parameter of AdamW as Loshchilov & Hutter 2019 write it, in f64.
struct ReferenceAdamw {
  Tensor param, exp_avg, exp_avg_sq, max_exp_avg_sq;
  int64_t t = 0;

  explicit ReferenceAdamw(const Tensor& start)
      : param(start.to(at::kDouble)), exp_avg(at::zeros_like(param)), exp_avg_sq(at::zeros_like(param)),
        max_exp_avg_sq(at::zeros_like(param)) {}

  void step(const Tensor& gradient, bool amsgrad) {
    const Tensor g = gradient.to(at::kDouble);
    ++t;
    param = param - 0.01 * 0.1 * param;
    exp_avg = 0.9 * exp_avg + 0.1 * g;
    exp_avg_sq = 0.99 * exp_avg_sq + 0.01 * g * g;
    max_exp_avg_sq = at::maximum(max_exp_avg_sq, exp_avg_sq);
    const Tensor second = (amsgrad ? max_exp_avg_sq : exp_avg_sq) / (1 - std::pow(0.99, t));
    param = param - 0.01 * (exp_avg / (1 - std::pow(0.9, t))) / (second.sqrt() + 1e-8);
  }
};

TEST(Step, AdamwFollowsTheFormula) {
  for (const bool amsgrad : {false, true}) {
    AdamwState state;
    std::vector<ReferenceAdamw> reference;
    for (const Tensor& param : state.params) reference.emplace_back(param);
    for (int n = 0; n < 5; ++n) {
      for (size_t i = 0; i < reference.size(); ++i) {
        state.grads[i].normal_();
        reference[i].step(state.grads[i], amsgrad);
      }
      state.step(amsgrad);
    }
    for (size_t i = 0; i < reference.size(); ++i) {
      EXPECT_LE(max_abs(state.params[i].to(at::kDouble) - reference[i].param), 2e-6) << "amsgrad " << amsgrad;
      EXPECT_EQ(state.steps[i].item<float>(), 5);
    }
  }
}

TEST(Step, AdamwSkipsUndefinedGradientsAndWholeStepsWithInfinity) {
  AdamwState state;
  const Tensors before = copies(state.params);
  state.step(false, {}, at::ones({1}));
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(at::equal(state.params[i], before[i]));
    EXPECT_EQ(max_abs(state.exp_avgs[i]), 0);
    EXPECT_EQ(state.steps[i].item<float>(), 0) << "a skipped step does not count";
  }
  state.grads[1] = Tensor();
  state.step(false, {}, at::zeros({1}));
  EXPECT_FALSE(at::equal(state.params[0], before[0]));
  EXPECT_TRUE(at::equal(state.params[1], before[1]));
  EXPECT_EQ(state.steps[0].item<float>(), 1);
  EXPECT_EQ(state.steps[1].item<float>(), 0);
}

TEST(Step, AdamwDividesGradientsByTheScale) {
  AdamwState scaled, plain;
  for (Tensor& gradient : scaled.grads) gradient.mul_(1024);
  scaled.step(false, at::full({1}, 1024.0f));
  plain.step();
  for (size_t i = 0; i < plain.params.size(); ++i) EXPECT_TRUE(at::equal(scaled.params[i], plain.params[i]));
}

TEST(Step, ClipScalesToTheNorm) {
  at::manual_seed(3);
  for (const double norm_type : {1.0, 2.0, 3.0, kInfinity}) {
    for (const double max_norm : {0.5, 1000.0}) {
      const Tensors before = some_gradients();
      Tensors grads = copies(before), flat;
      for (const Tensor& gradient : before) {
        if (gradient.defined()) flat.push_back(gradient.to(at::kDouble).flatten());
      }
      const Tensor norm = at::linalg_vector_norm(at::cat(flat), norm_type);
      const Tensor returned = api::clip_grad_norm_(grads, max_norm, norm_type);
      EXPECT_NEAR(returned.item<double>(), norm.item<double>(), 1e-5 * norm.item<double>());
      const double factor = std::min(1.0, max_norm / norm.item<double>());
      for (size_t i = 0; i < grads.size(); ++i) {
        if (!before[i].defined()) continue;
        const double tolerance = before[i].scalar_type() == at::kBFloat16 ? 2e-2 : 2e-5;
        EXPECT_LE(max_abs(grads[i].to(at::kDouble) - before[i].to(at::kDouble) * factor), tolerance) << i;
      }
    }
  }
  EXPECT_EQ(api::clip_grad_norm_({}, 1.0, 2.0).item<float>(), 0);
  EXPECT_FLOAT_EQ(api::clip_grad_norm_({at::full({100}, 60000.0).to(at::kHalf)}, 1e9, 2.0).item<float>(), 600000.0f)
      << "a norm beyond f16's range";
}

TEST(Step, OperatorsAcceptGradientsOfLeavesThatRequireGrad) {
  const Tensor param = at::randn({4}).requires_grad_(true);
  const Tensors one = {at::zeros({4})};
  api::fused_adamw_({param}, {at::ones({4})}, one, {at::zeros({4})}, {}, {at::zeros({})}, 0.1, 0.9, 0.999, 0, 1e-8, false,
                    false, {}, {});
  EXPECT_TRUE(param.is_leaf());
}

TEST(Step, WrongArgumentsAreNamed) {
  AdamwState state;
  expect_invalid([&] { api::amp_unscale_({at::zeros({2}, at::kLong)}, at::zeros({}), at::ones({})); }, {"grads[0]", "Long"});
  expect_invalid([&] { api::amp_unscale_({at::zeros({2, 2}).to_sparse()}, at::zeros({}), at::ones({})); }, {"grads[0]", "dense"});
  expect_invalid([&] { api::amp_unscale_({}, at::zeros({2}), at::ones({})); }, {"found_inf", "one element"});
  expect_invalid([&] { api::amp_unscale_({}, at::zeros({}), at::ones({}, f64())); }, {"inv_scale", "Double"});
  expect_invalid([&] { api::amp_update_scale_(at::ones({}), at::zeros({}), at::zeros({}), 2, 0.5, 1); }, {"growth_tracker", "Int"});
  expect_invalid([&] { api::amp_update_scale_(at::ones({}), at::zeros({}, at::kInt), at::zeros({}), 2, 1.5, 1); },
                 {"backoff_factor", "1.5"});
  expect_invalid([&] { api::clip_grad_norm_({}, -1, 2); }, {"max_norm", "-1"});
  expect_invalid([&] { api::clip_grad_norm_({}, 1, 0); }, {"norm_type"});
  expect_invalid([&] { state.step(true, at::ones({2})); }, {"grad_scale"});
  state.exp_avgs[1] = at::zeros({6});
  expect_invalid([&] { state.step(); }, {"exp_avgs[1]", "[7]", "[6]"});
  state.exp_avgs.pop_back();
  expect_invalid([&] { state.step(); }, {"exp_avgs", "3 tensors"});
}

TEST(Library, Info) {
  EXPECT_FALSE(api::version().empty());
  const std::string info = api::info();
  for (const char* key : {"\"version\":\"", "\"libtorch\":\"2.", "\"cpu_vector_level\":\"", "\"cuda_usable\":"}) {
    EXPECT_NE(info.find(key), std::string::npos) << info;
  }
  expect_invalid([] { api::set_cpu_level("sse9"); }, {"set_cpu_level"});
}

}  // namespace
}  // namespace molfuse::test

// SPDX-License-Identifier: Apache-2.0
// vae_loss and linear_vae_loss.
#include <cmath>

#include "support.h"

#include <ATen/core/dispatch/Dispatcher.h>

namespace molfuse::test {
namespace {

enum Result { kTotal, kRecon, kKl, kPerplexity, kTokenCount, kCorrect };

struct Options {
  double beta = 0.7;
  int64_t pad_index = 0;
  std::string reduction = "mean";
  bool class_second = false;
  bool inplace_backward = false;
};

/// The formula of OPERATORS.md 3 with libtorch's own operators: {total, recon, kl, perplexity}, or for none {nll, kl_sample}.
Tensors unfused(const Tensor& logits, const Tensor& targets, const Tensor& mean, const Tensor& log_var, const Options& options) {
  const Tensor mask = targets.ne(options.pad_index);
  const Tensor index = targets.masked_fill(mask.logical_not(), 0).unsqueeze(2);
  const Tensor log_probability = (options.class_second ? logits.transpose(1, 2) : logits).log_softmax(-1);
  const Tensor nll = -log_probability.gather(2, index).squeeze(2) * mask;
  const Tensor lv = log_var.clamp(-20, 10);
  const Tensor kl = -0.5 * (1 + lv - mean.pow(2) - lv.exp());
  if (options.reduction == "none") return {nll, kl.sum(1)};
  const bool sum = options.reduction == "sum";
  const Tensor average = nll.sum() / (mask.sum().to(logits.scalar_type()) + 1e-8), recon = sum ? nll.sum() : average;
  const Tensor divergence = sum ? kl.sum() : kl.mean();
  return {recon + options.beta * divergence, recon, divergence, average.exp()};
}

Tensors fused(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
              const Options& options) {
  return api::vae_loss(logits, targets, mean, log_var, options.beta, options.pad_index, options.reduction, options.class_second,
                       options.inplace_backward);
}

Tensors fused_linear(const Tensor& hidden, const Tensor& weight, const OptionalTensor& bias, const Tensor& targets,
                     const OptionalTensor& mean, const OptionalTensor& log_var, const Options& options) {
  return api::linear_vae_loss(hidden, weight, bias, targets, mean, log_var, options.beta, options.pad_index, options.reduction);
}

Tensors differentiable(Tensors results) {
  results.resize(results.size() - 2);
  return results;
}

TEST(VaeLoss, AsGoodAsEager) {
  at::manual_seed(1);
  const Tensor targets = at::randint(0, 41, {5, 13}, at::kLong);
  for (const char* reduction : {"mean", "sum", "none"}) {
    for (const bool class_second : {false, true}) {
      SCOPED_TRACE(std::string(reduction) + (class_second ? " [B,K,T]" : " [B,T,K]"));
      Options options;
      options.reduction = reduction;
      options.class_second = class_second;
      const Tensors inputs = {class_second ? at::randn({5, 41, 13}, f64()) : at::randn({5, 13, 41}, f64()),
                              at::randn({5, 6}, f64()), at::randn({5, 6}, f64())};
      compare_with_eager(
          inputs, [&](const Tensors& t) { return differentiable(fused(t[0], targets, t[1], t[2], options)); },
          [&](const Tensors& t) { return unfused(t[0], targets, t[1], t[2], options); }, {at::kDouble, at::kFloat, at::kBFloat16});
    }
  }
}

TEST(VaeLoss, GradientsByFiniteDifferences) {
  at::manual_seed(2);
  const Tensor targets = at::tensor({0, 3, 1, 2, 2, 0}, at::kLong).view({2, 3});
  for (const char* reduction : {"mean", "sum", "none"}) {
    Options options;
    options.reduction = reduction;
    check_gradients({at::randn({2, 3, 4}, f64()), at::randn({2, 4}, f64()), at::randn({2, 4}, f64())},
                    [&](const Tensors& t) { return differentiable(fused(t[0], targets, t[1], t[2], options)); }, 2e-7);
  }
}

TEST(VaeLoss, CountsHaveNoGradientAndMissingLatentsNoKl) {
  at::manual_seed(3);
  const Tensor logits = at::randn({2, 4, 6}).requires_grad_(true);
  const Tensor targets = at::tensor({1, 2, 0, 0, 3, 3, 5, 0}, at::kLong).view({2, 4});
  const Tensors results = fused(logits, targets, {}, {}, {});
  EXPECT_EQ(results.at(kTokenCount).item<float>(), 5);
  EXPECT_EQ(results.at(kCorrect).item<float>(),
            (logits.argmax(2).eq(targets).logical_and(targets.ne(0))).sum().item<int64_t>());
  EXPECT_FALSE(results.at(kTokenCount).requires_grad() || results.at(kCorrect).requires_grad());
  EXPECT_EQ(results.at(kKl).item<float>(), 0);
  EXPECT_TRUE(results.at(kTotal).dim() == 0 && at::equal(results.at(kTotal), results.at(kRecon)));
  for (const int result : {kTotal, kRecon, kPerplexity}) {
    EXPECT_GT(max_abs(gradients(results.at(result), {logits})[0]), 0) << result;
  }
  EXPECT_FALSE(fused(logits.detach(), targets, {}, {}, {}).at(kTotal).requires_grad());
}

TEST(VaeLoss, LogVarBeyondTheClampHasNoGradient) {
  const Tensor log_var = at::tensor({-20.5, 0.3, 10.5, -19.5, 9.5, -100.0}, f64()).view({2, 3}).requires_grad_(true);
  const Tensor mean = at::randn({2, 3}, f64()).requires_grad_(true), logits = at::randn({2, 3, 4}, f64());
  const Tensor targets = at::ones({2, 3}, at::kLong);
  for (const char* reduction : {"mean", "sum", "none"}) {
    Options options;
    options.reduction = reduction;
    const size_t kl = options.reduction == "none" ? 1 : kKl, reference = options.reduction == "none" ? 1 : 2;
    const Tensor actual = fused(logits, targets, mean, log_var, options).at(kl);
    const Tensor expected = unfused(logits, targets, mean, log_var, options).at(reference);
    EXPECT_LE(max_abs(actual - expected), 1e-11 * max_abs(expected));
    const Tensors gradient = gradients(actual.sum(), {mean, log_var}), wanted = gradients(expected.sum(), {mean, log_var});
    EXPECT_LE(max_abs(gradient[0] - wanted[0]), 1e-12);
    EXPECT_LE(max_abs(gradient[1] - wanted[1]), 1e-11 * max_abs(wanted[1]));
    for (const int64_t outside : {0, 2, 5}) EXPECT_EQ(gradient[1].view({-1})[outside].item<double>(), 0);
  }
}

TEST(VaeLoss, AllPadding) {
  const Tensor logits = at::randn({2, 3, 4}).requires_grad_(true);
  const Tensors results = fused(logits, at::full({2, 3}, -100, at::kLong), {}, {}, {1.0, -100, "mean", false, false});
  EXPECT_EQ(results.at(kRecon).item<float>(), 0);
  EXPECT_EQ(max_abs(gradients(results.at(kTotal), {logits})[0]), 0);
}

TEST(VaeLoss, EmptyBatch) {
  for (const char* reduction : {"mean", "sum", "none"}) {
    Options options;
    options.reduction = reduction;
    const Tensor logits = at::randn({0, 3, 4}).requires_grad_(true), hidden = at::randn({0, 3, 8}).requires_grad_(true);
    const Tensor targets = at::zeros({0, 3}, at::kLong), latent = at::zeros({0, 2}), weight = at::randn({4, 8}).requires_grad_(true);
    EXPECT_EQ(gradients(fused(logits, targets, latent, latent, options).at(0).sum(), {logits})[0].sizes(), logits.sizes());
    const Tensor loss = fused_linear(hidden, weight, {}, targets, latent, latent, options).at(0).sum();
    EXPECT_EQ(max_abs(gradients(loss, {weight})[0]), 0);
  }
}

TEST(VaeLoss, NanInLogitsReachesTheLoss) {
  const Tensor logits = at::randn({2, 3, 4});
  logits[1][2][0] = NAN;
  EXPECT_TRUE(std::isnan(fused(logits, at::ones({2, 3}, at::kLong), {}, {}, {}).at(kTotal).item<float>()));
}

TEST(VaeLoss, InplaceBackwardReusesTheLogitsMemory) {
  at::manual_seed(4);
  const Tensor hidden = at::randn({2, 5, 8}), targets = at::randint(0, 7, {2, 5}, at::kLong);
  const Tensor weight = at::randn({7, 8}).requires_grad_(true);
  Options options;
  const auto logits_of = [&] { return at::matmul(hidden, weight.t()); };
  const Tensor expected = gradients(fused(logits_of(), targets, {}, {}, options).at(kTotal), {weight})[0];
  options.inplace_backward = true;
  const Tensor logits = logits_of();
  const Tensor total = fused(logits, targets, {}, {}, options).at(kTotal);
  const Tensor other = (logits * logits).sum();  // saves the logits
  const Tensors gradient = gradients(total, {weight, logits});
  // Made in backward, not in forward, so that the last bits may differ.
  EXPECT_LE(max_abs(gradient[0] - expected), 1e-6 * max_abs(expected));
  EXPECT_TRUE(gradient[1].is_alias_of(logits));
  EXPECT_THROW(gradients(other, {weight}), std::exception) << "the values other saved are gone";
  EXPECT_THROW(gradients(total, {weight}), std::exception) << "and so are the loss's own";
  const Tensor leaf_logits = logits.detach().clone().requires_grad_(true);
  expect_invalid([&] { fused(leaf_logits, targets, {}, {}, options); }, {"inplace_backward", "leaf"});
  expect_invalid([&] { fused(leaf_logits.view({2, 5, 7}), targets, {}, {}, options); }, {"inplace_backward", "view of a leaf"});
  const Tensor base = logits_of();  // a view of a computed tensor is one too
  gradients(fused(base.view({2, 5, 7}), targets, {}, {}, options).at(kTotal), {weight});
}

TEST(LinearVaeLoss, AsGoodAsEager) {
  at::manual_seed(5);
  const Tensor targets = at::randint(0, 41, {5, 13}, at::kLong);
  for (const char* reduction : {"mean", "sum", "none"}) {
    SCOPED_TRACE(reduction);
    Options options;
    options.reduction = reduction;
    const Tensors inputs = {at::randn({5, 13, 24}, f64()), at::randn({41, 24}, f64()) * 0.2, at::randn({41}, f64()),
                            at::randn({5, 6}, f64()), at::randn({5, 6}, f64())};
    compare_with_eager(
        inputs,
        [&](const Tensors& t) { return differentiable(fused_linear(t[0], t[1], t[2], targets, t[3], t[4], options)); },
        [&](const Tensors& t) {
          return unfused(at::matmul(t[0], t[1].t()) + t[2], targets, t[3], t[4], options);
        },
        {at::kDouble, at::kFloat, at::kBFloat16});
  }
}

TEST(LinearVaeLoss, GradientsByFiniteDifferences) {
  at::manual_seed(6);
  const Tensor targets = at::tensor({0, 3, 1, 2, 2, 0}, at::kLong).view({2, 3});
  for (const char* reduction : {"mean", "sum", "none"}) {
    Options options;
    options.reduction = reduction;
    check_gradients({at::randn({2, 3, 5}, f64()), at::randn({4, 5}, f64()), at::randn({4}, f64()), at::randn({2, 4}, f64()),
                     at::randn({2, 4}, f64())},
                    [&](const Tensors& t) {
                      return differentiable(fused_linear(t[0], t[1], t[2], targets, t[3], t[4], options));
                    },
                    2e-7);
  }
}

TEST(LinearVaeLoss, ComputesOnlyTheGradientsAskedFor) {
  at::manual_seed(7);
  const Tensor targets = at::randint(0, 9, {3, 4}, at::kLong);
  Tensors t = {at::randn({3, 4, 8}, f64()), at::randn({9, 8}, f64()), at::randn({9}, f64()), at::randn({3, 2}, f64()),
               at::randn({3, 2}, f64())};
  for (size_t wanted = 0; wanted < t.size(); ++wanted) {
    Tensors inputs = t;
    inputs[wanted] = leaf(t[wanted], at::kDouble);
    const auto loss = [&](const Tensors& results) { return 2 * results.at(kTotal) + results.at(kPerplexity); };
    const Tensor expected =
        gradients(loss(unfused(at::matmul(inputs[0], inputs[1].t()) + inputs[2], targets, inputs[3], inputs[4], {})),
                  {inputs[wanted]})[0];
    const Tensor actual =
        gradients(loss(fused_linear(inputs[0], inputs[1], inputs[2], targets, inputs[3], inputs[4], {})), {inputs[wanted]})[0];
    EXPECT_LE(max_abs(actual - expected), 1e-11 * (1 + max_abs(expected))) << wanted;
  }
}

// Well-predicted tokens of a large batch, whose gradients under a mean lie below what f16 can hold: only a loss scale keeps them.
TEST(LinearVaeLoss, LossScaleKeepsSmallHalfPrecisionGradients) {
  at::manual_seed(8);
  const Tensor targets = at::randint(0, 12, {64, 128}, at::kLong);
  const Tensor weight = (at::randn({12, 16}, f64()) * 0.3).to(at::kHalf), bias = at::zeros({12}, at::kHalf);
  const Tensor hidden = (weight.to(at::kDouble).index_select(0, targets.view({-1})) * 6 + at::randn({64 * 128, 16}, f64()) * 0.1)
                            .view({64, 128, 16})
                            .to(at::kHalf);
  const Tensor latent = at::zeros({64, 2});
  for (const char* reduction : {"mean", "sum"}) {
    SCOPED_TRACE(reduction);
    Options options;
    options.reduction = reduction;
    const double scale = options.reduction == "mean" ? 65536 : 8;
    const auto run = [&](at::ScalarType matmul, at::ScalarType loss) {
      const Tensors inputs = {leaf(hidden, matmul), leaf(weight, matmul), leaf(bias, matmul)};
      const Tensor logits = (at::matmul(inputs[0], inputs[1].t()) + inputs[2]).to(loss);
      return gradients(unfused(logits, targets, latent, latent, options).at(kTotal) * scale, inputs);
    };
    const Tensors inputs = {leaf(hidden, at::kHalf), leaf(weight, at::kHalf), leaf(bias, at::kHalf)};
    const Tensors actual =
        gradients(fused_linear(inputs[0], inputs[1], inputs[2], targets, latent, latent, options).at(kTotal) * scale, inputs);
    const Tensors eager = run(at::kHalf, at::kFloat), reference = run(at::kDouble, at::kDouble);
    for (size_t i = 0; i < inputs.size(); ++i) {
      expect_as_good_as_eager(("input " + std::to_string(i)).c_str(), actual[i], eager[i], reference[i],
                               1e-3 * max_abs(reference[i]));
    }
    const Tensor wanted = reference[0].abs().gt(1e-6);
    EXPECT_GT(wanted.sum().item<int64_t>(), 1000);
    EXPECT_FALSE(actual[0].eq(0).logical_and(wanted).any().item<bool>()) << "gradients were lost";
  }
}

TEST(LinearVaeLoss, LossScaleBeyondHalfPrecision) {
  const Tensor targets = at::ones({1, 2}, at::kLong);
  const Tensor hidden = leaf(at::ones({1, 2, 8}), at::kHalf), weight = leaf(at::eye(3, 8) * 0.001, at::kHalf);
  for (const char* reduction : {"mean", "sum"}) {
    Options options;
    options.reduction = reduction;
    const Tensor loss = fused_linear(hidden, weight, {}, targets, {}, {}, options).at(kTotal) * 1e6;
    const Tensor gradient = gradients(loss, {hidden})[0];
    const double tokens = options.reduction == "mean" ? 2 : 1;
    EXPECT_NEAR(gradient[0][1][0].item<double>(), 1e6 * 0.001 / 3 / tokens, 1);
  }
}

TEST(VaeLoss, ResultsChangedInPlaceDoNotReachTheGradients) {
  at::manual_seed(9);
  const Tensor targets = at::randint(0, 9, {3, 4}, at::kLong);
  const Tensor logits = at::randn({3, 4, 9}).requires_grad_(true), hidden = at::randn({3, 4, 8}).requires_grad_(true);
  const Tensor weight = at::randn({9, 8});
  const auto change = [](Tensors& results) {
    const at::NoGradGuard no_grad;
    results.at(kTokenCount).add_(100);
    results.at(kPerplexity).detach().zero_();
  };
  const auto loss = [](const Tensors& results) { return results.at(kTotal) + results.at(kPerplexity); };
  Tensors results = fused(logits, targets, {}, {}, {});
  Tensor total = loss(results), expected = gradients(total, {logits})[0];
  change(results);
  EXPECT_TRUE(at::equal(gradients(total, {logits})[0], expected));
  results = fused_linear(hidden, weight, {}, targets, {}, {}, {});
  total = loss(results);
  expected = gradients(total, {hidden})[0];
  change(results);
  EXPECT_TRUE(at::equal(gradients(total, {hidden})[0], expected));
}

TEST(VaeLoss, ForwardModeIsRefused) {
  const Tensor targets = at::ones({2, 3}, at::kLong), latent = at::zeros({2, 4});
  const Tensor logits = at::randn({2, 3, 8}), weight = at::randn({9, 8});
  expect_forward_mode_refused(logits, "molfuse::vae_loss", [&](const Tensor& dual) { fused(dual, targets, {}, {}, {}); });
  expect_forward_mode_refused(latent, "molfuse::vae_loss", [&](const Tensor& dual) { fused(logits, targets, dual, latent, {}); });
  expect_forward_mode_refused(weight, "molfuse::linear_vae_loss",
                              [&](const Tensor& dual) { fused_linear(logits, dual, {}, targets, {}, {}, {}); });
}

TEST(LinearVaeLoss, BackwardTwiceGivesTheSame) {
  const Tensor targets = at::randint(1, 9, {3, 4}, at::kLong);
  const Tensor hidden = at::randn({3, 4, 8}).requires_grad_(true), weight = at::randn({9, 8}).requires_grad_(true);
  const Tensor total = fused_linear(hidden, weight, {}, targets, {}, {}, {}).at(kTotal);
  total.backward({}, /*retain_graph=*/true);
  const Tensor first = weight.grad().clone();
  total.backward();
  EXPECT_TRUE(at::equal(weight.grad(), first * 2));
}

TEST(VaeLoss, AutocastMetaAndDoubleBackward) {
  const Tensor logits = at::randn({2, 3, 8}).requires_grad_(true), hidden = at::randn({2, 3, 8}).requires_grad_(true);
  const Tensor weight = at::randn({8, 8}).requires_grad_(true), targets = at::ones({2, 3}, at::kLong);
  const Tensor mean = at::randn({2, 4}), low_log_var = at::randn({2, 4}).to(at::kBFloat16);
  {
    const Autocast autocast(at::kBFloat16);
    EXPECT_EQ(fused(logits.to(at::kBFloat16), targets, mean, low_log_var, {}).at(kTotal).scalar_type(), at::kFloat);
    EXPECT_EQ(fused(logits, targets, low_log_var, low_log_var, {}).at(kTotal).scalar_type(), at::kFloat);
    const Tensor total = fused_linear(hidden, weight, {}, targets, mean, low_log_var, {}).at(kTotal);
    EXPECT_EQ(total.scalar_type(), at::kFloat);
    EXPECT_EQ(gradients(total, {weight})[0].scalar_type(), at::kFloat);
  }
  EXPECT_EQ(fused(meta(logits), meta(targets), {}, {}, {}).at(kTotal).dim(), 0);
  const Tensor meta_weight = meta(weight).requires_grad_(true);
  EXPECT_EQ(gradients(fused_linear(meta(hidden), meta_weight, {}, meta(targets), {}, {}, {}).at(kTotal), {meta_weight})[0].sizes(),
            weight.sizes());
  expect_double_backward_refused(fused(logits, targets, {}, {}, {}).at(kTotal), {logits}, "molfuse::vae_loss");
  expect_double_backward_refused(fused_linear(hidden, weight, {}, targets, {}, {}, {}).at(kTotal), {hidden, weight},
                                 "molfuse::linear_vae_loss");
}

TEST(VaeLoss, WrongArgumentsAreNamed) {
  const Tensor logits = at::randn({2, 3, 8}), targets = at::ones({2, 3}, at::kLong), latent = at::zeros({2, 4});
  expect_invalid([&] { fused(logits[0], targets, {}, {}, {}); }, {"logits", "[B, T, K]", "[3, 8]"});
  expect_invalid([&] { fused(logits, targets.to(at::kInt), {}, {}, {}); }, {"targets", "int64", "Int"});
  expect_invalid([&] { fused(logits, targets.t(), {}, {}, {}); }, {"targets", "[B, T]", "[3, 2]"});
  expect_invalid([&] { fused(logits, targets * 8, {}, {}, {}); }, {"targets", "8", "[0,0]"});
  expect_invalid([&] { fused(logits, targets * -1, {}, {}, {}); }, {"targets", "-1"});
  expect_invalid([&] { fused(logits, targets, latent, {}, {}); }, {"mean and log_var"});
  expect_invalid([&] { fused(logits, targets, latent, latent.to(at::kDouble), {}); }, {"log_var", "element type"});
  expect_invalid([&] { fused(logits, targets, latent[0].unsqueeze(0), latent[0].unsqueeze(0), {}); }, {"mean", "[B, L]"});
  expect_invalid([&] { fused(logits, targets, {}, {}, {1, 0, "average", false, false}); }, {"reduction", "average"});
  expect_invalid([&] { fused_linear(logits, at::randn({9, 7}), {}, targets, {}, {}, {}); }, {"weight", "[K, C]", "[9, 7]"});
  expect_invalid([&] { fused_linear(logits, at::randn({9, 8}), at::randn({8}), targets, {}, {}, {}); }, {"weight_bias", "[K]"});
  expect_invalid([&] { fused_linear(logits, at::randn({9, 8}), {}, targets * 9, {}, {}, {}); }, {"targets", "9"});
}

// The gradient that forward made is given out twice where the graph is kept: what is done to one must not reach the other.
TEST(VaeLoss, GradientsOfAKeptGraphAreTheirOwn) {
  const Tensor logits = at::randn({2, 3, 5}).requires_grad_(true), targets = at::ones({2, 3}, at::kLong);
  const Tensor total = api::vae_loss(logits, targets, {}, {}, 0, 0, "mean", false, false)[0];
  Tensor first = gradients(total, {logits})[0];
  const Tensor expected = first.clone();
  first.mul_(0);
  EXPECT_TRUE(gradients(total, {logits})[0].equal(expected));
  const Tensor created = torch::autograd::grad({total}, {logits}, {}, true, /*create_graph=*/true)[0];
  EXPECT_FALSE(gradients(total, {logits})[0].requires_grad());
}

// What backward does on a device, where the factor is not known to the host; here on the CPU.
TEST(VaeLoss, ScaleOperatorsMultiplyByTheUpstreamGradient) {
  const auto scale = c10::Dispatcher::singleton().findSchemaOrThrow("molfuse::_vae_loss_scale", "");
  const auto scale_in_place = c10::Dispatcher::singleton().findSchemaOrThrow("molfuse::_vae_loss_scale_", "");
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const Tensor gradient = at::randn({3, 5, 7}).to(type).transpose(1, 2), stats = at::tensor({1.0f, 2.0f, 3.0f, 4.0f, 50.0f, 6.0f});
    const Tensor upstream = at::tensor({0.5f, 0.25f, 0.0f, 0.125f, 0.0f, 0.0f});
    const double factor = type == at::kHalf ? 1.25 / 50 : 1.25;
    const auto call = scale.typed<Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t, at::ScalarType)>();
    const Tensor out = call.call(gradient, stats, upstream, 0, type);
    EXPECT_EQ(out.strides(), gradient.strides());
    EXPECT_LE(max_abs(out.to(at::kDouble) - gradient.to(at::kDouble) * factor), small_atol(type) * 4);
    const Tensor copy = gradient.clone();
    scale_in_place.typed<void(Tensor, const Tensor&, const Tensor&, int64_t, at::ScalarType)>().call(copy, stats, upstream, 0, type);
    EXPECT_TRUE(copy.equal(out));
    EXPECT_EQ(call.call(meta(gradient), meta(stats), meta(upstream), 0, type).sizes(), gradient.sizes());
  }
}

}  // namespace
}  // namespace molfuse::test

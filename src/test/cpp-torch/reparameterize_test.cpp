// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "support.h"

namespace molfuse::test {
namespace {

Tensor sample(const Tensor& mean, const Tensor& log_var, std::optional<int64_t> seed = {}) {
  return api::reparameterize(mean, log_var, seed, 0);
}

/// eps of a seed, read off the operator at mean 0 and variance 1.
Tensor noise(at::IntArrayRef sizes, int64_t seed) { return sample(at::zeros(sizes, f64()), at::zeros(sizes, f64()), seed); }

TEST(Reparameterize, FollowsTheFormula) {
  at::manual_seed(1);
  // A column beyond the clamp at each end.
  const Tensor log_var = at::cat({at::randn({5, 6}, f64()), at::full({5, 1}, 11.0, f64()), at::full({5, 1}, -21.0, f64())}, 1);
  const Tensor eps = noise({5, 8}, 3);
  compare_with_eager(
      {at::randn({5, 8}, f64()), log_var}, [](const Tensors& t) { return Tensors{sample(t[0], t[1], 3)}; },
      [&](const Tensors& t) { return Tensors{t[0] + (t[1].clamp(-20, 10) / 2).exp() * eps.to(t[0].scalar_type())}; },
      {at::kDouble, at::kFloat, at::kBFloat16});
}

TEST(Reparameterize, MomentsAndIndependence) {
  const Tensor eps = noise({2000, 101}, 12);
  const double n = static_cast<double>(eps.numel());
  EXPECT_NEAR(eps.mean().item<double>(), 0, 5 / std::sqrt(n));
  EXPECT_NEAR(eps.pow(2).mean().item<double>(), 1, 5 * std::sqrt(2 / n));
  EXPECT_NEAR(eps.pow(4).mean().item<double>(), 3, 5 * std::sqrt(96 / n));
  EXPECT_NEAR((eps.narrow(1, 0, 100) * eps.narrow(1, 1, 100)).mean().item<double>(), 0, 5 / std::sqrt(n));
  EXPECT_NEAR((eps * noise({2000, 101}, 13)).mean().item<double>(), 0, 5 / std::sqrt(n));
}

TEST(Reparameterize, GradientsByFiniteDifferences) {
  at::manual_seed(2);
  check_gradients({at::randn({3, 5}, f64()), at::randn({3, 5}, f64())},
                  [](const Tensors& t) { return Tensors{sample(t[0], t[1], 9)}; });
}

TEST(Reparameterize, ASeedNotGivenComesFromTorchsGenerator) {
  const Tensor zeros = at::zeros({4, 4});
  at::manual_seed(4);
  const Tensor first = sample(zeros, zeros), second = sample(zeros, zeros);
  at::manual_seed(4);
  EXPECT_TRUE(at::equal(sample(zeros, zeros), first));
  EXPECT_FALSE(at::equal(first, second));
}

TEST(Reparameterize, EmptyBatchAutocastMetaAndDoubleBackward) {
  EXPECT_EQ(sample(at::zeros({0, 4}), at::zeros({0, 4})).sizes(), at::IntArrayRef({0, 4}));
  const Tensor mean = leaf(at::randn({3, 4}), at::kFloat), log_var = leaf(at::randn({3, 4}), at::kFloat);
  {
    const Autocast autocast(at::kBFloat16);
    EXPECT_EQ(sample(mean, log_var.to(at::kBFloat16)).scalar_type(), at::kFloat);
  }
  EXPECT_EQ(sample(meta(mean), meta(log_var)).sizes(), mean.sizes());
  expect_double_backward_refused(sample(mean, log_var), {mean, log_var}, "molfuse::reparameterize");
}

TEST(Reparameterize, WrongArgumentsAreNamed) {
  const Tensor mean = at::zeros({3, 4});
  expect_invalid([&] { sample(mean, at::zeros({3, 5})); }, {"log_var", "[3, 4]", "[3, 5]"});
  expect_invalid([&] { sample(mean, at::zeros({3, 4}, f64())); }, {"log_var", "element type"});
  expect_invalid([&] { sample(at::zeros({3}), at::zeros({3})); }, {"mean", "[B, L]", "[3]"});
  expect_invalid([&] { sample(at::zeros({3, 4}, at::kInt), at::zeros({3, 4}, at::kInt)); }, {"mean", "Int"});
}

TEST(Reparameterize, ForwardModeIsRefused) {
  const Tensor mean = at::zeros({2, 3}), log_var = at::zeros({2, 3});
  expect_forward_mode_refused(log_var, "molfuse::reparameterize", [&](const Tensor& dual) { sample(mean, dual); });
}

}  // namespace
}  // namespace molfuse::test

// SPDX-License-Identifier: Apache-2.0
#include "molfuse/reparameterize.h"

#include "support.h"

using namespace molfuse_test;

namespace {

constexpr uint64_t kSeed = 0xFEDCBA9876543210ull, kOffset = 0x300000005ull;

/// The noise of the header's contract, in f64.
double noise(uint64_t seed, uint64_t offset, int64_t n) {
  uint32_t c[4] = {static_cast<uint32_t>(n / 4), static_cast<uint32_t>(static_cast<uint64_t>(n / 4) >> 32), static_cast<uint32_t>(offset),
                   static_cast<uint32_t>(offset >> 32)};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(b), static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1,
                              static_cast<uint32_t>(a)};
    std::copy(next, next + 4, c);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const int pair = n % 4 / 2 * 2;
  const double u0 = (c[pair] + 0.5) * std::ldexp(1.0, -32), u1 = (c[pair + 1] + 0.5) * std::ldexp(1.0, -32);
  const double turn = 2 * std::acos(-1.0) * u1;
  return std::sqrt(-2 * std::log(u0)) * (n % 2 == 0 ? std::cos(turn) : std::sin(turn));
}

struct Problem {
  TestTensor mean, log_var, grad_z;
  uint64_t seed = kSeed, offset = kOffset;

  Problem(int32_t dtype, int64_t batch, int64_t length, bool strided) {
    Random random(7);
    const std::vector<int> order = strided ? std::vector<int>{1, 0} : std::vector<int>{};
    mean = TestTensor::random(random, dtype, {batch, length}, order, strided ? 3 : 0);
    log_var = TestTensor::random(random, dtype, {batch, length}, {}, strided ? 2 : 0, 2);
    grad_z = TestTensor::random(random, dtype, {batch, length}, order);
    // Beyond both ends of the clamp.
    if (batch * length > 5) {
      log_var.set(1, 11);
      log_var.set(4, -21);
    }
  }

  molfuse_reparameterize_args args() {
    auto a = zeroed<molfuse_reparameterize_args>();
    a.mean = mean.view();
    a.log_var = log_var.view();
    a.grad_z = grad_z.view();
    a.philox = {seed, offset};
    return a;
  }

  std::vector<double> forward(int threads = 0) {
    TestTensor z(mean.dtype(), mean.sizes(), {}, 1);
    auto a = args();
    a.z = z.view();
    const auto execution = execution_here(threads);
    EXPECT_EQ(molfuse_reparameterize_forward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
    EXPECT_TRUE(z.unharmed());
    return z.values();
  }
};

TEST(Reparameterize, MatchesTheFormulaForEveryTypeAndLevel) {
  at_each_level([](const std::string&) {
    for (const int32_t dtype : kFloatTypes) {
      for (const auto& [batch, length] : {std::pair<int64_t, int64_t>{1, 1}, {3, 5}, {7, 128}, {33, 130}}) {
        for (const bool strided : {false, true}) {
          SCOPED_TRACE(std::string(molfuse_dtype_name(dtype)) + " " + std::to_string(batch) + "x" + std::to_string(length));
          Problem p(dtype, batch, length, strided);
          TestTensor grad_mean(dtype, {batch, length}, {}, 2), grad_log_var(dtype, {batch, length}, {1, 0});
          auto a = p.args();
          a.grad_mean = grad_mean.view();
          a.grad_log_var = grad_log_var.view();
          const std::vector<double> z = p.forward();
          ASSERT_EQ(molfuse_reparameterize_backward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
          EXPECT_TRUE(grad_mean.unharmed() && grad_log_var.unharmed());
          std::vector<double> exact, eager, exact_gradient, eager_gradient;
          for (int64_t n = 0; n < batch * length; ++n) {
            const double eps = noise(kSeed, kOffset, n), lv = p.log_var[n], clamped = std::clamp(lv, -20.0, 10.0);
            const double deviation = std::exp(clamped / 2), inside = lv >= -20 && lv <= 10 ? 1 : 0;
            auto r = [&](double v) { return round_to(dtype, v); };
            exact.push_back(p.mean[n] + deviation * eps);
            eager.push_back(r(p.mean[n] + r(r(deviation) * r(eps))));
            exact_gradient.push_back(inside * p.grad_z[n] * eps * deviation / 2);
            eager_gradient.push_back(inside * r(r(p.grad_z[n] * r(eps)) * r(deviation) / 2));
          }
          EXPECT_TRUE(accepted(z, eager, exact, small_atol(dtype)));
          EXPECT_EQ(grad_mean.values(), p.grad_z.values());
          EXPECT_TRUE(accepted(grad_log_var.values(), eager_gradient, exact_gradient, small_atol(dtype)));
        }
      }
    }
  });
}

TEST(Reparameterize, MomentsAndIndependence) {
  MOLFUSE_CPU_ONLY();
  Problem p(MOLFUSE_F64, 400, 500, false);
  p.mean.fill([](int64_t) { return 0; });
  p.log_var.fill([](int64_t) { return 0; });
  const std::vector<double> z = p.forward();
  const double n = static_cast<double>(z.size());
  double moment[5] = {};
  for (const double x : z) {
    for (int k = 1; k <= 4; ++k) moment[k] += std::pow(x, k) / n;
  }
  // Four standard errors each; the variance of x^k is E x^2k - (E x^k)^2.
  EXPECT_NEAR(moment[1], 0, 4 / std::sqrt(n));
  EXPECT_NEAR(moment[2], 1, 4 * std::sqrt(2 / n));
  EXPECT_NEAR(moment[3], 0, 4 * std::sqrt(15 / n));
  EXPECT_NEAR(moment[4], 3, 4 * std::sqrt(96 / n));
  for (const size_t lag : {1u, 2u, 3u, 4u, 500u}) {
    double correlation = 0, of_squares = 0;
    for (size_t i = lag; i < z.size(); ++i) {
      correlation += z[i] * z[i - lag] / n;
      of_squares += (z[i] * z[i] - 1) * (z[i - lag] * z[i - lag] - 1) / n;
    }
    EXPECT_NEAR(correlation, 0, 4 / std::sqrt(n)) << lag;
    EXPECT_NEAR(of_squares, 0, 4 * 2 / std::sqrt(n)) << lag;
  }
}

TEST(Reparameterize, SeedAndOffsetDecideTheNoise) {
  Problem p(MOLFUSE_F32, 9, 100, false);
  const std::vector<double> first = p.forward();
  EXPECT_EQ(first, p.forward(1));
  EXPECT_EQ(first, p.forward(2));
  p.offset += uint64_t{1} << 32;
  const std::vector<double> other_offset = p.forward();
  EXPECT_NE(first, other_offset);
  p.seed += 1;
  EXPECT_NE(other_offset, p.forward());
}

TEST(Reparameterize, GradientsPassFiniteDifferences) {
  MOLFUSE_CPU_ONLY();
  Problem p(MOLFUSE_F64, 3, 7, false);
  TestTensor grad_mean(MOLFUSE_F64, {3, 7}), grad_log_var(MOLFUSE_F64, {3, 7});
  auto a = p.args();
  a.grad_mean = grad_mean.view();
  a.grad_log_var = grad_log_var.view();
  ASSERT_EQ(molfuse_reparameterize_backward(&a, here()), MOLFUSE_OK);
  auto loss = [&] {
    const std::vector<double> z = p.forward();
    double sum = 0;
    for (size_t n = 0; n < z.size(); ++n) sum += z[n] * p.grad_z[static_cast<int64_t>(n)];
    return sum;
  };
  for (auto& [input, gradient] : {std::pair<TestTensor*, TestTensor*>{&p.mean, &grad_mean}, {&p.log_var, &grad_log_var}}) {
    for (int64_t n = 0; n < 21; ++n) {
      const double at = (*input)[n], step = 1e-6;
      input->set(n, at + step);
      const double up = loss();
      input->set(n, at - step);
      const double down = loss();
      input->set(n, at);
      const double slope = (up - down) / (2 * step);
      EXPECT_NEAR(slope, (*gradient)[n], 1e-6 * std::max(1.0, std::fabs(slope)));
    }
  }
}

TEST(Reparameterize, ZeroSize) {
  for (const auto& [batch, length] : {std::pair<int64_t, int64_t>{0, 8}, {8, 0}}) {
    Problem p(MOLFUSE_F32, batch, length, false);
    EXPECT_TRUE(p.forward().empty());
  }
}

TEST(Reparameterize, NaNStaysWhereItIs) {
  Problem p(MOLFUSE_F32, 2, 9, false);
  p.log_var.set(3, NAN);
  const std::vector<double> z = p.forward();
  for (size_t n = 0; n < z.size(); ++n) EXPECT_EQ(std::isnan(z[n]), n == 3);
}

TEST(Reparameterize, RefusesBadArguments) {
  Problem p(MOLFUSE_F32, 4, 6, false);
  TestTensor z(MOLFUSE_F32, {4, 6});
  auto good = p.args();
  good.z = z.view();
  ASSERT_EQ(molfuse_reparameterize_forward(&good, here()), MOLFUSE_OK);
  auto refuse = [&](const std::function<void(molfuse_reparameterize_args&)>& spoil, std::initializer_list<const char*> parts) {
    auto a = good;
    spoil(a);
    expect_invalid(molfuse_reparameterize_forward(&a, here()), parts);
  };
  refuse([](auto& a) { a.mean.size[1] = 5; }, {"log_var", "[4,6]", "[4,5]"});
  refuse([](auto& a) { a.mean.dtype = MOLFUSE_F64; }, {"log_var", "f32", "f64"});
  refuse([](auto& a) { a.log_var.dtype = MOLFUSE_I32; }, {"log_var", "int32"});
  refuse([](auto& a) { a.log_var.ndim = 1; }, {"log_var"});
  refuse([](auto& a) { a.mean.data = nullptr; }, {"mean", "required"});
  refuse([](auto& a) { a.z.stride[0] = 0; }, {"z", "broadcast"});
  auto a = good;
  a.grad_z.data = nullptr;
  expect_invalid(molfuse_reparameterize_backward(&a, here()), {"grad_z", "required"});
}

}  // namespace

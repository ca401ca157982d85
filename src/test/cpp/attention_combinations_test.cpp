// SPDX-License-Identifier: Apache-2.0
// Attention with every feature drawn at random, and the gradients of its biases against finite differences.
#include <cstdlib>

#include "attention_problem.h"

using namespace molfuse_test;

namespace {

bool one_in(Random& random, int64_t n) { return between(random, 0, n - 1) == 0; }

template <class T>
T any(Random& random, const std::vector<T>& of) {
  return of[static_cast<size_t>(between(random, 0, static_cast<int64_t>(of.size()) - 1))];
}

/// Mostly of few queries and keys, as one tile holds; sometimes of several tiles.
Case draw(Random& random) {
  Case c;
  c.dtype = any(random, std::vector<int32_t>(std::begin(kFloatTypes), std::end(kFloatTypes)));
  const int64_t longest = one_in(random, 60) ? 150 : one_in(random, 20) ? 70 : any<int64_t>(random, {4, 8, 12, 16, 16, 16, 24, 34});
  c.queries = between(random, 1, longest);
  c.keys = one_in(random, 2) ? c.queries : between(random, 1, longest);
  c.dim = one_in(random, 9) ? 8 * between(random, 1, 32) : any<int64_t>(random, {8, 16, 32, 64});
  c.batch = between(random, 1, 3);
  c.heads = between(random, 1, 3);
  // The formula in f64, computed one by one, takes longer than anything else here.
  const int64_t most = 25000;
  while (c.batch * c.heads > 1 && c.batch * c.heads * c.queries * c.keys * c.dim > most) --(c.batch > 1 ? c.batch : c.heads);
  while (c.dim > 8 && c.queries * c.keys * c.dim > 4 * most) c.dim = std::max<int64_t>(8, c.dim / 16 * 8);
  c.causal = one_in(random, 2);
  c.lengths = one_in(random, 2);
  c.empty_first = one_in(random, 3);
  if (one_in(random, 2)) {
    c.bias = {c.batch, c.heads, c.queries, c.keys};
    for (int64_t& size : c.bias) size = one_in(random, 2) ? 1 : size;
    c.bias_wide = one_in(random, 3);
  }
  if (one_in(random, 2)) c.radius = any<int64_t>(random, {0, 1, 3, 12, 200});
  if (one_in(random, 3)) c.dropout = any(random, std::vector<double>{0.1, 0.3, 0.5, 0.9});
  // A scale of 1 gives large scores: weights are near 0 or 1.
  if (one_in(random, 3)) c.scale = one_in(random, 4) ? 1 : any(random, std::vector<double>{0.5, -0.7, 1.5}) / std::sqrt(static_cast<double>(c.dim));
  c.permuted = one_in(random, 2);
  if (one_in(random, 3)) c.gap = any<int64_t>(random, {0, 3, 5, 8});
  c.threads = static_cast<int>(between(random, 1, 2));
  return c;
}

/// The packed form with the features of c it has, for sequences of at most c's sizes, against the formula for each.
void check_packed(const Case& c, Random& random) {
  const int64_t sequences = between(random, 1, 4), heads = c.heads, dim = c.dim;
  std::vector<double> cu_q = {0}, cu_k = {0};
  int64_t longest_q = 0, longest_k = 0;
  for (int64_t b = 0; b < sequences; ++b) {
    const int64_t n = one_in(random, 5) ? 0 : between(random, 1, c.queries), m = one_in(random, 5) ? 0 : between(random, 1, c.keys);
    cu_q.push_back(cu_q.back() + static_cast<double>(n));
    cu_k.push_back(cu_k.back() + static_cast<double>(m));
    longest_q = std::max(longest_q, n);
    longest_k = std::max(longest_k, m);
  }
  const auto tokens_q = static_cast<int64_t>(cu_q.back()), tokens_k = static_cast<int64_t>(cu_k.back());
  SCOPED_TRACE("packed, rows " + std::to_string(tokens_q) + " and " + std::to_string(tokens_k) + ": " + c.text());
  const int32_t wide = c.dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32;
  const int64_t gap = std::max<int64_t>(c.gap, 0);
  auto query = TestTensor::random(random, c.dtype, {tokens_q, heads, dim}, {}, gap);
  auto key = TestTensor::random(random, c.dtype, {tokens_k, heads, dim}, {}, gap);
  auto value = TestTensor::random(random, c.dtype, {tokens_k, heads, dim}, {}, gap);
  auto grad_out = TestTensor::random(random, c.dtype, {tokens_q, heads, dim}, {}, gap);
  TestTensor relative, grad_relative;
  if (c.radius >= 0) {
    relative = TestTensor::random(random, c.dtype, {heads, 2 * c.radius + 1});
    grad_relative = TestTensor(wide, relative.sizes());
  }
  auto starts_q = TestTensor::of(MOLFUSE_I32, {sequences + 1}, cu_q), starts_k = TestTensor::of(MOLFUSE_I32, {sequences + 1}, cu_k);
  TestTensor out(c.dtype, query.sizes(), {}, gap), lse(wide, {heads, tokens_q});
  TestTensor grad_query(c.dtype, query.sizes(), {}, gap), grad_key(c.dtype, key.sizes(), {}, gap), grad_value(c.dtype, key.sizes(), {}, gap);
  auto a = zeroed<molfuse_attention_args>();
  a.query = query.view();
  a.key = key.view();
  a.value = value.view();
  a.cu_seqlens_q = starts_q.view();
  a.cu_seqlens_k = starts_k.view();
  a.max_seqlen_q = longest_q + (one_in(random, 3) ? 30 : 0);
  a.max_seqlen_k = longest_k;
  a.causal = c.causal;
  a.has_scale = c.scale != 0;
  a.scale = c.scale;
  a.dropout_p = c.dropout;
  a.philox = {kSeed, kOffset};
  a.out = out.view();
  a.lse = lse.view();
  if (c.radius >= 0) a.relative_bias = relative.view();
  const auto execution = execution_here(c.threads);
  ASSERT_EQ(molfuse_attention_forward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
  a.grad_out = grad_out.view();
  a.grad_query = grad_query.view();
  a.grad_key = grad_key.view();
  a.grad_value = grad_value.view();
  if (c.radius >= 0) a.grad_relative_bias = grad_relative.view();
  ASSERT_EQ(molfuse_attention_backward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
  for (const TestTensor* t : {&out, &lse, &grad_query, &grad_key, &grad_value, &grad_relative}) EXPECT_TRUE(t->unharmed());

  Results exact_sum, eager_sum;
  exact_sum.grad_relative = eager_sum.grad_relative = std::vector<double>(static_cast<size_t>(relative.count()), 0.0);
  const double atol = small_atol(c.dtype);
  for (int64_t b = 0; b < sequences; ++b) {
    const auto at = static_cast<size_t>(b);
    const auto q0 = static_cast<int64_t>(cu_q[at]), k0 = static_cast<int64_t>(cu_k[at]);
    Case alone_case = c;
    alone_case.batch = 1;
    alone_case.first_batch = b;
    alone_case.queries = static_cast<int64_t>(cu_q[at + 1]) - q0;
    alone_case.keys = static_cast<int64_t>(cu_k[at + 1]) - k0;
    alone_case.lengths = alone_case.permuted = false;
    alone_case.bias.clear();
    auto slice = [&](const TestTensor& packed, int64_t first, int64_t rows) {
      TestTensor t(packed.dtype(), {1, heads, rows, dim});
      t.fill([&](int64_t n) { return packed[((first + n / dim % rows) * heads + n / (dim * rows)) * dim + n % dim]; });
      return t;
    };
    Problem alone(alone_case, 1);
    alone.query = slice(query, q0, alone_case.queries);
    alone.key = slice(key, k0, alone_case.keys);
    alone.value = slice(value, k0, alone_case.keys);
    alone.grad_out = slice(grad_out, q0, alone_case.queries);
    alone.relative = relative;
    const Results exact = alone.reference(false), eager = alone.reference(true);
    const double sum_atol = atol * std::sqrt(static_cast<double>(1 + alone_case.queries * heads));
    EXPECT_TRUE(accepted(slice(out, q0, alone_case.queries).values(), eager.out, exact.out, atol)) << "out " << b;
    EXPECT_TRUE(accepted(slice(grad_query, q0, alone_case.queries).values(), eager.grad_query, exact.grad_query, atol * size_of(exact.grad_query)))
        << "grad_query " << b;
    EXPECT_TRUE(accepted(slice(grad_key, k0, alone_case.keys).values(), eager.grad_key, exact.grad_key, sum_atol * size_of(exact.grad_key)))
        << "grad_key " << b;
    EXPECT_TRUE(accepted(slice(grad_value, k0, alone_case.keys).values(), eager.grad_value, exact.grad_value, sum_atol * size_of(exact.grad_value)))
        << "grad_value " << b;
    for (int64_t n = 0; n < alone_case.queries * heads; ++n) {
      const int64_t h = n / alone_case.queries, i = n % alone_case.queries;
      const double got = lse[h * tokens_q + q0 + i], expected = exact.lse[static_cast<size_t>(n)];
      EXPECT_TRUE(accepted({got}, {eager.lse[static_cast<size_t>(n)]}, {expected}, c.dtype == MOLFUSE_F64 ? 1e-12 : 4e-6)) << "lse " << b;
    }
    for (size_t n = 0; n < exact_sum.grad_relative.size(); ++n) {
      exact_sum.grad_relative[n] += exact.grad_relative[n];
      eager_sum.grad_relative[n] += eager.grad_relative[n];
    }
  }
  if (c.radius >= 0) {
    const double sum_atol = atol * std::sqrt(static_cast<double>(1 + tokens_q * heads));
    EXPECT_TRUE(accepted(grad_relative.values(), eager_sum.grad_relative, exact_sum.grad_relative, sum_atol * size_of(exact_sum.grad_relative)))
        << "grad_relative";
  }
}

constexpr int kParts = 4;
class AttentionCombinations : public testing::TestWithParam<int> {};

TEST_P(AttentionCombinations, DrawnAtRandom) {
  const char* const given = std::getenv("MOLFUSE_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 20;
  const int count = (kSanitized ? 300 : 3200) / kParts, first = GetParam() * count;
  std::printf("%d combinations of attention's features from %d on, MOLFUSE_TEST_SEED=%llu\n", count, first,
              static_cast<unsigned long long>(seed));
  for (int n = first; n < first + count; ++n) {
    SCOPED_TRACE("combination " + std::to_string(n));
    Random random(seed * 1000003 + static_cast<uint64_t>(n));
    schedule_by(static_cast<uint64_t>(n));
    const Case c = draw(random);
    if (one_in(random, 6)) {
      check_packed(c, random);
    } else {
      check(c, seed + static_cast<uint64_t>(n), true);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Parts, AttentionCombinations, testing::Range(0, kParts));

/// Central differences of sum(out * grad_out) in f64, of the formula where the library has no f64.
TEST(AttentionBias, GradientsPassFiniteDifferencesInEveryBroadcastForm) {
  for (int mask = 0; mask < 16; ++mask) {
    Case c;
    c.dtype = kOnDevice ? MOLFUSE_F32 : MOLFUSE_F64;
    c.batch = 2;
    c.heads = 3;
    c.queries = 4;
    c.keys = 6;
    c.dim = 8;
    c.bias = {mask & 1 ? 1 : c.batch, mask & 2 ? 1 : c.heads, mask & 4 ? 1 : c.queries, mask & 8 ? 1 : c.keys};
    c.radius = std::vector<int64_t>{0, 1, 4, 30}[static_cast<size_t>(mask % 4)];
    c.causal = mask % 3 == 0;
    c.lengths = mask % 2 == 0;
    c.fixed_lengths = {5, 6};
    c.dropout = mask % 5 == 0 ? 0.25 : 0;
    SCOPED_TRACE(c.text());
    Problem problem(c, 11);
    const Results got = problem.run();
    Case exact_case = c;
    exact_case.dtype = MOLFUSE_F64;
    Problem exact(exact_case, 11);
    for (auto member : {&Problem::query, &Problem::key, &Problem::value, &Problem::grad_out, &Problem::bias, &Problem::relative}) {
      for (int64_t n = 0; n < (problem.*member).count(); ++n) (exact.*member).set(n, (problem.*member)[n]);
    }
    auto loss = [&] {
      const Results r = kOnDevice ? exact.reference(false) : exact.run();
      double sum = 0;
      for (size_t n = 0; n < r.out.size(); ++n) sum += r.out[n] * exact.grad_out[static_cast<int64_t>(n)];
      return sum;
    };
    auto differences = [&](TestTensor& tensor, const std::vector<double>& gradient, const char* name) {
      ASSERT_EQ(static_cast<int64_t>(gradient.size()), tensor.count());
      for (int64_t n = 0; n < tensor.count(); ++n) {
        const double at = tensor[n], step = 1e-5;
        tensor.set(n, at + step);
        const double up = loss();
        tensor.set(n, at - step);
        const double down = loss();
        tensor.set(n, at);
        EXPECT_NEAR((up - down) / (2 * step), gradient[static_cast<size_t>(n)], kOnDevice ? 2e-5 : 1e-7) << name << " " << n;
      }
    };
    differences(exact.bias, got.grad_bias, "bias");
    differences(exact.relative, got.grad_relative, "relative_bias");
  }
}

}  // namespace

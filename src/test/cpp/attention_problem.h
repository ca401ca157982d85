// SPDX-License-Identifier: Apache-2.0
// Attention problems for tests: a case, the library's results, and the formula in f64 or as unfused operators would compute it.
#pragma once

#include "molfuse/attention.h"
#include "support.h"

namespace molfuse_test {

struct Case {
  int32_t dtype = MOLFUSE_F32;
  int64_t batch = 2, heads = 3, queries = 5, keys = 7, dim = 16;
  std::vector<int64_t> bias;  // sizes, empty: none
  int64_t radius = -1;        // -1: no relative bias
  bool lengths = false, causal = false;
  double dropout = 0;
  double scale = 0;  // 0: default
  bool permuted = false;  // operands as [B,N,H,D] views
  int threads = 2;  // small work would not get them by itself
  std::vector<int64_t> fixed_lengths;
  int64_t gap = -1;  // elements between rows; -1: 8 if permuted, else none
  int64_t first_batch = 0;  // counted from there in dropout's counter of the formula
  bool bias_wide = false;   // f32 beside operands of 16 bits
  bool tf32 = false;        // allowed
  bool empty_first = true;  // random lengths: none of the first sequence's keys is seen

  std::string text() const {
    std::string s = std::string(molfuse_dtype_name(dtype)) + " B" + std::to_string(batch) + " H" + std::to_string(heads) + " N" +
                    std::to_string(queries) + " M" + std::to_string(keys) + " D" + std::to_string(dim) + " R" + std::to_string(radius);
    if (!bias.empty()) {
      s += " bias";
      for (const int64_t n : bias) s += " " + std::to_string(n);
    }
    if (bias_wide) s += " wide";
    if (scale != 0) s += " scale " + std::to_string(scale);
    if (gap >= 0) s += " gap " + std::to_string(gap);
    return s + (lengths ? " lengths" : "") + (causal ? " causal" : "") + (permuted ? " permuted" : "") + " p" + std::to_string(dropout);
  }
};

struct Philox {
  static std::vector<uint32_t> words(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key) {
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int r = 0; r < 10; ++r) {
      const uint64_t a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
      c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
      c1 = static_cast<uint32_t>(b);
      c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
      c3 = static_cast<uint32_t>(a);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
  }
};

constexpr uint64_t kSeed = 0x123456789ABCDEFull, kOffset = 7;

/// Results of one computation, all as f64 in row-major order.
struct Results {
  std::vector<double> out, lse, grad_query, grad_key, grad_value, grad_bias, grad_relative;
};

struct Problem {
  Case c;
  TestTensor query, key, value, grad_out, bias, relative, lengths;

  Problem(const Case& given, uint64_t seed) : c(given) {
    Random random(seed);
    const std::vector<int> order = c.permuted ? std::vector<int>{0, 2, 1, 3} : std::vector<int>{};
    const int64_t gap = c.gap >= 0 ? c.gap : c.permuted ? 8 : 0;
    query = TestTensor::random(random, c.dtype, {c.batch, c.heads, c.queries, c.dim}, order, gap);
    key = TestTensor::random(random, c.dtype, {c.batch, c.heads, c.keys, c.dim}, order, gap);
    value = TestTensor::random(random, c.dtype, {c.batch, c.heads, c.keys, c.dim}, order, gap);
    grad_out = TestTensor::random(random, c.dtype, {c.batch, c.heads, c.queries, c.dim}, order, gap);
    if (!c.bias.empty()) bias = TestTensor::random(random, c.bias_wide ? wide() : c.dtype, c.bias, {}, c.permuted ? 3 : 0);
    if (c.radius >= 0) relative = TestTensor::random(random, c.dtype, {c.heads, 2 * c.radius + 1});
    if (c.lengths) {
      lengths = TestTensor(MOLFUSE_I64, {c.batch});
      lengths.fill([&](int64_t b) {
        if (!c.fixed_lengths.empty()) return static_cast<double>(c.fixed_lengths[static_cast<size_t>(b)]);
        return b == 0 && c.empty_first ? 0.0 : static_cast<double>(between(random, 1, c.keys));
      });
    }
  }

  molfuse_attention_args args() {
    auto a = zeroed<molfuse_attention_args>();
    a.query = query.view();
    a.key = key.view();
    a.value = value.view();
    if (!c.bias.empty()) a.bias = bias.view();
    if (c.radius >= 0) a.relative_bias = relative.view();
    if (c.lengths) a.key_lengths = lengths.view();
    a.causal = c.causal;
    a.has_scale = c.scale != 0;
    a.scale = c.scale;
    a.dropout_p = c.dropout;
    a.philox = {kSeed, kOffset};
    return a;
  }

  int32_t wide() const { return c.dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32; }

  Results run() {
    auto a = args();
    const std::vector<int> order = c.permuted ? std::vector<int>{0, 2, 1, 3} : std::vector<int>{};
    const int64_t gap = c.gap >= 0 ? c.gap : c.permuted ? 8 : 0;
    TestTensor out(c.dtype, query.sizes(), order, gap), lse(wide(), {c.batch, c.heads, c.queries});
    TestTensor grad_query(c.dtype, query.sizes(), order, gap), grad_key(c.dtype, key.sizes(), order, gap),
        grad_value(c.dtype, key.sizes(), order, gap), grad_bias, grad_relative;
    auto execution = execution_here(c.threads);
    execution.allow_tf32 = c.tf32;
    a.out = out.view();
    a.lse = lse.view();
    EXPECT_EQ(molfuse_attention_forward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
    a.grad_out = grad_out.view();
    a.grad_query = grad_query.view();
    a.grad_key = grad_key.view();
    a.grad_value = grad_value.view();
    if (!c.bias.empty()) {
      grad_bias = TestTensor(wide(), c.bias, {}, 2);
      a.grad_bias = grad_bias.view();
    }
    if (c.radius >= 0) {
      grad_relative = TestTensor(wide(), relative.sizes());
      a.grad_relative_bias = grad_relative.view();
    }
    EXPECT_EQ(molfuse_attention_backward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
    for (const TestTensor* t : {&out, &lse, &grad_query, &grad_key, &grad_value, &grad_bias, &grad_relative}) EXPECT_TRUE(t->unharmed());
    return {out.values(), lse.values(), grad_query.values(), grad_key.values(), grad_value.values(),
            c.bias.empty() ? std::vector<double>{} : grad_bias.values(), c.radius >= 0 ? grad_relative.values() : std::vector<double>{}};
  }

  /// The formula of OPERATORS, in f64; with eager set as unfused operators compute it: every intermediate tensor rounded to the dtype,
  /// sums taken in f32 below f64.
  Results reference(bool eager) const {
    const int32_t dtype = eager ? c.dtype : MOLFUSE_F64;
    auto r = [&](double v) { return round_to(dtype, v); };
    const int32_t sum_dtype = eager && c.dtype != MOLFUSE_F64 ? MOLFUSE_F32 : MOLFUSE_F64;
    auto add = [&](double& sum, double term) { sum = round_to(sum_dtype, sum + term); };
    const int64_t N = c.queries, M = c.keys, D = c.dim;
    const double scale = c.scale != 0 ? c.scale : 1 / std::sqrt(static_cast<double>(D));
    Results result;
    auto zeros = [](int64_t n) { return std::vector<double>(static_cast<size_t>(n), 0.0); };
    result.out = result.grad_query = zeros(query.count());
    result.grad_key = result.grad_value = zeros(key.count());
    result.lse = zeros(c.batch * c.heads * N);
    if (!c.bias.empty()) result.grad_bias = zeros(bias.count());
    if (c.radius >= 0) result.grad_relative = zeros(relative.count());
    auto bias_at = [&](int64_t b, int64_t h, int64_t i, int64_t j) {
      const int64_t at[4] = {b, h, i, j};
      int64_t n = 0;
      for (int d = 0; d < 4; ++d) n = n * c.bias[static_cast<size_t>(d)] + (c.bias[static_cast<size_t>(d)] == 1 ? 0 : at[d]);
      return n;
    };
    auto relative_at = [&](int64_t h, int64_t i, int64_t j) {
      return h * (2 * c.radius + 1) + std::clamp(j - i - (M - N), -c.radius, c.radius) + c.radius;
    };
    const double threshold = std::floor(c.dropout * 4294967296.0);
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int64_t h = 0; h < c.heads; ++h) {
        const int64_t q0 = (b * c.heads + h) * N * D, k0 = (b * c.heads + h) * M * D;
        for (int64_t i = 0; i < N; ++i) {
          int64_t limit = c.lengths ? static_cast<int64_t>(lengths[b]) : M;
          if (c.causal) limit = std::min(limit, i + M - N + 1);
          limit = std::max<int64_t>(limit, 0);
          std::vector<double> p(static_cast<size_t>(limit)), keep(static_cast<size_t>(limit), 1.0);
          double largest = -INFINITY, sum = 0;
          for (int64_t j = 0; j < limit; ++j) {
            double s = 0;
            for (int64_t d = 0; d < D; ++d) add(s, query[q0 + i * D + d] * key[k0 + j * D + d]);
            s = r(r(s) * scale);
            if (!c.bias.empty()) s = r(s + bias[bias_at(b, h, i, j)]);
            if (c.radius >= 0) s = r(s + relative[relative_at(h, i, j)]);
            p[static_cast<size_t>(j)] = s;
            largest = std::max(largest, s);
          }
          const bool nothing = limit == 0 || largest == -INFINITY;
          for (double& s : p) {
            s = nothing ? 0 : round_to(sum_dtype, std::exp(s - largest));
            add(sum, s);
          }
          result.lse[static_cast<size_t>((b * c.heads + h) * N + i)] = nothing ? -INFINITY : largest + std::log(sum);
          if (nothing) continue;
          for (int64_t j = 0; j < limit; ++j) {
            p[static_cast<size_t>(j)] = r(p[static_cast<size_t>(j)] / sum);
            if (c.dropout > 0) {
              const auto words = Philox::words(static_cast<uint32_t>(j / 4), static_cast<uint32_t>(i),
                                               static_cast<uint32_t>((c.first_batch + b) * c.heads + h), static_cast<uint32_t>(kOffset), kSeed);
              keep[static_cast<size_t>(j)] = words[static_cast<size_t>(j % 4)] >= threshold ? 1 / (1 - c.dropout) : 0;
            }
          }
          double delta = 0;
          std::vector<double> dp(static_cast<size_t>(limit));
          for (int64_t d = 0; d < D; ++d) {
            double o = 0;
            for (int64_t j = 0; j < limit; ++j) add(o, r(p[static_cast<size_t>(j)] * keep[static_cast<size_t>(j)]) * value[k0 + j * D + d]);
            result.out[static_cast<size_t>(q0 + i * D + d)] = r(o);
          }
          for (int64_t j = 0; j < limit; ++j) {
            double g = 0;
            for (int64_t d = 0; d < D; ++d) {
              add(g, grad_out[q0 + i * D + d] * value[k0 + j * D + d]);
              add(result.grad_value[static_cast<size_t>(k0 + j * D + d)],
                  r(p[static_cast<size_t>(j)] * keep[static_cast<size_t>(j)]) * grad_out[q0 + i * D + d]);
            }
            dp[static_cast<size_t>(j)] = r(r(g) * keep[static_cast<size_t>(j)]);
            add(delta, p[static_cast<size_t>(j)] * dp[static_cast<size_t>(j)]);
          }
          for (int64_t j = 0; j < limit; ++j) {
            const double ds = r(p[static_cast<size_t>(j)] * (dp[static_cast<size_t>(j)] - delta));
            if (!c.bias.empty()) add(result.grad_bias[static_cast<size_t>(bias_at(b, h, i, j))], ds);
            if (c.radius >= 0) add(result.grad_relative[static_cast<size_t>(relative_at(h, i, j))], ds);
            for (int64_t d = 0; d < D; ++d) {
              add(result.grad_query[static_cast<size_t>(q0 + i * D + d)], r(ds * scale) * key[k0 + j * D + d]);
              add(result.grad_key[static_cast<size_t>(k0 + j * D + d)], r(ds * scale) * query[q0 + i * D + d]);
            }
          }
        }
      }
    }
    for (auto* v : {&result.grad_query, &result.grad_key, &result.grad_value}) {
      for (double& x : *v) x = r(x);
    }
    return result;
  }
};

/// The largest number, at least 1: a type's small tolerance is for values around one.
inline double size_of(const std::vector<double>& values) {
  double size = 1;
  for (const double v : values) size = std::max(size, std::fabs(v));
  return size;
}

/// drawn: one of thousands of problems, among which are some where the unfused computation happens to be exact, or to be wrong by chance in
/// the other direction. Small tolerances then go with the largest gradient, and with how many terms a bias's gradient is the sum of.
inline void check(const Case& c, uint64_t seed = 1, bool drawn = false) {
  SCOPED_TRACE(c.text());
  Problem problem(c, seed);
  const Results got = problem.run(), exact = problem.reference(false), eager = problem.reference(true);
  const double atol = small_atol(c.dtype);
  EXPECT_TRUE(accepted(got.out, eager.out, exact.out, atol)) << "out";
  EXPECT_TRUE(accepted(got.lse, eager.lse, exact.lse, c.dtype == MOLFUSE_F64 ? 1e-12 : 4e-6)) << "lse";
  // Sums over many rows grow with their number; the eager error grows along, the small tolerance by its square root.
  const double sum_atol = atol * std::sqrt(static_cast<double>(c.queries * c.batch * c.heads));
  double bias_atol = sum_atol;
  if (drawn && !c.bias.empty()) {
    double terms = static_cast<double>(c.batch * c.heads * c.queries * c.keys);
    for (const int64_t size : c.bias) terms /= static_cast<double>(size);
    bias_atol = atol * std::sqrt(terms);
  }
  const auto check_gradient = [&](std::vector<double> Results::*of, double small, const char* name) {
    EXPECT_TRUE(accepted(got.*of, eager.*of, exact.*of, drawn ? small * size_of(exact.*of) : small)) << name;
  };
  check_gradient(&Results::grad_query, atol, "grad_query");
  check_gradient(&Results::grad_key, sum_atol, "grad_key");
  check_gradient(&Results::grad_value, sum_atol, "grad_value");
  check_gradient(&Results::grad_bias, bias_atol, "grad_bias");
  check_gradient(&Results::grad_relative, sum_atol, "grad_relative");
}

}  // namespace molfuse_test

// SPDX-License-Identifier: Apache-2.0
#include "attention_problem.h"

using namespace molfuse_test;

namespace {

TEST(Attention, MatchesTheFormulaForEveryTypeAndLevel) {
  at_each_level([](const std::string&) {
    for (const int32_t dtype : kFloatTypes) {
      Case c;
      c.dtype = dtype;
      check(c);
      c.causal = true;
      c.permuted = true;
      c.radius = 3;
      c.bias = {1, c.heads, c.queries, c.keys};
      c.lengths = true;
      check(c);
    }
  });
}

TEST(Attention, MatchesTheFormulaAtRandomShapes) {
  Random random(5);
  const int64_t longest = kSlow ? 70 : 90;
  for (int n = 0; n < (kSlow ? 24 : 120); ++n) {
    Case c;
    c.dtype = kFloatTypes[between(random, 0, static_cast<int64_t>(std::size(kFloatTypes)) - 1)];
    c.batch = between(random, 1, kSlow ? 2 : 3);
    c.heads = between(random, 1, kSlow ? 2 : 3);
    c.queries = between(random, 0, 2) == 0 ? between(random, 1, 5) : between(random, 1, longest);
    c.keys = between(random, 0, 2) == 0 ? between(random, 1, 5) : between(random, 1, longest);
    c.dim = 8 * between(random, 1, 9);
    if (between(random, 0, 1) == 1) {
      c.bias = {between(random, 0, 1) ? 1 : c.batch, between(random, 0, 1) ? 1 : c.heads, between(random, 0, 1) ? 1 : c.queries,
                between(random, 0, 1) ? 1 : c.keys};
    }
    if (between(random, 0, 1) == 1) c.radius = between(random, 0, 12);
    c.lengths = between(random, 0, 1) == 1;
    c.causal = between(random, 0, 1) == 1;
    c.permuted = between(random, 0, 1) == 1;
    if (between(random, 0, 2) == 0) c.dropout = 0.3;
    if (between(random, 0, 2) == 0) c.scale = 0.37;
    c.threads = static_cast<int>(between(random, 1, 2));
    check(c, static_cast<uint64_t>(n));
  }
}

TEST(Attention, EveryBroadcastOfTheBias) {
  for (int mask = 0; mask < 16; ++mask) {
    Case c;
    if (kOnDevice) {
      // Two blocks of rows, two of columns.
      c.heads = 2;
      c.queries = 66;
      c.keys = 35;
      c.dim = 8;
    } else {
      c.batch = 3;
      c.queries = 9;
      c.keys = 11;
    }
    c.bias = {mask & 1 ? 1 : c.batch, mask & 2 ? 1 : c.heads, mask & 4 ? 1 : c.queries, mask & 8 ? 1 : c.keys};
    for (const int threads : {1, 2}) {
      c.threads = threads;
      for (const bool causal : {false, true}) {
        c.causal = causal;
        if (!kSlow || (threads == 1 && causal == (mask % 2 == 0))) check(c);
      }
    }
  }
}

TEST(Attention, SequencesLongerThanABlock) {
  const auto body = [](const std::string&) {
    for (const bool causal : {false, true}) {
      Case c;
      c.batch = 1;
      c.heads = kSlow ? 1 : 2;
      c.queries = kSlow ? 70 : 150;
      c.keys = kSlow ? 140 : 600;
      c.dim = 24;
      c.causal = causal;
      c.radius = 40;
      c.bias = {1, 1, c.queries, c.keys};
      check(c);
      std::swap(c.queries, c.keys);
      c.bias = {};
      c.dropout = 0.2;
      check(c);
    }
  };
  if (kOnDevice) return body("");
  at_each_level(body);
}

TEST(Attention, FewerHeadsThanThreads) {
  MOLFUSE_CPU_ONLY();
  for (const int threads : {1, 2, 5}) {
    Case c;
    c.batch = c.heads = 1;
    c.queries = 200;
    c.keys = 330;
    c.threads = threads;
    c.radius = 7;
    c.causal = true;
    c.bias = {1, 1, 200, 330};
    check(c);
    c.bias = {1, 1, 1, 330};
    check(c);
  }
}

TEST(Attention, EdgeSizes) {
  for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{1, 1}, {1, 40}, {40, 1}, {4, 4}, {63, 65}, {64, 64}, {65, 257}}) {
    for (const int64_t dim : {8, 40, 64, 72, 128, 256}) {
      // Every size and every head size there too, though not all of each with the other.
      if (kSlow && (queries + keys + dim / 8) % 4 != 0) continue;
      Case c;
      c.batch = 1;
      c.heads = kSlow ? 1 : 2;
      c.queries = queries;
      c.keys = keys;
      c.dim = dim;
      c.causal = queries > keys;
      check(c);
    }
  }
}

TEST(Attention, RowsThatSeeNothing) {
  for (const bool causal : {false, true}) {
    Case c;
    c.queries = 9;
    c.keys = 4;  // causal: the first five queries see nothing
    c.lengths = true;
    c.fixed_lengths = {0, 3};
    c.causal = causal;
    c.bias = {c.batch, c.heads, c.queries, c.keys};
    c.radius = 2;
    check(c);
    Problem problem(c, 1);
    const Results got = problem.run();
    for (int64_t n = 0; n < c.heads * c.queries; ++n) {
      EXPECT_EQ(got.lse[static_cast<size_t>(n)], -INFINITY);
      for (int64_t d = 0; d < c.dim; ++d) EXPECT_EQ(got.out[static_cast<size_t>(n * c.dim + d)], 0);
    }
    for (const auto* v : {&got.out, &got.grad_query, &got.grad_key, &got.grad_value, &got.grad_bias, &got.grad_relative}) {
      for (const double x : *v) EXPECT_TRUE(std::isfinite(x));
    }
  }
}

TEST(Attention, WhatIsInvisibleMayHoldAnything) {
  at_each_level([](const std::string&) {
    const double nan = std::nan("");
    // Tiny, one block, several blocks of keys.
    const int64_t most = kSlow ? 70 : 300;
    for (const int64_t keys : {int64_t{4}, int64_t{7}, int64_t{40}, most}) {
      for (const int32_t dtype : kFloatTypes) {
        if (kSlow && dtype != (keys == 7 ? MOLFUSE_F32 : keys == 40 ? MOLFUSE_F16 : MOLFUSE_BF16)) continue;
        Case c;
        c.dtype = dtype;
        c.batch = 3;
        c.keys = keys;
        c.lengths = true;
        c.fixed_lengths = {0, 3, keys - 1};
        SCOPED_TRACE(c.text());
        Problem clean(c, 1), problem(c, 1);
        const int64_t rows = c.heads * keys * c.dim;
        for (TestTensor* t : {&problem.key, &problem.value}) {
          for (int64_t n = 0; n < t->count(); ++n) {
            if (n / c.dim % keys >= c.fixed_lengths[static_cast<size_t>(n / rows)]) t->set(n, nan);
          }
        }
        // Queries of a sequence without keys see nothing.
        for (TestTensor* t : {&problem.query, &problem.grad_out}) {
          for (int64_t n = 0; n < t->count() / c.batch; ++n) t->set(n, nan);
        }
        const Results got = problem.run(), expected = clean.run();
        EXPECT_EQ(got.out, expected.out);
        EXPECT_EQ(got.grad_query, expected.grad_query);
        EXPECT_EQ(got.grad_key, expected.grad_key);
        EXPECT_EQ(got.grad_value, expected.grad_value);
      }
    }
  });
}

TEST(Attention, RowsThatSeeNothingAreZeroBesideRowsThatSeeInfinity) {
  at_each_level([](const std::string&) {
    for (const int64_t keys : {4, 20}) {
      Case c;
      c.keys = keys;
      c.queries = keys + 6;
      c.causal = true;
      Problem problem(c, 1);
      problem.value.fill([](int64_t) { return std::numeric_limits<double>::infinity(); });
      for (int64_t n = 0; n < problem.query.count(); ++n) {
        if (n / c.dim % c.queries < 6) problem.query.set(n, std::nan(""));
      }
      const Results got = problem.run();
      for (int64_t n = 0; n < problem.query.count(); ++n) {
        if (n / c.dim % c.queries >= 6) continue;
        EXPECT_EQ(got.out[static_cast<size_t>(n)], 0);
        EXPECT_EQ(got.grad_query[static_cast<size_t>(n)], 0);
      }
      for (const double g : got.grad_value) EXPECT_TRUE(std::isfinite(g));
    }
  });
}

TEST(Attention, BiasGradientsAreWrittenWithoutQueriesOrKeys) {
  const std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>> cases = {
      {{3, 0}, {2, 3, 3, 1}}, {{1, 0}, {1, 1, 1, 1}}, {{0, 5}, {1, 3, 1, 5}}, {{0, 1}, {2, 1, 1, 1}}, {{0, 0}, {1, 1, 1, 1}}};
  for (const auto& [sizes, bias] : cases) {
    Case c;
    c.queries = sizes[0];
    c.keys = sizes[1];
    c.bias = bias;
    SCOPED_TRACE(c.text());
    const Results got = Problem(c, 1).run();
    EXPECT_EQ(got.grad_bias, std::vector<double>(got.grad_bias.size(), 0.0));
  }
}

TEST(Attention, LongSequencesOfOneHeadSumTheirRelativeBiasInParts) {
  MOLFUSE_CPU_ONLY();
  Case c;
  c.batch = c.heads = 1;
  c.queries = 64 * 64 + 70;  // more blocks than there are parts
  c.keys = 9;
  c.dim = 8;
  c.radius = 4;
  c.threads = 2;
  const Problem problem(c, 3);
  const Results got = Problem(c, 3).run(), expected = problem.reference(false), eager = problem.reference(true);
  EXPECT_TRUE(accepted(got.grad_relative, eager.grad_relative, expected.grad_relative, 1e-4));
  EXPECT_TRUE(accepted(got.grad_query, eager.grad_query, expected.grad_query, small_atol(c.dtype)));
}

TEST(Attention, MinusInfinityInTheBiasMasks) {
  Case c;
  c.bias = {1, 1, c.queries, c.keys};
  Problem problem(c, 3);
  problem.bias.fill([&](int64_t n) { return n / c.keys == 2 || n % 3 == 0 ? -INFINITY : 0.5; });  // row 2 wholly masked
  const Results got = problem.run(), exact = problem.reference(false);
  EXPECT_LE(max_difference(got.out, exact.out), 2e-6);
  EXPECT_LE(max_difference(got.grad_query, exact.grad_query), 1e-5);
  EXPECT_LE(max_difference(got.grad_bias, exact.grad_bias), 1e-5);
}

TEST(Attention, NaNPropagates) {
  Case c;
  Problem problem(c, 3);
  problem.query.set(0, NAN);
  const Results got = problem.run();
  EXPECT_TRUE(std::isnan(got.out[0]));
  EXPECT_FALSE(std::isnan(got.out[static_cast<size_t>(c.dim)]));
}

TEST(Attention, GradientsPassFiniteDifferences) {
  MOLFUSE_CPU_ONLY();
  Case c;
  c.dtype = MOLFUSE_F64;
  c.batch = 2;
  c.heads = 2;
  c.queries = 4;
  c.keys = 6;
  c.dim = 8;
  c.bias = {1, 2, 4, 6};
  c.radius = 2;
  c.causal = true;
  c.lengths = true;
  c.fixed_lengths = {5, 6};
  for (const double dropout : {0.0, 0.25}) {
    c.dropout = dropout;
    Problem problem(c, 11);
    const Results got = problem.run();
    auto loss = [&] {
      const Results r = problem.run();
      double sum = 0;
      for (size_t n = 0; n < r.out.size(); ++n) sum += r.out[n] * problem.grad_out[static_cast<int64_t>(n)];
      return sum;
    };
    struct Pair {
      TestTensor* tensor;
      const std::vector<double>* gradient;
    };
    for (const Pair& pair : {Pair{&problem.query, &got.grad_query}, Pair{&problem.key, &got.grad_key}, Pair{&problem.value, &got.grad_value},
                             Pair{&problem.bias, &got.grad_bias}, Pair{&problem.relative, &got.grad_relative}}) {
      for (int64_t n = 0; n < pair.tensor->count(); ++n) {
        const double at = (*pair.tensor)[n], step = 1e-5;
        pair.tensor->set(n, at + step);
        const double up = loss();
        pair.tensor->set(n, at - step);
        const double down = loss();
        pair.tensor->set(n, at);
        EXPECT_NEAR((up - down) / (2 * step), (*pair.gradient)[static_cast<size_t>(n)], 1e-7);
      }
    }
  }
}

TEST(Attention, DropoutKeepsTheStatedFraction) {
  Case c;
  c.batch = c.heads = kSlow ? 1 : 4;
  c.queries = c.keys = 64;
  c.dim = 64;
  c.dropout = 0.1;
  Problem problem(c, 1);
  // With value the identity and uniform weights, out[i][j] is weight (i,j): 1/64/(1-p) or 0.
  problem.query.fill([](int64_t) { return 0.0; });
  problem.value.fill([&](int64_t n) { return n / 64 % 64 == n % 64 ? 1.0 : 0.0; });
  const Results got = problem.run();
  double kept = 0;
  for (const double w : got.out) {
    EXPECT_TRUE(w == 0 || std::fabs(w - 1.0 / 64 / 0.9) < 1e-6);
    kept += w != 0;
  }
  const double n = static_cast<double>(got.out.size());
  EXPECT_NEAR(kept / n, 0.9, 4 * std::sqrt(0.09 / n));
}

TEST(Attention, PackedFormEqualsEachSequenceAlone) {
  Random random(9);
  const int64_t heads = 2, dim = 16;
  const std::vector<double> cu_q = {0, 3, 3, 80, 81}, cu_k = {0, 5, 9, 89, 89};  // an empty query, an empty key sequence
  for (const int32_t dtype : kFloatTypes) {
    const int32_t wide = dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32;
    auto query = TestTensor::random(random, dtype, {81, heads, dim}), key = TestTensor::random(random, dtype, {89, heads, dim}),
         value = TestTensor::random(random, dtype, {89, heads, dim}), grad_out = TestTensor::random(random, dtype, {81, heads, dim}),
         relative = TestTensor::random(random, dtype, {heads, 11});
    auto starts_q = TestTensor::of(MOLFUSE_I32, {5}, cu_q), starts_k = TestTensor::of(MOLFUSE_I32, {5}, cu_k);
    TestTensor out(dtype, query.sizes()), lse(wide, {heads, 81}), grad_query(dtype, query.sizes()), grad_key(dtype, key.sizes()),
        grad_value(dtype, key.sizes()), grad_relative(wide, relative.sizes());
    auto a = zeroed<molfuse_attention_args>();
    a.query = query.view();
    a.key = key.view();
    a.value = value.view();
    a.relative_bias = relative.view();
    a.cu_seqlens_q = starts_q.view();
    a.cu_seqlens_k = starts_k.view();
    a.max_seqlen_q = dtype == MOLFUSE_F32 ? 77 : 1000000;  // exact or generous
    a.max_seqlen_k = 80;
    a.causal = 1;
    a.out = out.view();
    a.lse = lse.view();
    ASSERT_EQ(molfuse_attention_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    a.grad_out = grad_out.view();
    a.grad_query = grad_query.view();
    a.grad_key = grad_key.view();
    a.grad_value = grad_value.view();
    a.grad_relative_bias = grad_relative.view();
    ASSERT_EQ(molfuse_attention_backward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    std::vector<double> relative_sum(static_cast<size_t>(relative.count()), 0.0);
    for (size_t b = 0; b + 1 < cu_q.size(); ++b) {
      const int64_t q0 = static_cast<int64_t>(cu_q[b]), k0 = static_cast<int64_t>(cu_k[b]);
      Case c;
      c.dtype = dtype;
      c.batch = 1;
      c.heads = heads;
      c.dim = dim;
      c.queries = static_cast<int64_t>(cu_q[b + 1]) - q0;
      c.keys = static_cast<int64_t>(cu_k[b + 1]) - k0;
      c.causal = true;
      c.radius = 5;
      auto slice = [&](const TestTensor& packed, int64_t first, int64_t rows) {
        TestTensor t(packed.dtype(), {1, heads, rows, dim});
        t.fill([&](int64_t n) { return packed[((first + n / dim % rows) * heads + n / (dim * rows)) * dim + n % dim]; });
        return t;
      };
      if (c.queries == 0) {
        for (int64_t n = k0 * heads * dim; n < (k0 + c.keys) * heads * dim; ++n) EXPECT_EQ(grad_key[n], 0);
        continue;
      }
      if (c.keys == 0) {
        for (int64_t n = q0 * heads * dim; n < (q0 + c.queries) * heads * dim; ++n) {
          EXPECT_EQ(out[n], 0);
          EXPECT_EQ(grad_query[n], 0);
        }
        continue;
      }
      Problem alone(c, 1);
      alone.query = slice(query, q0, c.queries);
      alone.key = slice(key, k0, c.keys);
      alone.value = slice(value, k0, c.keys);
      alone.grad_out = slice(grad_out, q0, c.queries);
      alone.relative = relative;
      const Results expected = alone.run();
      const std::vector<double> packed_out = slice(out, q0, c.queries).values(), packed_query = slice(grad_query, q0, c.queries).values(),
                                packed_key = slice(grad_key, k0, c.keys).values(), packed_value = slice(grad_value, k0, c.keys).values();
      if (kOnDevice) {
        // The longest sequence decides on the kernels there, so that a short one alone may have others.
        const Results exact = alone.reference(false), eager = alone.reference(true);
        const double atol = small_atol(dtype), sum_atol = atol * std::sqrt(static_cast<double>(c.queries * c.heads));
        EXPECT_TRUE(accepted(packed_out, eager.out, exact.out, atol));
        EXPECT_TRUE(accepted(packed_query, eager.grad_query, exact.grad_query, atol));
        EXPECT_TRUE(accepted(packed_key, eager.grad_key, exact.grad_key, sum_atol));
        EXPECT_TRUE(accepted(packed_value, eager.grad_value, exact.grad_value, sum_atol));
      } else {
        EXPECT_EQ(packed_out, expected.out);
        EXPECT_EQ(packed_query, expected.grad_query);
        EXPECT_EQ(packed_key, expected.grad_key);
        EXPECT_EQ(packed_value, expected.grad_value);
      }
      for (size_t n = 0; n < relative_sum.size(); ++n) relative_sum[n] += expected.grad_relative[n];
    }
    EXPECT_LE(max_difference(grad_relative.values(), relative_sum), 1e-5);
  }
}

TEST(Attention, DecodeEqualsTheLastRowOfForward) {
  at_each_level([](const std::string&) {
    Random random(4);
    const int64_t capacity = kSlow ? 80 : 300, valid = capacity - 10;
    for (const int32_t dtype : kFloatTypes) {
      for (const bool append : {false, true}) {
        Case c;
        c.dtype = dtype;
        c.queries = 1;
        c.keys = valid;
        c.dim = 24;
        c.radius = 6;
        c.lengths = true;
        c.fixed_lengths = {valid, valid};
        Problem whole(c, 2);
        const Results expected = whole.run();
        TestTensor key_cache(dtype, {c.batch, c.heads, capacity, c.dim}, {0, 2, 1, 3}), value_cache(dtype, {c.batch, c.heads, capacity, c.dim}),
            key_new(dtype, {c.batch, c.heads, c.dim}), value_new(dtype, {c.batch, c.heads, c.dim}), out(dtype, {c.batch, c.heads, c.dim});
        const int64_t filled = append ? c.keys - 1 : c.keys;
        for (int64_t g = 0; g < c.batch * c.heads; ++g) {
          for (int64_t n = 0; n < c.keys * c.dim; ++n) {
            const double k = whole.key[g * c.keys * c.dim + n], v = whole.value[g * c.keys * c.dim + n];
            if (n / c.dim < filled) {
              key_cache.set(g * capacity * c.dim + n, k);
              value_cache.set(g * capacity * c.dim + n, v);
            } else {
              key_new.set(g * c.dim + n % c.dim, k);
              value_new.set(g * c.dim + n % c.dim, v);
            }
          }
        }
        auto query = TestTensor::of(dtype, {c.batch, c.heads, c.dim}, whole.query.values());
        auto lengths = TestTensor::of(MOLFUSE_I32, {c.batch}, std::vector<double>(2, static_cast<double>(filled)));
        auto a = zeroed<molfuse_attention_decode_args>();
        a.query = query.view();
        a.key_cache = key_cache.view();
        a.value_cache = value_cache.view();
        if (append) {
          a.key_new = key_new.view();
          a.value_new = value_new.view();
        }
        a.lengths = lengths.view();
        a.relative_bias = whole.relative.view();
        a.out = out.view();
        ASSERT_EQ(molfuse_attention_decode(&a, here()), MOLFUSE_OK) << molfuse_last_error();
        EXPECT_TRUE(accepted(out.values(), whole.reference(true).out, whole.reference(false).out, small_atol(dtype)));
        if (append) {
          EXPECT_EQ(key_cache[(c.keys - 1) * c.dim + 3], key_new[3]);
        }
      }
    }
  });
}

TEST(Attention, ZeroSizeBatch) {
  Case c;
  c.batch = 0;
  c.bias = {1, 1, c.queries, c.keys};
  Problem problem(c, 1);
  const Results got = problem.run();
  EXPECT_TRUE(got.out.empty());
  for (const double g : got.grad_bias) EXPECT_EQ(g, 0);
}

TEST(Attention, SameResultOnAnyNumberOfThreadsWithEnoughHeads) {
  MOLFUSE_CPU_ONLY();
  Case c;
  c.batch = 4;
  c.queries = c.keys = 70;
  c.bias = {1, c.heads, 70, 70};
  c.dropout = 0.1;
  c.radius = 5;
  c.threads = 1;
  const Results one = Problem(c, 1).run();
  c.threads = 2;
  const Results two = Problem(c, 1).run();
  EXPECT_EQ(one.out, two.out);
  EXPECT_EQ(one.grad_query, two.grad_query);
  EXPECT_EQ(one.grad_bias, two.grad_bias);
  EXPECT_EQ(one.grad_relative, two.grad_relative);
}

TEST(Attention, RefusesBadArguments) {
  Case c;
  c.bias = {1, 1, c.queries, c.keys};
  c.radius = 2;
  c.lengths = true;
  Problem problem(c, 1);
  TestTensor out(c.dtype, problem.query.sizes());
  auto good = problem.args();
  good.out = out.view();
  ASSERT_EQ(molfuse_attention_forward(&good, here()), MOLFUSE_OK);
  auto refuse = [&](const std::function<void(molfuse_attention_args&)>& spoil, std::initializer_list<const char*> parts) {
    auto a = good;
    spoil(a);
    expect_invalid(molfuse_attention_forward(&a, here()), parts);
  };
  refuse([](auto& a) { a.query.ndim = 3; }, {"query", "[B,H,N,D]"});
  refuse([](auto& a) { a.query.data = nullptr; }, {"query", "required"});
  refuse([](auto& a) { a.key.dtype = MOLFUSE_F64; }, {"key", "f32", "f64"});
  refuse([](auto& a) { a.query.dtype = MOLFUSE_I64; }, {"query", "int64"});
  refuse([](auto& a) { a.query.size[3] = a.key.size[3] = a.value.size[3] = a.out.size[3] = 12; }, {"multiple of 8", "12"});
  refuse([](auto& a) { a.key.size[1] = 2; }, {"key", "[2,3,7,16]", "[2,2,7,16]"});
  refuse([](auto& a) { a.value.size[2] = 6; }, {"value", "6"});
  refuse([](auto& a) { a.query.stride[3] = 2; }, {"query", "stride 1"});
  refuse([](auto& a) { a.out.stride[0] = 0; }, {"out", "broadcast"});
  refuse([](auto& a) { a.bias.size[3] = 6; }, {"bias", "6"});
  refuse([](auto& a) { a.relative_bias.size[1] = 4; }, {"relative_bias", "odd"});
  refuse([](auto& a) { a.has_scale = 1; a.scale = NAN; }, {"scale"});
  refuse([](auto& a) { a.has_scale = 1; a.scale = 1e39; }, {"scale", "1e+39"});
  refuse([](auto& a) {
    a.key_lengths.data = nullptr;
    a.query.size[0] = a.key.size[0] = int64_t{1} << 62;
    a.query.stride[0] = 0;
  }, {"query", "too many", "4611686018427387904"});
  refuse([](auto& a) { a.dropout_p = 1; }, {"dropout_p", "[0,1)"});
  refuse([](auto& a) { a.struct_size = 0; }, {"struct_size"});
  if (kOnDevice) return;  // values of lengths are seen by the kernels
  problem.lengths.set(1, 8);
  refuse([](auto&) {}, {"key_lengths", "0..7", "8", "position 1"});
  problem.lengths.set(1, -1);
  refuse([](auto&) {}, {"key_lengths", "-1"});
  expect_invalid(molfuse_attention_forward(nullptr, nullptr), {"args is NULL"});
  auto execution = zeroed<molfuse_execution>();
  problem.lengths.set(1, 3);
  execution.device_type = 7;
  expect_invalid(molfuse_attention_forward(&good, &execution), {"device_type", "7"});
  execution.device_type = MOLFUSE_CPU;
  execution.num_threads = -1;
  expect_invalid(molfuse_attention_forward(&good, &execution), {"num_threads", "-1"});
  ASSERT_EQ(molfuse_attention_forward(&good, here()), MOLFUSE_OK);
  EXPECT_STREQ(molfuse_last_error(), "");
}

}  // namespace

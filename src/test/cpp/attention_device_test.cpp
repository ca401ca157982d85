// SPDX-License-Identifier: Apache-2.0
// What attention on a device has and attention on the CPU has not: tiles and their edges, rows that are not aligned, values that only
// kernels see, scratch memory of the device. Where it means something there too, a test runs on the CPU as well.
#include <cstdlib>
#include <map>

#include "attention_problem.h"

using namespace molfuse_test;

namespace {

/// Every feature at once.
Case with_everything() {
  Case c;
  c.batch = 2;
  c.heads = 2;
  c.queries = 37;
  c.keys = 69;
  c.dim = 24;
  c.bias = {1, c.heads, c.queries, c.keys};
  c.radius = 11;
  c.lengths = true;
  c.fixed_lengths = {69, 41};
  c.causal = true;
  c.dropout = 0.25;
  return c;
}

TEST(AttentionDevice, EveryHeadSize) {
  int n = 0;
  for (const int64_t dim : {8, 16, 32, 40, 64, 80, 96, 128, 136, 256}) {
    for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
      Case c;
      c.dtype = dtype == MOLFUSE_BF16 && ++n % 2 == 0 ? MOLFUSE_F16 : dtype;
      c.batch = c.heads = 1;
      c.queries = 18;
      c.keys = 35;
      c.dim = dim;
      c.causal = true;
      c.radius = 4;
      check(c, static_cast<uint64_t>(n));
    }
  }
}

TEST(AttentionDevice, WithoutFeaturesAtTheEdgesOfTiles) {
  for (const int32_t dtype : {MOLFUSE_F16, MOLFUSE_BF16}) {
    for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{16, 16}, {17, 32}, {64, 33}, {65, 64}, {15, 129}}) {
      Case c;
      c.dtype = dtype;
      c.batch = 1;
      c.heads = 1;
      c.queries = queries;
      c.keys = keys;
      c.dim = 64;
      c.causal = dtype == MOLFUSE_BF16;
      check(c);
    }
  }
}

/// Where blocks of queries do not fill the device, which has four multiprocessors in simulation and over a hundred else.
TEST(AttentionDevice, FewQueriesShareOutManyKeys) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{3, 700}, {33, 520}, {70, 300}, {40, 257}}) {
    for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
      Case c;
      c.dtype = dtype;
      c.batch = 1;
      c.heads = 1;
      c.queries = queries;
      c.keys = keys;
      c.dim = queries == 40 ? 256 : 24;
      check(c);
      c.causal = true;
      c.dropout = 0.3;
      c.radius = 9;
      c.bias = {1, 1, queries, keys};
      c.lengths = true;
      c.empty_first = false;
      c.gap = 5;
      check(c);
    }
  }
#if defined(MOLFUSE_SIMT)
  Case c;
  c.batch = c.heads = 1;
  c.queries = 33;
  c.keys = 520;
  Problem problem(c, 1);
  simt::reset_launches();
  problem.run();
  EXPECT_EQ(simt::launches(), 2 + 1 + 2 + 1);  // shares and their sum, row statistics, the same for query, key and value
#endif
}

TEST(AttentionDevice, KeysOfSixteenWarps) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  for (const auto& [keys, dim] : {std::pair<int64_t, int64_t>{129, 64}, {200, 24}, {256, 16}}) {
    for (const int32_t dtype : {MOLFUSE_BF16, MOLFUSE_F16}) {
      Case c;
      c.dtype = dtype;
      c.batch = 1;
      c.heads = 2;
      c.queries = dtype == MOLFUSE_F16 ? 20 : 35;
      c.keys = keys;
      c.dim = dim;
      c.radius = 70;
      c.causal = dtype == MOLFUSE_F16;
      c.bias = {1, 2, c.queries, c.keys};
      c.dropout = 0.2;
      check(c);
    }
  }
}

TEST(AttentionDevice, Tf32WhereItIsAllowed) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  for (const int64_t keys : {40, 90}) {
    Case c = with_everything();
    c.keys = keys;
    c.bias = {1, c.heads, c.queries, c.keys};
    c.fixed_lengths = {keys, 31};
    Problem exact(c, 1);
    c.tf32 = true;
    Problem problem(c, 1);
    const Results whole = exact.run(), got = problem.run(), reference = problem.reference(false);
    const auto compare = [&](std::vector<double> Results::*of, const char* name) {
      EXPECT_GT(max_difference(got.*of, whole.*of), 0) << name << ": the flag changes nothing";
      EXPECT_LE(max_difference(got.*of, reference.*of), 1e-2) << name;
      EXPECT_LE(max_difference(whole.*of, reference.*of), 1e-4) << name;
    };
    compare(&Results::out, "out");
    compare(&Results::grad_query, "grad_query");
    compare(&Results::grad_key, "grad_key");
    compare(&Results::grad_value, "grad_value");
    compare(&Results::grad_bias, "grad_bias");
  }
}

TEST(AttentionDevice, RowsOffAnyAlignment) {
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_F16}) {
    Case c = with_everything();
    c.dtype = dtype;
    for (const bool permuted : {false, true}) {
      c.permuted = permuted;
      c.gap = permuted ? 1 : 3;
      check(c);
    }
  }
}

TEST(AttentionDevice, DropoutKeepsWhatThePublishedCounterSays) {
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_F16}) {
    Case c;
    c.dtype = dtype;
    c.batch = 2;
    c.heads = 1;
    c.queries = 19;
    c.keys = 72;
    c.dim = 72;
    c.dropout = 0.4;
    Problem problem(c, 1);
    // With the identity for value, out[i][j] is the weight of (i, j).
    problem.value.fill([&](int64_t n) { return n / c.dim % c.keys == n % c.dim ? 1.0 : 0.0; });
    const Results got = problem.run();
    const double threshold = std::floor(c.dropout * 4294967296.0);
    for (int64_t n = 0; n < static_cast<int64_t>(got.out.size()); ++n) {
      const int64_t j = n % c.dim, i = n / c.dim % c.queries, b = n / c.dim / c.queries;
      const auto words = Philox::words(static_cast<uint32_t>(j / 4), static_cast<uint32_t>(i), static_cast<uint32_t>(b),
                                       static_cast<uint32_t>(kOffset), kSeed);
      EXPECT_EQ(got.out[static_cast<size_t>(n)] != 0, words[static_cast<size_t>(j % 4)] >= threshold) << b << " " << i << " " << j;
    }
  }
}

TEST(AttentionDevice, TheOrderOfThreadsChangesNothing) {
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
    Case c = with_everything();
    c.dtype = dtype;
    std::vector<Results> got;
    at_each_level([&](const std::string&) { got.push_back(Problem(c, 1).run()); });
    if (!kOnDevice) return;  // the CPU's levels add in different orders
    for (const Results& other : got) {
      EXPECT_EQ(other.out, got[0].out);
      EXPECT_EQ(other.lse, got[0].lse);
      EXPECT_EQ(other.grad_query, got[0].grad_query);
      EXPECT_EQ(other.grad_key, got[0].grad_key);
      EXPECT_EQ(other.grad_value, got[0].grad_value);
      EXPECT_EQ(other.grad_bias, got[0].grad_bias);
      EXPECT_EQ(other.grad_relative, got[0].grad_relative);
    }
  }
}

TEST(AttentionDevice, BiasesOfF32BesideOperandsOf16Bits) {
  Case c = with_everything();
  c.dtype = MOLFUSE_BF16;
  Problem problem(c, 4), wide(c, 4);
  for (auto [tensor, narrow] : {std::pair{&wide.bias, &problem.bias}, {&wide.relative, &problem.relative}}) {
    *tensor = TestTensor::of(MOLFUSE_F32, narrow->sizes(), narrow->values());
  }
  const Results got = wide.run(), expected = problem.run();
  EXPECT_EQ(got.out, expected.out);
  EXPECT_EQ(got.grad_bias, expected.grad_bias);
  EXPECT_EQ(got.grad_relative, expected.grad_relative);
}

TEST(AttentionDevice, ARelativeBiasLargerThanSharedMemory) {
  Case c;
  c.batch = c.heads = 1;
  c.queries = 20;
  c.keys = 34;
  c.dim = 8;
  c.radius = 5000;
  check(c);
}

TEST(AttentionDevice, BatchesThatShareABiasAreAddedInParts) {
  Case c;
  c.batch = kSlow ? 9 : 40;
  c.heads = 1;
  c.queries = 6;
  c.keys = 5;
  c.dim = 8;
  c.bias = {1, 1, 6, 5};
  c.lengths = true;
  check(c);
}

TEST(AttentionDevice, NegativeScale) {
  Case c;
  c.dtype = MOLFUSE_F16;
  c.scale = -0.5;
  c.keys = 20;
  check(c);
}

TEST(AttentionDevice, LengthsThatAreWrongAreReportedByTheNextCall) {
  if (!kOnDevice) GTEST_SKIP() << "the CPU reads them before the call";
  Case c;
  c.batch = 2;
  c.heads = 1;
  c.lengths = true;
  for (const int64_t wrong : {int64_t{-3}, c.keys + 1}) {
    c.fixed_lengths = {c.keys, wrong};
    Problem problem(c, 1);
    TestTensor out(c.dtype, problem.query.sizes());
    auto a = problem.args();
    a.out = out.view();
    ASSERT_EQ(molfuse_attention_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    for (int64_t n = out.count() / 2; n < out.count(); ++n) EXPECT_EQ(out[n], 0);
    expect_invalid(molfuse_attention_forward(&a, here()), {"key_lengths", std::to_string(wrong).c_str(), "position 1", "earlier call"});
    problem.lengths.set(1, 2);
    EXPECT_EQ(molfuse_attention_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
  }
}

TEST(AttentionDevice, StartsThatAreWrongAreReportedByTheNextCall) {
  if (!kOnDevice) GTEST_SKIP() << "the CPU reads them before the call";
  Random random(1);
  const int64_t rows = 12;
  auto query = TestTensor::random(random, MOLFUSE_F32, {rows, 1, 8}), key = TestTensor::random(random, MOLFUSE_F32, {rows, 1, 8});
  struct Wrong {
    std::vector<double> q, k;
    const char *name, *value, *position;
    int64_t longest = 6;
  };
  // One fault each: of several, no promise says which is reported.
  const std::vector<Wrong> all = {{{0, 5, 4, 12}, {0, 5, 9, 12}, "cu_seqlens_q", "4", "position 2", 8},
                                  {{0, 5, 9, 12}, {0, 5, 90, 12}, "cu_seqlens_k", "90", "position 2"},
                                  {{1, 5, 9, 12}, {0, 5, 9, 12}, "cu_seqlens_q", "1", "position 0"},
                                  {{0, 5, 9, 12}, {0, 5, 9, 11}, "cu_seqlens_k", "11", "position 3"},
                                  {{0, 9, 10, 12}, {0, 5, 9, 12}, "cu_seqlens_q", "9", "position 1"}};
  for (const Wrong& wrong : all) {
    auto starts_q = TestTensor::of(MOLFUSE_I32, {4}, wrong.q), starts_k = TestTensor::of(MOLFUSE_I32, {4}, wrong.k);
    TestTensor out(MOLFUSE_F32, query.sizes());
    auto a = zeroed<molfuse_attention_args>();
    a.query = query.view();
    a.key = key.view();
    a.value = key.view();
    a.cu_seqlens_q = starts_q.view();
    a.cu_seqlens_k = starts_k.view();
    a.max_seqlen_q = a.max_seqlen_k = wrong.longest;
    a.out = out.view();
    ASSERT_EQ(molfuse_attention_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    expect_invalid(molfuse_attention_forward(&a, here()), {wrong.name, wrong.value, wrong.position, "earlier call"});
    EXPECT_TRUE(out.unharmed());
  }
}

TEST(AttentionDevice, F64IsForTheCpu) {
  if (!kOnDevice) GTEST_SKIP() << "is about devices";
  Case c;
  c.dtype = MOLFUSE_F64;
  Problem problem(c, 1);
  TestTensor out(c.dtype, problem.query.sizes());
  auto a = problem.args();
  a.out = out.view();
  expect_status(molfuse_attention_forward(&a, here()), MOLFUSE_UNSUPPORTED, {"f64", "CPU"});
}

/// A case of at most 16 queries and keys with anything on or off.
Case tiny_case(Random& random) {
  Case c;
  const int64_t most = int64_t{4} << between(random, 0, 2);
  c.dtype = std::vector<int32_t>{MOLFUSE_F32, MOLFUSE_BF16, MOLFUSE_F16}[static_cast<size_t>(between(random, 0, 2))];
  c.batch = between(random, 1, 7);
  c.heads = between(random, 1, 3);
  c.queries = between(random, 1, most);
  c.keys = between(random, 1, most);
  c.dim = std::vector<int64_t>{8, 24, 32, 64, 72, 128}[static_cast<size_t>(between(random, 0, 5))];
  c.causal = between(random, 0, 1) == 1;
  c.lengths = between(random, 0, 1) == 1;
  c.empty_first = between(random, 0, 1) == 1;
  if (between(random, 0, 1) == 1) {
    c.bias = {c.batch, c.heads, c.queries, c.keys};
    for (int64_t& size : c.bias) size = between(random, 0, 3) == 0 ? 1 : size;
  }
  if (between(random, 0, 3) == 0) c.radius = between(random, 0, 5);
  if (between(random, 0, 2) == 0) c.dropout = 0.3;
  c.permuted = between(random, 0, 2) == 0;
  if (between(random, 0, 3) == 0) c.gap = between(random, 0, 1) == 1 ? 8 : 5;
  return c;
}

TEST(AttentionDevice, TinyProblemsMatchTheFormula) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  Random random(17);
  for (int n = 0; n < (kSlow ? 40 : 200); ++n) check(tiny_case(random), static_cast<uint64_t>(n));
}

TEST(AttentionDevice, AFewFieldsInManyBatches) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  for (const int64_t fields : {4, 3, 8, 16}) {
    for (const int64_t dim : {32, 128}) {
      Case c;
      c.dtype = fields == 3 ? MOLFUSE_F32 : fields == 8 ? MOLFUSE_F16 : MOLFUSE_BF16;
      c.batch = kSlow ? 27 : 1001;
      c.heads = 5;
      c.queries = c.keys = fields;
      c.dim = dim;
      check(c);
    }
  }
}

TEST(AttentionDevice, TinyProblemsInTheOrderOfAnyThreads) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  Random random(17);
  for (int n = 0; n < 12; ++n) {
    const Case c = tiny_case(random);
    SCOPED_TRACE(c.text());
    std::vector<Results> got;
    at_each_level([&](const std::string&) { got.push_back(Problem(c, 1).run()); });
    if (!kOnDevice) return;
    for (const Results& other : got) {
      EXPECT_EQ(other.out, got[0].out);
      EXPECT_EQ(other.lse, got[0].lse);
      EXPECT_EQ(other.grad_query, got[0].grad_query);
      EXPECT_EQ(other.grad_key, got[0].grad_key);
      EXPECT_EQ(other.grad_value, got[0].grad_value);
      EXPECT_EQ(other.grad_bias, got[0].grad_bias);
    }
  }
}

/// Results of one head in place of all.
Results of_head(const Results& all, const Case& c, int64_t pair) {
  Results one;
  auto part = [&](const std::vector<double>& from, int64_t size) {
    return std::vector<double>(from.begin() + pair * size, from.begin() + (pair + 1) * size);
  };
  one.out = part(all.out, c.queries * c.dim);
  one.lse = part(all.lse, c.queries);
  one.grad_query = part(all.grad_query, c.queries * c.dim);
  one.grad_key = part(all.grad_key, c.keys * c.dim);
  one.grad_value = part(all.grad_value, c.keys * c.dim);
  return one;
}

TEST(AttentionDevice, NaNAndInfinityStayInTheirHead) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16, MOLFUSE_F16}) {
    for (const int64_t fields : {4, 7, 13}) {
      Case c;
      c.dtype = dtype;
      c.batch = 3;
      c.heads = 2;
      c.queries = c.keys = fields;
      c.dim = fields == 7 ? 64 : 32;
      SCOPED_TRACE(c.text());
      const Results clean = Problem(c, 1).run();
      for (const int which : {0, 1, 2, 3}) {
        Problem problem(c, 1);
        TestTensor* const all[] = {&problem.query, &problem.key, &problem.value, &problem.grad_out};
        const int64_t spoiled = 2, rows = fields * c.dim;
        all[which]->set(spoiled * rows + 5, which % 2 == 0 ? std::nan("") : INFINITY);
        all[which]->set(spoiled * rows + c.dim + 3, which % 2 != 0 ? std::nan("") : -INFINITY);
        const Results got = problem.run();
        for (int64_t pair = 0; pair < c.batch * c.heads; ++pair) {
          const Results head = of_head(got, c, pair), expected = of_head(clean, c, pair);
          if (pair == spoiled) {
            const auto& first = which == 3 ? head.grad_value : head.out;
            EXPECT_TRUE(std::any_of(first.begin(), first.end(), [](double x) { return !std::isfinite(x); })) << which;
            continue;
          }
          EXPECT_EQ(head.out, expected.out) << which;
          EXPECT_EQ(head.lse, expected.lse) << which;
          EXPECT_EQ(head.grad_query, expected.grad_query) << which;
          EXPECT_EQ(head.grad_key, expected.grad_key) << which;
          EXPECT_EQ(head.grad_value, expected.grad_value) << which;
        }
      }
    }
  }
}

TEST(AttentionDevice, FewQueriesDoNotSeeWhatTheMaskHides) {
  if (!kOnDevice) GTEST_SKIP() << "on the CPU, as without fusion, a value of NaN reaches every row of its head that is not blind";
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
    for (const int64_t fields : {4, 8, 11}) {
      Case c;
      c.dtype = dtype;
      c.queries = c.keys = fields;
      c.dim = 40;
      c.causal = true;
      SCOPED_TRACE(c.text());
      Problem problem(c, 1);
      const Results clean = Problem(c, 1).run();
      for (TestTensor* t : {&problem.key, &problem.value}) {
        for (int64_t n = 0; n < t->count(); ++n) {
          if (n / c.dim % fields == fields - 1) t->set(n, std::nan(""));
        }
      }
      const Results got = problem.run();
      for (int64_t n = 0; n < problem.query.count(); ++n) {
        const auto at = static_cast<size_t>(n);
        const bool last = n / c.dim % fields == fields - 1;
        EXPECT_EQ(std::isnan(got.out[at]), last);
        EXPECT_EQ(std::isnan(got.grad_query[at]), last);
        if (last) continue;
        EXPECT_EQ(got.out[at], clean.out[at]);
        EXPECT_EQ(got.grad_query[at], clean.grad_query[at]);
      }
    }
  }
}

TEST(AttentionDevice, FewPackedRows) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
    const std::vector<double> starts = {0, 3, 3, 7, 8, 11, 15};
    const int64_t rows = 15, heads = 3, dim = 24;
    Random random(2);
    auto query = TestTensor::random(random, dtype, {rows, heads, dim}), key = TestTensor::random(random, dtype, {rows, heads, dim}),
         value = TestTensor::random(random, dtype, {rows, heads, dim}), grad_out = TestTensor::random(random, dtype, {rows, heads, dim});
    auto cu = TestTensor::of(MOLFUSE_I32, {static_cast<int64_t>(starts.size())}, starts);
    auto a = zeroed<molfuse_attention_args>();
    TestTensor out(dtype, query.sizes()), lse(MOLFUSE_F32, {heads, rows}), grad_query(dtype, query.sizes()), grad_key(dtype, query.sizes()),
        grad_value(dtype, query.sizes());
    a.query = query.view();
    a.key = key.view();
    a.value = value.view();
    a.cu_seqlens_q = a.cu_seqlens_k = cu.view();
    a.max_seqlen_q = a.max_seqlen_k = 4;
    a.causal = 1;
    a.out = out.view();
    a.lse = lse.view();
    ASSERT_EQ(molfuse_attention_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    a.grad_out = grad_out.view();
    a.grad_query = grad_query.view();
    a.grad_key = grad_key.view();
    a.grad_value = grad_value.view();
    ASSERT_EQ(molfuse_attention_backward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    for (size_t b = 0; b + 1 < starts.size(); ++b) {
      const auto first = static_cast<int64_t>(starts[b]), count = static_cast<int64_t>(starts[b + 1]) - first;
      if (count == 0) continue;
      Case c;
      c.dtype = dtype;
      c.batch = 1;
      c.heads = heads;
      c.queries = c.keys = count;
      c.dim = dim;
      c.causal = true;
      Problem alone(c, 1);
      auto at = [&](int64_t n) { return ((first + n / dim % count) * heads + n / dim / count) * dim + n % dim; };
      for (auto [to, from] : {std::pair{&alone.query, &query}, {&alone.key, &key}, {&alone.value, &value}, {&alone.grad_out, &grad_out}}) {
        const TestTensor* source = from;
        to->fill([&](int64_t n) { return (*source)[at(n)]; });
      }
      const Results expected = alone.run();
      for (int64_t n = 0; n < heads * count * dim; ++n) {
        const auto m = static_cast<size_t>(n);
        EXPECT_EQ(out[at(n)], expected.out[m]);
        EXPECT_EQ(grad_query[at(n)], expected.grad_query[m]);
        EXPECT_EQ(grad_key[at(n)], expected.grad_key[m]);
        EXPECT_EQ(grad_value[at(n)], expected.grad_value[m]);
      }
    }
  }
}

#if defined(MOLFUSE_SIMT)
/// Counts the bytes of scratch memory a call asks for.
struct Counter {
  size_t bytes = 0;
  std::map<void*, std::unique_ptr<simt::Memory>> known;
  static void* allocate(void* context, size_t bytes) {
    auto* counter = static_cast<Counter*>(context);
    counter->bytes += bytes;
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes) != 0) return nullptr;
    counter->known[memory] = std::make_unique<simt::Memory>(memory, bytes);
    return memory;
  }
  static void release(void* context, void* memory) {
    static_cast<Counter*>(context)->known.erase(memory);
    std::free(memory);
  }
};

TEST(AttentionDevice, ScratchMemoryGrowsWithTheSequenceNotItsSquare) {
  std::vector<size_t> used;
  for (const int64_t length : {64, 128}) {
    Case c;
    c.dtype = MOLFUSE_BF16;
    c.batch = c.heads = 1;
    c.queries = c.keys = length;
    c.dim = 8;
    c.bias = {1, 1, length, length};
    c.radius = length;
    Problem problem(c, 1);
    auto a = problem.args();
    TestTensor out(c.dtype, problem.query.sizes()), lse(MOLFUSE_F32, {1, 1, length}), grad_query(c.dtype, problem.query.sizes()),
        grad_key(c.dtype, problem.key.sizes()), grad_value(c.dtype, problem.key.sizes()), grad_bias(MOLFUSE_F32, c.bias),
        grad_relative(MOLFUSE_F32, problem.relative.sizes());
    Counter counter;
    molfuse_execution execution = *here();
    execution.allocate = Counter::allocate;
    execution.release = Counter::release;
    execution.allocator_context = &counter;
    a.out = out.view();
    a.lse = lse.view();
    ASSERT_EQ(molfuse_attention_forward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
    a.grad_out = problem.grad_out.view();
    a.grad_query = grad_query.view();
    a.grad_key = grad_key.view();
    a.grad_value = grad_value.view();
    a.grad_bias = grad_bias.view();
    a.grad_relative_bias = grad_relative.view();
    ASSERT_EQ(molfuse_attention_backward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
    used.push_back(counter.bytes);
  }
  EXPECT_GT(used[0], 0u);
  // Sums for relative_bias: their length and, while there are few blocks, their number grow.
  EXPECT_LE(used[1], 4 * used[0] + 4096);
  EXPECT_LT(used[1], size_t{128} * 128 * sizeof(float));
}
#endif

#if defined(MOLFUSE_TEST_GPU)
TEST(AttentionDevice, ByCudnnToo) {
  auto capabilities = zeroed<molfuse_capabilities>();
  ASSERT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
  if (capabilities.cudnn_usable == 0) GTEST_SKIP() << capabilities.cudnn_reason;
  ASSERT_EQ(molfuse_set_attention_backend("cudnn"), MOLFUSE_OK);
  int seed = 0;
  // Few shapes: each is a plan in each direction, of which one takes a second.
  for (const auto& [dtype, dim] : {std::pair<int32_t, int64_t>{MOLFUSE_F16, 64}, {MOLFUSE_BF16, 8}, {MOLFUSE_BF16, 128}}) {
    for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{4, 4}, {33, 33}, {17, 130}, {1, 77}}) {
      for (const bool causal : {false, true}) {
        for (const bool lengths : {false, true}) {
          if (causal && lengths && queries != keys) continue;
          Case c;
          c.dtype = dtype;
          c.queries = queries;
          c.keys = keys;
          c.dim = dim;
          c.causal = causal;
          c.lengths = lengths;
          c.permuted = ++seed % 2 == 0;
          check(c, static_cast<uint64_t>(seed));
          // The bits, too, are the same.
          Problem problem(c, static_cast<uint64_t>(seed));
          const Results first = problem.run(), second = problem.run();
          EXPECT_EQ(first.grad_query, second.grad_query);
          EXPECT_EQ(first.grad_key, second.grad_key);
          EXPECT_EQ(first.grad_value, second.grad_value);
        }
      }
    }
  }
  EXPECT_EQ(molfuse_set_attention_backend("auto"), MOLFUSE_OK);
}
#endif

}  // namespace

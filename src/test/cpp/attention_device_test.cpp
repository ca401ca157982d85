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
  for (const int64_t dim : {8, 16, 32, 40, 64, 96, 128, 136, 256}) {
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
  };
  const std::vector<Wrong> all = {{{0, 5, 4, 12}, {0, 5, 9, 12}, "cu_seqlens_q", "4", "position 2"},
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
    a.max_seqlen_q = a.max_seqlen_k = 6;
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

}  // namespace

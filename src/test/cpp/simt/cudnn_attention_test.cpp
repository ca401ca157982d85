// SPDX-License-Identifier: Apache-2.0
// The choice of attention's backend, and all of the cuDNN backend but libcudnn: plans are the test's own, which compute what cuDNN documents
// and leave NaN where it promises nothing. With scale 0 attention is the mean of the visible values, so that its results are exact.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "attention/backend.h"
#include "attention/cudnn_attention.h"
#include "attention/cudnn_plan.h"
#include "molfuse/attention.h"
#include "runtime/device_call.h"
#include "simt/simt.h"

namespace {

using namespace molfuse;

struct Calls {
  int own = 0, made = 0, executed = 0;
  size_t workspace = 64;
  std::string refusal;
  CudnnPlanKey key{};
} calls;

float value_of(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;  // bf16
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}
uint16_t bits_of(float value) {
  uint32_t wide;
  std::memcpy(&wide, &value, 4);
  return static_cast<uint16_t>(wide >> 16);  // exact for the small numbers here
}

const uint16_t kNan16 = 0x7FC0;

/// Mean of the visible values, read and written where the key says; what is past a sequence's end is NaN.
class MeanPlan : public CudnnPlan {
 public:
  explicit MeanPlan(const CudnnPlanKey& key) : k_(key), workspace_(calls.workspace) {}
  size_t workspace() const override { return workspace_; }
  void execute(void*, void* const (&memory)[kCudnnTensors], void* workspace) override {
    ++calls.executed;
    std::memset(workspace, 0xFF, workspace_);
    const auto at = [&](CudnnTensor id, const int64_t (&stride)[3], int64_t b, int64_t h, int64_t row) {
      return static_cast<uint16_t*>(memory[id]) + b * stride[0] + h * stride[1] + row * stride[2];
    };
    for (int64_t b = 0; b < k_.batch; ++b) {
      const int32_t length = k_.padded != 0 ? static_cast<const int32_t*>(memory[kCudnnKeyLengths])[b] : static_cast<int32_t>(k_.keys);
      if (k_.padded != 0) {
        EXPECT_EQ(static_cast<const int32_t*>(memory[kCudnnQueryLengths])[b], k_.queries);
      }
      EXPECT_GE(length, 1);
      for (int64_t h = 0; h < k_.heads; ++h) {
        if (k_.backward != 0) {
          for (int64_t d = 0; d < k_.dim; ++d) {
            float sum = 0;
            for (int64_t i = 0; i < k_.queries; ++i) sum += value_of(at(kCudnnGradOut, k_.grad_out, b, h, i)[d]);
            for (int64_t j = 0; j < k_.keys; ++j) {
              at(kCudnnGradValue, k_.grad_value, b, h, j)[d] = j < length ? bits_of(sum / static_cast<float>(length)) : kNan16;
              at(kCudnnGradKey, k_.grad_key, b, h, j)[d] = j < length ? 0 : kNan16;
            }
            // Of rows whose lse is -inf nothing sensible comes out.
            const bool seen = static_cast<float*>(memory[kCudnnLse])[(b * k_.heads + h) * k_.queries] > -INFINITY;
            for (int64_t i = 0; i < k_.queries; ++i) at(kCudnnGradQuery, k_.grad_query, b, h, i)[d] = seen ? 0 : kNan16;
          }
          continue;
        }
        for (int64_t i = 0; i < k_.queries; ++i) {
          const int64_t diagonal = i + 1 + (k_.mask == CudnnMask::causal ? 0 : k_.keys - k_.queries);
          const int64_t visible = k_.mask == CudnnMask::none ? length : std::min<int64_t>(length, diagonal);
          for (int64_t d = 0; d < k_.dim; ++d) {
            float sum = 0;
            for (int64_t j = 0; j < visible; ++j) sum += value_of(at(kCudnnValue, k_.value, b, h, j)[d]);
            at(kCudnnOut, k_.out, b, h, i)[d] = bits_of(sum / static_cast<float>(visible));
          }
          if (k_.stats != 0) static_cast<float*>(memory[kCudnnLse])[(b * k_.heads + h) * k_.queries + i] = std::log(static_cast<float>(visible));
        }
      }
    }
  }

 private:
  CudnnPlanKey k_;
  size_t workspace_;
};

}  // namespace

namespace molfuse {

std::unique_ptr<CudnnPlan> make_cudnn_plan(const CudnnPlanKey& key, std::string& reason, const char*) {
  ++calls.made;
  calls.key = key;
  reason = calls.refusal;
  return calls.refusal.empty() ? std::make_unique<MeanPlan>(key) : nullptr;
}

void attention_forward_device(const AttentionProblem&, DeviceCall&) { ++calls.own; }
void attention_backward_device(const AttentionProblem&, DeviceCall&) { ++calls.own; }

}  // namespace molfuse

namespace {

/// A problem that cuDNN can do, and its memory. The tests take of it what they need.
struct Given {
  AttentionProblem p{};
  std::vector<std::vector<uint16_t>> operands;
  std::vector<float> lse;
  std::vector<int64_t> lengths;
  std::vector<std::unique_ptr<simt::Memory>> known;

  Given(int64_t batch, int64_t heads, int64_t queries, int64_t keys, int64_t dim, bool batch_second = false) {
    p.dtype = MOLFUSE_BF16;
    p.batch = batch;
    p.heads = heads;
    p.queries = queries;
    p.keys = keys;
    p.dim = dim;
    operands.reserve(8);
    int count = 0;
    for (AttentionOperand* operand : {&p.query, &p.out, &p.grad_out, &p.grad_query, &p.key, &p.value, &p.grad_key, &p.grad_value}) {
      const int64_t rows = count++ < 4 ? queries : keys;
      operands.emplace_back(static_cast<size_t>(batch * heads * rows * dim), bits_of(1));
      for (size_t n = 0; n < operands.back().size(); ++n) operands.back()[n] = bits_of(static_cast<float>(n % 13));
      *operand = {operands.back().data(), heads * rows * dim, rows * dim, dim};
      if (batch_second) *operand = {operands.back().data(), heads * rows * dim, dim, heads * dim};
      known.push_back(std::make_unique<simt::Memory>(operands.back().data(), operands.back().size() * 2));
    }
    lse.assign(static_cast<size_t>(batch * heads * queries), 7);
    known.push_back(std::make_unique<simt::Memory>(lse.data(), lse.size() * 4));
    p.lse = lse.data();
    p.lse_batch = heads * queries;
    p.lse_head = queries;
    p.lse_row = 1;
  }
  void set_lengths(std::vector<int64_t> values) {
    lengths = std::move(values);
    known.push_back(std::make_unique<simt::Memory>(lengths.data(), lengths.size() * 8));
    p.key_lengths = {lengths.data(), MOLFUSE_I64, 1, {p.batch}, {1}};
  }
  float at(const AttentionOperand& operand, int64_t b, int64_t h, int64_t row, int64_t d) const {
    return value_of(static_cast<uint16_t*>(operand.data)[b * operand.batch + h * operand.head + row * operand.row + d]);
  }
};

molfuse_status run(const AttentionProblem& p, bool backward) {
  molfuse_execution execution{};
  execution.struct_size = sizeof execution;
  execution.device_type = MOLFUSE_CUDA;
  return guard([&] {
    DeviceCall call(execution, "test");
    backward ? attention_backward_on_device(p, call) : attention_forward_on_device(p, call);
  });
}

class CudnnAttention : public testing::Test {
 protected:
  void SetUp() override {
    calls = Calls();
    ASSERT_EQ(molfuse_set_attention_backend("cudnn"), MOLFUSE_OK);
  }
  void TearDown() override { molfuse_set_attention_backend("auto"); }
};

TEST_F(CudnnAttention, GivesThePlanMasksAndStridesAsTheyAre) {
  for (const bool batch_second : {false, true}) {
    for (const int64_t keys : {5, 7}) {
      Given given(2, 3, 5, keys, 8, batch_second);
      given.p.causal = true;
      ASSERT_EQ(run(given.p, false), MOLFUSE_OK) << molfuse_last_error();
      EXPECT_EQ(calls.key.mask, keys == 5 ? CudnnMask::causal : CudnnMask::causal_bottom_right);
      for (int64_t i = 0; i < 5; ++i) {
        const int64_t visible = i + 1 + keys - 5;
        float sum = 0;
        for (int64_t j = 0; j < visible; ++j) sum += given.at(given.p.value, 1, 2, j, 3);
        EXPECT_EQ(given.at(given.p.out, 1, 2, i, 3), value_of(bits_of(sum / static_cast<float>(visible))));
        EXPECT_EQ(given.lse[static_cast<size_t>((3 + 2) * 5 + i)], std::log(static_cast<float>(visible)));
      }
    }
  }
  EXPECT_EQ(calls.own, 0);
}

TEST_F(CudnnAttention, SequencesWithoutKeysAndKeysPastTheEndAreZero) {
  Given given(3, 2, 4, 6, 8, true);
  given.set_lengths({0, 6, 2});
  ASSERT_EQ(run(given.p, false), MOLFUSE_OK) << molfuse_last_error();
  ASSERT_EQ(run(given.p, true), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(calls.executed, 2);
  for (int64_t b = 0; b < 3; ++b) {
    const int64_t length = given.lengths[static_cast<size_t>(b)];
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t d = 0; d < 8; ++d) {
        float sum = 0, gradient = 0;
        for (int64_t j = 0; j < length; ++j) sum += given.at(given.p.value, b, h, j, d);
        for (int64_t i = 0; i < 4; ++i) {
          gradient += given.at(given.p.grad_out, b, h, i, d);
          EXPECT_EQ(given.at(given.p.out, b, h, i, d), length == 0 ? 0 : value_of(bits_of(sum / static_cast<float>(length))));
          EXPECT_EQ(given.at(given.p.grad_query, b, h, i, d), 0);
          EXPECT_EQ(given.lse[static_cast<size_t>((b * 2 + h) * 4 + i)], std::log(static_cast<float>(length)));
        }
        for (int64_t j = 0; j < 6; ++j) {
          EXPECT_EQ(given.at(given.p.grad_key, b, h, j, d), 0);
          EXPECT_EQ(given.at(given.p.grad_value, b, h, j, d), j < length ? value_of(bits_of(gradient / static_cast<float>(length))) : 0);
        }
      }
    }
  }
}

TEST_F(CudnnAttention, ReportsWrongLengths) {
  Given given(2, 1, 4, 6, 8);
  given.set_lengths({3, 7});
  ASSERT_EQ(run(given.p, false), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(given.at(given.p.out, 1, 0, 0, 0), 0);
  EXPECT_EQ(run(given.p, false), MOLFUSE_INVALID_ARGUMENT);
  EXPECT_NE(std::string(molfuse_last_error()).find("key_lengths: expected lengths in 0..M, got 7 at position 1"), std::string::npos);
}

TEST_F(CudnnAttention, KeepsPlansByEverythingTheyDependOn) {
  Given given(1, 2, 24, 24, 16);
  const PlanCounts before = cudnn_plan_counts();
  for (int n = 0; n < 3; ++n) ASSERT_EQ(run(given.p, false), MOLFUSE_OK);
  EXPECT_EQ(calls.made, 1);
  EXPECT_EQ(cudnn_plan_counts().hits, before.hits + 2);
  EXPECT_EQ(cudnn_plan_counts().misses, before.misses + 1);
  std::vector<AttentionProblem> others(6, given.p);
  others[0].causal = true;
  others[1].scale = 0.5;
  others[2].lse = nullptr;
  others[3].dtype = MOLFUSE_F16;
  others[4].query.head = 1 << 12;  // never read by the mean
  others[5].queries = 23;
  others[5].lse = nullptr;
  for (const AttentionProblem& p : others) ASSERT_EQ(run(p, false), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(calls.made, 7);
  ASSERT_EQ(run(given.p, true), MOLFUSE_OK);
  EXPECT_EQ(calls.made, 8);
}

TEST_F(CudnnAttention, RefusalOfTheLibraryIsAnErrorWhereForcedAndIsRemembered) {
  Given given(1, 1, 9, 9, 24);
  calls.refusal = "no engine";
  for (int n = 0; n < 2; ++n) {
    EXPECT_EQ(run(given.p, false), MOLFUSE_UNSUPPORTED);
    EXPECT_NE(std::string(molfuse_last_error()).find("no engine"), std::string::npos);
  }
  EXPECT_EQ(calls.made, 1);
  EXPECT_EQ(calls.own, 0);
}

TEST_F(CudnnAttention, TheSettingDecides) {
  Given given(1, 1, 16, 16, 64);
  for (const char* setting : {"own", "auto"}) {
    ASSERT_EQ(molfuse_set_attention_backend(setting), MOLFUSE_OK);
    EXPECT_EQ(run(given.p, false), MOLFUSE_OK);
    EXPECT_EQ(run(given.p, true), MOLFUSE_OK);
  }
  // The committed table has no measurement that would send anything to cuDNN.
  EXPECT_EQ(calls.own, 4);
  EXPECT_EQ(calls.made, 0);
}

TEST_F(CudnnAttention, RefusesWhatItsContractWouldNotHold) {
  struct Case {
    const char* reason;
    std::function<void(Given&)> change;
    bool backward = false;
    int major = 9;
  };
  std::vector<int32_t> starts{0, 8};
  std::vector<float> bias(2 * 8 * 16);
  const auto with_bias = [&](Given& g) {
    g.p.bias = bias.data();
    g.p.bias_dtype = MOLFUSE_BF16;
    const int64_t size[4] = {1, 2, 8, 16};
    std::copy(size, size + 4, g.p.bias_size);
    g.p.bias_head = 128;
    g.p.bias_row = 16;
    g.p.bias_column = 1;
  };
  const Case cases[] = {
      {"element type", [](Given& g) { g.p.dtype = MOLFUSE_F32; }},
      {"packed", [&](Given& g) { g.p.cu_q = starts.data(); }},
      {"relative_bias", [&](Given& g) { g.p.relative = bias.data(); }},
      {"dropout", [](Given& g) { g.p.dropout_p = 0.1; }},
      {"above 256", [](Given& g) { g.p.dim = 264; }},
      {"above 128", [](Given& g) { g.p.dim = 136; }, true, 8},
      {"above 128", [](Given& g) { g.p.dim = 136; }, false, 10},
      {"see no key", [](Given& g) { g.p.causal = true, g.p.queries = 17; }},
      {"key_lengths and a causal mask", [](Given& g) { g.p.causal = true, g.set_lengths({3, 3}); }},
      {"a bias and a causal mask", [&](Given& g) { with_bias(g), g.p.causal = true; }},
      {"one query and one key", [](Given& g) { g.p.queries = g.p.keys = 1; }, true},
      {"bias is broadcast along", [&](Given& g) { with_bias(g), g.p.bias_size[2] = 1; }},
      {"another element type", [&](Given& g) { with_bias(g), g.p.bias_dtype = MOLFUSE_F16; }},
      {"grad_bias", [&](Given& g) { with_bias(g), g.p.grad_bias = bias.data(); }, true},
      {"bias starts at no multiple", [&](Given& g) { with_bias(g), g.p.bias = bias.data() + 1; }},
      {"lse starts at no multiple", [](Given& g) { g.p.lse = g.lse.data() + 1; }},
      {"lse is not contiguous", [](Given& g) { g.p.lse_row = 2; }},
      {"key starts at no multiple", [](Given& g) { g.p.key.data = static_cast<char*>(g.p.key.data) + 2; }},
      {"value has a stride that is no multiple", [](Given& g) { g.p.value.row = 66; }},
      {"query has a stride that is not positive", [](Given& g) { g.p.query.batch = 0; }},
      {"out is too large", [](Given& g) { g.p.out.batch = int64_t{1} << 31; }},
      {"grad_key is not asked for", [](Given& g) { g.p.grad_key.data = nullptr; }, true},
  };
  for (const Case& one : cases) {
    Given given(2, 2, 8, 16, 64);
    EXPECT_EQ(cudnn_refusal(given.p, one.backward, one.major), "");
    one.change(given);
    EXPECT_NE(cudnn_refusal(given.p, one.backward, one.major).find(one.reason), std::string::npos)
        << one.reason << ": " << cudnn_refusal(given.p, one.backward, one.major);
    if (one.major != 9) continue;
    EXPECT_EQ(run(given.p, one.backward), MOLFUSE_UNSUPPORTED);
    EXPECT_NE(std::string(molfuse_last_error()).find(one.reason), std::string::npos) << molfuse_last_error();
  }
  EXPECT_EQ(calls.made, 0);
  EXPECT_EQ(calls.own, 0);
}

TEST(BackendTable, FirstRowThatHoldsDecides) {
  const BackendRow rows[] = {
      {90, MOLFUSE_BF16, 64, false, AttentionKind::causal, 512, 1024, 512, 1024, 1, 8, AttentionBackend::own},
      {90, MOLFUSE_BF16, 64, false, AttentionKind::causal, 512, 4096, 512, 4096, 1, 1 << 20, AttentionBackend::cudnn},
  };
  AttentionProblem p{};
  p.dtype = MOLFUSE_BF16;
  p.batch = 4;
  p.heads = 2;
  p.queries = p.keys = 512;
  p.dim = 64;
  p.causal = true;
  const auto chosen = [&](bool backward = false, int capability = 90) { return measured_backend(rows, 2, p, backward, capability); };
  EXPECT_EQ(chosen(), AttentionBackend::own);
  p.batch = 5;
  EXPECT_EQ(chosen(), AttentionBackend::cudnn);
  EXPECT_EQ(chosen(true), AttentionBackend::own);
  EXPECT_EQ(chosen(false, 80), AttentionBackend::own);
  p.queries = 511;
  EXPECT_EQ(chosen(), AttentionBackend::own);
  p.queries = p.keys = 4096;
  EXPECT_EQ(chosen(), AttentionBackend::cudnn);
  p.causal = false;
  EXPECT_EQ(chosen(), AttentionBackend::own);
}

TEST(PlanCache, ForgetsWhatWasUsedLongestAgo) {
  PlanCache<int64_t, int> cache(2);
  int made = 0;
  const auto get = [&](int64_t key) {
    return *cache.get(key, [&](int64_t k, std::string&) { return ++made, std::make_unique<int>(static_cast<int>(k)); }).plan;
  };
  const auto first = cache.get(1, [&](int64_t, std::string&) { return ++made, std::make_unique<int>(1); }).plan;
  EXPECT_EQ(get(2), 2);
  EXPECT_EQ(get(1), 1);
  EXPECT_EQ(get(3), 3);  // 2 leaves
  EXPECT_EQ(get(1), 1);
  EXPECT_EQ(made, 3);
  EXPECT_EQ(get(2), 2);  // 3 leaves
  EXPECT_EQ(get(4), 4);  // 1 leaves, but is in use
  EXPECT_EQ(made, 5);
  EXPECT_EQ(*first, 1);
  EXPECT_EQ(cache.counts().kept, 2);
  EXPECT_EQ(cache.counts().hits, 2);
  EXPECT_EQ(cache.counts().misses, 5);
}

TEST(PlanCache, IsForManyThreads) {
  PlanCache<int64_t, int64_t> cache(8);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (int64_t n = 0; n < 2000; ++n) {
        const int64_t key = (n * 7 + t) % 13;
        EXPECT_EQ(*cache.get(key, [](int64_t k, std::string&) { return std::make_unique<int64_t>(k); }).plan, key);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const PlanCounts counts = cache.counts();
  EXPECT_EQ(counts.hits + counts.misses, 8000);
  EXPECT_LE(counts.kept, 8);
}

}  // namespace

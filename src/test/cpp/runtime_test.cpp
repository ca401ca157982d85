// SPDX-License-Identifier: Apache-2.0
#include "molfuse/runtime.h"

#include <cstddef>
#include <thread>

#include "molfuse/attention.h"
#include "molfuse/encoder_epilogue.h"
#include "molfuse/graph_attention.h"
#include "molfuse/latent_concat.h"
#include "molfuse/reparameterize.h"
#include "molfuse/vae_loss.h"
#include "runtime/parallel.h"
#include "runtime/philox.h"
#include "simd_probe.h"
#include "support.h"

using namespace molfuse_test;

namespace {

// ---- the C interface of runtime.h

TEST(Runtime, VersionAndNames) {
  EXPECT_STRNE(molfuse_version(), "");
  const std::pair<int32_t, const char*> names[] = {{MOLFUSE_F32, "f32"},   {MOLFUSE_F64, "f64"},   {MOLFUSE_F16, "f16"}, {MOLFUSE_BF16, "bf16"},
                                                   {MOLFUSE_I32, "int32"}, {MOLFUSE_I64, "int64"}, {6, "unknown"},       {-1, "unknown"}};
  for (const auto& [dtype, name] : names) EXPECT_STREQ(molfuse_dtype_name(dtype), name);
  const std::pair<int32_t, size_t> sizes[] = {{MOLFUSE_F32, 4}, {MOLFUSE_F64, 8}, {MOLFUSE_F16, 2}, {MOLFUSE_BF16, 2}, {MOLFUSE_I32, 4}, {MOLFUSE_I64, 8}, {99, 0}};
  for (const auto& [dtype, size] : sizes) EXPECT_EQ(molfuse_dtype_size(dtype), size);
}

TEST(Runtime, ErrorTextIsPerThreadAndClearedBySuccess) {
  expect_invalid(molfuse_set_cpu_level("mine"), {"mine"});
  std::thread([] {
    EXPECT_STREQ(molfuse_last_error(), "");
    expect_invalid(molfuse_set_cpu_level("other"), {"other"});
  }).join();
  EXPECT_NE(std::string(molfuse_last_error()).find("mine"), std::string::npos);
  EXPECT_EQ(molfuse_set_cpu_level("auto"), MOLFUSE_OK);
  EXPECT_STREQ(molfuse_last_error(), "");
}

TEST(Runtime, LongErrorTextsAreCut) {
  expect_invalid(molfuse_set_cpu_level(std::string(100000, 'x').c_str()), {"level", "xxxx"});
  EXPECT_LT(std::string(molfuse_last_error()).size(), 10000u);
}

TEST(Runtime, AttentionBackendIsASetting) {
  const auto setting = [] {
    auto capabilities = zeroed<molfuse_capabilities>();
    EXPECT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
    return std::string(capabilities.attention_backend);
  };
  for (const char* backend : {"own", "cudnn", "auto"}) {
    ASSERT_EQ(molfuse_set_attention_backend(backend), MOLFUSE_OK);
    EXPECT_EQ(setting(), backend);
  }
  expect_invalid(molfuse_set_attention_backend("fastest"), {"backend", "auto, own or cudnn", "fastest"});
  expect_invalid(molfuse_set_attention_backend(nullptr), {"backend", "NULL"});
  EXPECT_EQ(setting(), "auto");
}

TEST(Runtime, CapabilitiesDescribeTheLevelInUse) {
  at_each_level([](const std::string& level) {
    auto capabilities = zeroed<molfuse_capabilities>();
    ASSERT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
    EXPECT_EQ(capabilities.cpu_vector_level, level);
    EXPECT_GE(capabilities.cpu_threads, 1);
    // A reason exactly where something is missing.
    EXPECT_EQ(capabilities.cuda_usable == 0, capabilities.cuda_reason[0] != 0);
    EXPECT_EQ(capabilities.cudnn_usable == 0, capabilities.cudnn_reason[0] != 0);
    EXPECT_TRUE(capabilities.cudnn_usable == 0 || capabilities.cudnn_version > 90000) << capabilities.cudnn_version;
  });
  auto capabilities = zeroed<molfuse_capabilities>();
  ASSERT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
  EXPECT_STREQ(capabilities.cpu_vector_level, capabilities.cpu_vector_best);
  expect_invalid(molfuse_get_capabilities(nullptr), {"NULL"});
}

TEST(Runtime, UnknownAndUnavailableLevelsAreRefused) {
  expect_invalid(molfuse_set_cpu_level("sse9"), {"level", "sse9", "avx2"});
  expect_invalid(molfuse_set_cpu_level(nullptr), {"level", "NULL"});
  auto capabilities = zeroed<molfuse_capabilities>();
  ASSERT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
  const bool has_all = std::string(capabilities.cpu_vector_best) == "avx512";
  EXPECT_EQ(molfuse_set_cpu_level("avx512"), has_all ? MOLFUSE_OK : MOLFUSE_UNSUPPORTED);
  EXPECT_EQ(molfuse_set_cpu_level("auto"), MOLFUSE_OK);
}

TEST(Runtime, AnOlderCallersStructIsNotWrittenPastItsEnd) {
  // A caller compiled when the struct ended before cpu_threads.
  constexpr size_t kOld = offsetof(molfuse_capabilities, cpu_threads);
  molfuse_capabilities capabilities;
  std::memset(static_cast<void*>(&capabilities), 0x5A, sizeof capabilities);
  capabilities.struct_size = kOld;
  ASSERT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
  EXPECT_EQ(capabilities.struct_size, kOld);
  EXPECT_STREQ(capabilities.cpu_vector_level, capabilities.cpu_vector_best);
  const unsigned char* const bytes = reinterpret_cast<const unsigned char*>(&capabilities);
  for (size_t n = kOld; n < sizeof capabilities; ++n) EXPECT_EQ(bytes[n], 0x5A) << n;
}

TEST(Runtime, DevicesAreDescribedWhereThereAreNone) {
  auto capabilities = zeroed<molfuse_capabilities>();
  ASSERT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
  auto info = zeroed<molfuse_device_info>();
  ASSERT_EQ(molfuse_get_device_info(0, &info), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(info.runtime_version > 0, capabilities.cuda_compiled == 1);
  EXPECT_EQ(info.usable == 0, info.reason[0] != 0);
  EXPECT_EQ(info.device_count > 0, info.name[0] != 0);
  EXPECT_EQ(info.device_count > 0, info.total_memory > 0);
  if (capabilities.cuda_usable == 0) {
    EXPECT_EQ(info.device_count, 0);
    EXPECT_STREQ(info.reason, capabilities.cuda_reason);
    EXPECT_EQ(molfuse_get_device_info(5, &info), MOLFUSE_OK) << molfuse_last_error();
  }
  expect_invalid(molfuse_get_device_info(-1, &info), {"device is -1"});
  expect_invalid(molfuse_get_device_info(0, nullptr), {"NULL"});
  info.struct_size = offsetof(molfuse_device_info, name);
  std::memset(info.name, 0x5A, sizeof info.name);
  ASSERT_EQ(molfuse_get_device_info(0, &info), MOLFUSE_OK);
  for (const char c : info.name) EXPECT_EQ(c, 0x5A);
}

/// A call that needs nothing but a valid execution.
molfuse_status call_with(const molfuse_execution* execution) {
  TestTensor row_ptr = TestTensor::of(MOLFUSE_I32, {1}, {0}), row_ptr_t = row_ptr, none(MOLFUSE_I32, {0});
  const molfuse_graph graph = {row_ptr.view(), none.view(), row_ptr_t.view(), none.view(), none.view()};
  return molfuse_graph_transpose(&graph, execution);
}

TEST(Runtime, FieldsAnOlderCallerDoesNotKnowCountAsZero) {
  molfuse_execution execution;
  std::memset(static_cast<void*>(&execution), 0xFF, sizeof execution);
  execution.device_type = MOLFUSE_CPU;
  execution.num_threads = 0;
  execution.release = nullptr;
  execution.struct_size = sizeof execution;
  expect_invalid(call_with(&execution), {"release is NULL"});
  execution.struct_size = offsetof(molfuse_execution, allocate);
  EXPECT_EQ(call_with(&execution), MOLFUSE_OK) << molfuse_last_error();
}

TEST(Runtime, NewerStructsAreRefused) {
  struct Newer {
    molfuse_execution known;
    uint64_t unknown;
  } newer;
  std::memset(static_cast<void*>(&newer), 0, sizeof newer);
  newer.known.struct_size = sizeof newer;
  const std::string size = std::to_string(sizeof newer), known = std::to_string(sizeof newer.known);
  expect_invalid(call_with(&newer.known), {"molfuse_graph_transpose", "execution", size.c_str(), known.c_str(), "newer", molfuse_version()});
  newer.known.struct_size = SIZE_MAX;
  expect_invalid(call_with(&newer.known), {"newer"});
  struct NewerCapabilities {
    molfuse_capabilities known;
    uint64_t unknown;
  } capabilities;
  std::memset(static_cast<void*>(&capabilities), 0, sizeof capabilities);
  capabilities.known.struct_size = sizeof capabilities;
  expect_invalid(molfuse_get_capabilities(&capabilities.known), {"molfuse_get_capabilities", "newer"});
}

/// What holds of the struct of every function: first is what a call without anything lacks.
template <class Args>
void check_struct_sizes(const char* function, molfuse_status (*run)(const Args*, const molfuse_execution*), const char* first) {
  SCOPED_TRACE(function);
  struct Newer {
    Args known;
    uint64_t unknown;
  } newer;
  std::memset(static_cast<void*>(&newer), 0, sizeof newer);
  newer.known.struct_size = sizeof newer;
  expect_invalid(run(&newer.known, nullptr), {function, "args->struct_size", "newer"});
  // Of an older struct only what it has may be read, and what it has not is absent: here, everything.
  for (size_t size = sizeof(size_t); size <= sizeof(Args); size += sizeof(size_t)) {
    std::vector<size_t> older(size / sizeof(size_t), 0);
    older[0] = size;
    expect_invalid(run(reinterpret_cast<const Args*>(older.data()), nullptr), {first});
  }
  for (const size_t size : {size_t{0}, size_t{4}, sizeof(Args) - 1}) {
    newer.known.struct_size = size;
    expect_invalid(run(&newer.known, nullptr), {function, "struct_size", "not set"});
  }
  const auto* const odd = reinterpret_cast<const Args*>(reinterpret_cast<uintptr_t>(&newer) + 1);
  expect_invalid(run(odd, nullptr), {"args", "aligned"});
}

TEST(Runtime, EveryFunctionTakesOlderStructsAndRefusesNewerOnes) {
  check_struct_sizes("molfuse_attention_forward", molfuse_attention_forward, "query");
  check_struct_sizes("molfuse_attention_backward", molfuse_attention_backward, "query");
  check_struct_sizes("molfuse_attention_decode", molfuse_attention_decode, "query");
  check_struct_sizes("molfuse_encoder_epilogue_forward", molfuse_encoder_epilogue_forward, "input");
  check_struct_sizes("molfuse_encoder_epilogue_backward", molfuse_encoder_epilogue_backward, "input");
  check_struct_sizes("molfuse_graph_attention_forward", molfuse_graph_attention_forward, "query");
  check_struct_sizes("molfuse_graph_attention_backward", molfuse_graph_attention_backward, "query");
  check_struct_sizes("molfuse_latent_concat_forward", molfuse_latent_concat_forward, "num_layers");
  check_struct_sizes("molfuse_latent_concat_backward", molfuse_latent_concat_backward, "num_layers");
  check_struct_sizes("molfuse_linear_vae_loss_forward", molfuse_linear_vae_loss_forward, "hidden");
  check_struct_sizes("molfuse_linear_vae_loss_backward", molfuse_linear_vae_loss_backward, "hidden");
  check_struct_sizes("molfuse_reparameterize_forward", molfuse_reparameterize_forward, "mean");
  check_struct_sizes("molfuse_reparameterize_backward", molfuse_reparameterize_backward, "mean");
  check_struct_sizes("molfuse_vae_loss_forward", molfuse_vae_loss_forward, "logits");
  check_struct_sizes("molfuse_vae_loss_backward", molfuse_vae_loss_backward, "logits");
  check_struct_sizes("molfuse_vae_loss_scale", molfuse_vae_loss_scale, "gradient");
}

TEST(Runtime, AnOlderCallersResultIsTheSame) {
  // Forward as of a version without backward.
  constexpr size_t kOld = offsetof(molfuse_attention_args, grad_out);
  Random random(3);
  const std::vector<int64_t> sizes = {1, 2, 5, 8};
  TestTensor query = TestTensor::random(random, MOLFUSE_F32, sizes), key = TestTensor::random(random, MOLFUSE_F32, sizes),
             value = TestTensor::random(random, MOLFUSE_F32, sizes), out(MOLFUSE_F32, sizes);
  auto args = zeroed<molfuse_attention_args>();
  args.query = query.view();
  args.key = key.view();
  args.value = value.view();
  args.out = out.view();
  ASSERT_EQ(molfuse_attention_forward(&args, nullptr), MOLFUSE_OK) << molfuse_last_error();
  const std::vector<double> expected = out.values();
  out.fill([](int64_t) { return 0.0; });
  args.struct_size = kOld;
  std::vector<size_t> old(kOld / sizeof(size_t));
  std::memcpy(old.data(), &args, kOld);
  ASSERT_EQ(molfuse_attention_forward(reinterpret_cast<const molfuse_attention_args*>(old.data()), nullptr), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(out.values(), expected);
}

TEST(Runtime, BadExecutionsAreRefused) {
  auto execution = zeroed<molfuse_execution>();
  EXPECT_EQ(call_with(&execution), MOLFUSE_OK);
  EXPECT_EQ(call_with(nullptr), MOLFUSE_OK);
  execution.num_threads = -3;
  expect_invalid(call_with(&execution), {"num_threads", "-3"});
  execution = zeroed<molfuse_execution>();
  execution.device_type = 9;
  expect_invalid(call_with(&execution), {"device_type", "9"});
  execution = zeroed<molfuse_execution>();
  execution.struct_size = 0;
  expect_invalid(call_with(&execution), {"molfuse_graph_transpose", "struct_size"});
}

TEST(Runtime, ParallelLoopsVisitEverythingOnce) {
  for (const int threads : {1, 2, 5}) {
    for (const int64_t count : {0, 1, 7, 1000}) {
      std::vector<int> visits(static_cast<size_t>(count), 0);
      molfuse::parallel_tasks(threads, count, 3, [&](int64_t n, int) { ++visits[static_cast<size_t>(n)]; });
      EXPECT_EQ(visits, std::vector<int>(static_cast<size_t>(count), 1));
    }
  }
}

// ---- runtime/philox.h

TEST(Philox, KnownAnswers) {
  // The known-answer vectors published with Random123 for philox4x32 with 10 rounds.
  const auto zero = molfuse::philox(0, 0, 0, 0, 0, 0);
  const auto ones = molfuse::philox(~0u, ~0u, ~0u, ~0u, ~0u, ~0u);
  const auto pi = molfuse::philox(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0);
  const uint32_t expected[3][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                   {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                   {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
  for (int n = 0; n < 4; ++n) {
    EXPECT_EQ(zero.w[n], expected[0][n]);
    EXPECT_EQ(ones.w[n], expected[1][n]);
    EXPECT_EQ(pi.w[n], expected[2][n]);
  }
}

TEST(Philox, DropoutThresholds) {
  EXPECT_EQ(molfuse::dropout_threshold(0.5), 0x80000000u);
  EXPECT_EQ(molfuse::dropout_threshold(0.25), 0x40000000u);
  EXPECT_EQ(molfuse::dropout_threshold(0.0), 0u);
  EXPECT_EQ(molfuse::dropout_threshold(std::nextafter(1.0, 0.0)), 0xFFFFFFFFu);
}

// ---- runtime/simd.h at each level

const molfuse::SimdProbe& probe_of(const std::string& level) {
#if defined(__x86_64__)
  if (level == "avx2") return molfuse::avx2::simd_probe;
  if (level == "avx512") return molfuse::avx512::simd_probe;
#endif
  EXPECT_EQ(level, "baseline");
  return molfuse::baseline::simd_probe;
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

struct Half {
  const char* name;
  double (*decode)(uint16_t);
  uint16_t (*encode)(double, uint16_t infinity);
  uint16_t infinity;
  void (*molfuse::SimdProbe::*load)(const uint16_t*, float*, int64_t);
  void (*molfuse::SimdProbe::*store)(const float*, uint16_t*, int64_t);
};

const Half kHalves[] = {
    {"f16", decode_f16, encode_16<decode_f16>, 0x7C00, &molfuse::SimdProbe::load_f16, &molfuse::SimdProbe::store_f16},
    {"bf16", decode_bf16, encode_16<decode_bf16>, 0x7F80, &molfuse::SimdProbe::load_bf16, &molfuse::SimdProbe::store_bf16},
};

TEST(Simd, EveryHalfIsLoadedExactlyAndStoredAsItWas) {
  std::vector<uint16_t> all(65536 + 1);  // one more: a partial vector at the end
  for (size_t n = 0; n < all.size(); ++n) all[n] = static_cast<uint16_t>(n);
  at_each_level([&](const std::string& level) {
    for (const Half& half : kHalves) {
      SCOPED_TRACE(half.name);
      std::vector<float> wide(all.size());
      (probe_of(level).*half.load)(all.data(), wide.data(), static_cast<int64_t>(all.size()));
      std::vector<uint16_t> back(all.size());
      (probe_of(level).*half.store)(wide.data(), back.data(), static_cast<int64_t>(all.size()));
      for (size_t n = 0; n < all.size(); ++n) {
        const double expected = half.decode(all[n]);
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(wide[n])) << n;
          ASSERT_TRUE(std::isnan(half.decode(back[n]))) << n;
        } else {
          ASSERT_EQ(wide[n], static_cast<float>(expected)) << n;
          ASSERT_EQ(std::signbit(wide[n]), std::signbit(expected)) << n;
          ASSERT_EQ(back[n], all[n]);
        }
      }
    }
  });
}

TEST(Simd, StoresRoundToNearestEvenAtEveryBoundary) {
  for (const Half& half : kHalves) {
    SCOPED_TRACE(half.name);
    // Rounding is monotonic, so it is right everywhere if it is right around every number and every midpoint between two.
    std::vector<float> inputs;
    for (uint32_t n = 0; n < half.infinity; ++n) {
      const double low = half.decode(static_cast<uint16_t>(n));
      // Past the largest number: one more step, where infinity begins.
      const double high = n + 1u < half.infinity ? half.decode(static_cast<uint16_t>(n + 1)) : 2 * low - half.decode(static_cast<uint16_t>(n - 1));
      const double middle = (low + high) / 2;
      for (const double at : {low, middle}) {
        const float exact = static_cast<float>(at);
        for (const float x : {exact, std::nextafterf(exact, 0.0f), std::nextafterf(exact, std::numeric_limits<float>::max())}) {
          inputs.push_back(x);
          inputs.push_back(-x);
        }
      }
    }
    for (const uint32_t bits : {0x7F7FFFFFu, 0x7F800000u, 0xFF800000u, 0x7FC00000u, 0x7F800001u, 0xFFFFFFFFu, 0x00000001u, 0x80000001u}) {
      inputs.push_back(float_of(bits));
    }
    Random random(6);
    for (int n = 0; n < 200001; ++n) inputs.push_back(float_of(static_cast<uint32_t>(random())));
    std::vector<uint16_t> expected;
    for (const float x : inputs) expected.push_back(half.encode(x, half.infinity));
    at_each_level([&](const std::string& level) {
      std::vector<uint16_t> got(inputs.size());
      (probe_of(level).*half.store)(inputs.data(), got.data(), static_cast<int64_t>(inputs.size()));
      for (size_t n = 0; n < inputs.size(); ++n) {
        if (std::isnan(inputs[n])) {
          ASSERT_TRUE(std::isnan(half.decode(got[n]))) << inputs[n];
        } else {
          ASSERT_EQ(got[n], expected[n]) << inputs[n];
        }
      }
    });
  }
}

template <class A, class Wide>
void check_exp(void (*function)(const A*, A*, int64_t), Wide (*reference)(Wide), A low, A high) {
  std::vector<A> x, y;
  Random random(8);
  for (int n = 0; n < 300001; ++n) x.push_back(std::uniform_real_distribution<A>(low, high)(random));
  for (int n = 0; n < 100000; ++n) x.push_back(static_cast<A>(normal(random)));
  for (int n = -1100; n <= 1100; ++n) x.push_back(static_cast<A>(n * 0.34657359027997264));  // multiples of ln(2)/2: ends of the reduced range
  y.resize(x.size());
  function(x.data(), y.data(), static_cast<int64_t>(x.size()));
  const A smallest = 4 * std::numeric_limits<A>::min();
  for (size_t n = 0; n < x.size(); ++n) {
    const Wide expected = reference(static_cast<Wide>(x[n]));
    if (expected < static_cast<Wide>(smallest)) {
      ASSERT_LE(y[n], smallest) << x[n];
      ASSERT_GE(y[n], 0) << x[n];
    } else if (expected > static_cast<Wide>(std::numeric_limits<A>::max())) {
      ASSERT_EQ(y[n], std::numeric_limits<A>::infinity()) << x[n];
    } else {
      ASSERT_LE(std::fabs(static_cast<double>((static_cast<Wide>(y[n]) - expected) / expected)), 2.0 * std::numeric_limits<A>::epsilon()) << x[n];
    }
  }
  const A inf = std::numeric_limits<A>::infinity(), nan = std::numeric_limits<A>::quiet_NaN();
  const A special[] = {0, -A{0}, inf, -inf, nan, std::numeric_limits<A>::max(), std::numeric_limits<A>::lowest(), std::numeric_limits<A>::denorm_min()};
  A result[8];
  function(special, result, 8);
  for (const int one : {0, 1, 7}) EXPECT_EQ(result[one], 1);
  EXPECT_EQ(result[2], inf);
  EXPECT_EQ(result[3], 0);
  EXPECT_TRUE(std::isnan(result[4]));
  EXPECT_EQ(result[5], inf);
  EXPECT_EQ(result[6], 0);
}

TEST(Simd, ExpIsWithinTwoUnitsInTheLastPlace) {
  at_each_level([](const std::string& level) {
    check_exp<float, double>(probe_of(level).exp_f32, [](double x) { return std::exp(x); }, -90.0f, 89.0f);
    check_exp<double, long double>(probe_of(level).exp_f64, [](long double x) { return std::exp(x); }, -710.0, 710.0);
  });
}

template <class A>
void check_reductions(int vector_bytes, void (*add)(const A*, A*, int64_t), void (*maximum)(const A*, A*, int64_t)) {
  const int64_t lanes = vector_bytes / static_cast<int64_t>(sizeof(A)), vectors = 100;
  Random random(9);
  std::vector<A> x(static_cast<size_t>(lanes * vectors)), sums(static_cast<size_t>(vectors)), largest(sums);
  for (A& value : x) value = static_cast<A>(between(random, -1000, 1000));  // integers: exact in any order
  add(x.data(), sums.data(), lanes * vectors);
  maximum(x.data(), largest.data(), lanes * vectors);
  for (int64_t v = 0; v < vectors; ++v) {
    const auto begin = x.begin() + v * lanes, end = begin + lanes;
    EXPECT_EQ(sums[static_cast<size_t>(v)], std::accumulate(begin, end, A{0}));
    EXPECT_EQ(largest[static_cast<size_t>(v)], *std::max_element(begin, end));
  }
}

TEST(Simd, ReductionsSeeEveryLane) {
  at_each_level([](const std::string& level) {
    const molfuse::SimdProbe& probe = probe_of(level);
    check_reductions<float>(probe.vector_bytes, probe.add_f32, probe.max_f32);
    check_reductions<double>(probe.vector_bytes, probe.add_f64, probe.max_f64);
  });
}

TEST(Simd, PhiloxLanesEqualTheScalarFunction) {
  at_each_level([](const std::string& level) {
    for (const uint32_t first : {0u, 77u, 0xFFFFFFF9u}) {  // the last wraps around
      uint32_t words[64];
      probe_of(level).philox(first, 0x12345678u, 0x9ABCDEF0u, words);
      for (int n = 0; n < probe_of(level).vector_bytes / 4; ++n) {
        const auto expected = molfuse::philox(first + static_cast<uint32_t>(n), 1, 2, 3, 0x12345678u, 0x9ABCDEF0u);
        for (int r = 0; r < 4; ++r) EXPECT_EQ(words[4 * n + r], expected.w[r]);
      }
    }
  });
}

}  // namespace

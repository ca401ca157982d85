// SPDX-License-Identifier: Apache-2.0
#include "molfuse/runtime.h"

#include <thread>

#include "runtime/check.h"
#include "runtime/parallel.h"
#include "runtime/philox.h"
#include "support.h"

using namespace molfuse_test;

namespace {

molfuse_status fail_with(const char* text) {
  return molfuse::guard([&] { molfuse::invalid("%s", text); });
}

TEST(Runtime, VersionAndNames) {
  EXPECT_STRNE(molfuse_version(), "");
  const std::pair<int32_t, const char*> names[] = {{MOLFUSE_F32, "f32"}, {MOLFUSE_F64, "f64"},    {MOLFUSE_F16, "f16"}, {MOLFUSE_BF16, "bf16"},
                                                   {MOLFUSE_I32, "int32"}, {MOLFUSE_I64, "int64"}, {6, "unknown"},       {-1, "unknown"}};
  for (const auto& [dtype, name] : names) EXPECT_STREQ(molfuse_dtype_name(dtype), name);
  const std::pair<int32_t, size_t> sizes[] = {{MOLFUSE_F32, 4}, {MOLFUSE_F64, 8}, {MOLFUSE_F16, 2}, {MOLFUSE_BF16, 2}, {MOLFUSE_I32, 4}, {MOLFUSE_I64, 8}, {99, 0}};
  for (const auto& [dtype, size] : sizes) EXPECT_EQ(molfuse_dtype_size(dtype), size);
}

TEST(Runtime, ErrorTextIsPerThreadAndClearedBySuccess) {
  EXPECT_EQ(fail_with("mine"), MOLFUSE_INVALID_ARGUMENT);
  EXPECT_STREQ(molfuse_last_error(), "mine");
  std::thread([] {
    EXPECT_STREQ(molfuse_last_error(), "");
    EXPECT_EQ(fail_with("the other's"), MOLFUSE_INVALID_ARGUMENT);
    EXPECT_STREQ(molfuse_last_error(), "the other's");
  }).join();
  EXPECT_STREQ(molfuse_last_error(), "mine");
  EXPECT_EQ(molfuse_set_cpu_level("auto"), MOLFUSE_OK);
  EXPECT_STREQ(molfuse_last_error(), "");
}

TEST(Runtime, ErrorTextsAreCutNotOverrun) {
  fail_with(std::string(5000, 'x').c_str());
  const std::string text = molfuse_last_error();
  EXPECT_GT(text.size(), 500u);
  EXPECT_EQ(text, std::string(text.size(), 'x'));
}

TEST(Runtime, GuardTurnsEveryExceptionIntoAStatus) {
  EXPECT_EQ(molfuse::guard([] { molfuse::unsupported("not %d", 7); }), MOLFUSE_UNSUPPORTED);
  EXPECT_STREQ(molfuse_last_error(), "not 7");
  EXPECT_EQ(molfuse::guard([] { throw std::bad_alloc(); }), MOLFUSE_OUT_OF_MEMORY);
  EXPECT_EQ(molfuse::guard([] { throw 3; }), MOLFUSE_INTERNAL_ERROR);
  EXPECT_STRNE(molfuse_last_error(), "");
}

TEST(Runtime, CapabilitiesDescribeTheLevelInUse) {
  at_each_level([](const std::string& level) {
    auto capabilities = zeroed<molfuse_capabilities>();
    ASSERT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
    EXPECT_EQ(capabilities.cpu_vector_level, level);
    EXPECT_GE(capabilities.cpu_threads, 1);
    if (capabilities.cuda_usable == 0) EXPECT_STRNE(capabilities.cuda_reason, "");
    if (capabilities.cudnn_usable == 0) EXPECT_STRNE(capabilities.cudnn_reason, "");
  });
  auto capabilities = zeroed<molfuse_capabilities>();
  ASSERT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
  EXPECT_STREQ(capabilities.cpu_vector_level, capabilities.cpu_vector_best);
  expect_invalid(molfuse_get_capabilities(nullptr), {"NULL"});
}

TEST(Runtime, UnknownLevelsAreRefused) {
  expect_invalid(molfuse_set_cpu_level("sse9"), {"level", "sse9", "avx2"});
  expect_invalid(molfuse_set_cpu_level(nullptr), {"level", "NULL"});
  auto capabilities = zeroed<molfuse_capabilities>();
  ASSERT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
  if (std::string(capabilities.cpu_vector_best) != "avx512") EXPECT_EQ(molfuse_set_cpu_level("avx512"), MOLFUSE_UNSUPPORTED);
}

TEST(Runtime, AnOlderCallersStructIsNotWrittenPastItsEnd) {
  // A caller compiled when the struct ended after cpu_vector_best.
  auto capabilities = zeroed<molfuse_capabilities>();
  std::memset(static_cast<void*>(&capabilities), 0x5A, sizeof capabilities);
  capabilities.struct_size = offsetof(molfuse_capabilities, cpu_threads);
  ASSERT_EQ(molfuse_get_capabilities(&capabilities), MOLFUSE_OK);
  EXPECT_EQ(capabilities.struct_size, offsetof(molfuse_capabilities, cpu_threads));
  EXPECT_STREQ(capabilities.cpu_vector_level, capabilities.cpu_vector_best);
  const unsigned char* rest = reinterpret_cast<const unsigned char*>(&capabilities) + offsetof(molfuse_capabilities, cpu_threads);
  for (size_t n = offsetof(molfuse_capabilities, cpu_threads); n < sizeof capabilities; ++n) EXPECT_EQ(*rest++, 0x5A);
}

TEST(Runtime, FieldsAnOlderCallerDoesNotKnowReadAsZero) {
  auto execution = zeroed<molfuse_execution>();
  std::memset(static_cast<void*>(&execution), 0x5A, sizeof execution);
  execution.device_type = MOLFUSE_CPU;
  execution.struct_size = offsetof(molfuse_execution, device_index);
  const molfuse_execution read = molfuse::read_execution(&execution, "test");
  EXPECT_EQ(read.num_threads, 0);
  EXPECT_EQ(read.stream, nullptr);
}

TEST(Runtime, ANewerCallersStructIsReadAsFarAsItIsKnown) {
  struct Newer {
    molfuse_execution known;
    int64_t unknown;
  } newer;
  std::memset(static_cast<void*>(&newer), 0, sizeof newer);
  newer.known.struct_size = sizeof newer;
  newer.known.num_threads = 3;
  newer.unknown = -1;
  EXPECT_EQ(molfuse::read_execution(&newer.known, "test").num_threads, 3);
}

TEST(Runtime, BadExecutionsAreRefused) {
  auto run = [](const std::function<void(molfuse_execution&)>& change) {
    auto execution = zeroed<molfuse_execution>();
    change(execution);
    return molfuse::guard([&] { molfuse::read_execution(&execution, "molfuse_test"); });
  };
  expect_invalid(run([](molfuse_execution& e) { e.num_threads = -1; }), {"num_threads", "-1"});
  expect_invalid(run([](molfuse_execution& e) { e.device_type = 9; }), {"device_type", "9"});
  expect_invalid(run([](molfuse_execution& e) { e.struct_size = 0; }), {"molfuse_test", "struct_size"});
}

TEST(Runtime, PointersAreChecked) {
  auto run = [](std::vector<double> values, int64_t total) {
    TestTensor pointers = TestTensor::of(MOLFUSE_I32, {static_cast<int64_t>(values.size())}, values);
    const molfuse_tensor view = pointers.view();
    return molfuse::guard([&] { molfuse::check_pointers("rows", view, total); });
  };
  EXPECT_EQ(run({0, 2, 2, 5}, 5), MOLFUSE_OK);
  EXPECT_EQ(run({0}, 0), MOLFUSE_OK);
  expect_invalid(run({1, 2}, 2), {"rows[0] = 0", "got 1"});
  expect_invalid(run({0, 3, 2}, 2), {"ascending", "2 after 3", "position 2"});
  expect_invalid(run({0, 3}, 4), {"expected the last entry to be 4, got 3"});
}

TEST(Runtime, ScratchIsAlignedReusedAndNested) {
  void* first;
  {
    molfuse::Scratch outer(1000);
    first = outer.data();
    molfuse::Scratch inner(1000);
    EXPECT_NE(inner.data(), outer.data());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(outer.data()) % 64, 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(inner.data()) % 64, 0u);
  }
  EXPECT_EQ(molfuse::Scratch(1000).data(), first);
  molfuse::Scratch large(size_t{64} << 20);
  std::memset(large.data(), 1, size_t{64} << 20);
}

TEST(Runtime, ParallelLoopsVisitEverythingOnce) {
  for (const int threads : {1, 2, 5}) {
    for (const int64_t count : {0, 1, 7, 1000}) {
      std::vector<int> visits(static_cast<size_t>(count), 0);
      molfuse::parallel_tasks(threads, count, 3, [&](int64_t n, int) { ++visits[static_cast<size_t>(n)]; });
      EXPECT_EQ(visits, std::vector<int>(static_cast<size_t>(count), 1));
      molfuse::parallel_ranges(threads, count, 16, [&](int64_t begin, int64_t end, int) {
        EXPECT_EQ(begin % 16, 0);
        for (int64_t n = begin; n < end; ++n) ++visits[static_cast<size_t>(n)];
      });
      EXPECT_EQ(visits, std::vector<int>(static_cast<size_t>(count), 2));
    }
  }
}

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
}

}  // namespace

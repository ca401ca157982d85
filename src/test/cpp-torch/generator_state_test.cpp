// SPDX-License-Identifier: Apache-2.0
#include <ATen/CPUGeneratorImpl.h>

#include <chrono>
#include <future>
#include <mutex>

#include "support.h"

namespace molfuse::test {
namespace {

TEST(GeneratorState, DrawsRepeatAfterItIsPutBack) {
  at::manual_seed(3);
  const Tensor state = api::generator_state(-1);
  const Tensor first = at::rand({5});
  EXPECT_FALSE(at::rand({5}).equal(first));
  api::set_generator_state(-1, state);
  EXPECT_TRUE(at::rand({5}).equal(first));
}

/// What holds the lock is in the middle of a draw.
TEST(GeneratorState, WaitsForADrawOfAnotherThread) {
  const Tensor state = api::generator_state(-1);
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  std::unique_lock<std::mutex> drawing(generator.mutex());
  auto got = std::async(std::launch::async, [] { return api::generator_state(-1).numel(); });
  auto put = std::async(std::launch::async, [&] { api::set_generator_state(-1, state); });
  EXPECT_EQ(got.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
  EXPECT_EQ(put.wait_for(std::chrono::milliseconds(0)), std::future_status::timeout);
  drawing.unlock();
  EXPECT_EQ(got.get(), state.numel());
  put.get();
}

TEST(GeneratorState, RefusesWhatIsNoGeneratorOrNoState) {
  EXPECT_THROW(api::generator_state(-2), c10::ValueError);
  EXPECT_THROW(api::generator_state(1000), c10::ValueError);
  EXPECT_THROW(api::set_generator_state(-1, Tensor()), c10::ValueError);
  EXPECT_THROW(api::set_generator_state(-1, at::zeros({3})), c10::Error);
}

}  // namespace
}  // namespace molfuse::test

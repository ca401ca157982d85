// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/autograd/engine.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "support.h"

namespace molfuse::test {
namespace {

std::atomic<int> calls{0};

/// The segment x, n -> (x^3, n, x): its gradients by running it again.
void recompute_cube(int64_t segment, const Tensors& inputs, const Tensors& grad_outputs, Tensors& grad_inputs) {
  ++calls;
  if (segment < 0) throw std::runtime_error("segment " + std::to_string(segment));
  EXPECT_TRUE(at::GradMode::is_enabled());
  EXPECT_TRUE(inputs[0].is_leaf() && inputs[0].requires_grad());
  ASSERT_EQ(grad_outputs.size(), 3u);
  EXPECT_FALSE(grad_outputs[1].defined());
  ASSERT_EQ(grad_inputs.size(), 2u);
  const Tensor cube = inputs[0].pow(3);
  grad_inputs[0] = torch::autograd::grad({cube}, {inputs[0]}, {grad_outputs[0]})[0];
  if (grad_outputs[2].defined()) grad_inputs[0] = grad_inputs[0] + grad_outputs[2];
}

Tensors cube(const Tensor& x, int64_t segment) {
  const Tensor n = at::arange(3);
  Tensors outputs;
  {
    const at::NoGradGuard no_grad;
    outputs = {x.pow(3), n, x};
  }
  return api::checkpoint_outputs({x, n}, outputs, segment, recompute_cube);
}

TEST(Checkpoint, GradientsAreTheCallbacksAndIntegersHaveNone) {
  const Tensor x = at::randn({4}, f64()).requires_grad_(true);
  const Tensors outputs = cube(x, 1);
  ASSERT_EQ(outputs.size(), 3u);
  EXPECT_TRUE(outputs[0].requires_grad() && outputs[2].requires_grad());
  EXPECT_FALSE(outputs[1].requires_grad());
  EXPECT_EQ(outputs[2].data_ptr(), x.data_ptr());
  calls = 0;
  (outputs[0].sum() + 2 * outputs[2].sum()).backward();
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(at::allclose(x.grad(), 3 * x.detach().pow(2) + 2));
}

TEST(Checkpoint, SegmentsAreReleasedOnceAfterBackwardOrWithTheirGraph) {
  const Tensor x = at::randn({4}, f64()).requires_grad_(true);
  api::released_segments();
  {
    const Tensors kept = cube(x, 11), dropped = cube(x, 12);
    EXPECT_TRUE(api::released_segments().empty());
    kept[0].sum().backward({}, /*retain_graph=*/true);
    EXPECT_TRUE(api::released_segments().empty());
    kept[0].sum().backward();
    EXPECT_EQ(api::released_segments(), std::vector<int64_t>{11});
    EXPECT_THROW(kept[0].sum().backward(), c10::Error);
  }
  EXPECT_EQ(api::released_segments(), std::vector<int64_t>{12});
  EXPECT_TRUE(api::released_segments().empty());
}

TEST(Checkpoint, ExceptionsOfTheCallbackEndBackward) {
  const Tensor x = at::randn({4}, f64()).requires_grad_(true);
  try {
    cube(x, -3)[0].sum().backward();
    FAIL() << "backward did not throw";
  } catch (const std::runtime_error& e) {
    EXPECT_STREQ(e.what(), "segment -3");
  }
}

TEST(Checkpoint, WrongUsesAreRefused) {
  const Tensor x = at::randn({4}, f64()).requires_grad_(true);
  const Tensor loss = cube(x, 1)[0].sum();
  EXPECT_THROW(torch::autograd::grad({loss}, {x}), c10::Error);
  EXPECT_THROW(loss.backward({}, /*retain_graph=*/true, /*create_graph=*/true), c10::Error);
  EXPECT_THROW(api::checkpoint_outputs({x}, {x}, 1, nullptr), c10::Error);
  EXPECT_THROW(api::checkpoint_outputs({x}, {Tensor()}, 1, recompute_cube), c10::Error);
}

TEST(HostReads, CountReadingsOfTheThreadWhileOn) {
  const Tensor x = at::ones({3});
  const int64_t before = api::host_reads();
  x.sum().item<float>();
  api::count_host_reads(true);
  api::count_host_reads(true);
  EXPECT_EQ(api::host_reads(), before);
  x.sum().item<float>();
  api::count_host_reads(false);
  EXPECT_TRUE(at::equal(x, x.clone()));
  std::thread([&] { x.sum().item<float>(); }).join();
  EXPECT_EQ(api::host_reads(), before + 2);
  api::count_host_reads(false);
  x.sum().item<float>();
  EXPECT_EQ(api::host_reads(), before + 2);
  EXPECT_THROW(api::count_host_reads(false), c10::Error);
}

}  // namespace
}  // namespace molfuse::test

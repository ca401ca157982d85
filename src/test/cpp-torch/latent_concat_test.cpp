// SPDX-License-Identifier: Apache-2.0
#include "support.h"

namespace molfuse::test {
namespace {

/// Mean of each graph's rows; graphs given by their sizes.
Tensor pool(const Tensor& nodes, const std::vector<int64_t>& sizes) {
  Tensors rows;
  int64_t begin = 0;
  for (const int64_t size : sizes) {
    rows.push_back(size == 0 ? at::zeros({nodes.size(1)}, nodes.options()) : nodes.narrow(0, begin, size).mean(0));
    begin += size;
  }
  return at::stack(rows);
}

Tensor graph_ptr(const std::vector<int64_t>& sizes, at::ScalarType type) {
  std::vector<int64_t> ends = {0};
  for (const int64_t size : sizes) ends.push_back(ends.back() + size);
  return at::tensor(ends, at::kLong).to(type);
}

const std::vector<int64_t> kSizes = {3, 0, 1, 7};

Tensors layers() {
  at::manual_seed(1);
  return {at::randn({11, 5}, f64()), at::randn({11, 16}, f64()), at::randn({11, 5}, f64())};
}

TEST(LatentConcat, AsGoodAsEager) {
  for (const auto index_type : {at::kLong, at::kInt}) {
    const Tensor ptr = graph_ptr(kSizes, index_type);
    compare_with_eager(
        layers(), [&](const Tensors& t) { return Tensors{api::latent_concat(t, ptr)}; },
        [&](const Tensors& t) {
          return Tensors{at::cat({pool(t[0], kSizes), pool(t[1], kSizes), pool(t[2], kSizes)}, 1)};
        },
        {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16});
  }
}

TEST(LatentConcat, PooledInputsSideBySide) {
  const Tensors widths = {at::randn({4, 3}, f64()), at::randn({4, 1}, f64()), at::randn({4, 20}, f64())};
  compare_with_eager(
      widths, [](const Tensors& t) { return Tensors{api::latent_concat_pooled(t)}; },
      [](const Tensors& t) { return Tensors{at::cat(t, 1)}; }, {at::kDouble, at::kFloat, at::kBFloat16});
}

TEST(LatentConcat, GradientsByFiniteDifferences) {
  const Tensor ptr = graph_ptr(kSizes, at::kLong);
  check_gradients(layers(), [&](const Tensors& t) { return Tensors{api::latent_concat(t, ptr)}; });
  check_gradients(layers(), [&](const Tensors& t) {
    Tensor out = at::full({4, 26}, 7.0, f64());
    out = api::latent_concat_into(out, 21, t[2], ptr);
    out = api::latent_concat_into(out, 0, t[0], ptr);
    return Tensors{api::latent_concat_into(out, 5, t[1], ptr)};
  });
}

TEST(LatentConcat, IntoWritesItsSlotInPlaceAndKeepsTheRest) {
  const Tensor ptr = graph_ptr(kSizes, at::kLong);
  const Tensors t = layers();
  Tensor out = at::full({4, 12}, 7.0, f64());
  const auto version = out._version();
  const Tensor returned = api::latent_concat_into(out, 3, t[0], ptr);
  EXPECT_TRUE(returned.is_same(out));
  EXPECT_GT(out._version(), version);
  EXPECT_LE(max_abs(out.narrow(1, 3, 5) - pool(t[0], kSizes)), 1e-14);
  EXPECT_TRUE(out.narrow(1, 0, 3).eq(7).all().item<bool>() && out.narrow(1, 8, 4).eq(7).all().item<bool>());
}

// What was in out before the slot was written must not receive the slot's gradient, however out came about.
TEST(LatentConcat, IntoCutsTheGradientOfOverwrittenColumns) {
  const Tensor ptr = graph_ptr(kSizes, at::kLong);
  const Tensors t = layers();
  const Tensor start = at::randn({4, 12}, f64());
  const auto by_slices = [&](const Tensors& in) {
    Tensor out = at::cat({in[0].narrow(1, 0, 2), pool(in[1], kSizes), in[0].narrow(1, 7, 5)}, 1) * 3;
    out = at::cat({out.narrow(1, 0, 4), pool(in[2], kSizes), out.narrow(1, 9, 3)}, 1);
    return Tensors{out};
  };
  const auto in_place = [&](const Tensors& in) {
    Tensor out = in[0] * 1;
    api::latent_concat_into(out, 2, in[1], ptr);
    out.mul_(3);
    api::latent_concat_into(out, 4, in[2], ptr);
    return Tensors{out};
  };
  compare_with_eager({start, t[0], t[2]}, in_place, by_slices, {at::kDouble});
  // Overlapping slots of fresh memory.
  compare_with_eager(
      {t[0], t[2]},
      [&](const Tensors& in) {
        Tensor out = at::zeros({4, 8}, f64());
        api::latent_concat_into(out, 0, in[0], ptr);
        return Tensors{api::latent_concat_into(out, 3, in[1], ptr)};
      },
      [&](const Tensors& in) {
        return Tensors{at::cat({pool(in[0], kSizes).narrow(1, 0, 3), pool(in[1], kSizes)}, 1)};
      },
      {at::kDouble});
}

TEST(LatentConcat, IntoRefusesALeafThatRequiresGrad) {
  Tensor out = at::zeros({4, 5}, f64()).requires_grad_(true);
  EXPECT_THROW(api::latent_concat_into(out, 0, layers()[0], graph_ptr(kSizes, at::kLong)), std::exception);
}

TEST(LatentConcat, ComputesOnlyTheGradientsAskedFor) {
  Tensors t = layers();
  t[1].requires_grad_(true);
  const Tensor out = api::latent_concat(t, graph_ptr(kSizes, at::kLong));
  EXPECT_LE(max_abs(gradients(out.pow(2).sum(), {t[1]})[0] - gradients(pool(t[1], kSizes).pow(2).sum(), {t[1]})[0]), 1e-14);
}

TEST(LatentConcat, NoGraphsAndNoNodes) {
  Tensor nodes = at::randn({0, 5}).requires_grad_(true);
  const Tensor empty_graphs = api::latent_concat({nodes}, at::zeros({3}, at::kLong));
  EXPECT_EQ(empty_graphs.sizes(), at::IntArrayRef({2, 5}));
  EXPECT_EQ(max_abs(empty_graphs), 0);
  EXPECT_EQ(gradients(empty_graphs.sum(), {nodes})[0].sizes(), nodes.sizes());
  EXPECT_EQ(api::latent_concat({nodes}, at::zeros({1}, at::kLong)).sizes(), at::IntArrayRef({0, 5}));
}

TEST(LatentConcat, AutocastMetaAndDoubleBackward) {
  const Tensor ptr = graph_ptr(kSizes, at::kLong);
  Tensors t = layers();
  t[0] = leaf(t[0], at::kFloat);
  t[1] = leaf(t[1], at::kBFloat16);
  t[2] = leaf(t[2], at::kFloat);
  {
    const Autocast autocast(at::kBFloat16);
    EXPECT_EQ(api::latent_concat(t, ptr).scalar_type(), at::kFloat) << "the widest type";
    EXPECT_EQ(api::latent_concat_pooled(t).scalar_type(), at::kFloat);
    Tensor out = at::zeros({4, 16});
    api::latent_concat_into(out, 0, t[1], ptr);
    EXPECT_EQ(gradients(out.sum(), {t[1]})[0].scalar_type(), at::kBFloat16);
  }
  EXPECT_EQ(api::latent_concat({meta(t[0]), meta(t[2])}, meta(ptr)).sizes(), at::IntArrayRef({4, 10}));
  const Tensor out = api::latent_concat({t[0] * t[0]}, ptr);
  expect_double_backward_refused(out, {t[0]}, "molfuse::latent_concat");
}

TEST(LatentConcat, IntoRefusesMemoryThatItReadsOrWritesTwice) {
  const Tensor ptr = graph_ptr({1, 1, 1, 1}, at::kLong);
  const Tensor memory = at::zeros({8, 5}, f64());
  expect_invalid([&] { api::latent_concat_into(memory.narrow(0, 0, 4), 0, memory.narrow(0, 3, 4), ptr); }, {"out", "shared with nodes"});
  api::latent_concat_into(memory.narrow(0, 0, 4), 0, memory.narrow(0, 4, 4), ptr);
  expect_invalid([&] { api::latent_concat_into(at::zeros({1, 10}, f64()).expand({4, 10}), 0, layers()[0].narrow(0, 0, 4), ptr); },
                 {"out", "stride 0"});
}

TEST(LatentConcat, MetaTensorsGetGradients) {
  const Tensor ptr = meta(graph_ptr(kSizes, at::kLong));
  const Tensor nodes = meta(layers()[0]).requires_grad_(true);
  EXPECT_EQ(gradients(api::latent_concat({nodes, nodes}, ptr).sum(), {nodes})[0].sizes(), nodes.sizes());
  const Tensor out = api::latent_concat_into(meta(at::zeros({4, 6}, f64())), 1, nodes, ptr);
  EXPECT_EQ(gradients(out.sum(), {nodes})[0].sizes(), nodes.sizes());
}

TEST(LatentConcat, ForwardModeIsRefused) {
  const Tensor ptr = graph_ptr(kSizes, at::kLong), nodes = layers()[0];
  const Tensor out = at::zeros({4, 5}, f64());
  expect_forward_mode_refused(nodes, "molfuse::latent_concat", [&](const Tensor& dual) { api::latent_concat({nodes, dual}, ptr); });
  expect_forward_mode_refused(nodes, "molfuse::latent_concat_into", [&](const Tensor& dual) { api::latent_concat_into(out, 0, dual, ptr); });
  EXPECT_EQ(max_abs(out), 0) << "nothing is written before";
}

TEST(LatentConcat, WrongArgumentsAreNamed) {
  const Tensor ptr = graph_ptr(kSizes, at::kLong);
  const Tensors t = layers();
  expect_invalid([&] { api::latent_concat({}, ptr); }, {"layers", "at least one"});
  expect_invalid([&] { api::latent_concat({t[0], t[1].to(at::kFloat)}, ptr); }, {"layers", "element type", "Float"});
  expect_invalid([&] { api::latent_concat({t[0], t[1].narrow(0, 0, 10)}, ptr); }, {"layers", "[10, 16]"});
  expect_invalid([&] { api::latent_concat({t[0]}, ptr.to(at::kDouble)); }, {"graph_ptr", "int32 or int64"});
  expect_invalid([&] { api::latent_concat({t[0]}, ptr + 1); }, {"graph_ptr"});
  expect_invalid([&] { api::latent_concat({t[0]}, Tensor()); }, {"graph_ptr", "undefined"});
  expect_invalid([&] { api::latent_concat_pooled({t[0], t[1].narrow(0, 0, 10)}); }, {"pooled"});
  expect_invalid([&] { api::latent_concat_into(at::zeros({4, 6}, f64()), 2, t[0], ptr); }, {"column_offset", "5", "6", "2"});
  expect_invalid([&] { api::latent_concat_into(at::zeros({4, 6}), 0, t[0], ptr); }, {"out", "element type"});
}

}  // namespace
}  // namespace molfuse::test

// SPDX-License-Identifier: Apache-2.0
#include "support.h"

namespace molfuse::test {
namespace {

constexpr int64_t kColumns = 12;
const std::vector<int64_t> kSizes = {3, 0, 2, 7};

Tensor graph_ptr() { return at::tensor({0, 3, 3, 5, 12}, at::kLong); }

Tensor pool(const Tensor& nodes) {
  Tensors rows;
  int64_t begin = 0;
  for (const int64_t size : kSizes) {
    rows.push_back(size == 0 ? at::zeros({nodes.size(1)}, nodes.options()) : nodes.narrow(0, begin, size).mean(0));
    begin += size;
  }
  return at::stack(rows);
}

/// input, residual, weight, bias
Tensors inputs() {
  at::manual_seed(3);
  return {at::randn({12, kColumns}, f64()), at::randn({12, kColumns}, f64()), at::randn({kColumns}, f64()), at::randn({kColumns}, f64())};
}

struct Running {
  Tensor mean, var;
  explicit Running(at::ScalarType type) {
    const auto statistics = type == at::kDouble ? at::kDouble : at::kFloat;
    mean = at::linspace(-0.5, 0.5, kColumns, at::TensorOptions(statistics));
    var = at::linspace(0.5, 2, kColumns, at::TensorOptions(statistics));
  }
};

Tensor fused(const Tensors& t, bool training, double dropout = 0) {
  const Running running(t[0].scalar_type());
  return api::encoder_epilogue(t[0], t[1], t[2], t[3], running.mean, running.var, training, 0.1, 1e-5, dropout, 7, 2);
}

Tensor unfused(const Tensors& t, bool training) {
  const Running running(t[0].scalar_type());
  const auto statistics = running.mean.scalar_type();
  return at::relu(at::batch_norm(t[0] + t[1], t[2].to(statistics), t[3].to(statistics), running.mean, running.var, training, 0.1, 1e-5, false));
}

TEST(EncoderEpilogue, AsGoodAsEager) {
  for (const bool training : {true, false}) {
    compare_with_eager(
        inputs(), [&](const Tensors& t) { return Tensors{fused(t, training)}; },
        [&](const Tensors& t) { return Tensors{unfused(t, training)}; }, {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16});
    compare_with_eager(
        inputs(),
        [&](const Tensors& t) {
          const Running running(t[0].scalar_type());
          Tensor pooled = at::zeros({4, 3 * kColumns}, t[0].options());
          return api::encoder_epilogue_into(pooled, kColumns, graph_ptr(), t[0], t[1], t[2], t[3], running.mean, running.var, training, 0.1, 1e-5,
                                            0, std::nullopt, 0);
        },
        [&](const Tensors& t) {
          const Tensor out = unfused(t, training), zeros = at::zeros({4, kColumns}, out.options());
          return Tensors{out, at::cat({zeros, pool(out), zeros}, 1)};
        },
        {at::kDouble, at::kFloat, at::kBFloat16});
  }
}

TEST(EncoderEpilogue, GradientsByFiniteDifferences) {
  for (const bool training : {true, false}) {
    check_gradients(inputs(), [&](const Tensors& t) { return Tensors{fused(t, training, 0.3)}; });
    check_gradients(inputs(), [&](const Tensors& t) {
      const Running running(at::kDouble);
      return api::encoder_epilogue_into(at::zeros({4, kColumns}, f64()), 0, graph_ptr(), t[0], t[1], t[2], t[3], running.mean, running.var,
                                        training, 0.1, 1e-5, 0.3, 7, 2);
    });
  }
}

// An encoder: every layer writes its slot of one tensor, and goes on with its features.
TEST(EncoderEpilogue, SlotsOfOneTensorWithLatentConcat) {
  const Running running(at::kDouble);
  for (const bool overlapping : {false, true}) {
    const auto layers = [&](const Tensors& t) {
      Tensor pooled = overlapping ? t[0].narrow(0, 0, 4).repeat({1, 3}) * 2 : at::empty({4, 3 * kColumns}, f64());
      const Tensors first = api::encoder_epilogue_into(pooled, 0, graph_ptr(), t[0], std::nullopt, t[2], t[3], {}, {}, true, 0.1, 1e-5, 0, 1, 0);
      const Tensors second =
          api::encoder_epilogue_into(first[1], overlapping ? 5 : kColumns, graph_ptr(), first[0], t[1], t[2], t[3], {}, {}, true, 0.1, 1e-5, 0, 1, 1);
      return Tensors{api::latent_concat_into(second[1], 2 * kColumns, second[0], graph_ptr())};
    };
    const auto reference = [&](const Tensors& t) {
      const Tensor first = at::relu(at::batch_norm(t[0], t[2], t[3], {}, {}, true, 0.1, 1e-5, false));
      const Tensor second = at::relu(at::batch_norm(first + t[1], t[2], t[3], {}, {}, true, 0.1, 1e-5, false));
      if (!overlapping) return Tensors{at::cat({pool(first), pool(second), pool(second)}, 1)};
      const Tensor before = t[0].narrow(0, 0, 4).repeat({1, 3}) * 2;
      return Tensors{at::cat({pool(first).narrow(1, 0, 5), pool(second), before.narrow(1, 5 + kColumns, kColumns - 5), pool(second)}, 1)};
    };
    compare_with_eager(inputs(), layers, reference, {at::kDouble});
  }
}

TEST(EncoderEpilogue, RunningStatisticsAsBatchNorms) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const Tensor x = inputs()[0].to(type);
    const Running ours(type), theirs(type);
    const auto version = ours.mean._version();
    api::encoder_epilogue(x, std::nullopt, std::nullopt, std::nullopt, ours.mean, ours.var, true, 0.3, 1e-5, 0, std::nullopt, 0);
    at::batch_norm(x.to(ours.mean.scalar_type()), {}, {}, theirs.mean, theirs.var, true, 0.3, 1e-5, false);
    EXPECT_LE(max_abs(ours.mean - theirs.mean), 1e-6);
    EXPECT_LE(max_abs(ours.var - theirs.var), 1e-6);
    EXPECT_GT(ours.mean._version(), version);
    const Tensor before = ours.mean.clone();
    api::encoder_epilogue(x, std::nullopt, std::nullopt, std::nullopt, ours.mean, ours.var, false, 0.3, 1e-5, 0, std::nullopt, 0);
    EXPECT_TRUE(ours.mean.equal(before));
  }
}

TEST(EncoderEpilogue, DropoutIsRepeatableAndUnbiased) {
  const Tensor x = at::randn({400, 50}) + 10;
  const Running running(at::kFloat);
  const auto run = [&](int64_t seed, int64_t offset) {
    return api::encoder_epilogue(x, std::nullopt, std::nullopt, std::nullopt, at::zeros({50}), at::ones({50}), false, 0.1, 0, 0.2, seed, offset);
  };
  EXPECT_TRUE(run(1, 0).equal(run(1, 0)));
  EXPECT_FALSE(run(1, 0).equal(run(2, 0)));
  EXPECT_FALSE(run(1, 0).equal(run(1, 1)));
  EXPECT_NEAR(run(1, 0).eq(0).to(at::kDouble).mean().item<double>(), 0.2, 0.02);
  EXPECT_NEAR(run(1, 0).mean().item<double>() / x.mean().item<double>(), 1, 0.02);
  at::manual_seed(5);
  const auto drawn = [&] {
    return api::encoder_epilogue(x, std::nullopt, std::nullopt, std::nullopt, {}, {}, true, 0.1, 1e-5, 0.2, std::nullopt, 0);
  };
  const Tensor first = drawn();
  EXPECT_FALSE(first.equal(drawn()));
  at::manual_seed(5);
  EXPECT_TRUE(first.equal(drawn()));
}

TEST(EncoderEpilogue, StridedInputsAndGradients) {
  const Tensor wide = at::randn({kColumns, 24, 2}, f64());
  const auto views = [](const Tensor& t) { return Tensors{t.select(2, 0).narrow(1, 0, 12).t(), t.select(2, 1).narrow(1, 3, 12).t()}; };
  compare_with_eager(
      {wide, inputs()[2], inputs()[3]},
      [&](const Tensors& t) {
        const Tensors v = views(t[0]);
        return Tensors{fused({v[0], v[1], t[1], t[2]}, true).t()};
      },
      [&](const Tensors& t) {
        const Tensors v = views(t[0]);
        return Tensors{unfused({v[0], v[1], t[1], t[2]}, true).t()};
      },
      {at::kDouble});
}

TEST(EncoderEpilogue, OnlyWhatIsAskedForAndNothingAtAll) {
  Tensors t = inputs();
  t[2].requires_grad_(true);
  const Tensor expected = gradients(unfused(t, true).pow(2).sum(), {t[2]})[0];
  EXPECT_LE(max_abs(gradients(fused(t, true).pow(2).sum(), {t[2]})[0] - expected), 1e-12);
  const Tensor empty = at::zeros({0, kColumns}).requires_grad_(true);
  const Tensor out = api::encoder_epilogue(empty, std::nullopt, std::nullopt, std::nullopt, {}, {}, true, 0.1, 1e-5, 0, 1, 0);
  EXPECT_EQ(out.sizes(), empty.sizes());
  EXPECT_EQ(gradients(out.sum(), {empty})[0].sizes(), empty.sizes());
}

TEST(EncoderEpilogue, AutocastMetaDoubleBackwardAndForwardMode) {
  Tensors t = inputs();
  for (Tensor& tensor : t) tensor = leaf(tensor, at::kFloat);
  {
    const Autocast autocast(at::kBFloat16);
    const Tensor low = t[0].to(at::kBFloat16);
    EXPECT_EQ(fused({low, t[1], t[2], t[3]}, true).scalar_type(), at::kFloat) << "the widest type";
    EXPECT_EQ(api::encoder_epilogue(low, low, t[2], t[3], {}, {}, true, 0.1, 1e-5, 0, 1, 0).scalar_type(), at::kBFloat16);
    const Tensors both = api::encoder_epilogue_into(at::zeros({4, kColumns}, at::kBFloat16), 0, graph_ptr(), t[0], t[1], t[2], t[3], {}, {}, true,
                                                    0.1, 1e-5, 0, 1, 0);
    EXPECT_EQ(both[0].scalar_type(), at::kBFloat16);
    EXPECT_EQ(gradients(both[1].sum(), {t[2]})[0].scalar_type(), at::kFloat);
  }
  const Tensor m = meta(t[0]).requires_grad_(true);
  const Tensors both = api::encoder_epilogue_into(meta(at::zeros({4, kColumns})), 0, meta(graph_ptr()), m, {}, {}, {}, {}, {}, true, 0.1, 1e-5, 0, 1, 0);
  EXPECT_EQ(gradients(both[1].sum() + both[0].sum(), {m})[0].sizes(), m.sizes());
  Tensors doubles = inputs();
  doubles[0].requires_grad_(true);
  expect_double_backward_refused(fused({doubles[0] * doubles[0], doubles[1], doubles[2], doubles[3]}, true), {doubles[0]}, "molfuse::encoder_epilogue");
  expect_forward_mode_refused(doubles[1], "molfuse::encoder_epilogue",
                              [&](const Tensor& dual) { fused({dual, doubles[1], doubles[2], doubles[3]}, true); });
}

TEST(EncoderEpilogue, WrongArgumentsAreNamed) {
  const Tensors t = inputs();
  const Running running(at::kDouble);
  const auto call = [&](const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, const OptionalTensor& mean, bool training,
                        double dropout) {
    api::encoder_epilogue(input, residual, weight, t[3], mean, running.var, training, 0.1, 1e-5, dropout, 1, 0);
  };
  expect_invalid([&] { call(t[0].view(-1), {}, t[2], running.mean, true, 0); }, {"input", "[V, C]"});
  expect_invalid([&] { call(t[0].to(at::kLong), {}, t[2], running.mean, true, 0); }, {"input"});
  expect_invalid([&] { call(t[0].narrow(0, 0, 1), {}, t[2], running.mean, true, 0); }, {"input", "two rows"});
  expect_invalid([&] { call(t[0], t[1].narrow(0, 0, 4), t[2], running.mean, true, 0); }, {"residual", "[4, 12]"});
  expect_invalid([&] { call(t[0], t[1].to(at::kFloat), t[2], running.mean, true, 0); }, {"residual", "Float"});
  expect_invalid([&] { call(t[0], {}, t[2].narrow(0, 0, 3), running.mean, true, 0); }, {"weight", "[3]"});
  expect_invalid([&] { call(t[0], {}, t[2], running.mean.to(at::kFloat), true, 0); }, {"running_mean"});
  expect_invalid([&] { call(t[0], {}, t[2], std::nullopt, true, 0); }, {"running_mean"});
  expect_invalid([&] { call(t[0], {}, t[2], running.mean, true, 1); }, {"dropout_p"});
  expect_invalid([&] { api::encoder_epilogue(t[0], {}, {}, {}, {}, {}, false, 0.1, 1e-5, 0, 1, 0); }, {"running_mean", "training"});
  const auto into = [&](Tensor pooled, int64_t column, const Tensor& ptr) {
    api::encoder_epilogue_into(pooled, column, ptr, t[0], {}, {}, {}, {}, {}, true, 0.1, 1e-5, 0, 1, 0);
  };
  expect_invalid([&] { into(at::zeros({4, kColumns}, f64()), 1, graph_ptr()); }, {"column_offset", "12", "1"});
  expect_invalid([&] { into(at::zeros({3, kColumns}, f64()), 0, graph_ptr()); }, {"pooled"});
  expect_invalid([&] { into(at::zeros({4, kColumns}), 0, graph_ptr()); }, {"pooled", "Float"});
  expect_invalid([&] { into(at::zeros({4, kColumns}, f64()), 0, graph_ptr() + 1); }, {"graph_ptr"});
  expect_invalid([&] { into(at::zeros({4, kColumns}, f64()), 0, Tensor()); }, {"graph_ptr"});
  expect_invalid([&] { into(t[0].narrow(0, 0, 4), 0, graph_ptr()); }, {"pooled", "shared with input"});
  expect_invalid([&] { api::encoder_epilogue(t[0], {}, {}, {}, running.var, running.var, true, 0.1, 1e-5, 0, 1, 0); }, {"running_mean", "running_var"});
  // Before anything is written.
  const Tensor wide = at::full({4, 2 * kColumns}, 7.0, f64()), leaf_row = at::full({4, kColumns}, 7.0, f64()).requires_grad_(true);
  const Running kept(at::kDouble);
  const auto differentiable = [&](const Tensor& pooled) {
    api::encoder_epilogue_into(pooled, 0, graph_ptr(), leaf(t[0], at::kDouble), {}, {}, {}, kept.mean, kept.var, true, 0.1, 1e-5, 0, 1, 0);
  };
  expect_invalid([&] { differentiable(wide.narrow(1, 0, kColumns)); }, {"pooled", "view"});
  expect_invalid([&] { differentiable(leaf_row); }, {"pooled", "leaf"});
  EXPECT_TRUE(wide.eq(7).all().item<bool>() && leaf_row.eq(7).all().item<bool>() && kept.mean.equal(Running(at::kDouble).mean));
}

}  // namespace
}  // namespace molfuse::test

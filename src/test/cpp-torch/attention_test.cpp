// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "support.h"

namespace molfuse::test {
namespace {

struct Options {
  OptionalTensor key_lengths;
  bool causal = false;
  std::optional<double> scale;
};

/// The formula of OPERATORS.md 1 with libtorch's own operators. Every row must see a key.
Tensor unfused(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias, const OptionalTensor& relative,
               const Options& options) {
  const int64_t n = q.size(2), m = k.size(2);
  Tensor score = at::matmul(q, k.transpose(2, 3)) * options.scale.value_or(1 / std::sqrt(static_cast<double>(q.size(3))));
  if (bias) score = score + bias->to(score.scalar_type());
  const Tensor shift = at::arange(m).unsqueeze(0) - at::arange(n).unsqueeze(1) - (m - n);
  if (relative) {
    const int64_t reach = (relative->size(1) - 1) / 2;
    const Tensor index = (shift.clamp(-reach, reach) + reach).reshape({-1});
    score = score + relative->to(score.scalar_type()).index_select(1, index).view({relative->size(0), n, m});
  }
  Tensor visible = at::ones({1, 1, n, m}, at::kBool);
  if (options.causal) visible = shift.le(0).view({1, 1, n, m});
  if (options.key_lengths) {
    visible = visible.logical_and(at::arange(m).view({1, 1, 1, m}).lt(options.key_lengths->view({-1, 1, 1, 1})));
  }
  return at::matmul(score.masked_fill(visible.logical_not(), -INFINITY).softmax(-1), v);
}

Tensor fused(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias, const OptionalTensor& relative,
             const Options& options, double dropout_p = 0, std::optional<int64_t> seed = {}) {
  return api::attention(q, k, v, bias, relative, options.key_lengths, options.causal, options.scale, dropout_p, seed, 0);
}

Tensors qkv(int64_t b, int64_t h, int64_t n, int64_t m, int64_t d) {
  return {at::randn({b, h, n, d}, f64()), at::randn({b, h, m, d}, f64()), at::randn({b, h, m, d}, f64())};
}

TEST(Attention, PlainAsGoodAsEager) {
  at::manual_seed(1);
  const Options options;
  compare_with_eager(
      qkv(2, 3, 37, 53, 24), [&](const Tensors& t) { return Tensors{fused(t[0], t[1], t[2], {}, {}, options)}; },
      [&](const Tensors& t) { return Tensors{unfused(t[0], t[1], t[2], {}, {}, options)}; },
      {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16});
}

TEST(Attention, BiasesMasksAndScaleAsGoodAsEager) {
  at::manual_seed(2);
  const int64_t b = 2, h = 3, n = 19, m = 23;
  const std::vector<std::vector<int64_t>> shapes = {{b, h, n, m}, {1, h, n, m}, {b, 1, 1, m}, {1, 1, n, 1}, {h, n, m}, {n, m}, {m}};
  for (const auto& shape : shapes) {
    SCOPED_TRACE(at::IntArrayRef(shape));
    Tensors inputs = qkv(b, h, n, m, 16);
    inputs.push_back(at::randn(shape, f64()));
    inputs.push_back(at::randn({h, 9}, f64()));
    Options options;
    options.causal = true;
    options.key_lengths = at::tensor({9, 23}, at::kInt);
    options.scale = 0.3;
    compare_with_eager(
        inputs, [&](const Tensors& t) { return Tensors{fused(t[0], t[1], t[2], t[3], t[4], options)}; },
        [&](const Tensors& t) { return Tensors{unfused(t[0], t[1], t[2], t[3], t[4], options)}; },
        {at::kDouble, at::kFloat, at::kBFloat16});
  }
}

TEST(Attention, GradientsByFiniteDifferences) {
  at::manual_seed(3);
  Tensors inputs = qkv(2, 2, 3, 5, 8);
  inputs.push_back(at::randn({2, 1, 5}, f64()));
  inputs.push_back(at::randn({2, 5}, f64()));
  Options options;
  options.key_lengths = at::tensor({5, 3}, at::kLong);
  for (const double dropout_p : {0.0, 0.4}) {
    check_gradients(
        inputs, [&](const Tensors& t) { return Tensors{fused(t[0], t[1], t[2], t[3], t[4], options, dropout_p, 77)}; });
  }
}

TEST(Attention, RowsThatSeeNothingAreZeroEverywhere) {
  at::manual_seed(4);
  Tensors inputs = qkv(2, 2, 4, 3, 8);
  for (Tensor& input : inputs) input = leaf(input, at::kFloat);
  const Tensor bias = leaf(at::randn({4, 3}), at::kFloat);
  const Tensor out =
      api::attention(inputs[0], inputs[1], inputs[2], bias, {}, at::tensor({0, 3}, at::kInt), true, {}, 0, {}, 0);
  EXPECT_EQ(max_abs(out[0]), 0);
  EXPECT_EQ(max_abs(out[1].select(1, 0)), 0) << "causal with M < N: the first query precedes every key";
  EXPECT_GT(max_abs(out[1].select(1, 1)), 0);
  inputs.push_back(bias);
  for (const Tensor& gradient : gradients(out.sum(), inputs)) EXPECT_TRUE(gradient.isfinite().all().item<bool>());
  EXPECT_EQ(max_abs(gradients(out.sum(), {inputs[0]})[0][0]), 0);
}

TEST(Attention, ViewsOfAProjectionNeedNoCopyAndKeepTheirOrder) {
  at::manual_seed(5);
  const Tensor projection = at::randn({2, 7, 3, 4, 16}).requires_grad_(true);  // [B,N,3,H,D]
  const auto part = [&](int64_t i) { return projection.select(2, i).transpose(1, 2); };
  const Tensor out = fused(part(0), part(1), part(2), {}, {}, {});
  EXPECT_TRUE(out.transpose(1, 2).is_contiguous()) << "[B,N,H,D] memory, so that heads merge without a copy";
  const Tensor expected = unfused(part(0), part(1), part(2), {}, {}, {});
  EXPECT_LE(max_abs(out - expected), 2e-6);
  EXPECT_LE(max_abs(gradients(out.sum(), {projection})[0] - gradients(expected.sum(), {projection})[0]), 5e-6);
}

TEST(Attention, InputsWithAStridedLastDimension) {
  at::manual_seed(6);
  Tensors inputs = qkv(1, 2, 5, 5, 8);
  compare_with_eager(
      inputs,
      [](const Tensors& t) {
        const auto strided = [](const Tensor& x) { return x.transpose(2, 3).contiguous().transpose(2, 3); };
        return Tensors{fused(strided(t[0]), strided(t[1]), strided(t[2]), {}, {}, {})};
      },
      [](const Tensors& t) { return Tensors{unfused(t[0], t[1], t[2], {}, {}, {})}; }, {at::kFloat});
}

TEST(Attention, ComputesOnlyTheGradientsAskedFor) {
  at::manual_seed(7);
  Tensors inputs = qkv(1, 2, 4, 4, 8);
  const Tensor relative = leaf(at::randn({2, 3}), at::kDouble);
  const Tensor bias = at::randn({4, 4}, f64());
  const Tensor out = fused(inputs[0], inputs[1], inputs[2], bias, relative, {});
  const Tensor expected = unfused(inputs[0], inputs[1], inputs[2], bias, relative, {});
  EXPECT_LE(max_abs(gradients(out.sum() + out.pow(2).sum(), {relative})[0] -
                    gradients(expected.sum() + expected.pow(2).sum(), {relative})[0]),
            1e-12);
  EXPECT_FALSE(fused(inputs[0], inputs[1], inputs[2], bias, bias.narrow(0, 0, 2).narrow(1, 0, 3), {}).requires_grad());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(fused(inputs[0], inputs[1], inputs[2], bias, relative, {}).requires_grad());
}

TEST(Attention, ASeedNotGivenComesFromTorchsGenerator) {
  Tensors inputs = qkv(2, 2, 8, 8, 8);
  const auto run = [&](std::optional<int64_t> seed) { return fused(inputs[0], inputs[1], inputs[2], {}, {}, {}, 0.5, seed); };
  at::manual_seed(8);
  const Tensor first = run({}), second = run({});
  at::manual_seed(8);
  EXPECT_TRUE(at::equal(run({}), first));
  EXPECT_TRUE(at::equal(run({}), second));
  EXPECT_FALSE(at::equal(first, second));
  EXPECT_TRUE(at::equal(run(5), run(5)));
  EXPECT_FALSE(at::equal(run(5), run(6)));
}

TEST(Attention, EmptyBatch) {
  Tensors inputs = qkv(0, 2, 4, 4, 8);
  for (Tensor& input : inputs) input.requires_grad_(true);
  const Tensor relative = leaf(at::randn({2, 3}), at::kDouble);
  const Tensor out = fused(inputs[0], inputs[1], inputs[2], {}, relative, {});
  EXPECT_EQ(out.sizes(), inputs[0].sizes());
  EXPECT_EQ(max_abs(gradients(out.sum(), {inputs[0], relative})[1]), 0);
}

TEST(Attention, VarlenEqualsEachSequenceAlone) {
  at::manual_seed(9);
  const std::vector<int64_t> q_ends = {0, 3, 3, 10}, k_ends = {0, 5, 9, 13};
  Tensors inputs = {at::randn({10, 2, 16}, f64()), at::randn({13, 2, 16}, f64()), at::randn({13, 2, 16}, f64()),
                    at::randn({2, 7}, f64())};
  const auto int32 = [](const std::vector<int64_t>& values) { return at::tensor(values, at::kLong).to(at::kInt); };
  const Tensor cu_q = int32(q_ends), cu_k = int32(k_ends);
  compare_with_eager(
      inputs,
      [&](const Tensors& t) {
        return Tensors{api::attention_varlen(t[0], t[1], t[2], cu_q, cu_k, 7, 5, t[3], false, {}, 0, {}, 0)};
      },
      [&](const Tensors& t) {
        Tensors outs;
        for (size_t s = 0; s + 1 < q_ends.size(); ++s) {
          const auto rows = [&](const Tensor& x, const std::vector<int64_t>& ends) {
            return x.slice(0, ends[s], ends[s + 1]).transpose(0, 1).unsqueeze(0);
          };
          outs.push_back(unfused(rows(t[0], q_ends), rows(t[1], k_ends), rows(t[2], k_ends), {}, t[3], {})[0].transpose(0, 1));
        }
        return Tensors{at::cat(outs)};
      },
      {at::kDouble, at::kFloat, at::kBFloat16});
}

TEST(Attention, DecodeContinuesWhatAttentionComputed) {
  at::manual_seed(10);
  const int64_t b = 2, h = 2, capacity = 6, d = 8;
  const Tensor relative = at::randn({h, 5});
  Tensor q = at::randn({b, h, 4, d}), k = at::randn({b, h, 4, d}), v = at::randn({b, h, 4, d});
  const Tensor expected = api::attention(q, k, v, {}, relative, {}, true, {}, 0, {}, 0);
  Tensor keys = at::full({b, h, capacity, d}, NAN), values = at::full({b, h, capacity, d}, NAN);
  for (int64_t t = 0; t < 4; ++t) {
    const auto version = keys._version();
    const Tensor out = api::attention_decode(q.select(2, t), keys, values, at::full({b}, t, at::kInt), k.select(2, t),
                                             v.select(2, t), relative, {});
    EXPECT_LE(max_abs(out - expected.select(2, t)), 2e-6) << "position " << t;
    EXPECT_GT(keys._version(), version);
  }
  EXPECT_TRUE(at::equal(keys.narrow(2, 0, 4), k));
  const Tensor again = api::attention_decode(q.select(2, 3), keys, values, at::full({b}, 4, at::kLong), {}, {}, relative, {});
  EXPECT_LE(max_abs(again - expected.select(2, 3)), 2e-6);
  expect_invalid([&] { api::attention_decode(q.select(2, 0).clone().requires_grad_(true), keys, values, at::full({b}, 4, at::kInt), {}, {}, {}, {}); },
                 {"attention_decode has no gradient"});
}

TEST(Attention, AutocastRunsInLowPrecisionAndReturnsGradientsInTheInputsType) {
  at::manual_seed(11);
  Tensors inputs = qkv(1, 2, 4, 4, 8);
  for (Tensor& input : inputs) input = leaf(input, at::kFloat);
  const Tensor bias = leaf(at::randn({4, 4}), at::kFloat);
  Tensor out;
  {
    const Autocast autocast(at::kBFloat16);
    out = fused(inputs[0], inputs[1], inputs[2], bias, {}, {});
  }
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  inputs.push_back(bias);
  for (const Tensor& gradient : gradients(out.sum(), inputs)) EXPECT_EQ(gradient.scalar_type(), at::kFloat);
}

TEST(Attention, MetaTensorsGiveShapes) {
  const Tensors inputs = qkv(2, 3, 5, 7, 8);
  const Tensor q = meta(inputs[0]).requires_grad_(true);
  const Tensor out = fused(q, meta(inputs[1]), meta(inputs[2]), {}, {}, {});
  EXPECT_TRUE(out.is_meta());
  EXPECT_EQ(out.sizes(), inputs[0].sizes());
  EXPECT_EQ(gradients(out.sum(), {q})[0].sizes(), q.sizes());
}

TEST(Attention, MetaTensorsGiveTheStridesOfRealOnes) {
  const auto strided = [](const Tensor& x) { return x.transpose(2, 3).contiguous().transpose(2, 3); };
  for (const bool strided_rows : {false, true}) {
    Tensors inputs = qkv(2, 3, 5, 7, 8), metas;
    for (Tensor& input : inputs) {
      input = (strided_rows ? strided(input) : input.transpose(1, 2).contiguous().transpose(1, 2)).requires_grad_(true);
      metas.push_back(at::empty_strided(input.sizes(), input.strides(), input.options().device(at::kMeta)).requires_grad_(true));
    }
    const Tensor out = fused(inputs[0], inputs[1], inputs[2], {}, {}, {}), meta_out = fused(metas[0], metas[1], metas[2], {}, {}, {});
    EXPECT_EQ(meta_out.strides(), out.strides());
    const Tensors real = gradients(out.sum(), inputs), wanted = gradients(meta_out.sum(), metas);
    for (size_t i = 0; i < real.size(); ++i) EXPECT_EQ(wanted[i].strides(), real[i].strides()) << i;
  }
}

TEST(Attention, ForwardModeIsRefused) {
  const Tensors t = qkv(1, 1, 3, 3, 8);
  expect_forward_mode_refused(t[0], "molfuse::attention", [&](const Tensor& q) { fused(q, t[1], t[2], {}, {}, {}); });
  expect_forward_mode_refused(at::randn({3, 3}, f64()), "molfuse::attention",
                              [&](const Tensor& bias) { fused(t[0], t[1], t[2], bias, {}, {}); });
  expect_forward_mode_refused(t[0].select(2, 0), "molfuse::attention_decode", [&](const Tensor& q) {
    api::attention_decode(q, t[1], t[2], at::full({1}, 3, at::kInt), {}, {}, {}, {});
  });
}

TEST(Attention, DecodeWritesInferenceTensors) {
  Tensor keys, values;
  {
    const c10::InferenceMode inference;
    keys = at::zeros({1, 2, 4, 8});
    values = at::zeros({1, 2, 4, 8});
  }
  const at::NoGradGuard no_grad;
  const Tensor row = at::ones({1, 2, 8});
  const Tensor out = api::attention_decode(row, keys, values, at::full({1}, 2, at::kInt), row, row, {}, {});
  EXPECT_TRUE(at::equal(keys.select(2, 2), row) && at::equal(values.select(2, 2), row));
  EXPECT_EQ(out.sizes(), row.sizes());
}

TEST(Attention, DecodeRefusesToWriteMemoryThatIsReadElsewhere) {
  const Tensor keys = at::zeros({2, 2, 4, 8}), values = at::zeros({2, 2, 4, 8}), row = at::ones({2, 2, 8});
  const Tensor lengths = at::full({2}, 1, at::kInt);
  const Tensor expanded = keys.narrow(0, 0, 1).expand({2, 2, 4, 8});
  expect_invalid([&] { api::attention_decode(row, expanded, values, lengths, row, row, {}, {}); }, {"key_cache", "stride 0"});
  expect_invalid([&] { api::attention_decode(row, keys, keys, lengths, row, row, {}, {}); }, {"value_cache", "key_cache"});
  const Tensor inside = values.flatten().narrow(0, 40, 32).view({2, 2, 8});
  expect_invalid([&] { api::attention_decode(row, keys, values, lengths, row, inside, {}, {}); }, {"value_cache", "value_new"});
  EXPECT_EQ(max_abs(keys), 0) << "nothing is written before the checks";
  // Caches that are read only may be expanded, and slices of one tensor do not overlap.
  api::attention_decode(row, expanded, expanded, lengths, {}, {}, {}, {});
  const Tensor both = at::zeros({2, 2, 2, 4, 8});
  api::attention_decode(row, both[0], both[1], lengths, row, row, {}, {});
}

TEST(Attention, DoubleBackwardIsRefused) {
  Tensors inputs = qkv(1, 1, 3, 3, 8);
  for (Tensor& input : inputs) input.requires_grad_(true);
  expect_double_backward_refused(fused(inputs[0], inputs[1], inputs[2], {}, {}, {}), inputs, "molfuse::attention");
}

TEST(Attention, SavedInputsChangedInPlaceAreNoticed) {
  Tensors inputs = qkv(1, 1, 3, 3, 8);
  const Tensor q = inputs[0].requires_grad_(true) * 2;
  const Tensor out = fused(q, inputs[1], inputs[2], {}, {}, {});
  q.add_(1);
  EXPECT_THROW(gradients(out.sum(), {inputs[0]}), std::exception);
}

TEST(Attention, WrongArgumentsAreNamed) {
  const Tensors t = qkv(2, 3, 4, 5, 8);
  const auto call = [&](const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias, const OptionalTensor& rel,
                        const OptionalTensor& lengths, double dropout_p = 0) {
    return [=] { api::attention(q, k, v, bias, rel, lengths, false, {}, dropout_p, {}, 0); };
  };
  expect_invalid(call(t[0][0], t[1], t[2], {}, {}, {}), {"query", "[B, H, N, D]", "[3, 4, 8]"});
  expect_invalid(call(t[0].to(at::kLong), t[1], t[2], {}, {}, {}), {"query", "element type", "Long"});
  expect_invalid(call(t[0], t[1].to(at::kFloat), t[2], {}, {}, {}), {"key", "element type", "Float"});
  expect_invalid(call(t[0], t[1], t[0], {}, {}, {}), {"value", "shape of key"});
  expect_invalid(call(t[0].narrow(3, 0, 4), t[1].narrow(3, 0, 4), t[2].narrow(3, 0, 4), {}, {}, {}), {"multiple of 8"});
  expect_invalid(call(t[0], t[1].narrow(1, 0, 2), t[2].narrow(1, 0, 2), {}, {}, {}), {"key", "[2, 2, 5, 8]"});
  expect_invalid(call(t[0], t[1], t[2], at::zeros({4, 4}, f64()), {}, {}), {"bias", "[2, 3, 4, 5]", "[4, 4]"});
  expect_invalid(call(t[0], t[1], t[2], {}, at::zeros({3, 4}, f64()), {}), {"relative_bias", "odd"});
  expect_invalid(call(t[0], t[1], t[2], {}, {}, at::zeros({2}, f64())), {"key_lengths", "int32 or int64"});
  expect_invalid(call(t[0], t[1], t[2], {}, {}, at::tensor({1, 6}, at::kInt)), {"key_lengths"});
  expect_invalid(call(t[0], t[1], t[2], {}, {}, {}, 1.0), {"dropout_p", "[0, 1)"});
  expect_invalid(call(t[0], meta(t[1]), t[2], {}, {}, {}), {"key", "device"});
  expect_invalid(call(Tensor(), t[1], t[2], {}, {}, {}), {"query", "undefined"});
  expect_invalid([&] { api::attention_varlen(t[0][0].transpose(0, 1), t[1][0].transpose(0, 1), t[2][0].transpose(0, 1),
                                             at::tensor({0, 4}, at::kInt), at::tensor({0, 7}, at::kInt), 4, 7, {}, false, {}, 0, {}, 0); },
                 {"cu_seqlens_k"});
}

}  // namespace
}  // namespace molfuse::test

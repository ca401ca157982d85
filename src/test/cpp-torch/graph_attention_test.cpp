// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "support.h"

namespace molfuse::test {
namespace {

struct Graph {
  Tensor row_ptr, source, row_ptr_t, target, edge_id, permutation;
};

Graph build(const Tensor& edge_source, const Tensor& edge_target, int64_t num_nodes) {
  const Tensors parts = api::graph_from_edges(edge_source, edge_target, num_nodes);
  return {parts.at(0), parts.at(1), parts.at(2), parts.at(3), parts.at(4), parts.at(5)};
}

Tensor fused(const Tensors& t, const Graph& graph, double dropout_p = 0, std::optional<int64_t> seed = {}) {
  return api::graph_attention(t[0], t[1], t[2], graph.row_ptr, graph.source, graph.row_ptr_t, graph.target, graph.edge_id, {},
                              dropout_p, seed, 0);
}

/// Gather, softmax over the edges of each target, scatter: the usual message passing.
Tensor unfused(const Tensors& t, const Tensor& source, const Tensor& target) {
  const Tensor q = t[0].index_select(0, target), k = t[1].index_select(0, source), v = t[2].index_select(0, source);
  const Tensor score = (q * k).sum(-1) / std::sqrt(static_cast<double>(q.size(2)));  // [E,H]
  const Tensor row = target.unsqueeze(1).expand_as(score);
  const Tensor peak = at::full({t[0].size(0), score.size(1)}, -INFINITY, score.options())
                          .scatter_reduce(0, row, score.detach(), "amax");
  const Tensor weight = (score - peak.index_select(0, target)).exp();
  const Tensor total = at::zeros_like(peak).index_add(0, target, weight);
  return at::zeros_like(t[0]).index_add(0, target, (weight / total.index_select(0, target)).unsqueeze(-1) * v);
}

Tensors qkv(int64_t nodes, int64_t heads, int64_t width) {
  Tensors result;
  for (int i = 0; i < 3; ++i) result.push_back(at::randn({nodes, heads, width}, f64()));
  return result;
}

TEST(GraphAttention, AsGoodAsEager) {
  at::manual_seed(1);
  for (const auto index_type : {at::kLong, at::kInt}) {
    // Node 12 has no edge at all; some edges are there twice.
    const Tensor source = at::randint(0, 12, {60}, index_type), target = at::randint(0, 12, {60}, index_type);
    const Graph graph = build(source, target, 13);
    compare_with_eager(
        qkv(13, 3, 24), [&](const Tensors& t) { return Tensors{fused(t, graph)}; },
        [&](const Tensors& t) { return Tensors{unfused(t, source.to(at::kLong), target.to(at::kLong))}; },
        {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16});
  }
}

TEST(GraphAttention, GradientsByFiniteDifferences) {
  at::manual_seed(2);
  const Graph graph = build(at::tensor({0, 1, 2, 2, 3, 0}, at::kLong), at::tensor({1, 1, 1, 0, 3, 3}, at::kLong), 5);
  for (const double dropout_p : {0.0, 0.4}) {
    check_gradients(qkv(5, 2, 4), [&](const Tensors& t) { return Tensors{fused(t, graph, dropout_p, 3)}; });
  }
}

TEST(GraphAttention, GraphFromEdgesIsStableAndItsTransposeAgrees) {
  const Tensor source = at::tensor({2, 0, 1, 2}, at::kLong), target = at::tensor({1, 2, 1, 0}, at::kLong);
  const Graph graph = build(source, target, 3);
  EXPECT_TRUE(at::equal(graph.row_ptr, at::tensor({0, 1, 3, 4}, at::kLong)));
  EXPECT_TRUE(at::equal(graph.source, at::tensor({2, 2, 1, 0}, at::kLong)));
  EXPECT_TRUE(at::equal(graph.permutation, at::tensor({3, 0, 2, 1}, at::kLong)));
  EXPECT_TRUE(at::equal(graph.row_ptr_t, at::tensor({0, 1, 2, 4}, at::kLong)));
  EXPECT_TRUE(at::equal(graph.target, at::tensor({2, 1, 0, 1}, at::kLong)));
  EXPECT_TRUE(at::equal(graph.edge_id, at::tensor({3, 2, 0, 1}, at::kLong)));
  const Tensors transposed = api::graph_transpose(graph.row_ptr, graph.source);
  EXPECT_TRUE(at::equal(transposed.at(0), graph.row_ptr_t));
  EXPECT_TRUE(at::equal(transposed.at(1), graph.target));
  EXPECT_TRUE(at::equal(transposed.at(2), graph.edge_id));
}

TEST(GraphAttention, NoEdgesAndNoNodes) {
  const Tensor none = at::empty({0}, at::kLong);
  const Graph edgeless = build(none, none, 3);
  Tensors inputs = qkv(3, 2, 8);
  for (Tensor& input : inputs) input.requires_grad_(true);
  const Tensor out = fused(inputs, edgeless);
  EXPECT_EQ(max_abs(out), 0);
  for (const Tensor& gradient : gradients(out.sum(), inputs)) EXPECT_EQ(max_abs(gradient), 0);
  EXPECT_EQ(fused(qkv(0, 2, 8), build(none, none, 0)).size(0), 0);
}

TEST(GraphAttention, ComputesOnlyTheGradientsAskedFor) {
  at::manual_seed(3);
  const Tensor source = at::randint(0, 6, {20}, at::kLong), target = at::randint(0, 6, {20}, at::kLong);
  Tensors inputs = qkv(6, 2, 8);
  inputs[1].requires_grad_(true);
  const Tensor expected = gradients(unfused(inputs, source, target).pow(2).sum(), {inputs[1]})[0];
  const Tensor actual = gradients(fused(inputs, build(source, target, 6)).pow(2).sum(), {inputs[1]})[0];
  EXPECT_LE(max_abs(actual - expected), 1e-12);
}

TEST(GraphAttention, ASeedNotGivenComesFromTorchsGenerator) {
  const Tensor source = at::randint(0, 6, {40}, at::kLong), target = at::randint(0, 6, {40}, at::kLong);
  const Graph graph = build(source, target, 6);
  const Tensors inputs = qkv(6, 2, 8);
  at::manual_seed(4);
  const Tensor first = fused(inputs, graph, 0.5), second = fused(inputs, graph, 0.5);
  at::manual_seed(4);
  EXPECT_TRUE(at::equal(fused(inputs, graph, 0.5), first));
  EXPECT_FALSE(at::equal(first, second));
}

TEST(GraphAttention, AutocastMetaAndDoubleBackward) {
  const Tensor source = at::randint(0, 6, {20}, at::kLong), target = at::randint(0, 6, {20}, at::kLong);
  const Graph graph = build(source, target, 6);
  Tensors inputs = qkv(6, 2, 8);
  for (Tensor& input : inputs) input = leaf(input, at::kFloat);
  {
    const Autocast autocast(at::kBFloat16);
    EXPECT_EQ(fused(inputs, graph).scalar_type(), at::kBFloat16);
  }
  expect_double_backward_refused(fused(inputs, graph), inputs, "molfuse::graph_attention");
  const Graph on_meta = {meta(graph.row_ptr), meta(graph.source), meta(graph.row_ptr_t), meta(graph.target), meta(graph.edge_id), {}};
  EXPECT_EQ(fused({meta(inputs[0]), meta(inputs[1]), meta(inputs[2])}, on_meta).sizes(), inputs[0].sizes());
  EXPECT_EQ(api::graph_from_edges(meta(source), meta(target), 6).at(0).size(0), 7);
}

TEST(GraphAttention, MetaTensorsGiveTheStridesOfRealOnes) {
  const Tensor source = at::randint(0, 6, {20}, at::kLong), target = at::randint(0, 6, {20}, at::kLong);
  const Graph graph = build(source, target, 6);
  const Graph on_meta = {meta(graph.row_ptr), meta(graph.source), meta(graph.row_ptr_t), meta(graph.target), meta(graph.edge_id), {}};
  Tensors inputs = qkv(6, 2, 8), metas;
  for (Tensor& input : inputs) {
    input = input.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_(true);
    metas.push_back(at::empty_strided(input.sizes(), input.strides(), input.options().device(at::kMeta)).requires_grad_(true));
  }
  const Tensor out = fused(inputs, graph), meta_out = fused(metas, on_meta);
  EXPECT_EQ(meta_out.strides(), out.strides());
  const Tensors real = gradients(out.sum(), inputs), wanted = gradients(meta_out.sum(), metas);
  for (size_t i = 0; i < real.size(); ++i) EXPECT_EQ(wanted[i].strides(), real[i].strides()) << i;
}

TEST(GraphAttention, ForwardModeIsRefused) {
  const Graph graph = build(at::tensor({0, 1}, at::kLong), at::tensor({1, 0}, at::kLong), 2);
  const Tensors t = qkv(2, 2, 8);
  expect_forward_mode_refused(t[1], "molfuse::graph_attention", [&](const Tensor& k) { fused({t[0], k, t[2]}, graph); });
}

TEST(GraphAttention, WrongArgumentsAreNamed) {
  const Tensor source = at::tensor({0, 1}, at::kLong), target = at::tensor({1, 0}, at::kLong);
  const Graph graph = build(source, target, 2);
  const Tensors t = qkv(2, 2, 8);
  expect_invalid([&] { fused({t[0], t[1].narrow(1, 0, 1), t[2]}, graph); }, {"key", "[2, 2, 8]", "[2, 1, 8]"});
  expect_invalid([&] { fused(qkv(3, 2, 8), graph); }, {"row_ptr", "[V+1]"});
  expect_invalid([&] { fused(t, {graph.row_ptr, graph.source, graph.row_ptr_t, graph.target.to(at::kInt), graph.edge_id, {}}); },
                 {"target", "element type", "Int"});
  expect_invalid([&] { fused(t, graph, 1.5); }, {"dropout_p", "1.5"});
  expect_invalid([&] { build(source, at::tensor({1, 2}, at::kLong), 2); }, {"edge_target"});
  expect_invalid([&] { build(source, target, -1); }, {"num_nodes", "-1"});
  expect_invalid([&] { build(source.to(at::kFloat), target, 2); }, {"edge_source", "int32 or int64", "Float"});
}

}  // namespace
}  // namespace molfuse::test

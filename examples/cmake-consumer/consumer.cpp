// SPDX-License-Identifier: Apache-2.0
// Attention over the edges of a small graph, from an edge list. All keys are alike, so that a node's result is the mean of its sources.
#include <molfuse/graph_attention.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <stdexcept>
#include <vector>

namespace {

molfuse_tensor view(void* data, molfuse_dtype dtype, std::initializer_list<int64_t> sizes) {
  molfuse_tensor tensor{};
  tensor.data = data;
  tensor.dtype = dtype;
  for (const int64_t size : sizes) tensor.size[tensor.ndim++] = size;
  int64_t step = 1;
  for (int d = tensor.ndim; d-- > 0; step *= tensor.size[d]) tensor.stride[d] = step;
  return tensor;
}

void check(molfuse_status status) {
  if (status != MOLFUSE_OK) throw std::runtime_error(molfuse_last_error());
}

}  // namespace

int main() try {
  constexpr int64_t nodes = 4, channels = 8;
  std::array<int32_t, 5> from = {0, 1, 2, 3, 3}, to = {3, 3, 3, 0, 1};  // node 2 has no source
  std::vector<int32_t> row_ptr(nodes + 1), source(from.size());
  molfuse_graph graph{};
  graph.row_ptr = view(row_ptr.data(), MOLFUSE_I32, {nodes + 1});
  graph.source = view(source.data(), MOLFUSE_I32, {static_cast<int64_t>(source.size())});
  const molfuse_tensor edge_source = view(from.data(), MOLFUSE_I32, {static_cast<int64_t>(from.size())});
  const molfuse_tensor edge_target = view(to.data(), MOLFUSE_I32, {static_cast<int64_t>(to.size())});
  check(molfuse_graph_from_edges(&edge_source, &edge_target, nodes, &graph, nullptr, nullptr));

  std::vector<float> query(nodes * channels, 1), key(nodes * channels, 1), value(nodes * channels), out(nodes * channels);
  for (int64_t n = 0; n < nodes * channels; ++n) value[static_cast<size_t>(n)] = static_cast<float>(n / channels);
  molfuse_graph_attention_args args{};
  args.struct_size = sizeof args;
  args.query = view(query.data(), MOLFUSE_F32, {nodes, 1, channels});
  args.key = view(key.data(), MOLFUSE_F32, {nodes, 1, channels});
  args.value = view(value.data(), MOLFUSE_F32, {nodes, 1, channels});
  args.graph = graph;
  args.out = view(out.data(), MOLFUSE_F32, {nodes, 1, channels});
  check(molfuse_graph_attention_forward(&args, nullptr));

  const float expected[nodes] = {3, 3, 0, 1};
  bool right = true;
  for (int64_t v = 0; v < nodes; ++v) right = right && std::fabs(out[static_cast<size_t>(v * channels)] - expected[v]) < 1e-5f;
  std::printf("molfuse %s from C++: %s\n", molfuse_version(), right ? "right" : "wrong");
  return right ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}

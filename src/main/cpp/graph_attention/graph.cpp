// SPDX-License-Identifier: Apache-2.0
// Index arrays of graphs: range checks, the transpose, and compressed rows from an edge list.
#include "graph_attention/graph.h"

#include <algorithm>

#include "runtime/check.h"

namespace molfuse {
namespace {

template <class Function>
decltype(auto) dispatch_index(const molfuse_tensor& tensor, Function&& function) {
  if (tensor.dtype == MOLFUSE_I32) return function(static_cast<int32_t*>(tensor.data));
  return function(static_cast<int64_t*>(tensor.data));
}

void check_index_tensor(const char* name, const molfuse_tensor& tensor, int64_t size) {
  check_dtype(name, tensor, {MOLFUSE_I32, MOLFUSE_I64});
  check_shape(name, tensor, {size});
}

void check_limit(const char* what, int64_t count) {
  if (count > INT32_MAX - 1) {
    unsupported("graph: at most %d %s, got %lld", INT32_MAX - 1, what, static_cast<long long>(count));
  }
}

/// True if every entry lies in 0..limit-1, limit being at most 2^31 - 2. One comparison as unsigned and no branch, so that the compiler vectorises it.
template <class I>
bool all_below(const I* entries, int64_t count, int64_t stride, int64_t limit) {
  using U = std::make_unsigned_t<I>;
  unsigned outside = 0;
  if (stride == 1) {
    for (int64_t n = 0; n < count; ++n) outside |= static_cast<U>(entries[n]) >= static_cast<U>(limit);
  } else {
    for (int64_t n = 0; n < count; ++n) outside |= static_cast<U>(entries[n * stride]) >= static_cast<U>(limit);
  }
  return outside == 0;
}

void check_indices(const char* name, const molfuse_tensor& tensor, int64_t limit) {
  const int64_t count = tensor.size[0];
  if (dispatch_index(tensor, [&](auto* entries) { return all_below(entries, count, tensor.stride[0], limit); })) return;
  for (int64_t n = 0; n < count; ++n) {
    const int64_t entry = index_at(tensor, n);
    if (entry < 0 || entry >= limit) {
      invalid("%s: expected entries in 0..%lld, got %lld at position %lld", name, static_cast<long long>(limit - 1),
              static_cast<long long>(entry), static_cast<long long>(n));
    }
  }
}

void check_one_type(const char* name, const molfuse_tensor& tensor, const molfuse_tensor& row_ptr) {
  if (tensor.dtype != row_ptr.dtype) {
    invalid("%s: expected element type %s like row_ptr, got %s", name, molfuse_dtype_name(row_ptr.dtype), molfuse_dtype_name(tensor.dtype));
  }
}

/// Throws unless entry p of source row s is an edge of the graph from s to target[p], and no edge occurs twice.
void check_transpose(const CheckedGraph& graph) {
  std::vector<bool> seen(static_cast<size_t>(graph.edges), false);
  const int32_t* const row_ptr = graph.row_ptr.data();
  for (int64_t s = 0; s < graph.nodes; ++s) {
    for (int64_t p = graph.row_ptr_t.data()[s]; p < graph.row_ptr_t.data()[s + 1]; ++p) {
      const int64_t e = graph.edge_id.data()[p], t = graph.target.data()[p];
      if (graph.source.data()[e] != s || e < row_ptr[t] || e >= row_ptr[t + 1] || seen[static_cast<size_t>(e)]) {
        invalid("edge_id: the transpose is not of this graph: by-source position %lld says that edge %lld runs from %lld to %lld%s",
                static_cast<long long>(p), static_cast<long long>(e), static_cast<long long>(s), static_cast<long long>(t),
                seen[static_cast<size_t>(e)] ? ", but that edge has occurred before" : "");
      }
      seen[static_cast<size_t>(e)] = true;
    }
  }
}

/// Positions of `count` keys in ascending, stable order of key: calls place(n, position) for n = 0, 1, ... and writes the
/// pointers of the `keys` groups.
template <class Place>
void counting_sort(const molfuse_tensor& sort_keys, int64_t keys, const molfuse_tensor& pointers, Place&& place) {
  const int64_t count = sort_keys.size[0];
  std::vector<int64_t> next(static_cast<size_t>(keys) + 1, 0);
  for (int64_t n = 0; n < count; ++n) ++next[static_cast<size_t>(index_at(sort_keys, n)) + 1];
  for (int64_t k = 0; k < keys; ++k) next[static_cast<size_t>(k) + 1] += next[static_cast<size_t>(k)];
  dispatch_index(pointers, [&](auto* entries) {
    for (int64_t k = 0; k <= keys; ++k) {
      entries[k * pointers.stride[0]] = static_cast<std::remove_reference_t<decltype(*entries)>>(next[static_cast<size_t>(k)]);
    }
  });
  for (int64_t n = 0; n < count; ++n) place(n, next[static_cast<size_t>(index_at(sort_keys, n))]++);
}

void put(const molfuse_tensor& tensor, int64_t n, int64_t value) {
  dispatch_index(tensor, [&](auto* entries) {
    entries[n * tensor.stride[0]] = static_cast<std::remove_reference_t<decltype(*entries)>>(value);
  });
}

void check_index_output(const char* name, const molfuse_tensor& tensor, int64_t size) {
  check_index_tensor(name, tensor, size);
  check_output(name, tensor);
}

/// Sizes V and E of a graph given as row_ptr and source.
void check_rows(const molfuse_graph& graph, int64_t* nodes, int64_t* edges) {
  check_index_tensor("row_ptr", graph.row_ptr, kAny);
  if (graph.row_ptr.size[0] < 1) invalid("row_ptr: expected [V+1], got %s", shape_text(graph.row_ptr).c_str());
  check_index_tensor("source", graph.source, kAny);
  check_one_type("source", graph.source, graph.row_ptr);
  *nodes = graph.row_ptr.size[0] - 1;
  *edges = graph.source.size[0];
  check_limit("nodes", *nodes);
  check_limit("edges", *edges);
  check_pointers("row_ptr", graph.row_ptr, *edges);
  check_indices("source", graph.source, *nodes);
}

}  // namespace

void PackedIndices::narrow(const molfuse_tensor& tensor) {
  const int64_t count = tensor.size[0];
  if (tensor.dtype == MOLFUSE_I32 && (tensor.stride[0] == 1 || count <= 1)) {
    data_ = static_cast<const int32_t*>(tensor.data);
    return;
  }
  copy_.resize(static_cast<size_t>(count));
  dispatch_index(tensor, [&](auto* entries) {
    for (int64_t n = 0; n < count; ++n) copy_[static_cast<size_t>(n)] = static_cast<int32_t>(entries[n * tensor.stride[0]]);
  });
  data_ = copy_.data();
}

void PackedIndices::take_pointers(const char* name, const molfuse_tensor& tensor, int64_t total) {
  check_pointers(name, tensor, total);
  narrow(tensor);
}

void PackedIndices::take_indices(const char* name, const molfuse_tensor& tensor, int64_t limit) {
  check_indices(name, tensor, limit);
  narrow(tensor);
}

CheckedGraph::CheckedGraph(const molfuse_graph& graph, int64_t node_count, bool with_transpose) : nodes(node_count), edges(0) {
  check_limit("nodes", nodes);
  check_index_tensor("row_ptr", graph.row_ptr, nodes + 1);
  check_index_tensor("source", graph.source, kAny);
  check_one_type("source", graph.source, graph.row_ptr);
  edges = graph.source.size[0];
  check_limit("edges", edges);
  row_ptr.take_pointers("row_ptr", graph.row_ptr, edges);
  source.take_indices("source", graph.source, nodes);
  if (!with_transpose) return;
  check_index_tensor("row_ptr_t", graph.row_ptr_t, nodes + 1);
  check_index_tensor("target", graph.target, edges);
  check_index_tensor("edge_id", graph.edge_id, edges);
  check_one_type("row_ptr_t", graph.row_ptr_t, graph.row_ptr);
  check_one_type("target", graph.target, graph.row_ptr);
  check_one_type("edge_id", graph.edge_id, graph.row_ptr);
  row_ptr_t.take_pointers("row_ptr_t", graph.row_ptr_t, edges);
  target.take_indices("target", graph.target, nodes);
  edge_id.take_indices("edge_id", graph.edge_id, edges);
  check_transpose(*this);
}

std::vector<char> graph_cuts(const CheckedGraph& graph) {
  const size_t nodes = static_cast<size_t>(graph.nodes);
  std::vector<char> cut(nodes + 1, 1);
  std::vector<int32_t> lowest(nodes + 1, static_cast<int32_t>(graph.nodes));
  const int32_t* const row_ptr = graph.row_ptr.data();
  const int32_t* const source = graph.source.data();
  for (size_t t = nodes; t-- > 0;) {
    int32_t low = lowest[t + 1];
    for (int64_t e = row_ptr[t]; e < row_ptr[t + 1]; ++e) low = std::min(low, source[e]);
    lowest[t] = low;
  }
  int32_t highest = -1;
  for (size_t t = 0; t < nodes; ++t) {
    for (int64_t e = row_ptr[t]; e < row_ptr[t + 1]; ++e) highest = std::max(highest, source[e]);
    cut[t + 1] = highest <= static_cast<int32_t>(t) && lowest[t + 1] > static_cast<int32_t>(t);
  }
  return cut;
}

namespace {

template <class T>
void check_given(const char* name, const T* pointer) {
  if (pointer == nullptr) invalid("%s: is NULL", name);
  check_aligned(name, pointer);
}

void transpose(const molfuse_graph& graph) {
  int64_t nodes = 0, edges = 0;
  check_rows(graph, &nodes, &edges);
  check_index_output("row_ptr_t", graph.row_ptr_t, nodes + 1);
  check_index_output("target", graph.target, edges);
  check_index_output("edge_id", graph.edge_id, edges);
  check_one_type("row_ptr_t", graph.row_ptr_t, graph.row_ptr);
  check_one_type("target", graph.target, graph.row_ptr);
  check_one_type("edge_id", graph.edge_id, graph.row_ptr);
  check_apart({{"row_ptr_t", graph.row_ptr_t}, {"target", graph.target}, {"edge_id", graph.edge_id}},
              {{"row_ptr", graph.row_ptr}, {"source", graph.source}});
  int64_t t = 0;
  counting_sort(graph.source, nodes, graph.row_ptr_t, [&](int64_t e, int64_t position) {
    while (index_at(graph.row_ptr, t + 1) <= e) ++t;
    put(graph.target, position, t);
    put(graph.edge_id, position, e);
  });
}

void from_edges(const molfuse_tensor& edge_source, const molfuse_tensor& edge_target, int64_t nodes, const molfuse_graph& graph,
                const molfuse_tensor* edge_id_in) {
  if (nodes < 0) invalid("num_nodes: expected >= 0, got %lld", static_cast<long long>(nodes));
  check_limit("nodes", nodes);
  check_index_tensor("edge_source", edge_source, kAny);
  const int64_t edges = edge_source.size[0];
  check_limit("edges", edges);
  check_index_tensor("edge_target", edge_target, edges);
  check_index_output("row_ptr", graph.row_ptr, nodes + 1);
  check_index_output("source", graph.source, edges);
  check_one_type("source", graph.source, graph.row_ptr);
  const bool want_id = edge_id_in != nullptr && present(*edge_id_in);
  if (want_id) check_index_output("edge_id_in", *edge_id_in, edges);
  check_indices("edge_source", edge_source, nodes);
  check_indices("edge_target", edge_target, nodes);
  check_apart({{"row_ptr", graph.row_ptr}, {"source", graph.source}}, {{"edge_source", edge_source}, {"edge_target", edge_target}});
  if (want_id) check_apart({{"edge_id_in", *edge_id_in}}, {{"edge_source", edge_source}, {"edge_target", edge_target}});
  counting_sort(edge_target, nodes, graph.row_ptr, [&](int64_t n, int64_t position) {
    put(graph.source, position, index_at(edge_source, n));
    if (want_id) put(*edge_id_in, position, n);
  });
}

}  // namespace
}  // namespace molfuse

using namespace molfuse;

extern "C" {

molfuse_status molfuse_graph_transpose(const molfuse_graph* graph, const molfuse_execution* execution) {
  return guard([&] {
    refuse_device(read_execution(execution, "molfuse_graph_transpose"), "molfuse_graph_transpose");
    check_given("graph", graph);
    transpose(*graph);
  });
}

molfuse_status molfuse_graph_from_edges(const molfuse_tensor* edge_source, const molfuse_tensor* edge_target, int64_t num_nodes,
                                        const molfuse_graph* graph, const molfuse_tensor* edge_id_in, const molfuse_execution* execution) {
  return guard([&] {
    refuse_device(read_execution(execution, "molfuse_graph_from_edges"), "molfuse_graph_from_edges");
    check_given("edge_source", edge_source);
    check_given("edge_target", edge_target);
    check_given("graph", graph);
    check_aligned("edge_id_in", edge_id_in);
    from_edges(*edge_source, *edge_target, num_nodes, *graph, edge_id_in);
  });
}

}  // extern "C"

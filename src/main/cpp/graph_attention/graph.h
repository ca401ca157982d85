// SPDX-License-Identifier: Apache-2.0
// Checked access to the index arrays of a graph. Kernels take packed int32 arrays whose every entry has been checked.
#pragma once

#include <cstdint>
#include <vector>

#include "molfuse/graph_attention.h"

namespace molfuse {

/// A one-dimensional index tensor as packed int32: in place if it is that already, else a copy.
class PackedIndices {
 public:
  PackedIndices() = default;
  PackedIndices(const PackedIndices&) = delete;
  PackedIndices& operator=(const PackedIndices&) = delete;

  /// Takes entries that ascend from 0 to total.
  void take_pointers(const char* name, const molfuse_tensor& tensor, int64_t total);
  /// Takes entries in 0..limit-1.
  void take_indices(const char* name, const molfuse_tensor& tensor, int64_t limit);
  const int32_t* data() const { return data_; }

 private:
  void narrow(const molfuse_tensor& tensor);
  const int32_t* data_ = nullptr;
  std::vector<int32_t> copy_;
};

/// The graph of a call over `nodes` nodes, checked; the transpose too if it is wanted.
struct CheckedGraph {
  CheckedGraph(const molfuse_graph& graph, int64_t nodes, bool with_transpose);
  int64_t nodes, edges;
  PackedIndices row_ptr, source, row_ptr_t, target, edge_id;
};

/// cut[n] is true iff no edge joins a node below n with a node from n on: graphs of a batch can be told apart there.
std::vector<char> graph_cuts(const CheckedGraph& graph);

}  // namespace molfuse

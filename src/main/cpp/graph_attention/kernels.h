// SPDX-License-Identifier: Apache-2.0
// What graph_attention.cpp (checks, tasks) and cpu_graph_attention.cpp (arithmetic, once per instruction set) share.
#pragma once

#include <cstdint>

#include "molfuse/graph_attention.h"
#include "runtime/cpu_level.h"

namespace molfuse {

/// A [V,H,C] operand whose channels are contiguous. Strides in elements.
struct GraphOperand {
  void* data;
  int64_t node, head;
};

/// A checked call. A is f64 if the operands are, else f32.
struct GraphProblem {
  int32_t dtype;
  int64_t heads, channels, edges;
  const int32_t* row_ptr;
  const int32_t* source;
  const int32_t* row_ptr_t;
  const int32_t* target;
  const int32_t* edge_id;
  GraphOperand query, key, value, out, grad_out, grad_query, grad_key, grad_value;
  void* lse;  ///< A
  int64_t lse_node, lse_head;
  double scale, keep_scale;  ///< keep_scale: 1 / (1 - dropout_p)
  uint32_t threshold;        ///< a Philox word below this drops its edge
  uint32_t offset_low;
  uint64_t philox_key;
  void* weight;      ///< A [H,E], backward: softmax weights after dropout, written by target, read by source
  void* grad_score;  ///< A [H,E], backward: gradients of scale * q . k times scale, likewise
};

/// Rows with more edges than this are hubs: they are divided into parts of so many edges, the last one shorter, whose results are
/// then added in order. A constant, so that results do not depend on the number of threads.
constexpr int64_t kHubEdges = 1024;

/// All heads head_begin..head_end-1 of the nodes node_begin..node_end-1 that are no hubs.
struct GraphTask {
  int64_t node_begin, node_end, head_begin, head_end;
};

/// A part of the edges of one hub, for one head. The sums, A [C], and the statistic, A [2], are of this part alone.
struct HubPart {
  int64_t node, head, edge_begin, edge_end;
  void* sum;         ///< forward: of values; by target: of keys; by source: of queries
  void* second_sum;  ///< by source: of grad_out rows
  void* statistic;   ///< forward: maximum and sum of exponentials; backward: its sums of weights and of weight * gradient
};

struct GraphKernels {
  /// scratch of all: A [2*C]
  void (*forward)(const GraphProblem&, const GraphTask&, void* scratch);
  void (*forward_part)(const GraphProblem&, const HubPart&);
  void (*forward_merge)(const GraphProblem&, const HubPart* parts, int64_t count);
  /// Writes weight, grad_score and, if wanted, grad_query.
  void (*backward_targets)(const GraphProblem&, const GraphTask&, void* scratch);
  /// Writes a first, unfinished form of weight and grad_score of a part of a hub.
  void (*score_part)(const GraphProblem&, const HubPart&);
  /// Finishes weight and grad_score, given that score_part has run on all parts of the hub.
  void (*target_part)(const GraphProblem&, const HubPart& part, const HubPart* parts, int64_t count);
  /// Writes grad_key and grad_value from weight and grad_score.
  void (*backward_sources)(const GraphProblem&, const GraphTask&, void* scratch);
  void (*source_part)(const GraphProblem&, const HubPart&);
  /// Adds the parts' sums into row (node, head) of to (or, second, the second sums).
  void (*add_parts)(const GraphProblem&, const GraphOperand& to, const HubPart* parts, int64_t count, bool second);
};

struct GraphKernelTable {
  GraphKernels of[4];  ///< by molfuse_dtype
};

MOLFUSE_DECLARE_CPU_TABLE(GraphKernelTable, graph_kernels)

}  // namespace molfuse

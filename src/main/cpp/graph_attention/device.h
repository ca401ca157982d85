// SPDX-License-Identifier: Apache-2.0
// What graph_attention.cpp (checks) and cuda_graph_attention.cu (kernels) share.
#pragma once

#include <cstdint>

#include "runtime/device_call.h"

namespace molfuse {

/// A [V,H,C] operand in device memory; data NULL: not wanted. Strides in elements.
struct DeviceOperand {
  void* data;
  int64_t node, head, channel;
};

/// A checked call; the graph's values are seen by the kernels only. Indices are packed.
struct DeviceGraphProblem {
  int32_t dtype;
  int64_t nodes, heads, channels, edges;
  bool wide_index;  ///< int64, else int32
  const void *row_ptr, *source, *row_ptr_t, *target, *edge_id;
  DeviceOperand query, key, value, out, grad_out, grad_query, grad_key, grad_value;
  void* lse;
  int64_t lse_node, lse_head;
  double scale, keep_scale;
  uint32_t threshold, offset_low;
  uint64_t philox_key;
};

void graph_attention_device(const DeviceGraphProblem&, bool backward, DeviceCall&);

/// Rows with more edges are hubs. Fewer in tests of the simulated device, where a thousand edges take long.
#if defined(MOLFUSE_SIMT)
constexpr int64_t hub_edges_of_device() { return 40; }
#else
constexpr int64_t hub_edges_of_device() { return 1024; }
#endif

}  // namespace molfuse

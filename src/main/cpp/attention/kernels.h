// SPDX-License-Identifier: Apache-2.0
// What attention.cpp (checks, tasks) and cpu_attention.cpp (arithmetic, once per instruction set) share.
#pragma once

#include <cstdint>

#include "molfuse/attention.h"
#include "runtime/cpu_level.h"
#include "runtime/philox.h"

namespace molfuse {

class DeviceCall;

/// A [B,H,N,D] operand whose rows are contiguous. Strides in elements.
struct AttentionOperand {
  void* data;
  int64_t batch, head, row;
};

/// A checked call. For the packed form the batch strides are 0 and cu_q, cu_k give each sequence's first row.
struct AttentionProblem {
  int32_t dtype;
  int64_t batch, heads, queries, keys, dim;  ///< queries and keys: of the batch form, or the longest sequence's
  const int32_t* cu_q;
  const int32_t* cu_k;
  int64_t total_q, total_k;  ///< rows of the packed form
  molfuse_tensor key_lengths;
  AttentionOperand query, key, value, out, grad_out, grad_query, grad_key, grad_value;
  AttentionOperand key_new, value_new;  ///< decode
  void* lse;  ///< f32 or f64
  int64_t lse_batch, lse_head, lse_row;
  const void* bias;
  int32_t bias_dtype;
  int64_t bias_batch, bias_head, bias_row, bias_column;  ///< 0 where broadcast
  int64_t bias_size[4];
  void* grad_bias;
  int64_t grad_bias_batch, grad_bias_head, grad_bias_row, grad_bias_column;
  const void* relative;
  int32_t relative_dtype;
  int64_t relative_head, relative_column, radius;
  void* grad_relative;
  int64_t grad_relative_head, grad_relative_column;
  bool causal;
  double scale, dropout_p;
  uint32_t threshold;  ///< a Philox word below this drops its element
  uint32_t offset_low;
  uint64_t philox_key;
};

enum class BiasGradient { none, add, write };

/// A part of one head's score matrix, and what to do with it.
struct AttentionTask {
  int64_t batch, head;
  int64_t query_begin, query_end;  ///< clipped to the sequence's own length by the kernel
  int64_t key_begin, key_end;
  // backward only; query_gradient and bias_gradient need the full key range, key_value_gradient the full query range
  bool key_value_gradient, query_gradient;
  BiasGradient bias_gradient;  ///< write: also zeros what is not visible; only for biases without broadcast rows or columns
  void* grad_relative;  ///< [2*radius+1] sums over this task, written; NULL: not wanted
};

// Blocking. A tile of scores is at most kQueryBlock x kKeyBlock: 64 KB in f32, of which backward has two, so that with the operands'
// own blocks they stay in a 512 KB second-level cache; depth 64 amortises loading and storing the gradient tiles. A forward task has
// at most kQueryRange rows, enough to make packing a key block negligible (2 * 512 operations for each element packed).
constexpr int64_t kQueryBlock = 64;
constexpr int64_t kKeyBlock = 256;
constexpr int64_t kQueryRange = 512;

/// Offsets, in elements of the accumulator type, of a task's scratch arrays. Leading dimensions are padded to 16 elements, the
/// widest vector, whatever the instruction set.
struct AttentionLayout {
  int64_t query_ld, key_ld;
  int64_t query, key_transposed, value, scores, grad_scores, out, maximum, sum, relative, grad_relative, row, keep;
  int64_t grad_out, value_transposed, grad_key, grad_value, delta, log_sum;
  int64_t total;
};

MOLFUSE_HOST_DEVICE AttentionLayout attention_layout(const AttentionProblem& problem, int64_t query_range, bool backward) {
  AttentionLayout layout{};
  int64_t at = 0;
  auto take = [&at](int64_t elements) {
    const int64_t begin = at;
    at += (elements + 15) / 16 * 16;
    return begin;
  };
  const int64_t block = problem.queries < kQueryBlock ? problem.queries : kQueryBlock;
  const int64_t keys = problem.keys < kKeyBlock ? problem.keys : kKeyBlock;
  const int64_t d = layout.query_ld = (problem.dim + 15) / 16 * 16;
  const int64_t k = layout.key_ld = (keys + 15) / 16 * 16;
  layout.query = take((backward ? block : query_range) * d);
  layout.key_transposed = take(d * k);
  layout.value = take(k * d);  // backward: key rows
  layout.scores = take(block * k);
  layout.out = take(query_range * d);  // backward: the query gradient
  layout.row = take(k);
  layout.keep = take(k + 64);
  const int64_t distances = problem.relative != nullptr ? problem.queries + problem.keys : 0;
  layout.relative = take(distances);
  if (backward) {
    layout.grad_scores = take(block * k);
    layout.grad_out = take(block * d);
    layout.value_transposed = take(d * k);
    layout.grad_key = take(k * d);
    layout.grad_value = take(k * d);
    layout.delta = take(query_range);
    layout.log_sum = take(query_range);
    layout.grad_relative = take(distances);
  } else {
    layout.maximum = take(query_range);
    layout.sum = take(query_range);
  }
  layout.total = at;
  return layout;
}

struct AttentionKernels {
  void (*forward)(const AttentionProblem&, const AttentionTask&, void* scratch);
  void (*backward)(const AttentionProblem&, const AttentionTask&, void* scratch);
  void (*decode)(const AttentionProblem&, const AttentionTask&, void* scratch);
};

MOLFUSE_DECLARE_CPU_TABLE(AttentionKernels, attention_kernels)

// On a device. Lengths and starts of sequences are read by the kernels, which report wrong ones and take them for empty.
void attention_forward_device(const AttentionProblem&, DeviceCall&);
void attention_backward_device(const AttentionProblem&, DeviceCall&);
void attention_decode_device(const AttentionProblem&, DeviceCall&);

}  // namespace molfuse

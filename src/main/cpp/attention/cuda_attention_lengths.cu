// SPDX-License-Identifier: Apache-2.0
// What cuDNN's attention needs before and after where sequences have lengths of their own.
#include <algorithm>

#include "attention/cudnn_attention.h"
#include "runtime/device_report.h"

namespace molfuse {
namespace {

using namespace device;

constexpr int kThreads = 256;

/// A result of which rows of 2-byte elements become zero.
struct Rows {
  void* data;
  int64_t batch, head, row;
  int64_t rows;
  int32_t keys;  // rows are keys': those past the sequence's end; else all, of a sequence without keys
};

struct Lengths {
  const void* from;
  int64_t stride, batch;
  int32_t wide, queries, keys;
  int32_t* to;
  unsigned long long* report;
};

struct Finish {
  Rows results[3];
  int32_t count;
  int64_t heads, queries, dim;
  float* lse;
  const int32_t* true_keys;
};

MOLFUSE_KERNEL(kThreads, 1) attention_lengths(const Lengths a) {
  const int64_t b = static_cast<int64_t>(block_x()) * kThreads + thread_index();
  if (b >= a.batch) return;
  int64_t length = a.wide != 0 ? load(static_cast<const int64_t*>(a.from) + b * a.stride)
                               : static_cast<int64_t>(load(static_cast<const int32_t*>(a.from) + b * a.stride));
  if (length < 0 || length > a.keys) {
    report_fault(a.report, Fault::key_lengths, b, length);
    length = 0;
  }
  store(a.to + b, a.queries);
  store(a.to + a.batch + b, static_cast<int32_t>(length > 0 ? length : 1));
  store(a.to + 2 * a.batch + b, static_cast<int32_t>(length));
}

/// Blocks: parts of a head, heads, sequences.
MOLFUSE_KERNEL(kThreads, 4) attention_finish_lengths(const Finish a) {
  const int64_t b = block_z(), h = block_y();
  const int64_t length = load(a.true_keys + b);
  const int64_t first = static_cast<int64_t>(block_x()) * kThreads + thread_index(), step = static_cast<int64_t>(grid_x()) * kThreads;
  for (int n = 0; n < a.count; ++n) {
    const Rows& r = a.results[n];
    if (r.keys == 0 && length > 0) continue;
    uint16_t* const at = static_cast<uint16_t*>(r.data) + b * r.batch + h * r.head;
    const int64_t begin = r.keys != 0 ? length : 0;
    for (int64_t i = first; i < (r.rows - begin) * a.dim; i += step) store(at + (begin + i / a.dim) * r.row + i % a.dim, static_cast<uint16_t>(0));
  }
  if (a.lse != nullptr && length == 0) {
    for (int64_t i = first; i < a.queries; i += step) store(a.lse + (b * a.heads + h) * a.queries + i, -INFINITY);
  }
}

}  // namespace

void prepare_lengths(const AttentionProblem& p, int32_t* lengths, DeviceCall& call) {
  const Lengths a{p.key_lengths.data, p.key_lengths.stride[0], p.batch, p.key_lengths.dtype == MOLFUSE_I64, static_cast<int32_t>(p.queries),
                  static_cast<int32_t>(p.keys), lengths, call.report()};
  call.launch("attention_lengths", attention_lengths, {(p.batch + kThreads - 1) / kThreads}, kThreads, 0, a);
}

void finish_lengths(const AttentionProblem& p, bool backward, const int32_t* lengths, DeviceCall& call) {
  Finish a{};
  auto rows = [&](const AttentionOperand& operand, int64_t count, bool keys) {
    a.results[a.count++] = {operand.data, operand.batch, operand.head, operand.row, count, keys};
  };
  if (backward) {
    rows(p.grad_query, p.queries, false);
    rows(p.grad_key, p.keys, true);
    rows(p.grad_value, p.keys, true);
  } else {
    rows(p.out, p.queries, false);
    a.lse = static_cast<float*>(p.lse);
  }
  a.heads = p.heads;
  a.queries = p.queries;
  a.dim = p.dim;
  a.true_keys = lengths + 2 * p.batch;
  const int64_t parts = std::clamp<int64_t>(std::max(p.queries, p.keys) * p.dim / (8 * kThreads), 1, 32);
  call.launch("attention_finish_lengths", attention_finish_lengths, {parts, p.heads, p.batch}, kThreads, 0, a);
}

}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// C entry points of attention: argument checks and the division of a call into tasks. The arithmetic is in cpu_attention.cpp.
#include "molfuse/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "attention/backend.h"
#include "attention/kernels.h"
#include "runtime/check.h"
#include "runtime/device_call.h"
#include "runtime/parallel.h"

namespace molfuse {
namespace {

constexpr int64_t kMinDim = 8, kMaxDim = 256;
constexpr int64_t kMaxParts = 64;

/// Shape-checks a query-like operand and takes its strides. Batch form: [B,H,rows,D]; packed: [rows,H,D].
AttentionOperand operand_of(const char* name, const molfuse_tensor& tensor, const AttentionProblem& p, int64_t rows, bool packed, bool output) {
  check_dtype(name, tensor, {p.dtype});
  if (packed) {
    check_shape(name, tensor, {rows, p.heads, p.dim});
  } else {
    check_shape(name, tensor, {p.batch, p.heads, rows, p.dim});
  }
  const int last = tensor.ndim - 1;
  if (tensor.size[last] > 1 && tensor.stride[last] != 1) {
    invalid("%s: expected stride 1 in the last dimension, got %lld", name, static_cast<long long>(tensor.stride[last]));
  }
  if (output) check_output(name, tensor);
  if (packed) return {tensor.data, 0, tensor.stride[1], tensor.stride[0]};
  return {tensor.data, tensor.stride[0], tensor.stride[1], tensor.stride[2]};
}

void check_dim(const char* name, int64_t dim) {
  if (dim < kMinDim || dim > kMaxDim || dim % 8 != 0) {
    invalid("%s: expected a head size that is a multiple of 8 in 8..256, got %lld", name, static_cast<long long>(dim));
  }
}

/// Checks cu_seqlens; lowers longest, what the caller says, to what there is: a generous maximum shall cost nothing. What a device holds
/// is not known here; no sequence there is longer than all of them together.
const int32_t* sequence_starts(const char* name, const molfuse_tensor& tensor, int64_t batch, int64_t total, int64_t& longest,
                               const char* longest_name, bool on_device) {
  check_dtype(name, tensor, {MOLFUSE_I32});
  check_shape(name, tensor, {batch + 1});
  if (tensor.stride[0] != 1 && batch > 0) {
    invalid("%s: expected contiguous entries, got stride %lld", name, static_cast<long long>(tensor.stride[0]));
  }
  if (on_device) {
    if (total > 0 && batch == 0) invalid("%s: expected the sequences of %lld rows, got none", name, static_cast<long long>(total));
    if (total > 0 && longest == 0) invalid("%s: expected the longest of sequences of %lld rows in all, got 0", longest_name, static_cast<long long>(total));
    longest = std::min(longest, total);
    return static_cast<const int32_t*>(tensor.data);
  }
  check_pointers(name, tensor, total);
  const int32_t* starts = static_cast<const int32_t*>(tensor.data);
  int64_t found = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = starts[b + 1] - starts[b];
    if (length > longest) {
      invalid("%s: expected at least every sequence's length, got %lld, but sequence %lld has %lld", longest_name,
              static_cast<long long>(longest), static_cast<long long>(b), static_cast<long long>(length));
    }
    found = std::max(found, length);
  }
  longest = found;
  return starts;
}

void set_scale(AttentionProblem& p, int32_t has_scale, double scale) {
  if (has_scale != 0) check_finite("scale", scale, p.dtype);
  p.scale = has_scale != 0 ? scale : 1.0 / std::sqrt(static_cast<double>(p.dim));
}

void set_relative(AttentionProblem& p, const molfuse_tensor& relative) {
  if (!present(relative)) return;
  check_dtype("relative_bias", relative, {p.dtype, accumulate_dtype(p.dtype)});
  check_shape("relative_bias", relative, {p.heads, kAny});
  if (relative.size[1] % 2 == 0) invalid("relative_bias: expected an odd number of columns (2R+1), got %s", shape_text(relative).c_str());
  p.relative = relative.data;
  p.relative_dtype = relative.dtype;
  p.relative_head = relative.stride[0];
  p.relative_column = relative.stride[1];
  p.radius = relative.size[1] / 2;
}

void check_lengths(const char* name, const molfuse_tensor& lengths, int64_t batch, int64_t most, bool on_device) {
  check_dtype(name, lengths, {MOLFUSE_I32, MOLFUSE_I64});
  check_shape(name, lengths, {batch});
  if (on_device) return;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = index_at(lengths, b);
    if (length < 0 || length > most) {
      invalid("%s: expected lengths in 0..%lld, got %lld at position %lld", name, static_cast<long long>(most),
              static_cast<long long>(length), static_cast<long long>(b));
    }
  }
}

AttentionProblem check_problem(const molfuse_attention_args& args, bool backward, bool on_device) {
  AttentionProblem p{};
  const bool packed = present(args.cu_seqlens_q);
  p.dtype = args.query.dtype;
  if (!is_float(p.dtype)) invalid("query: expected element type f16, bf16, f32 or f64, got %s", molfuse_dtype_name(p.dtype));
  if (args.query.ndim != (packed ? 3 : 4)) {
    invalid("query: expected %s, got %s", packed ? "[Tq,H,D] with cu_seqlens_q" : "[B,H,N,D]", shape_text(args.query).c_str());
  }
  if (args.key.ndim != args.query.ndim) invalid("key: expected %d dimensions like query, got %s", args.query.ndim, shape_text(args.key).c_str());
  p.heads = args.query.size[1];
  p.dim = args.query.size[packed ? 2 : 3];
  check_dim("query", p.dim);
  int64_t query_rows, key_rows;
  if (packed) {
    if (args.cu_seqlens_q.ndim != 1 || args.cu_seqlens_q.size[0] < 1) {
      invalid("cu_seqlens_q: expected [B+1], got %s", shape_text(args.cu_seqlens_q).c_str());
    }
    if (!present(args.cu_seqlens_k)) invalid("cu_seqlens_k: is required with cu_seqlens_q");
    if (present(args.bias)) invalid("bias: is for the batch form; the packed form takes relative_bias");
    if (present(args.key_lengths)) invalid("key_lengths: is for the batch form; the packed form takes cu_seqlens_k");
    p.batch = args.cu_seqlens_q.size[0] - 1;
    query_rows = args.query.size[0];
    key_rows = args.key.size[0];
    p.queries = args.max_seqlen_q;
    p.keys = args.max_seqlen_k;
    if (p.queries < 0) invalid("max_seqlen_q: expected >= 0, got %lld", static_cast<long long>(p.queries));
    if (p.keys < 0) invalid("max_seqlen_k: expected >= 0, got %lld", static_cast<long long>(p.keys));
    // Before the values of the one are walked through, the other's size.
    check_shape("cu_seqlens_k", args.cu_seqlens_k, {p.batch + 1});
    p.cu_q = sequence_starts("cu_seqlens_q", args.cu_seqlens_q, p.batch, query_rows, p.queries, "max_seqlen_q", on_device);
    p.cu_k = sequence_starts("cu_seqlens_k", args.cu_seqlens_k, p.batch, key_rows, p.keys, "max_seqlen_k", on_device);
    p.total_q = query_rows;
    p.total_k = key_rows;
  } else {
    p.batch = args.query.size[0];
    query_rows = p.queries = args.query.size[2];
    key_rows = p.keys = args.key.size[2];
    if (present(args.cu_seqlens_k)) invalid("cu_seqlens_k: is given without cu_seqlens_q");
    if (present(args.key_lengths)) {
      check_lengths("key_lengths", args.key_lengths, p.batch, p.keys, on_device);
      p.key_lengths = args.key_lengths;
    }
  }
  p.query = operand_of("query", args.query, p, query_rows, packed, false);
  p.key = operand_of("key", args.key, p, key_rows, packed, false);
  p.value = operand_of("value", args.value, p, key_rows, packed, false);
  p.out = operand_of("out", args.out, p, query_rows, packed, !backward);
  if (backward || present(args.lse)) {
    check_dtype("lse", args.lse, {accumulate_dtype(p.dtype)});
    if (packed) {
      check_shape("lse", args.lse, {p.heads, query_rows});
    } else {
      check_shape("lse", args.lse, {p.batch, p.heads, query_rows});
    }
    if (!backward) check_output("lse", args.lse);
    p.lse = args.lse.data;
    p.lse_batch = packed ? 0 : args.lse.stride[0];
    p.lse_head = args.lse.stride[packed ? 0 : 1];
    p.lse_row = args.lse.stride[packed ? 1 : 2];
  }
  if (present(args.bias)) {
    const molfuse_tensor& bias = args.bias;
    check_dtype("bias", bias, {p.dtype, accumulate_dtype(p.dtype)});
    const int64_t full[4] = {p.batch, p.heads, p.queries, p.keys};
    bool matches = bias.ndim == 4;
    for (int d = 0; matches && d < 4; ++d) matches = bias.size[d] == full[d] || bias.size[d] == 1;
    if (!matches) {
      invalid("bias: expected [%lld|1,%lld|1,%lld|1,%lld|1], got %s", static_cast<long long>(full[0]), static_cast<long long>(full[1]),
              static_cast<long long>(full[2]), static_cast<long long>(full[3]), shape_text(bias).c_str());
    }
    check_shape("bias", bias, {bias.size[0], bias.size[1], bias.size[2], bias.size[3]});
    auto stride = [&](int d) { return bias.size[d] == 1 ? 0 : bias.stride[d]; };
    p.bias = bias.data;
    p.bias_dtype = bias.dtype;
    p.bias_batch = stride(0);
    p.bias_head = stride(1);
    p.bias_row = stride(2);
    p.bias_column = p.keys == 1 ? 1 : stride(3);
    for (int d = 0; d < 4; ++d) p.bias_size[d] = bias.size[d];
  }
  set_relative(p, args.relative_bias);
  p.causal = args.causal != 0;
  set_scale(p, args.has_scale, args.scale);
  check_probability("dropout_p", args.dropout_p);
  p.dropout_p = args.dropout_p;
  p.threshold = args.dropout_p > 0 ? std::max<uint32_t>(1, dropout_threshold(args.dropout_p)) : 0;
  p.offset_low = static_cast<uint32_t>(args.philox.offset);
  p.philox_key = args.philox.seed + (args.philox.offset >> 32);
  const std::initializer_list<NamedTensor> indices = {
      {"key_lengths", args.key_lengths}, {"cu_seqlens_q", args.cu_seqlens_q}, {"cu_seqlens_k", args.cu_seqlens_k}};
  if (backward) {
    p.grad_out = operand_of("grad_out", args.grad_out, p, query_rows, packed, false);
    if (present(args.grad_query)) p.grad_query = operand_of("grad_query", args.grad_query, p, query_rows, packed, true);
    if (present(args.grad_key)) p.grad_key = operand_of("grad_key", args.grad_key, p, key_rows, packed, true);
    if (present(args.grad_value)) p.grad_value = operand_of("grad_value", args.grad_value, p, key_rows, packed, true);
    if (present(args.grad_bias)) {
      if (!present(args.bias)) invalid("grad_bias: is given without bias");
      check_dtype("grad_bias", args.grad_bias, {accumulate_dtype(p.dtype)});
      check_shape("grad_bias", args.grad_bias, {args.bias.size[0], args.bias.size[1], args.bias.size[2], args.bias.size[3]});
      check_output("grad_bias", args.grad_bias);
      auto stride = [&](int d) { return args.grad_bias.size[d] == 1 ? 0 : args.grad_bias.stride[d]; };
      p.grad_bias = args.grad_bias.data;
      p.grad_bias_batch = stride(0);
      p.grad_bias_head = stride(1);
      p.grad_bias_row = stride(2);
      p.grad_bias_column = p.keys == 1 ? 1 : stride(3);
    }
    if (present(args.grad_relative_bias)) {
      if (!present(args.relative_bias)) invalid("grad_relative_bias: is given without relative_bias");
      check_dtype("grad_relative_bias", args.grad_relative_bias, {accumulate_dtype(p.dtype)});
      check_shape("grad_relative_bias", args.grad_relative_bias, {p.heads, 2 * p.radius + 1});
      check_output("grad_relative_bias", args.grad_relative_bias);
      p.grad_relative = args.grad_relative_bias.data;
      p.grad_relative_head = args.grad_relative_bias.stride[0];
      p.grad_relative_column = args.grad_relative_bias.stride[1];
    }
    check_apart({{"grad_query", args.grad_query}, {"grad_key", args.grad_key}, {"grad_value", args.grad_value}, {"grad_bias", args.grad_bias},
                 {"grad_relative_bias", args.grad_relative_bias}}, indices);
  } else {
    check_apart({{"out", args.out}, {"lse", args.lse}}, indices);
  }
  return p;
}

/// One thread's time for a pass over all scores, roughly: multiplications, and packing rows.
double forward_nanoseconds(const AttentionProblem& p) {
  const double heads = static_cast<double>(p.batch) * static_cast<double>(p.heads), dim = static_cast<double>(p.dim);
  const double queries = static_cast<double>(p.queries), keys = static_cast<double>(p.keys);
  return heads * dim * (queries * keys / 15 + 0.5 * (queries + keys));
}

size_t element_bytes(const AttentionProblem& p) { return p.dtype == MOLFUSE_F64 ? 8 : 4; }

/// Scratch for every thread of a call, and each thread's part of it.
class ThreadScratch {
 public:
  ThreadScratch(int threads, size_t bytes) : part_(align_up(bytes)), memory_(part_ * threads) {}
  void* of(int thread) const { return memory_.at<char>(part_ * thread); }

 private:
  size_t part_;
  Scratch memory_;
};

void run_forward(const AttentionProblem& p, const molfuse_execution& caller) {
  if (p.batch == 0 || p.heads == 0 || p.queries == 0) return;
  const molfuse_execution execution = with_worthwhile_threads(caller, forward_nanoseconds(p));
  const int64_t heads = p.batch * p.heads;
  const int available = thread_count(execution, INT64_MAX);
  int64_t range = std::min(p.queries, kQueryRange);
  while (range > kQueryBlock && heads * divide_up(p.queries, range) < 2 * available) range = std::max(kQueryBlock, range / 2);
  const int64_t ranges = divide_up(p.queries, range);
  const int64_t tasks = heads * ranges;
  const int threads = thread_count(execution, tasks);
  const ThreadScratch scratch(threads, attention_layout(p, std::min(p.queries, kQueryRange), false).total * element_bytes(p));
  const AttentionKernels& kernels = select_attention_kernels();
  parallel_tasks(threads, tasks, chunk_of(tasks, threads), [&](int64_t n, int thread) {
    AttentionTask task{};
    task.batch = n / ranges / p.heads;
    task.head = n / ranges % p.heads;
    task.query_begin = n % ranges * range;
    task.query_end = task.query_begin + range;
    task.key_end = p.keys;
    kernels.forward(p, task, scratch.of(thread));
  });
}

template <class A>
void sum_relative(const AttentionProblem& p, const A* parts, int64_t parts_per_head, const molfuse_tensor& to) {
  const int64_t distances = 2 * p.radius + 1;
  std::vector<A> total(static_cast<size_t>(distances));
  for (int64_t h = 0; h < p.heads; ++h) {
    std::fill(total.begin(), total.end(), A{0});
    for (int64_t b = 0; b < p.batch; ++b) {
      const A* part = parts + (b * p.heads + h) * parts_per_head * distances;
      for (int64_t n = 0; n < parts_per_head; ++n, part += distances) {
        for (int64_t r = 0; r < distances; ++r) total[static_cast<size_t>(r)] += part[r];
      }
    }
    for (int64_t r = 0; r < distances; ++r) static_cast<A*>(to.data)[h * to.stride[0] + r * to.stride[1]] = total[static_cast<size_t>(r)];
  }
}

void zero_bias_gradient(const molfuse_tensor& tensor) {
  const size_t bytes = molfuse_dtype_size(tensor.dtype);
  for (int64_t b = 0; b < tensor.size[0]; ++b) {
    for (int64_t h = 0; h < tensor.size[1]; ++h) {
      for (int64_t i = 0; i < tensor.size[2]; ++i) {
        char* row = static_cast<char*>(tensor.data) + (b * tensor.stride[0] + h * tensor.stride[1] + i * tensor.stride[2]) * static_cast<int64_t>(bytes);
        for (int64_t j = 0; j < tensor.size[3]; ++j) std::memset(row + j * tensor.stride[3] * static_cast<int64_t>(bytes), 0, bytes);
      }
    }
  }
}

/// The heads that add to one slab of the bias gradient: heads (b,h) with b in b0, b0+1.. and so on.
struct BiasGroup {
  int64_t batch_begin, batch_end, head_begin, head_end;
};

void run_backward(const AttentionProblem& p, const molfuse_attention_args& args, const molfuse_execution& caller) {
  const molfuse_execution execution = with_worthwhile_threads(caller, 2.5 * forward_nanoseconds(p));
  const bool want_bias = p.grad_bias != nullptr;
  const bool want_relative = present(args.grad_relative_bias);
  const int64_t heads = p.batch * p.heads;
  const AttentionKernels& kernels = select_attention_kernels();
  const int available = thread_count(execution, INT64_MAX);

  // Bias gradients are added up without atomics: whoever writes a slab does all of it. With broadcasting over batch or heads,
  // several heads share a slab and go to one task, in order, so the sum has a fixed order too.
  const bool over_batch = want_bias && args.bias.size[0] == 1, over_heads = want_bias && args.bias.size[1] == 1;
  const bool over_columns = want_bias && ((args.bias.size[2] == 1 && p.queries != 1) || (args.bias.size[3] == 1 && p.keys != 1));
  const int64_t groups = (over_batch ? 1 : p.batch) * (over_heads ? 1 : p.heads);
  auto group_of = [&](int64_t n) {
    const int64_t head_groups = over_heads ? 1 : p.heads;
    const int64_t b = n / head_groups, h = n % head_groups;
    return BiasGroup{over_batch ? 0 : b, over_batch ? p.batch : b + 1, over_heads ? 0 : h, over_heads ? p.heads : h + 1};
  };
  if (want_bias && (over_columns || heads == 0)) zero_bias_gradient(args.grad_bias);
  const BiasGradient first_bias = over_columns ? BiasGradient::add : BiasGradient::write;

  const bool split_heads = heads < available && p.queries * p.keys > kQueryBlock * kQueryBlock;
  const bool fuse_bias = want_bias && !split_heads && (groups >= available || groups == heads);
  // Rows of a task when a head is divided: whole query blocks, so that the result does not depend on the number of threads more
  // than through these sums' order, and at most kMaxParts of them, as each has a row of sums for the relative bias.
  const int64_t query_range =
      split_heads ? divide_up(divide_up(p.queries, kQueryBlock), kMaxParts) * kQueryBlock : std::max<int64_t>(p.queries, 1);
  const int64_t query_ranges = divide_up(p.queries, query_range);
  const int64_t parts_per_head = split_heads ? query_ranges : 1;
  const size_t part_bytes = static_cast<size_t>(2 * p.radius + 1) * element_bytes(p);
  const Scratch parts(want_relative ? part_bytes * static_cast<size_t>(heads * parts_per_head) : 0);
  auto relative_part = [&](int64_t b, int64_t h, int64_t part) -> void* {
    return want_relative ? parts.at<char>(part_bytes * static_cast<size_t>((b * p.heads + h) * parts_per_head + part)) : nullptr;
  };

  const int64_t most_ranges = std::max({query_ranges, split_heads ? divide_up(p.keys, kQueryBlock) : 1, int64_t{1}});
  const int threads = thread_count(execution, std::max<int64_t>(heads * most_ranges, 1));
  const ThreadScratch scratch(threads, attention_layout(p, p.queries, true).total * element_bytes(p));
  auto task_of = [&](int64_t b, int64_t h) {
    AttentionTask task{};
    task.batch = b;
    task.head = h;
    task.query_end = p.queries;
    task.key_end = p.keys;
    return task;
  };
  auto whole_head = [&](int64_t b, int64_t h, BiasGradient bias, int thread) {
    AttentionTask task = task_of(b, h);
    task.key_value_gradient = p.grad_key.data != nullptr || p.grad_value.data != nullptr;
    task.query_gradient = p.grad_query.data != nullptr;
    task.bias_gradient = bias;
    task.grad_relative = relative_part(b, h, 0);
    kernels.backward(p, task, scratch.of(thread));
  };

  if (fuse_bias) {
    parallel_tasks(std::min<int64_t>(threads, groups), groups, chunk_of(groups, threads), [&](int64_t n, int thread) {
      const BiasGroup group = group_of(n);
      BiasGradient mode = first_bias;
      for (int64_t b = group.batch_begin; b < group.batch_end; ++b) {
        for (int64_t h = group.head_begin; h < group.head_end; ++h) {
          whole_head(b, h, mode, thread);
          mode = BiasGradient::add;
        }
      }
    });
  } else if (!split_heads) {
    parallel_tasks(std::min<int64_t>(threads, heads), heads, chunk_of(heads, threads),
                   [&](int64_t n, int thread) { whole_head(n / p.heads, n % p.heads, BiasGradient::none, thread); });
  } else {
    // Fewer heads than threads: once by ranges of keys, once by ranges of queries; scores are recomputed for the second.
    if (p.grad_key.data != nullptr || p.grad_value.data != nullptr) {
      const int64_t key_ranges = divide_up(p.keys, kQueryBlock);
      parallel_tasks(threads, heads * key_ranges, 1, [&](int64_t n, int thread) {
        AttentionTask task = task_of(n / key_ranges / p.heads, n / key_ranges % p.heads);
        task.key_begin = n % key_ranges * kQueryBlock;
        task.key_end = std::min(p.keys, task.key_begin + kQueryBlock);
        task.key_value_gradient = true;
        kernels.backward(p, task, scratch.of(thread));
      });
    }
    if (p.grad_query.data != nullptr || want_relative) {
      parallel_tasks(threads, heads * query_ranges, 1, [&](int64_t n, int thread) {
        AttentionTask task = task_of(n / query_ranges / p.heads, n / query_ranges % p.heads);
        task.query_begin = n % query_ranges * query_range;
        task.query_end = std::min(p.queries, task.query_begin + query_range);
        task.query_gradient = p.grad_query.data != nullptr;
        task.grad_relative = relative_part(task.batch, task.head, n % query_ranges);
        kernels.backward(p, task, scratch.of(thread));
      });
    }
  }
  if (want_bias && !fuse_bias && heads > 0) {
    // Too few slabs to share out whole: by slab and range of rows, recomputing scores. A slab with broadcast rows is one range.
    const int64_t range = args.bias.size[2] == 1 ? std::max<int64_t>(p.queries, 1) : kQueryBlock;
    const int64_t ranges = divide_up(p.queries, range);
    parallel_tasks(static_cast<int>(std::min<int64_t>(threads, std::max<int64_t>(1, groups * ranges))), groups * ranges, 1, [&](int64_t n, int thread) {
      const BiasGroup group = group_of(n / ranges);
      BiasGradient mode = first_bias;
      for (int64_t b = group.batch_begin; b < group.batch_end; ++b) {
        for (int64_t h = group.head_begin; h < group.head_end; ++h) {
          AttentionTask task = task_of(b, h);
          task.query_begin = n % ranges * range;
          task.query_end = std::min(p.queries, task.query_begin + range);
          task.bias_gradient = mode;
          kernels.backward(p, task, scratch.of(thread));
          mode = BiasGradient::add;
        }
      }
    });
  }
  if (want_relative) {
    if (p.dtype == MOLFUSE_F64) {
      sum_relative(p, parts.at<double>(0), parts_per_head, args.grad_relative_bias);
    } else {
      sum_relative(p, parts.at<float>(0), parts_per_head, args.grad_relative_bias);
    }
  }
}

/// A checked decode call: a problem with one query. Its key lengths are what was valid before the call.
AttentionProblem check_decode(const molfuse_attention_decode_args& args, bool on_device) {
  AttentionProblem p{};
  p.dtype = args.query.dtype;
  if (!is_float(p.dtype)) invalid("query: expected element type f16, bf16, f32 or f64, got %s", molfuse_dtype_name(p.dtype));
  check_shape("query", args.query, {kAny, kAny, kAny});
  p.batch = args.query.size[0];
  p.heads = args.query.size[1];
  p.dim = args.query.size[2];
  check_dim("query", p.dim);
  check_shape("key_cache", args.key_cache, {p.batch, p.heads, kAny, p.dim});
  const int64_t capacity = args.key_cache.size[2];
  p.queries = 1;
  p.keys = capacity;
  auto single = [&](const char* name, const molfuse_tensor& tensor, bool output) {
    check_dtype(name, tensor, {p.dtype});
    check_shape(name, tensor, {p.batch, p.heads, p.dim});
    if (tensor.stride[2] != 1) invalid("%s: expected stride 1 in the last dimension, got %lld", name, static_cast<long long>(tensor.stride[2]));
    if (output) check_output(name, tensor);
    return AttentionOperand{tensor.data, tensor.stride[0], tensor.stride[1], 0};
  };
  p.query = single("query", args.query, false);
  p.out = single("out", args.out, true);
  const bool append = present(args.key_new) || present(args.value_new);
  if (append) {
    p.key_new = single("key_new", args.key_new, false);
    p.value_new = single("value_new", args.value_new, false);
  }
  p.key = operand_of("key_cache", args.key_cache, p, capacity, false, append);
  p.value = operand_of("value_cache", args.value_cache, p, capacity, false, append);
  check_lengths("lengths", args.lengths, p.batch, append ? capacity - 1 : capacity, on_device);
  p.key_lengths = args.lengths;
  set_relative(p, args.relative_bias);
  set_scale(p, args.has_scale, args.scale);
  check_apart({{"out", args.out}}, {{"lengths", args.lengths}});
  if (append) check_apart({{"key_cache", args.key_cache}, {"value_cache", args.value_cache}}, {{"lengths", args.lengths}});
  return p;
}

void run_decode(const molfuse_attention_decode_args& args, const molfuse_execution& execution) {
  AttentionProblem p = check_decode(args, execution.device_type != MOLFUSE_CPU);
  MOLFUSE_ON_DEVICE(execution, "molfuse_attention_decode", attention_decode_device, p)
  const bool append = p.key_new.data != nullptr;
  std::vector<int64_t> lengths(static_cast<size_t>(p.batch));
  for (int64_t b = 0; b < p.batch; ++b) lengths[static_cast<size_t>(b)] = index_at(args.lengths, b) + (append ? 1 : 0);
  p.key_lengths.data = lengths.data();
  p.key_lengths.dtype = MOLFUSE_I64;
  p.key_lengths.ndim = 1;
  p.key_lengths.size[0] = p.batch;
  p.key_lengths.stride[0] = 1;

  const int64_t tasks = p.batch * p.heads;
  if (tasks == 0) return;
  const size_t bytes = molfuse_dtype_size(p.dtype);
  double rows = 0;
  for (const int64_t length : lengths) rows += static_cast<double>(length);
  // Bandwidth is the bound: 10 bytes a nanosecond.
  const double read_bytes = rows * static_cast<double>(2 * p.heads * p.dim) * static_cast<double>(bytes);
  const int threads = thread_count(with_worthwhile_threads(execution, read_bytes / 10), tasks);
  AttentionProblem sized = p;
  sized.relative = nullptr;  // decode reads it where it lies; spreading it over the cache would cost scratch for every position
  const ThreadScratch scratch(threads, attention_layout(sized, 1, false).total * element_bytes(p));
  const AttentionKernels& kernels = select_attention_kernels();
  parallel_tasks(threads, tasks, chunk_of(tasks, threads), [&](int64_t n, int thread) {
    AttentionTask task{};
    task.batch = n / p.heads;
    task.head = n % p.heads;
    if (append) {
      auto put = [&](const AttentionOperand& cache, const AttentionOperand& row) {
        const int64_t at = lengths[static_cast<size_t>(task.batch)] - 1;
        std::memcpy(static_cast<char*>(cache.data) + (task.batch * cache.batch + task.head * cache.head + at * cache.row) * static_cast<int64_t>(bytes),
                    static_cast<const char*>(row.data) + (task.batch * row.batch + task.head * row.head) * static_cast<int64_t>(bytes),
                    static_cast<size_t>(p.dim) * bytes);
      };
      put(p.key, p.key_new);
      put(p.value, p.value_new);
    }
    kernels.decode(p, task, scratch.of(thread));
  });
}

}  // namespace
}  // namespace molfuse

using namespace molfuse;

extern "C" {

molfuse_status molfuse_attention_forward(const molfuse_attention_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_attention_forward");
    const AttentionProblem p = check_problem(read_args(args, "molfuse_attention_forward"), false, where.device_type != MOLFUSE_CPU);
    MOLFUSE_ON_DEVICE(where, "molfuse_attention_forward", attention_forward_on_device, p)
    run_forward(p, where);
  });
}

molfuse_status molfuse_attention_backward(const molfuse_attention_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_attention_backward");
    const molfuse_attention_args a = read_args(args, "molfuse_attention_backward");
    const AttentionProblem p = check_problem(a, true, where.device_type != MOLFUSE_CPU);
    MOLFUSE_ON_DEVICE(where, "molfuse_attention_backward", attention_backward_on_device, p)
    run_backward(p, a, where);
  });
}

molfuse_status molfuse_attention_decode(const molfuse_attention_decode_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_attention_decode");
    run_decode(read_args(args, "molfuse_attention_decode"), where);
  });
}

}  // extern "C"

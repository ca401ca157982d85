// SPDX-License-Identifier: Apache-2.0
// C entry points of latent_concat: argument checks and the division of a call into tasks. The arithmetic is in
// cpu_latent_concat.cpp; layers that are pooled already are only copied, which is done here.
#include "molfuse/latent_concat.h"

#include <algorithm>
#include <string>
#include <vector>

#include "latent_concat/kernels.h"
#include "runtime/check.h"
#include "runtime/device_call.h"
#include "runtime/parallel.h"

namespace molfuse {
namespace {

// Bytes of node features of one task.
constexpr int64_t kTaskBytes = int64_t{256} << 10;
// Gradients larger than this are written past the caches: they would not stay there until they are read, and a plain store
// would first read each line. A smaller result is better left in the cache.
constexpr int64_t kStreamBytes = int64_t{32} << 20;
constexpr int64_t kTasksPerThread = 4;
// Fewest columns worth dividing a row for: one line or so of the narrowest type for each row read.
constexpr int64_t kFewestColumns = 64;

// Sums of so many columns do not overflow. In backward a layer's sizes need not be those of memory.
constexpr int64_t kMaxColumns = int64_t{1} << 48;

std::string entry_name(const char* list, int64_t n) { return std::string(list) + "[" + std::to_string(n) + "]"; }

LatentConcatProblem check_problem(const molfuse_latent_concat_args& args, bool backward, bool on_device) {
  LatentConcatProblem p{};
  if (args.num_layers < 1) invalid("num_layers: expected >= 1, got %lld", static_cast<long long>(args.num_layers));
  if (args.layers == nullptr) invalid("layers: is NULL");
  check_aligned("layers", args.layers);
  if (backward && args.grad_layers == nullptr) invalid("grad_layers: is NULL");
  if (backward) check_aligned("grad_layers", args.grad_layers);
  const char* const row_name = backward ? "grad_out" : "out";
  p.concatenated = backward ? args.grad_out : args.out;
  p.dtype = args.layers[0].dtype;
  if (!is_float(p.dtype)) invalid("layers[0]: expected element type f16, bf16, f32 or f64, got %s", molfuse_dtype_name(p.dtype));
  p.element = static_cast<int64_t>(molfuse_dtype_size(p.dtype));
  p.pooled = !present(args.graph_ptr);
  if (args.layers[0].ndim != 2) invalid("layers[0]: expected [%s,C], got %s", p.pooled ? "B" : "V", shape_text(args.layers[0]).c_str());
  p.nodes = args.layers[0].size[0];
  if (args.column_offset < 0 || args.column_offset > kMaxColumns) {
    invalid("column_offset: expected a column of %s, got %lld", row_name, static_cast<long long>(args.column_offset));
  }
  int64_t width = 0;
  for (int64_t l = 0; l < args.num_layers; ++l) {
    const std::string name = entry_name("layers", l);
    molfuse_tensor sizes = args.layers[l];
    check_dtype(name.c_str(), sizes, {p.dtype});
    // In backward only the sizes count.
    if (backward && sizes.data == nullptr) sizes.data = &p;
    check_shape(name.c_str(), sizes, {p.nodes, kAny});
    if (sizes.size[1] > kMaxColumns - width) invalid("%s: too many columns, got %s", name.c_str(), shape_text(sizes).c_str());
    molfuse_tensor tensor = args.layers[l];
    if (backward) {
      tensor = args.grad_layers[l];
      if (present(tensor)) {
        const std::string grad_name = entry_name("grad_layers", l);
        check_dtype(grad_name.c_str(), tensor, {p.dtype});
        check_shape(grad_name.c_str(), tensor, {p.nodes, sizes.size[1]});
        check_output(grad_name.c_str(), tensor);
        check_apart({{grad_name.c_str(), tensor}}, {{"graph_ptr", args.graph_ptr}});
      } else {
        tensor = sizes;
        tensor.data = nullptr;
      }
    }
    p.layers.push_back({tensor, args.column_offset + width});
    width += sizes.size[1];
  }
  p.graphs = p.nodes;
  if (!p.pooled) {
    check_dtype("graph_ptr", args.graph_ptr, {MOLFUSE_I32, MOLFUSE_I64});
    check_shape("graph_ptr", args.graph_ptr, {kAny});
    if (args.graph_ptr.size[0] < 1) invalid("graph_ptr: expected at least one entry, got %s", shape_text(args.graph_ptr).c_str());
    p.graph_ptr = args.graph_ptr;
    p.graphs = args.graph_ptr.size[0] - 1;
  }
  check_dtype(row_name, p.concatenated, {p.dtype});
  check_shape(row_name, p.concatenated, {p.graphs, kAny});
  if (p.concatenated.size[1] - args.column_offset < width) {
    invalid("%s: expected at least %lld columns (column_offset %lld + %lld of the layers), got %s", row_name,
            static_cast<long long>(args.column_offset + width), static_cast<long long>(args.column_offset), static_cast<long long>(width),
            shape_text(p.concatenated).c_str());
  }
  if (!backward) {
    check_output(row_name, p.concatenated);
    check_apart({{row_name, p.concatenated}}, {{"graph_ptr", args.graph_ptr}});
  }
  // Values come last: nobody shall walk through more of them than there are rows for.
  if (!p.pooled && !on_device) check_pointers("graph_ptr", args.graph_ptr, p.nodes);
  return p;
}

char* element_at(const molfuse_tensor& tensor, int64_t row, int64_t column, int64_t element) {
  return static_cast<char*>(tensor.data) + (row * tensor.stride[0] + column * tensor.stride[1]) * element;
}

struct Task {
  int64_t layer, graph_begin, graph_end, column_begin, column_end;
};

/// Layers by blocks of columns by ranges of graphs, in the order in which memory is best walked.
std::vector<Task> divide(const LatentConcatProblem& p, int threads) {
  int64_t columns = 0;
  for (const LatentConcatLayer& layer : p.layers) {
    if (present(layer.tensor)) columns += layer.tensor.size[1];
  }
  const int64_t wanted = kTasksPerThread * threads;
  const int64_t rows = p.nodes + p.graphs;
  const int64_t task_bytes = std::max<int64_t>(1, std::min(kTaskBytes, rows * columns * p.element / wanted));
  int64_t widest = kPoolColumns;
  // Few large graphs: share out their columns instead.
  while (widest > kFewestColumns && p.graphs * columns < wanted * widest) widest /= 2;
  std::vector<Task> tasks;
  for (size_t l = 0; l < p.layers.size(); ++l) {
    const int64_t layer_columns = p.layers[l].tensor.size[1];
    if (!present(p.layers[l].tensor) && p.nodes > 0) continue;
    for (int64_t c = 0; c < layer_columns; c += widest) {
      const int64_t end = std::min(layer_columns, c + widest);
      int64_t first = 0, bytes = 0;
      for (int64_t b = 0; b < p.graphs; ++b) {
        const int64_t nodes = p.pooled ? 1 : index_at(p.graph_ptr, b + 1) - index_at(p.graph_ptr, b);
        bytes += (nodes + 1) * (end - c) * p.element;
        if (bytes >= task_bytes || b + 1 == p.graphs) {
          tasks.push_back({static_cast<int64_t>(l), first, b + 1, c, end});
          first = b + 1;
          bytes = 0;
        }
      }
    }
  }
  return tasks;
}

/// Calls body(task, thread) for every task.
template <class Body>
void run_tasks(const LatentConcatProblem& p, const molfuse_execution& caller, Body&& body) {
  double bytes = 0;
  for (const LatentConcatLayer& layer : p.layers) bytes += static_cast<double>(p.nodes) * static_cast<double>(layer.tensor.size[1]) * static_cast<double>(p.element);
  // Memory is the bound: 10 bytes a nanosecond.
  const molfuse_execution execution = with_worthwhile_threads(caller, bytes / 10);
  const std::vector<Task> tasks = divide(p, thread_count(execution, INT64_MAX));
  const int64_t count = static_cast<int64_t>(tasks.size());
  if (count == 0) return;
  parallel_tasks(thread_count(execution, count), count, 1, [&](int64_t n, int thread) { body(tasks[static_cast<size_t>(n)], thread); });
}

void copy_pooled(const LatentConcatProblem& p, const molfuse_execution& execution, bool into_layers) {
  run_tasks(p, execution, [&](const Task& task, int) {
    const LatentConcatLayer& layer = p.layers[static_cast<size_t>(task.layer)];
    for (int64_t b = task.graph_begin; b < task.graph_end; ++b) {
      const int64_t columns = task.column_end - task.column_begin;
      const bool runs = columns == 1 || (layer.tensor.stride[1] == 1 && p.concatenated.stride[1] == 1);
      const int64_t step = runs ? columns : 1;
      for (int64_t c = task.column_begin; c < task.column_end; c += step) {
        char* const in_layer = element_at(layer.tensor, b, c, p.element);
        char* const in_row = element_at(p.concatenated, b, layer.first_column + c, p.element);
        std::memcpy(into_layers ? in_layer : in_row, into_layers ? in_row : in_layer, static_cast<size_t>(step * p.element));
      }
    }
  });
}

/// Calls use(block, scratch) for every graph and block of columns.
template <class Use>
void for_blocks(const LatentConcatProblem& p, const molfuse_execution& execution, Use&& use) {
  const int threads = thread_count(execution, INT64_MAX);
  const size_t each = static_cast<size_t>(kPoolColumns) * 8;
  const Scratch scratch(each * static_cast<size_t>(threads));
  run_tasks(p, execution, [&](const Task& task, int thread) {
    const LatentConcatLayer& layer = p.layers[static_cast<size_t>(task.layer)];
    PoolBlock block{};
    block.node_stride = layer.tensor.stride[0];
    block.columns = task.column_end - task.column_begin;
    block.column_stride = block.columns == 1 ? 1 : layer.tensor.stride[1];
    block.pooled_column_stride = block.columns == 1 ? 1 : p.concatenated.stride[1];
    for (int64_t b = task.graph_begin; b < task.graph_end; ++b) {
      const int64_t begin = index_at(p.graph_ptr, b);
      block.rows = index_at(p.graph_ptr, b + 1) - begin;
      block.nodes = block.rows == 0 ? nullptr : element_at(layer.tensor, begin, task.column_begin, p.element);
      block.pooled = element_at(p.concatenated, b, layer.first_column + task.column_begin, p.element);
      use(block, scratch.at<void>(each * static_cast<size_t>(thread)));
    }
  });
}

}  // namespace
}  // namespace molfuse

using namespace molfuse;

extern "C" {

molfuse_status molfuse_latent_concat_forward(const molfuse_latent_concat_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_latent_concat_forward");
    const bool on_device = where.device_type == MOLFUSE_CUDA;
    const LatentConcatProblem p = check_problem(read_args(args, "molfuse_latent_concat_forward"), false, on_device);
    MOLFUSE_ON_DEVICE(where, "molfuse_latent_concat_forward", latent_concat_forward_device, p)
    if (p.pooled) return copy_pooled(p, where, false);
    const LatentConcatKernels& kernels = select_latent_concat_kernels().of[p.dtype];
    for_blocks(p, where, [&](const PoolBlock& block, void* scratch) { kernels.mean(block, scratch); });
  });
}

molfuse_status molfuse_latent_concat_backward(const molfuse_latent_concat_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_latent_concat_backward");
    const bool on_device = where.device_type == MOLFUSE_CUDA;
    const LatentConcatProblem p = check_problem(read_args(args, "molfuse_latent_concat_backward"), true, on_device);
    MOLFUSE_ON_DEVICE(where, "molfuse_latent_concat_backward", latent_concat_backward_device, p)
    if (p.pooled) return copy_pooled(p, where, true);
    int64_t bytes = 0;
    for (const LatentConcatLayer& layer : p.layers) {
      if (present(layer.tensor)) bytes += element_count(layer.tensor) * p.element;
    }
    const LatentConcatKernels& kernels = select_latent_concat_kernels().of[p.dtype];
    const bool stream = bytes >= kStreamBytes;
    for_blocks(p, where, [&](const PoolBlock& block, void* scratch) { kernels.spread(block, scratch, stream); });
  });
}

}  // extern "C"

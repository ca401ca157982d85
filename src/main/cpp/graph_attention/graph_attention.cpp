// SPDX-License-Identifier: Apache-2.0
// C entry points of graph attention: argument checks and the division of a call into tasks. The arithmetic is in
// cpu_graph_attention.cpp, the checks of the index arrays in graph.cpp.
#include "molfuse/graph_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "graph_attention/graph.h"
#include "graph_attention/kernels.h"
#include "graph_attention/device.h"
#include "runtime/check.h"
#include "runtime/parallel.h"
#include "runtime/philox.h"

namespace molfuse {
namespace {

// Operand bytes of one task, about: what it reads twice (rows of other nodes; in backward, rows by target and then by source) should
// still be in a second-level cache.
constexpr int64_t kTaskBytes = int64_t{256} << 10;
// Tasks for each thread at least, so that uneven ones even out.
constexpr int64_t kTasksPerThread = 4;

/// A [V,H,C] argument with contiguous channels: in place, or by a packed copy if its channels lie apart.
class Operand {
 public:
  Operand(const char* name, const molfuse_tensor& tensor, const molfuse_tensor& like, bool output) : tensor_(tensor) {
    check_dtype(name, tensor, {like.dtype});
    check_shape(name, tensor, {like.size[0], like.size[1], like.size[2]});
    if (output) check_output(name, tensor);
    bytes_ = static_cast<int64_t>(molfuse_dtype_size(tensor.dtype));
    view_ = {tensor.data, tensor.stride[0], tensor.stride[1]};
    if (tensor.size[2] == 1 || tensor.stride[2] == 1 || element_count(tensor) == 0) return;
    packed_.resize(static_cast<size_t>(element_count(tensor) * bytes_));
    view_ = {packed_.data(), tensor.size[1] * tensor.size[2], tensor.size[2]};
    if (!output) copy(true);
  }
  Operand(const Operand&) = delete;
  Operand& operator=(const Operand&) = delete;
  /// Carries a packed output to where the caller wants it.
  void deliver() {
    if (!packed_.empty()) copy(false);
  }
  const GraphOperand& view() const { return view_; }

 private:
  void copy(bool pack) {
    char* packed = packed_.data();
    for (int64_t v = 0; v < tensor_.size[0]; ++v) {
      for (int64_t h = 0; h < tensor_.size[1]; ++h) {
        for (int64_t c = 0; c < tensor_.size[2]; ++c, packed += bytes_) {
          char* const at = static_cast<char*>(tensor_.data) + (v * tensor_.stride[0] + h * tensor_.stride[1] + c * tensor_.stride[2]) * bytes_;
          std::memcpy(pack ? packed : at, pack ? at : packed, static_cast<size_t>(bytes_));
        }
      }
    }
  }

  molfuse_tensor tensor_;
  int64_t bytes_ = 0;
  GraphOperand view_{};
  std::vector<char> packed_;
};

GraphProblem check_problem(const molfuse_graph_attention_args& args) {
  GraphProblem p{};
  p.dtype = args.query.dtype;
  if (!is_float(p.dtype)) invalid("query: expected element type f16, bf16, f32 or f64, got %s", molfuse_dtype_name(p.dtype));
  check_shape("query", args.query, {kAny, kAny, kAny});
  p.heads = args.query.size[1];
  p.channels = args.query.size[2];
  if (p.channels < 1) invalid("query: expected at least one channel, got %s", shape_text(args.query).c_str());
  // Before anything is copied: a size that only one of the three has may not be that of memory which is there.
  check_shape("key", args.key, {args.query.size[0], p.heads, p.channels});
  check_shape("value", args.value, {args.query.size[0], p.heads, p.channels});
  if (args.has_scale != 0) check_finite("scale", args.scale, p.dtype);
  p.scale = args.has_scale != 0 ? args.scale : 1.0 / std::sqrt(static_cast<double>(p.channels));
  check_probability("dropout_p", args.dropout_p);
  p.keep_scale = 1.0 / (1.0 - args.dropout_p);
  p.threshold = args.dropout_p > 0 ? std::max<uint32_t>(1, dropout_threshold(args.dropout_p)) : 0;
  p.offset_low = static_cast<uint32_t>(args.philox.offset);
  p.philox_key = args.philox.seed + (args.philox.offset >> 32);
  return p;
}

void take_log_sum(GraphProblem& p, const molfuse_graph_attention_args& args, bool output) {
  check_dtype("lse", args.lse, {accumulate_dtype(p.dtype)});
  check_shape("lse", args.lse, {args.query.size[0], p.heads});
  if (output) check_output("lse", args.lse);
  p.lse = args.lse.data;
  p.lse_node = args.lse.stride[0];
  p.lse_head = args.lse.stride[1];
}

/// Once every tensor that the call uses has its shape.
void check_outputs_apart(const molfuse_graph_attention_args& args, bool backward) {
  const molfuse_graph& graph = args.graph;
  if (!backward) return check_apart({{"out", args.out}, {"lse", args.lse}}, {{"row_ptr", graph.row_ptr}, {"source", graph.source}});
  const std::initializer_list<NamedTensor> outputs = {{"grad_query", args.grad_query}, {"grad_key", args.grad_key}, {"grad_value", args.grad_value}};
  check_apart(outputs, {{"row_ptr", graph.row_ptr}, {"source", graph.source}});
  if (present(args.grad_key) || present(args.grad_value)) {
    check_apart(outputs, {{"row_ptr_t", graph.row_ptr_t}, {"target", graph.target}, {"edge_id", graph.edge_id}});
  }
}

void take_graph(GraphProblem& p, const CheckedGraph& graph) {
  p.edges = graph.edges;
  p.row_ptr = graph.row_ptr.data();
  p.source = graph.source.data();
  p.row_ptr_t = graph.row_ptr_t.data();
  p.target = graph.target.data();
  p.edge_id = graph.edge_id.data();
}

/// How a sweep over nodes is divided: every range of nodes by every group of heads, and the hubs apart.
struct Division {
  std::vector<int64_t> bounds;  ///< of the ranges of nodes
  int64_t heads_per_task = 1, head_groups = 1;
  std::vector<int64_t> hubs;
  int64_t parts = 0;  ///< of one head of all hubs

  int64_t tasks() const { return (static_cast<int64_t>(bounds.size()) - 1) * head_groups; }
  GraphTask task(int64_t n, int64_t heads) const {
    const size_t range = static_cast<size_t>(n / head_groups);
    const int64_t head = n % head_groups * heads_per_task;
    return {bounds[range], bounds[range + 1], head, std::min(heads, head + heads_per_task)};
  }
};

/// Divides by edges and nodes alike: an edge costs reading about as many rows as a node. With cuts, ranges end only there.
Division divide(const GraphProblem& p, const int32_t* row_ptr, int64_t nodes, const std::vector<char>* cuts, int threads) {
  Division d;
  const int64_t wanted = kTasksPerThread * threads;
  // All heads of a node in one task where there are nodes enough: its row is then read as one run. One head at a time took 1.5 times
  // as long.
  d.heads_per_task = divide_up(p.heads, std::min(p.heads, divide_up(wanted, nodes)));
  d.head_groups = divide_up(p.heads, d.heads_per_task);
  const int64_t row_bytes = p.channels * d.heads_per_task * static_cast<int64_t>(molfuse_dtype_size(p.dtype));
  const int64_t total = nodes + row_ptr[nodes];
  const int64_t grain = std::max<int64_t>(1, std::min(kTaskBytes / (4 * row_bytes), total * d.head_groups / wanted));
  d.bounds.push_back(0);
  int64_t weight = 0;
  for (int64_t n = 0; n < nodes; ++n) {
    const int64_t degree = row_ptr[n + 1] - row_ptr[n];
    if (degree > kHubEdges) {
      d.hubs.push_back(n);
      d.parts += divide_up(degree, kHubEdges);
      weight += 1;
    } else {
      weight += 1 + degree;
    }
    if (weight >= grain && n + 1 < nodes && (cuts == nullptr || (*cuts)[static_cast<size_t>(n) + 1] != 0)) {
      d.bounds.push_back(n + 1);
      weight = 0;
    }
  }
  d.bounds.push_back(nodes);
  return d;
}

/// The parts of all hubs of a division, hub by hub and head by head, with memory for their sums.
class HubParts {
 public:
  HubParts(const GraphProblem& p, const Division& division, const int32_t* row_ptr, bool two_sums) {
    if (division.hubs.empty()) return;
    const size_t element = p.dtype == MOLFUSE_F64 ? 8 : 4;
    const size_t row = align_up(static_cast<size_t>(p.channels) * element), each = row * (two_sums ? 2 : 1) + 64;
    memory_.resize(static_cast<size_t>(division.parts * p.heads) * each + 64);
    char* at = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory_.data()) + 63) & ~uintptr_t{63});
    for (const int64_t node : division.hubs) {
      for (int64_t h = 0; h < p.heads; ++h) {
        first_.push_back(parts_.size());
        for (int64_t e = row_ptr[node]; e < row_ptr[node + 1]; e += kHubEdges) {
          parts_.push_back({node, h, e, std::min<int64_t>(row_ptr[node + 1], e + kHubEdges), at + 64, two_sums ? at + 64 + row : nullptr, at});
          owner_.push_back(first_.size() - 1);
          at += each;
        }
      }
    }
    first_.push_back(parts_.size());
  }

  int64_t parts() const { return static_cast<int64_t>(parts_.size()); }
  const HubPart& part(int64_t n) const { return parts_[static_cast<size_t>(n)]; }
  /// Rows: (hub, head) pairs, and the parts of each.
  int64_t rows() const { return first_.empty() ? 0 : static_cast<int64_t>(first_.size()) - 1; }
  const HubPart* row(int64_t n) const { return &parts_[first_[static_cast<size_t>(n)]]; }
  int64_t row_parts(int64_t n) const { return static_cast<int64_t>(first_[static_cast<size_t>(n) + 1] - first_[static_cast<size_t>(n)]); }
  int64_t owner(int64_t part) const { return static_cast<int64_t>(owner_[static_cast<size_t>(part)]); }

 private:
  std::vector<HubPart> parts_;
  std::vector<size_t> first_, owner_;
  std::vector<char> memory_;
};

/// Two accumulator rows for each thread.
class ThreadRows {
 public:
  ThreadRows(const GraphProblem& p, int threads)
      : part_(align_up(static_cast<size_t>(2 * p.channels) * (p.dtype == MOLFUSE_F64 ? 8 : 4))), memory_(part_ * static_cast<size_t>(threads)) {}
  void* of(int thread) const { return memory_.at<char>(part_ * static_cast<size_t>(thread)); }

 private:
  size_t part_;
  Scratch memory_;
};

template <class Body>
void run_tasks(const molfuse_execution& execution, int64_t tasks, Body&& body) {
  if (tasks > 0) parallel_tasks(thread_count(execution, tasks), tasks, 1, body);
}

/// One thread's time, roughly: every node's rows and two rows for each edge, at 10 bytes a nanosecond.
double forward_nanoseconds(const GraphProblem& p, int64_t nodes) {
  const double row = static_cast<double>(p.heads) * static_cast<double>(p.channels) * static_cast<double>(molfuse_dtype_size(p.dtype));
  return row * static_cast<double>(4 * nodes + 2 * p.edges) / 10;
}

#if defined(MOLFUSE_WITH_CUDA)
const void* device_indices(const char* name, const molfuse_tensor& tensor, const molfuse_tensor& like, int64_t size) {
  check_dtype(name, tensor, {like.dtype});
  check_shape(name, tensor, {size});
  if (size > 1 && tensor.stride[0] != 1) invalid("%s: expected contiguous entries on a device, got stride %lld", name, static_cast<long long>(tensor.stride[0]));
  return tensor.data;
}

/// Values of the graph are in device memory: the kernels check them.
DeviceGraphProblem device_problem(const molfuse_graph_attention_args& args, bool backward) {
  const GraphProblem checked = check_problem(args);
  DeviceGraphProblem p{};
  p.dtype = checked.dtype;
  p.nodes = args.query.size[0];
  p.heads = checked.heads;
  p.channels = checked.channels;
  p.scale = checked.scale;
  p.keep_scale = checked.keep_scale;
  p.threshold = checked.threshold;
  p.offset_low = checked.offset_low;
  p.philox_key = checked.philox_key;
  auto operand = [&](const char* name, const molfuse_tensor& tensor, bool output) {
    check_dtype(name, tensor, {args.query.dtype});
    check_shape(name, tensor, {p.nodes, p.heads, p.channels});
    if (output) check_output(name, tensor);
    return DeviceOperand{tensor.data, tensor.stride[0], tensor.stride[1], p.channels == 1 ? 1 : tensor.stride[2]};
  };
  p.query = operand("query", args.query, false);
  p.key = operand("key", args.key, false);
  p.value = operand("value", args.value, false);
  if (!backward) p.out = operand("out", args.out, true);
  if (backward || present(args.lse)) {
    GraphProblem statistics = checked;
    take_log_sum(statistics, args, !backward);
    p.lse = statistics.lse;
    p.lse_node = statistics.lse_node;
    p.lse_head = statistics.lse_head;
  }
  const molfuse_graph& graph = args.graph;
  check_dtype("row_ptr", graph.row_ptr, {MOLFUSE_I32, MOLFUSE_I64});
  p.wide_index = graph.row_ptr.dtype == MOLFUSE_I64;
  check_shape("source", graph.source, {kAny});
  p.edges = graph.source.size[0];
  if (p.nodes > INT32_MAX - 1 || p.edges > INT32_MAX - 1) {
    unsupported("graph: at most %d nodes and edges, got %lld and %lld", INT32_MAX - 1, static_cast<long long>(p.nodes), static_cast<long long>(p.edges));
  }
  p.row_ptr = device_indices("row_ptr", graph.row_ptr, graph.row_ptr, p.nodes + 1);
  p.source = device_indices("source", graph.source, graph.row_ptr, p.edges);
  if (!backward) {
    check_outputs_apart(args, false);
    return p;
  }
  p.grad_out = operand("grad_out", args.grad_out, false);
  if (present(args.grad_query)) p.grad_query = operand("grad_query", args.grad_query, true);
  if (present(args.grad_key)) p.grad_key = operand("grad_key", args.grad_key, true);
  if (present(args.grad_value)) p.grad_value = operand("grad_value", args.grad_value, true);
  if (present(args.grad_key) || present(args.grad_value)) {
    p.row_ptr_t = device_indices("row_ptr_t", graph.row_ptr_t, graph.row_ptr, p.nodes + 1);
    p.target = device_indices("target", graph.target, graph.row_ptr, p.edges);
    p.edge_id = device_indices("edge_id", graph.edge_id, graph.row_ptr, p.edges);
  }
  check_outputs_apart(args, true);
  return p;
}

bool run_on_device(const molfuse_graph_attention_args& args, const molfuse_execution& execution, bool backward, const char* function) {
  if (execution.device_type != MOLFUSE_CUDA) return false;
  const DeviceGraphProblem p = device_problem(args, backward);
  DeviceCall call(execution, function);
  if (p.nodes > 0 && p.heads > 0) graph_attention_device(p, backward, call);
  return true;
}
#else
bool run_on_device(const molfuse_graph_attention_args&, const molfuse_execution&, bool, const char*) { return false; }
#endif

void run_forward(const molfuse_graph_attention_args& args, const molfuse_execution& caller) {
  if (run_on_device(args, caller, false, "molfuse_graph_attention_forward")) return;
  GraphProblem p = check_problem(args);
  const Operand query("query", args.query, args.query, false);
  const Operand key("key", args.key, args.query, false);
  const Operand value("value", args.value, args.query, false);
  Operand out("out", args.out, args.query, true);
  p.query = query.view();
  p.key = key.view();
  p.value = value.view();
  p.out = out.view();
  if (present(args.lse)) take_log_sum(p, args, true);
  const CheckedGraph graph(args.graph, args.query.size[0], false);
  take_graph(p, graph);
  check_outputs_apart(args, false);
  if (graph.nodes == 0 || p.heads == 0) return;

  const molfuse_execution execution = with_worthwhile_threads(caller, forward_nanoseconds(p, graph.nodes));
  const int threads = thread_count(execution, INT64_MAX);
  const Division division = divide(p, p.row_ptr, graph.nodes, nullptr, threads);
  const HubParts hubs(p, division, p.row_ptr, false);
  const ThreadRows rows(p, threads);
  const GraphKernels& kernels = select_graph_kernels().of[p.dtype];
  // Hub parts come first: they are the longest tasks.
  run_tasks(execution, hubs.parts() + division.tasks(), [&](int64_t n, int thread) {
    if (n < hubs.parts()) {
      kernels.forward_part(p, hubs.part(n));
    } else {
      kernels.forward(p, division.task(n - hubs.parts(), p.heads), rows.of(thread));
    }
  });
  run_tasks(execution, hubs.rows(), [&](int64_t n, int) { kernels.forward_merge(p, hubs.row(n), hubs.row_parts(n)); });
  out.deliver();
}

/// Both sweeps over the graph with a wait between them: every weight is known before the first is read by source.
void sweep_apart(const GraphProblem& p, int64_t nodes, const GraphKernels& kernels, const ThreadRows& rows, int threads,
                 const molfuse_execution& execution) {
  const Division targets = divide(p, p.row_ptr, nodes, nullptr, threads);
  const HubParts hubs(p, targets, p.row_ptr, false);
  run_tasks(execution, hubs.parts() + targets.tasks(), [&](int64_t n, int thread) {
    if (n < hubs.parts()) {
      kernels.score_part(p, hubs.part(n));
    } else {
      kernels.backward_targets(p, targets.task(n - hubs.parts(), p.heads), rows.of(thread));
    }
  });
  run_tasks(execution, hubs.parts(), [&](int64_t n, int) {
    kernels.target_part(p, hubs.part(n), hubs.row(hubs.owner(n)), hubs.row_parts(hubs.owner(n)));
  });
  if (p.grad_query.data != nullptr) {
    run_tasks(execution, hubs.rows(), [&](int64_t n, int) { kernels.add_parts(p, p.grad_query, hubs.row(n), hubs.row_parts(n), false); });
  }
  if (p.grad_key.data == nullptr && p.grad_value.data == nullptr) return;
  const Division sources = divide(p, p.row_ptr_t, nodes, nullptr, threads);
  const HubParts source_hubs(p, sources, p.row_ptr_t, true);
  run_tasks(execution, source_hubs.parts() + sources.tasks(), [&](int64_t n, int thread) {
    if (n < source_hubs.parts()) {
      kernels.source_part(p, source_hubs.part(n));
    } else {
      kernels.backward_sources(p, sources.task(n - source_hubs.parts(), p.heads), rows.of(thread));
    }
  });
  run_tasks(execution, source_hubs.rows(), [&](int64_t n, int) {
    if (p.grad_key.data != nullptr) kernels.add_parts(p, p.grad_key, source_hubs.row(n), source_hubs.row_parts(n), false);
    if (p.grad_value.data != nullptr) kernels.add_parts(p, p.grad_value, source_hubs.row(n), source_hubs.row_parts(n), true);
  });
}

/// True if a division at cuts is even enough, and no row is a hub, so that each task can do both sweeps over its own nodes.
bool falls_apart(const GraphProblem& p, int64_t nodes, const Division& division, int threads) {
  if (!division.hubs.empty()) return false;
  for (int64_t s = 0; s < nodes; ++s) {
    if (p.row_ptr_t[s + 1] - p.row_ptr_t[s] > kHubEdges) return false;
  }
  int64_t most = 0;
  for (size_t n = 1; n < division.bounds.size(); ++n) {
    const int64_t begin = division.bounds[n - 1], end = division.bounds[n];
    most = std::max<int64_t>(most, end - begin + p.row_ptr[end] - p.row_ptr[begin]);
  }
  return threads == 1 || most * kTasksPerThread * threads <= (nodes + p.edges) * division.head_groups;
}

void run_backward(const molfuse_graph_attention_args& args, const molfuse_execution& caller) {
  if (run_on_device(args, caller, true, "molfuse_graph_attention_backward")) return;
  GraphProblem p = check_problem(args);
  const molfuse_tensor& like = args.query;
  const bool by_source = present(args.grad_key) || present(args.grad_value);
  const Operand query("query", args.query, like, false);
  const Operand key("key", args.key, like, false);
  const Operand value("value", args.value, like, false);
  const Operand grad_out("grad_out", args.grad_out, like, false);
  take_log_sum(p, args, false);
  const CheckedGraph graph(args.graph, args.query.size[0], by_source);
  take_graph(p, graph);
  molfuse_tensor absent = like;
  absent.data = nullptr;
  absent.size[0] = 0;
  auto gradient = [&](const char* name, const molfuse_tensor& tensor) {
    return present(tensor) ? Operand(name, tensor, like, true) : Operand(name, absent, absent, true);
  };
  Operand grad_query = gradient("grad_query", args.grad_query);
  Operand grad_key = gradient("grad_key", args.grad_key);
  Operand grad_value = gradient("grad_value", args.grad_value);
  check_outputs_apart(args, true);
  p.query = query.view();
  p.key = key.view();
  p.value = value.view();
  p.grad_out = grad_out.view();
  p.grad_query = grad_query.view();
  p.grad_key = grad_key.view();
  p.grad_value = grad_value.view();
  if (graph.nodes == 0 || p.heads == 0) return;

  const molfuse_execution execution = with_worthwhile_threads(caller, 2 * forward_nanoseconds(p, graph.nodes));
  const int threads = thread_count(execution, INT64_MAX);
  const size_t numbers = align_up(static_cast<size_t>(p.heads * p.edges) * (p.dtype == MOLFUSE_F64 ? 8 : 4));
  const Scratch scratch(2 * numbers);
  p.weight = scratch.at<char>(0);
  p.grad_score = scratch.at<char>(numbers);
  const ThreadRows rows(p, threads);
  const GraphKernels& kernels = select_graph_kernels().of[p.dtype];
  bool apart = true;
  if (by_source) {
    const std::vector<char> cuts = graph_cuts(graph);
    const Division graphs = divide(p, p.row_ptr, graph.nodes, &cuts, threads);
    if (falls_apart(p, graph.nodes, graphs, threads)) {
      apart = false;
      // A batch of small graphs: each task does its nodes by target, then by source, while their rows are in cache.
      run_tasks(execution, graphs.tasks(), [&](int64_t n, int thread) {
        const GraphTask task = graphs.task(n, p.heads);
        kernels.backward_targets(p, task, rows.of(thread));
        kernels.backward_sources(p, task, rows.of(thread));
      });
    }
  }
  if (apart) sweep_apart(p, graph.nodes, kernels, rows, threads, execution);
  grad_query.deliver();
  grad_key.deliver();
  grad_value.deliver();
}

}  // namespace
}  // namespace molfuse

using namespace molfuse;

extern "C" {

molfuse_status molfuse_graph_attention_forward(const molfuse_graph_attention_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_graph_attention_forward");
    run_forward(read_args(args, "molfuse_graph_attention_forward"), where);
  });
}

molfuse_status molfuse_graph_attention_backward(const molfuse_graph_attention_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_graph_attention_backward");
    run_backward(read_args(args, "molfuse_graph_attention_backward"), where);
  });
}

}  // extern "C"

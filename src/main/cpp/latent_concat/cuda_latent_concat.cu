// SPDX-License-Identifier: Apache-2.0
// Pooling and concatenation on a GPU: one launch for all layers, graphs and columns. Memory is the bound: rows are read (or written)
// once, 16 bytes a thread, neighbouring threads neighbouring columns, four rows in flight.
#include <algorithm>

#include "latent_concat/kernels.h"
#include "runtime/device_report.h"

namespace molfuse {
namespace {

using namespace device;

constexpr int kThreads = 256;
// Layers of a launch: their table travels in the kernel's 4 KB of parameters.
constexpr int kMaxLayers = 64;

struct LayerView {
  void* data;
  int64_t node_stride, column_stride, columns, first_column;
  int64_t first_block;  // of the launch's blocks of columns
};

struct PoolArgs {
  LayerView layers[kMaxLayers];
  int32_t num_layers;
  int32_t column_threads;  // threads side by side in a row, a power of two; the others take further graphs
  int32_t wide_index;      // graph_ptr is int64
  int32_t splits;          // parts of each graph's nodes, each for a block of its own
  const void* graph_ptr;   // null: the layers are pooled already
  int64_t graph_ptr_stride, graphs, nodes;
  void* row;
  int64_t row_stride, row_column_stride, total_columns;
  float* partial;  // [splits, graphs, total_columns], if splits > 1
  unsigned long long* report;
};
static_assert(sizeof(PoolArgs) <= 4096, "parameters of a kernel");

MOLFUSE_DEVICE int64_t index_of(const PoolArgs& args, int64_t n) {
  const int64_t at = n * args.graph_ptr_stride;
  if (args.wide_index != 0) return load(static_cast<const int64_t*>(args.graph_ptr) + at);
  return load(static_cast<const int32_t*>(args.graph_ptr) + at);
}

struct Place {
  bool active;
  int layer;
  int64_t graph, column;
  int64_t begin, end;  // nodes of the graph
};

/// What this thread works on. Wrong pointers are reported and give an empty range, and `begin` -1.
template <int N>
MOLFUSE_DEVICE Place place_of(const PoolArgs& args) {
  Place at{};
  const int across = args.column_threads, rows = kThreads / across;
  at.graph = static_cast<int64_t>(block_x()) * rows + thread_index() / across;
  int64_t block = block_y();
  for (int l = 1; l < args.num_layers && block >= args.layers[l].first_block; ++l) at.layer = l;
  block -= args.layers[at.layer].first_block;
  at.column = (block * across + thread_index() % across) * N;
  at.active = at.graph < args.graphs && at.column < args.layers[at.layer].columns;
  if (!at.active) return at;
  if (args.graph_ptr == nullptr) {
    at.begin = at.graph;
    at.end = at.graph + 1;
    return at;
  }
  at.begin = index_of(args, at.graph);
  at.end = index_of(args, at.graph + 1);
  const bool first = at.graph == 0 && at.begin != 0, last = at.graph + 1 == args.graphs && at.end != args.nodes;
  if (at.begin < 0 || at.end < at.begin || at.end > args.nodes || first || last) {
    const bool end_wrong = at.begin >= 0 && at.begin <= args.nodes && !first;
    report_fault(args.report, Fault::graph_ptr, at.graph + (end_wrong ? 1 : 0), end_wrong ? at.end : at.begin);
    at.begin = -1;
    at.end = -1;
  }
  return at;
}

template <class T, int N>
MOLFUSE_DEVICE void add_row(float (&sum)[N], const Vector<T, N>& row) {
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) sum[n] += to_float(row.item[n]);
}

/// N > 1: columns lie side by side and aligned.
template <class T, int N>
MOLFUSE_DEVICE Vector<T, N> load_row(const LayerView& layer, int64_t node, int64_t column) {
  const T* at = static_cast<const T*>(layer.data) + node * layer.node_stride;
  if constexpr (N == 1) {
    return load_once(reinterpret_cast<const Vector<T, 1>*>(at + column * layer.column_stride));
  } else {
    return load_once(reinterpret_cast<const Vector<T, N>*>(at + column));
  }
}

template <class T, int N>
MOLFUSE_DEVICE void store_pooled(const PoolArgs& args, const LayerView& layer, const Place& at, const float (&sum)[N], float factor) {
  Vector<T, N> value;
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) value.item[n] = from_float<T>(sum[n] * factor);
  T* row = static_cast<T*>(args.row) + at.graph * args.row_stride;
  const int64_t column = layer.first_column + at.column;
  if constexpr (N == 1) {
    store(reinterpret_cast<Vector<T, 1>*>(row + column * args.row_column_stride), value);
  } else {
    store(reinterpret_cast<Vector<T, N>*>(row + column), value);
  }
}

template <class T, int N>
MOLFUSE_KERNEL(kThreads, 4) pool_forward(MOLFUSE_GRID_CONSTANT const PoolArgs args) {
  const Place at = place_of<N>(args);
  if (!at.active) return;
  const LayerView& layer = args.layers[at.layer];
  float sum[N] = {};
  int64_t begin = at.begin, end = at.end;
  if (args.splits > 1 && begin >= 0) {
    const int64_t count = end - begin, part = block_z();
    end = begin + count * (part + 1) / args.splits;
    begin += count * part / args.splits;
  }
  int64_t node = begin;
  for (; node + 4 <= end; node += 4) {
    const Vector<T, N> a = load_row<T, N>(layer, node, at.column), b = load_row<T, N>(layer, node + 1, at.column),
                       c = load_row<T, N>(layer, node + 2, at.column), d = load_row<T, N>(layer, node + 3, at.column);
    add_row<T, N>(sum, a);
    add_row<T, N>(sum, b);
    add_row<T, N>(sum, c);
    add_row<T, N>(sum, d);
  }
  for (; node < end; ++node) add_row<T, N>(sum, load_row<T, N>(layer, node, at.column));
  if (args.splits > 1) {
    float* to = args.partial + (static_cast<int64_t>(block_z()) * args.graphs + at.graph) * args.total_columns + layer.first_column + at.column;
    MOLFUSE_UNROLL
    for (int n = 0; n < N; ++n) store(to + n, at.begin < 0 ? quiet_nan() : sum[n]);
    return;
  }
  const int64_t count = at.end - at.begin;
  store_pooled<T, N>(args, layer, at, sum, at.begin < 0 ? quiet_nan() : (count == 0 ? 0.0f : 1.0f / static_cast<float>(count)));
}

/// Adds the parts of each graph in order.
template <class T>
MOLFUSE_KERNEL(kThreads, 4) pool_merge(MOLFUSE_GRID_CONSTANT const PoolArgs args) {
  const Place at = place_of<1>(args);
  if (!at.active) return;
  const LayerView& layer = args.layers[at.layer];
  float sum[1] = {};
  for (int part = 0; part < args.splits; ++part) {
    sum[0] += load(args.partial + (static_cast<int64_t>(part) * args.graphs + at.graph) * args.total_columns + layer.first_column + at.column);
  }
  const int64_t count = at.end - at.begin;
  store_pooled<T, 1>(args, layer, at, sum, at.begin < 0 ? quiet_nan() : (count == 0 ? 0.0f : 1.0f / static_cast<float>(count)));
}

template <class T, int N>
MOLFUSE_KERNEL(kThreads, 4) pool_backward(MOLFUSE_GRID_CONSTANT const PoolArgs args) {
  const Place at = place_of<N>(args);
  if (!at.active) return;
  const LayerView& layer = args.layers[at.layer];
  const T* row = static_cast<const T*>(args.row) + at.graph * args.row_stride;
  const int64_t column = layer.first_column + at.column;
  Vector<T, N> value;
  if constexpr (N == 1) {
    value = load(reinterpret_cast<const Vector<T, 1>*>(row + column * args.row_column_stride));
  } else {
    value = load(reinterpret_cast<const Vector<T, N>*>(row + column));
  }
  const float factor = 1.0f / static_cast<float>(at.end - at.begin);
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) value.item[n] = from_float<T>(to_float(value.item[n]) * factor);
  int64_t begin = at.begin, end = at.end;
  if (args.splits > 1 && begin >= 0) {
    const int64_t count = end - begin, part = block_z();
    end = begin + count * (part + 1) / args.splits;
    begin += count * part / args.splits;
  }
  for (int64_t node = begin; node < end; ++node) {
    T* to = static_cast<T*>(layer.data) + node * layer.node_stride;
    if constexpr (N == 1) {
      store_once(reinterpret_cast<Vector<T, 1>*>(to + at.column * layer.column_stride), value);
    } else {
      store_once(reinterpret_cast<Vector<T, N>*>(to + at.column), value);
    }
  }
}

/// Whether N elements at a time can be read and written everywhere.
bool fits(const LatentConcatProblem& p, int n) {
  const auto bytes = static_cast<int64_t>(n) * p.element;
  auto aligned = [&](const molfuse_tensor& tensor) {
    return reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(bytes) == 0 && (tensor.size[1] == 1 || tensor.stride[1] == 1) &&
           (tensor.size[0] <= 1 || tensor.stride[0] % n == 0);
  };
  if (!aligned(p.concatenated)) return false;
  for (const LatentConcatLayer& layer : p.layers) {
    if (present(layer.tensor) && !aligned(layer.tensor)) return false;
    if (layer.tensor.size[1] % n != 0 || layer.first_column % n != 0) return false;
  }
  return true;
}

struct Launch {
  PoolArgs args;
  Grid grid;
};

/// backward: layers without memory are gradients that nobody wants. In forward they are empty, and their graphs' means 0.
Launch prepare(const LatentConcatProblem& p, size_t first_layer, size_t end_layer, int n, bool backward, DeviceCall& call) {
  Launch launch{};
  PoolArgs& args = launch.args;
  int64_t widest = 1;
  for (size_t l = first_layer; l < end_layer; ++l) {
    const molfuse_tensor& tensor = p.layers[l].tensor;
    if ((backward && !present(tensor)) || tensor.size[1] == 0) continue;
    LayerView& view = args.layers[args.num_layers++];
    view = {tensor.data, tensor.stride[0], tensor.stride[1], tensor.size[1], p.layers[l].first_column, 0};
    widest = std::max(widest, tensor.size[1]);
  }
  int across = 1;
  while (across < kThreads && int64_t{across} * n < widest) across *= 2;
  args.column_threads = across;
  int64_t blocks = 0;
  for (int l = 0; l < args.num_layers; ++l) {
    args.layers[l].first_block = blocks;
    blocks += (args.layers[l].columns + int64_t{across} * n - 1) / (int64_t{across} * n);
  }
  args.wide_index = p.graph_ptr.dtype == MOLFUSE_I64;
  args.splits = 1;
  args.graph_ptr = p.pooled ? nullptr : p.graph_ptr.data;
  args.graph_ptr_stride = p.pooled ? 0 : p.graph_ptr.stride[0];
  args.graphs = p.graphs;
  args.nodes = p.nodes;
  args.row = p.concatenated.data;
  args.row_stride = p.concatenated.stride[0];
  args.row_column_stride = p.concatenated.stride[1];
  args.total_columns = p.concatenated.size[1];
  args.report = call.report();
  launch.grid = {(p.graphs + kThreads / across - 1) / (kThreads / across), args.num_layers == 0 ? 0 : blocks, 1};
  // Few large graphs: their nodes are shared out, or most of the chip would look on.
  const int64_t here = launch.grid.x * launch.grid.y, wanted = int64_t{4} * call.device().multiprocessors;
  const int64_t mean_nodes = p.graphs == 0 ? 0 : p.nodes / p.graphs;
  if (!p.pooled && here > 0 && here < wanted && mean_nodes >= 64) {
    args.splits = static_cast<int32_t>(std::min<int64_t>({(wanted + here - 1) / here, mean_nodes / 32, 1024}));
    launch.grid.z = args.splits;
  }
  return launch;
}

template <class T, int N>
void forward_of(const LatentConcatProblem& p, DeviceCall& call) {
  for (size_t l = 0; l < p.layers.size(); l += kMaxLayers) {
    const size_t end = std::min(p.layers.size(), l + kMaxLayers);
    Launch launch = prepare(p, l, end, N, false, call);
    if (launch.args.splits > 1) launch.args.partial = call.scratch<float>(launch.args.splits * p.graphs * launch.args.total_columns);
    call.launch("latent_concat forward", pool_forward<T, N>, launch.grid, kThreads, 0, launch.args);
    if (launch.args.splits > 1) {
      Launch merge = prepare(p, l, end, 1, false, call);
      merge.args.splits = launch.args.splits;
      merge.args.partial = launch.args.partial;
      merge.grid.z = 1;
      call.launch("latent_concat merge", pool_merge<T>, merge.grid, kThreads, 0, merge.args);
    }
  }
}

template <class T, int N>
void backward_of(const LatentConcatProblem& p, DeviceCall& call) {
  for (size_t l = 0; l < p.layers.size(); l += kMaxLayers) {
    const Launch launch = prepare(p, l, std::min(p.layers.size(), l + kMaxLayers), N, true, call);
    call.launch("latent_concat backward", pool_backward<T, N>, launch.grid, kThreads, 0, launch.args);
  }
}

template <class T>
void run(const LatentConcatProblem& p, DeviceCall& call, bool backward) {
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  const bool wide = fits(p, kWide);
  if (backward) {
    wide ? backward_of<T, kWide>(p, call) : backward_of<T, 1>(p, call);
  } else {
    wide ? forward_of<T, kWide>(p, call) : forward_of<T, 1>(p, call);
  }
}

void run_any(const LatentConcatProblem& p, DeviceCall& call, bool backward) {
  switch (p.dtype) {
    case MOLFUSE_F32: return run<float>(p, call, backward);
    case MOLFUSE_F16: return run<f16>(p, call, backward);
    case MOLFUSE_BF16: return run<bf16>(p, call, backward);
    default: unsupported("latent_concat: f64 is for the CPU only");
  }
}

}  // namespace

void latent_concat_forward_device(const LatentConcatProblem& p, DeviceCall& call) { run_any(p, call, false); }
void latent_concat_backward_device(const LatentConcatProblem& p, DeviceCall& call) { run_any(p, call, true); }

}  // namespace molfuse

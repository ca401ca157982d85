// SPDX-License-Identifier: Apache-2.0
// Batch normalisation, ReLU, dropout and pooling on a GPU. Memory is the bound: a thread takes 16 bytes of neighbouring columns, a worker
// (threads side by side over a range of columns) takes rows, four of them in flight. The features are read once for the statistics and
// once more for the result; sums over rows go from registers through shared memory to one value per part of the rows, and a small kernel
// adds the parts up in order, so that results are the same every time.
#include <algorithm>

#include "encoder_epilogue/kernels.h"
#include "runtime/device_report.h"

namespace molfuse {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kRowsAtOnce = 4;
// Rows of a worker where nothing but the filling of the chip decides: what depends on the column is loaded once for all of them.
constexpr int kRowsOfWorker = 8;
constexpr int kMaxParts = 256;
// A block of the kernels that add parts up: columns by slices of the parts.
constexpr int kFinishColumns = 32;
constexpr int kSlices = kThreads / kFinishColumns;

struct EpilogueArgs {
  EpilogueRows x, input, residual, out, pooled, grad_out, grad_pooled, grad_input;  // x: input, or sum if there is a residual
  EpilogueColumns weight, bias, running_mean, running_var, save_mean, save_rstd, grad_weight, grad_bias;
  int64_t nodes, columns, graphs;
  const void* graph_ptr;  // null: no graphs
  int64_t graph_ptr_step;
  int32_t wide_index;
  int32_t training;
  int32_t across;  // threads of a worker, a power of two up to a warp
  int32_t share;   // workers of a block for one graph, a power of two
  int32_t splits;  // blocks for one graph
  int32_t parts;   // of the rows, for sums over all of them
  float momentum, epsilon, keep_scale;
  uint32_t threshold;
  molfuse_philox philox;
  float* partial;  // [parts][2][columns]: mean and squared distances, or the gradients' sums
  float* means;    // [2][columns]: the gradients' means over the rows, of grad y and of grad y * normalised x
  float* pieces;   // [splits, graphs, columns]: sums of parts of graphs
  unsigned long long* report;
};

// ---- access

MOLFUSE_DEVICE float column_value(const EpilogueColumns& columns, int64_t c, float absent) {
  if (columns.data == nullptr) return absent;
  const int64_t at = c * columns.step;
  switch (columns.dtype) {
    case MOLFUSE_F16: return to_float(load(static_cast<const f16*>(columns.data) + at));
    case MOLFUSE_BF16: return to_float(load(static_cast<const bf16*>(columns.data) + at));
    default: return load(static_cast<const float*>(columns.data) + at);
  }
}
MOLFUSE_DEVICE void put_column(const EpilogueColumns& columns, int64_t c, float value) {
  store(static_cast<float*>(columns.data) + c * columns.step, value);
}

template <class T, int N>
MOLFUSE_DEVICE Vector<T, N> load_row(const EpilogueRows& rows, int64_t v, int64_t c) {
  return load(reinterpret_cast<const Vector<T, N>*>(static_cast<const T*>(rows.data) + v * rows.row + c));
}
template <class T, int N>
MOLFUSE_DEVICE void store_row(const EpilogueRows& rows, int64_t v, int64_t c, const float (&value)[N], float factor = 1.0f) {
  Vector<T, N> rounded;
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) rounded.item[n] = from_float<T>(value[n] * factor);
  store(reinterpret_cast<Vector<T, N>*>(static_cast<T*>(rows.data) + v * rows.row + c), rounded);
}

MOLFUSE_DEVICE int64_t pointer_of(const EpilogueArgs& args, int64_t n) {
  const int64_t at = n * args.graph_ptr_step;
  if (args.wide_index != 0) return load(static_cast<const int64_t*>(args.graph_ptr) + at);
  return load(static_cast<const int32_t*>(args.graph_ptr) + at);
}

/// Whether graph b's rows are begin .. end-1 of the features; if not, that is reported.
MOLFUSE_DEVICE bool graph_is_right(const EpilogueArgs& args, int64_t b, int64_t begin, int64_t end) {
  const bool first = b == 0 && begin != 0, last = b + 1 == args.graphs && end != args.nodes;
  if (begin >= 0 && end >= begin && end <= args.nodes && !first && !last) return true;
  const bool end_wrong = begin >= 0 && begin <= args.nodes && !first;
  report_fault(args.report, Fault::graph_ptr, b + (end_wrong ? 1 : 0), end_wrong ? end : begin);
  return false;
}

/// A bit for each of the elements n .. n+N-1 that dropout keeps. N > 1: n is a multiple of N.
template <int N>
MOLFUSE_DEVICE uint32_t kept(const EpilogueArgs& args, int64_t n) {
  if (args.threshold == 0) return (1u << N) - 1;
  const auto group = static_cast<uint64_t>(n) / 8;
  const PhiloxWords words = philox(static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), static_cast<uint32_t>(args.philox.offset),
                                   static_cast<uint32_t>(args.philox.offset >> 32), static_cast<uint32_t>(args.philox.seed),
                                   static_cast<uint32_t>(args.philox.seed >> 32));
  const int first = static_cast<int>(n % 8);
  uint32_t bits = 0;
  MOLFUSE_UNROLL
  for (int half = 0; half < 8; ++half) {
    const uint32_t value = words.w[half / 2] >> (16 * (half % 2)) & 0xFFFFu;
    bits |= value >= args.threshold ? 1u << half : 0u;
  }
  return bits >> first & ((1u << N) - 1);
}

/// Where a thread works: its worker in the block, and its first column.
struct Place {
  int worker, workers;
  int64_t column;
  bool active;
};
template <int N>
MOLFUSE_DEVICE Place place_of(const EpilogueArgs& args) {
  Place at;
  at.worker = thread_index() / args.across;
  at.workers = kThreads / args.across;
  at.column = (static_cast<int64_t>(block_y()) * args.across + thread_index() % args.across) * N;
  at.active = at.column < args.columns;
  return at;
}

/// What depends on the column only.
template <int N>
struct Norm {
  float mean[N], rstd[N], scale[N], shift[N];
};
template <int N>
MOLFUSE_DEVICE Norm<N> norm_of(const EpilogueArgs& args, const Place& at, bool running) {
  Norm<N> norm{};
  if (!at.active) return norm;
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) {
    const int64_t c = at.column + n;
    if (running) {
      norm.mean[n] = column_value(args.running_mean, c, 0.0f);
      norm.rstd[n] = 1.0f / square_root(column_value(args.running_var, c, 1.0f) + args.epsilon);
    } else {
      norm.mean[n] = column_value(args.save_mean, c, 0.0f);
      norm.rstd[n] = column_value(args.save_rstd, c, 0.0f);
    }
    norm.scale[n] = norm.rstd[n] * column_value(args.weight, c, 1.0f);
    norm.shift[n] = column_value(args.bias, c, 0.0f);
  }
  return norm;
}

MOLFUSE_DEVICE int64_t share_begin(int64_t count, int64_t part, int64_t parts) { return count * part / parts; }

/// x, which is written too where there is a residual to add.
template <class T, int N>
MOLFUSE_DEVICE void joined_row(const EpilogueArgs& args, int64_t v, int64_t c, const Vector<T, N>& a, const Vector<T, N>& b, float (&x)[N]) {
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) x[n] = to_float(a.item[n]);
  if (args.residual.data == nullptr) return;
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) x[n] = to_float(from_float<T>(x[n] + to_float(b.item[n])));
  store_row<T, N>(args.x, v, c, x);
}

// ---- statistics

/// The mean and the sum of squared distances from it of ROWS rows joined to those of `count` rows (Chan, Golub, LeVeque 1979).
template <int ROWS, int N>
MOLFUSE_DEVICE void add_rows(const float (&x)[ROWS][N], int count, float (&mean)[N], float (&m2)[N]) {
  const float share = static_cast<float>(ROWS) / static_cast<float>(count + ROWS), weight = static_cast<float>(count) * share;
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) {
    float sum = 0, squares = 0;
    MOLFUSE_UNROLL
    for (int r = 0; r < ROWS; ++r) sum += x[r][n];
    const float own = sum * (1.0f / ROWS);
    MOLFUSE_UNROLL
    for (int r = 0; r < ROWS; ++r) squares += (x[r][n] - own) * (x[r][n] - own);
    const float distance = own - mean[n];
    mean[n] += distance * share;
    m2[n] += squares + distance * distance * weight;
  }
}
struct Moments {
  float mean, m2;
  int64_t count;
};
MOLFUSE_DEVICE void join(Moments& all, const Moments& other) {
  if (other.count == 0) return;
  const auto count = static_cast<float>(all.count + other.count), share = static_cast<float>(other.count) / count;
  const float distance = other.mean - all.mean;
  all.mean += distance * share;
  all.m2 += other.m2 + distance * distance * (static_cast<float>(all.count) * share);
  all.count += other.count;
}

/// A part of the rows: workers take every workers-th row.
template <class T, int N>
MOLFUSE_KERNEL(kThreads, 2) epilogue_statistics(MOLFUSE_GRID_CONSTANT const EpilogueArgs args) {
  const Place at = place_of<N>(args);
  const int64_t begin = share_begin(args.nodes, block_x(), args.parts), end = share_begin(args.nodes, block_x() + 1, args.parts);
  float mean[N] = {}, m2[N] = {};
  if (at.active) {
    int count = 0;
    int64_t v = begin + at.worker;
    const int64_t step = at.workers;
    for (; v + (kRowsAtOnce - 1) * step < end; v += kRowsAtOnce * step, count += kRowsAtOnce) {
      Vector<T, N> a[kRowsAtOnce], b[kRowsAtOnce] = {};
      MOLFUSE_UNROLL
      for (int r = 0; r < kRowsAtOnce; ++r) {
        a[r] = load_row<T, N>(args.input, v + r * step, at.column);
        if (args.residual.data != nullptr) b[r] = load_row<T, N>(args.residual, v + r * step, at.column);
      }
      float x[kRowsAtOnce][N];
      MOLFUSE_UNROLL
      for (int r = 0; r < kRowsAtOnce; ++r) joined_row<T, N>(args, v + r * step, at.column, a[r], b[r], x[r]);
      add_rows<kRowsAtOnce, N>(x, count, mean, m2);
    }
    for (; v < end; v += step, ++count) {
      const Vector<T, N> a = load_row<T, N>(args.input, v, at.column);
      Vector<T, N> b = {};
      if (args.residual.data != nullptr) b = load_row<T, N>(args.residual, v, at.column);
      float x[1][N];
      joined_row<T, N>(args, v, at.column, a, b, x[0]);
      add_rows<1, N>(x, count, mean, m2);
    }
  }
  float* table = reinterpret_cast<float*>(shared_memory());  // [workers][2][columns of the block]
  const int width = args.across * N, first = thread_index() % args.across * N;
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) {
    store(table + at.worker * 2 * width + first + n, mean[n]);
    store(table + (at.worker * 2 + 1) * width + first + n, m2[n]);
  }
  sync_block();
  const int64_t column = static_cast<int64_t>(block_y()) * width + thread_index();
  if (thread_index() >= width || column >= args.columns) return;
  Moments all{0, 0, 0};
  for (int w = 0; w < at.workers; ++w) {
    const int64_t rows = end - begin > w ? (end - begin - w + at.workers - 1) / at.workers : 0;
    join(all, {load(table + w * 2 * width + thread_index()), load(table + (w * 2 + 1) * width + thread_index()), rows});
  }
  store(args.partial + static_cast<int64_t>(block_x()) * 2 * args.columns + column, all.mean);
  store(args.partial + (static_cast<int64_t>(block_x()) * 2 + 1) * args.columns + column, all.m2);
}

/// Joins the parts in order; writes what forward saves and the running statistics.
MOLFUSE_KERNEL(kThreads, 2) epilogue_finish_statistics(MOLFUSE_GRID_CONSTANT const EpilogueArgs args) {
  const int slice = thread_index() / kFinishColumns;
  const int64_t c = static_cast<int64_t>(block_x()) * kFinishColumns + thread_index() % kFinishColumns;
  Moments own{0, 0, 0};
  if (c < args.columns) {
    const auto last = static_cast<int>(share_begin(args.parts, slice + 1, kSlices));
    for (auto part = static_cast<int>(share_begin(args.parts, slice, kSlices)); part < last; ++part) {
      const int64_t rows = share_begin(args.nodes, part + 1, args.parts) - share_begin(args.nodes, part, args.parts);
      const float* from = args.partial + static_cast<int64_t>(part) * 2 * args.columns + c;
      join(own, {load(from), load(from + args.columns), rows});
    }
  }
  float* table = reinterpret_cast<float*>(shared_memory());  // [slices][2][kFinishColumns]
  store(table + (2 * slice) * kFinishColumns + thread_index() % kFinishColumns, own.mean);
  store(table + (2 * slice + 1) * kFinishColumns + thread_index() % kFinishColumns, own.m2);
  sync_block();
  if (thread_index() >= kFinishColumns || c >= args.columns) return;
  Moments all{0, 0, 0};
  for (int s = 0; s < kSlices; ++s) {
    const int64_t first = share_begin(args.parts, s, kSlices), last = share_begin(args.parts, s + 1, kSlices);
    const int64_t rows = share_begin(args.nodes, last, args.parts) - share_begin(args.nodes, first, args.parts);
    join(all, {load(table + 2 * s * kFinishColumns + thread_index()), load(table + (2 * s + 1) * kFinishColumns + thread_index()), rows});
  }
  put_column(args.save_mean, c, all.mean);
  put_column(args.save_rstd, c, 1.0f / square_root(all.m2 / static_cast<float>(args.nodes) + args.epsilon));
  if (args.running_mean.data == nullptr) return;
  const float old = 1.0f - args.momentum, variance = all.m2 / static_cast<float>(args.nodes - 1);
  put_column(args.running_mean, c, old * column_value(args.running_mean, c, 0.0f) + args.momentum * all.mean);
  put_column(args.running_var, c, old * column_value(args.running_var, c, 0.0f) + args.momentum * variance);
}

// ---- the result

template <class T, int N>
MOLFUSE_DEVICE void apply_row(const EpilogueArgs& args, const Norm<N>& norm, int64_t v, int64_t c, const float (&x)[N], float (&sum)[N]) {
  const uint32_t keep = kept<N>(args, v * args.columns + c);
  float y[N];
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) {
    y[n] = (x[n] - norm.mean[n]) * norm.scale[n] + norm.shift[n];
    y[n] = y[n] <= 0 ? 0.0f : y[n];  // NaN stays
    y[n] = (keep >> n & 1) != 0 ? y[n] * args.keep_scale : 0.0f;
    sum[n] += y[n];
  }
  store_row<T, N>(args.out, v, c, y);
}

/// Workers take a graph, or a share of one; without graphs, runs of rows.
template <class T, int N>
MOLFUSE_KERNEL(kThreads, 2) epilogue_apply(MOLFUSE_GRID_CONSTANT const EpilogueArgs args) {
  const Place at = place_of<N>(args);
  const Norm<N> norm = norm_of<N>(args, at, args.training == 0);
  if (args.training == 0 && block_x() == 0 && block_z() == 0 && at.worker == 0 && at.active) {
    MOLFUSE_UNROLL
    for (int n = 0; n < N; ++n) {
      put_column(args.save_mean, at.column + n, norm.mean[n]);
      put_column(args.save_rstd, at.column + n, norm.rstd[n]);
    }
  }
  const int64_t segment = static_cast<int64_t>(block_x()) * (at.workers / args.share) + at.worker / args.share;
  int64_t begin, end;
  bool right = true;
  const bool pools = args.graph_ptr != nullptr, mine = at.active && (!pools || segment < args.graphs);
  if (!pools) {
    begin = segment * kRowsOfWorker;
    end = begin + kRowsOfWorker < args.nodes ? begin + kRowsOfWorker : args.nodes;
  } else {
    begin = mine ? pointer_of(args, segment) : 0;
    end = mine ? pointer_of(args, segment + 1) : 0;
    right = !mine || graph_is_right(args, segment, begin, end);
    if (!right) end = begin;
  }
  const int64_t count = end - begin;
  if (pools) {
    const int64_t part = block_z() * args.share + at.worker % args.share, parts = static_cast<int64_t>(args.splits) * args.share;
    end = begin + share_begin(count, part + 1, parts);
    begin += share_begin(count, part, parts);
  }
  float sum[N] = {};
  // In training the statistics' kernel has added the residual.
  const bool adds = args.training == 0 && args.residual.data != nullptr;
  if (mine) {
    int64_t v = begin;
    for (; v + kRowsAtOnce <= end; v += kRowsAtOnce) {
      Vector<T, N> a[kRowsAtOnce], b[kRowsAtOnce] = {};
      MOLFUSE_UNROLL
      for (int r = 0; r < kRowsAtOnce; ++r) {
        a[r] = load_row<T, N>(adds ? args.input : args.x, v + r, at.column);
        if (adds) b[r] = load_row<T, N>(args.residual, v + r, at.column);
      }
      MOLFUSE_UNROLL
      for (int r = 0; r < kRowsAtOnce; ++r) {
        float x[N];
        if (adds) {
          joined_row<T, N>(args, v + r, at.column, a[r], b[r], x);
        } else {
          MOLFUSE_UNROLL
          for (int n = 0; n < N; ++n) x[n] = to_float(a[r].item[n]);
        }
        apply_row<T, N>(args, norm, v + r, at.column, x, sum);
      }
    }
    for (; v < end; ++v) {
      const Vector<T, N> a = load_row<T, N>(adds ? args.input : args.x, v, at.column);
      float x[N];
      if (adds) {
        joined_row<T, N>(args, v, at.column, a, load_row<T, N>(args.residual, v, at.column), x);
      } else {
        MOLFUSE_UNROLL
        for (int n = 0; n < N; ++n) x[n] = to_float(a.item[n]);
      }
      apply_row<T, N>(args, norm, v, at.column, x, sum);
    }
  }
  if (!pools) return;
  if (args.share > 1) {
    float* table = reinterpret_cast<float*>(shared_memory());  // [workers][columns of the block]
    const int width = args.across * N, first = thread_index() % args.across * N;
    MOLFUSE_UNROLL
    for (int n = 0; n < N; ++n) store(table + at.worker * width + first + n, sum[n]);
    sync_block();
    if (at.worker % args.share != 0) return;
    for (int w = 1; w < args.share; ++w) {
      MOLFUSE_UNROLL
      for (int n = 0; n < N; ++n) sum[n] += load(table + (at.worker + w) * width + first + n);
    }
  }
  if (!mine) return;
  if (args.splits > 1) {
    float* to = args.pieces + (static_cast<int64_t>(block_z()) * args.graphs + segment) * args.columns + at.column;
    MOLFUSE_UNROLL
    for (int n = 0; n < N; ++n) store(to + n, right ? sum[n] : quiet_nan());
    return;
  }
  store_row<T, N>(args.pooled, segment, at.column, sum, !right ? quiet_nan() : (count == 0 ? 0.0f : 1.0f / static_cast<float>(count)));
}

/// Adds the pieces of each graph in order.
template <class T>
MOLFUSE_KERNEL(kThreads, 2) epilogue_merge(MOLFUSE_GRID_CONSTANT const EpilogueArgs args) {
  const int64_t n = static_cast<int64_t>(block_x()) * kThreads + thread_index();
  if (n >= args.graphs * args.columns) return;
  const int64_t graph = n / args.columns, column = n % args.columns;
  float sum[1] = {};
  for (int piece = 0; piece < args.splits; ++piece) sum[0] += load(args.pieces + (piece * args.graphs + graph) * args.columns + column);
  const int64_t count = pointer_of(args, graph + 1) - pointer_of(args, graph);
  store_row<T, 1>(args.pooled, graph, column, sum, count == 0 ? 0.0f : 1.0f / static_cast<float>(count));
}

// ---- gradients

/// The graph that a worker's next rows belong to, and its rows' share of the pooled gradient.
template <int N>
struct Cursor {
  int64_t graph, end;
  float gradient[N];
};
template <class T, int N>
MOLFUSE_DEVICE Cursor<N> cursor_at(const EpilogueArgs& args, int64_t v, int64_t c) {
  Cursor<N> cursor{};
  cursor.graph = -1;
  cursor.end = args.nodes;
  if (args.grad_pooled.data == nullptr) return cursor;
  int64_t low = 0, high = args.graphs - 1;  // the last graph that begins at or before the row
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (pointer_of(args, middle) <= v) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  cursor.graph = low;
  const int64_t begin = pointer_of(args, low), end = pointer_of(args, low + 1);
  const bool right = graph_is_right(args, low, begin, end) && begin <= v && v < end;
  // Pointers that do not ascend hide a row from the search.
  if (!right) report_fault(args.report, Fault::graph_ptr, low + 1, end);
  cursor.end = right ? end : v + 1;
  const float factor = right ? 1.0f / static_cast<float>(end - begin) : quiet_nan();
  const Vector<T, N> row = load_row<T, N>(args.grad_pooled, low, c);
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) cursor.gradient[n] = to_float(row.item[n]) * factor;
  return cursor;
}

/// g = gradient of y, and x - mean, of one row.
template <class T, int N>
MOLFUSE_DEVICE void gradient_row(const EpilogueArgs& args, const Norm<N>& norm, const Cursor<N>& cursor, int64_t v, int64_t c,
                                 const Vector<T, N>& x, const Vector<T, N>& grad_out, float (&g)[N], float (&centred)[N]) {
  const uint32_t keep = kept<N>(args, v * args.columns + c);
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) {
    centred[n] = to_float(x.item[n]) - norm.mean[n];
    const float y = centred[n] * norm.scale[n] + norm.shift[n];
    const float upstream = args.grad_out.data != nullptr ? to_float(grad_out.item[n]) + cursor.gradient[n] : cursor.gradient[n];
    g[n] = y <= 0 || (keep >> n & 1) == 0 ? 0.0f : upstream * args.keep_scale;
  }
}

/// Calls use(v, g, centred) for the rows begin .. end-1.
template <class T, int N, class Use>
MOLFUSE_DEVICE void each_gradient(const EpilogueArgs& args, const Norm<N>& norm, int64_t begin, int64_t end, int64_t c, const Use& use) {
  if (begin >= end) return;
  Cursor<N> cursor = cursor_at<T, N>(args, begin, c);
  for (int64_t v = begin; v < end;) {
    if (v >= cursor.end) cursor = cursor_at<T, N>(args, v, c);
    const int64_t stop = cursor.end < end ? cursor.end : end;
    for (; v + kRowsAtOnce <= stop; v += kRowsAtOnce) {
      Vector<T, N> x[kRowsAtOnce], upstream[kRowsAtOnce] = {};
      MOLFUSE_UNROLL
      for (int r = 0; r < kRowsAtOnce; ++r) {
        x[r] = load_row<T, N>(args.x, v + r, c);
        if (args.grad_out.data != nullptr) upstream[r] = load_row<T, N>(args.grad_out, v + r, c);
      }
      MOLFUSE_UNROLL
      for (int r = 0; r < kRowsAtOnce; ++r) {
        float g[N], centred[N];
        gradient_row<T, N>(args, norm, cursor, v + r, c, x[r], upstream[r], g, centred);
        use(v + r, g, centred);
      }
    }
    for (; v < stop; ++v) {
      Vector<T, N> upstream = {};
      const Vector<T, N> x = load_row<T, N>(args.x, v, c);
      if (args.grad_out.data != nullptr) upstream = load_row<T, N>(args.grad_out, v, c);
      float g[N], centred[N];
      gradient_row<T, N>(args, norm, cursor, v, c, x, upstream, g, centred);
      use(v, g, centred);
    }
  }
}

/// Sums over a part of the rows; outside training grad_input needs none of them and is written here, if wanted.
template <class T, int N>
MOLFUSE_KERNEL(kThreads, 2) epilogue_gradient_sums(MOLFUSE_GRID_CONSTANT const EpilogueArgs args) {
  const Place at = place_of<N>(args);
  const Norm<N> norm = norm_of<N>(args, at, false);
  const int64_t first = share_begin(args.nodes, block_x(), args.parts), count = share_begin(args.nodes, block_x() + 1, args.parts) - first;
  const int64_t begin = first + share_begin(count, at.worker, at.workers), end = first + share_begin(count, at.worker + 1, at.workers);
  float sum_bias[N] = {}, sum_weight[N] = {};
  const bool writes = args.training == 0 && args.grad_input.data != nullptr;
  if (at.active) {
    each_gradient<T, N>(args, norm, begin, end, at.column, [&](int64_t v, float(&g)[N], const float(&centred)[N]) {
      MOLFUSE_UNROLL
      for (int n = 0; n < N; ++n) {
        sum_bias[n] += g[n];
        sum_weight[n] += g[n] * centred[n];
        g[n] *= norm.scale[n];
      }
      if (writes) store_row<T, N>(args.grad_input, v, at.column, g);
    });
  }
  float* table = reinterpret_cast<float*>(shared_memory());  // [workers][2][columns of the block]
  const int width = args.across * N, place = thread_index() % args.across * N;
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) {
    store(table + at.worker * 2 * width + place + n, sum_bias[n]);
    store(table + (at.worker * 2 + 1) * width + place + n, sum_weight[n]);
  }
  sync_block();
  const int64_t column = static_cast<int64_t>(block_y()) * width + thread_index();
  if (thread_index() >= width || column >= args.columns) return;
  float bias = 0, weight = 0;
  for (int w = 0; w < at.workers; ++w) {
    bias += load(table + w * 2 * width + thread_index());
    weight += load(table + (w * 2 + 1) * width + thread_index());
  }
  store(args.partial + static_cast<int64_t>(block_x()) * 2 * args.columns + column, bias);
  store(args.partial + (static_cast<int64_t>(block_x()) * 2 + 1) * args.columns + column, weight * column_value(args.save_rstd, column, 0.0f));
}

/// Adds the parts' sums in order.
MOLFUSE_KERNEL(kThreads, 2) epilogue_finish_sums(MOLFUSE_GRID_CONSTANT const EpilogueArgs args) {
  const int slice = thread_index() / kFinishColumns;
  const int64_t c = static_cast<int64_t>(block_x()) * kFinishColumns + thread_index() % kFinishColumns;
  float bias = 0, weight = 0;
  if (c < args.columns) {
    const auto last = static_cast<int>(share_begin(args.parts, slice + 1, kSlices));
    for (auto part = static_cast<int>(share_begin(args.parts, slice, kSlices)); part < last; ++part) {
      const float* from = args.partial + static_cast<int64_t>(part) * 2 * args.columns + c;
      bias += load(from);
      weight += load(from + args.columns);
    }
  }
  float* table = reinterpret_cast<float*>(shared_memory());  // [slices][2][kFinishColumns]
  store(table + (2 * slice) * kFinishColumns + thread_index() % kFinishColumns, bias);
  store(table + (2 * slice + 1) * kFinishColumns + thread_index() % kFinishColumns, weight);
  sync_block();
  if (thread_index() >= kFinishColumns || c >= args.columns) return;
  bias = 0;
  weight = 0;
  for (int s = 0; s < kSlices; ++s) {
    bias += load(table + 2 * s * kFinishColumns + thread_index());
    weight += load(table + (2 * s + 1) * kFinishColumns + thread_index());
  }
  if (args.grad_bias.data != nullptr) put_column(args.grad_bias, c, bias);
  if (args.grad_weight.data != nullptr) put_column(args.grad_weight, c, weight);
  const float share = args.nodes == 0 ? 0.0f : 1.0f / static_cast<float>(args.nodes);
  store(args.means + c, bias * share);
  store(args.means + args.columns + c, weight * share);
}

/// grad_input in training.
template <class T, int N>
MOLFUSE_KERNEL(kThreads, 2) epilogue_gradient(MOLFUSE_GRID_CONSTANT const EpilogueArgs args) {
  const Place at = place_of<N>(args);
  if (!at.active) return;
  const Norm<N> norm = norm_of<N>(args, at, false);
  float level[N], slope[N];
  MOLFUSE_UNROLL
  for (int n = 0; n < N; ++n) {
    level[n] = load(args.means + at.column + n);
    slope[n] = load(args.means + args.columns + at.column + n) * norm.rstd[n];
  }
  const int64_t begin = (static_cast<int64_t>(block_x()) * at.workers + at.worker) * kRowsOfWorker;
  const int64_t end = begin + kRowsOfWorker < args.nodes ? begin + kRowsOfWorker : args.nodes;
  each_gradient<T, N>(args, norm, begin, end, at.column, [&](int64_t v, float(&g)[N], const float(&centred)[N]) {
    MOLFUSE_UNROLL
    for (int n = 0; n < N; ++n) g[n] = (g[n] - (level[n] + centred[n] * slope[n])) * norm.scale[n];
    store_row<T, N>(args.grad_input, v, at.column, g);
  });
}

// ---- dispatch

/// Whether N columns at a time can be read and written everywhere.
bool fits(const EpilogueProblem& p, int n) {
  const auto bytes = static_cast<uintptr_t>(n) * molfuse_dtype_size(p.dtype);
  if (p.columns % n != 0) return false;
  for (const EpilogueRows* rows : {&p.input, &p.residual, &p.sum, &p.out, &p.pooled, &p.grad_out, &p.grad_pooled, &p.grad_input}) {
    if (rows->data != nullptr && (reinterpret_cast<uintptr_t>(rows->data) % bytes != 0 || rows->row % n != 0)) return false;
  }
  return true;
}

struct Shape {
  EpilogueArgs args;
  int64_t column_blocks;
  int workers;
  size_t table;  // bytes of shared memory for two values of every thread's columns
};

Shape shape_of(const EpilogueProblem& p, int n, DeviceCall& call) {
  Shape shape{};
  EpilogueArgs& args = shape.args;
  args.input = p.input;
  args.residual = p.residual;
  args.x = p.residual.data != nullptr ? p.sum : p.input;
  args.out = p.out;
  args.pooled = p.pooled;
  args.grad_out = p.grad_out;
  args.grad_pooled = p.grad_pooled;
  args.grad_input = p.grad_input;
  args.weight = p.weight;
  args.bias = p.bias;
  args.running_mean = p.running_mean;
  args.running_var = p.running_var;
  args.save_mean = p.save_mean;
  args.save_rstd = p.save_rstd;
  args.grad_weight = p.grad_weight;
  args.grad_bias = p.grad_bias;
  args.nodes = p.nodes;
  args.columns = p.columns;
  args.graphs = p.graphs;
  args.graph_ptr = p.graph_ptr.data;
  args.graph_ptr_step = p.graph_ptr.stride[0];
  args.wide_index = p.graph_ptr.dtype == MOLFUSE_I64;
  args.training = p.training;
  args.share = 1;
  args.splits = 1;
  args.momentum = static_cast<float>(p.momentum);
  args.epsilon = static_cast<float>(p.epsilon);
  args.keep_scale = p.threshold == 0 ? 1.0f : static_cast<float>(p.keep_scale);
  args.threshold = p.threshold;
  args.philox = p.philox;
  args.report = call.report();
  args.across = 1;
  while (args.across < kWarp && int64_t{args.across} * n < p.columns) args.across *= 2;
  shape.workers = kThreads / args.across;
  shape.column_blocks = (p.columns + int64_t{args.across} * n - 1) / (int64_t{args.across} * n);
  shape.table = static_cast<size_t>(kThreads) * static_cast<size_t>(n) * 2 * sizeof(float);
  // Two blocks for a multiprocessor, each with 16 KB of rows on their way; no more parts than there are rows for.
  const int64_t wanted = (int64_t{2} * call.device().multiprocessors + shape.column_blocks - 1) / std::max<int64_t>(1, shape.column_blocks);
  const int64_t most = (p.nodes + 2 * shape.workers - 1) / (2 * shape.workers);
  args.parts = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>({wanted, most, kMaxParts})));
  return shape;
}

int64_t finish_blocks(const EpilogueProblem& p) { return (p.columns + kFinishColumns - 1) / kFinishColumns; }
constexpr size_t kFinishTable = size_t{2} * kThreads * sizeof(float);

template <class T, int N>
void forward_of(const EpilogueProblem& p, DeviceCall& call) {
  Shape shape = shape_of(p, N, call);
  EpilogueArgs& args = shape.args;
  if (p.columns == 0) return;
  if (p.training && p.nodes > 0) {
    args.partial = call.scratch<float>(int64_t{2} * args.parts * p.columns);
    call.launch("encoder_epilogue statistics", epilogue_statistics<T, N>, {args.parts, shape.column_blocks, 1}, kThreads, shape.table, args);
    call.launch("encoder_epilogue statistics of all parts", epilogue_finish_statistics, {finish_blocks(p), 1, 1}, kThreads, kFinishTable, args);
  } else if (p.training) {
    // Nothing to measure: the statistics are defined, and the running ones stay.
    const EpilogueColumns saved[] = {p.save_mean, p.save_rstd};
    for (const EpilogueColumns& columns : saved) {
      for (int64_t c = 0; c < (columns.step == 1 ? 1 : p.columns); ++c) {
        call.zero(static_cast<float*>(columns.data) + c * columns.step, (columns.step == 1 ? static_cast<size_t>(p.columns) : 1) * sizeof(float));
      }
    }
  }
  int64_t blocks = (p.nodes + int64_t{shape.workers} * kRowsOfWorker - 1) / (int64_t{shape.workers} * kRowsOfWorker);
  if (p.pooled.data != nullptr) {
    // A worker a graph, or several for each where that leaves the chip empty: four blocks a multiprocessor are wanted.
    const int64_t wanted = int64_t{4} * call.device().multiprocessors, mean_nodes = p.graphs == 0 ? 0 : p.nodes / p.graphs;
    auto blocks_of = [&] { return (p.graphs * args.share + shape.workers - 1) / shape.workers; };
    while (args.share < shape.workers && blocks_of() * shape.column_blocks < wanted && mean_nodes >= int64_t{2} * kRowsAtOnce * args.share) {
      args.share *= 2;
    }
    blocks = blocks_of();
    const int64_t here = blocks * shape.column_blocks;
    if (here > 0 && here < wanted && mean_nodes >= int64_t{64} * args.share) {
      args.splits = static_cast<int32_t>(std::min<int64_t>({(wanted + here - 1) / here, mean_nodes / (32 * args.share), 1024}));
      args.pieces = call.scratch<float>(args.splits * p.graphs * p.columns);
    }
  } else {
    args.graph_ptr = nullptr;
  }
  // Outside training this kernel also saves the statistics, for which one block is enough.
  if (!p.training) blocks = std::max<int64_t>(1, blocks);
  call.launch("encoder_epilogue", epilogue_apply<T, N>, {blocks, shape.column_blocks, args.splits}, kThreads, shape.table / 2, args);
  if (args.splits > 1) {
    call.launch("encoder_epilogue merge", epilogue_merge<T>, {(p.graphs * p.columns + kThreads - 1) / kThreads, 1, 1}, kThreads, 0, args);
  }
}

template <class T, int N>
void backward_of(const EpilogueProblem& p, DeviceCall& call) {
  Shape shape = shape_of(p, N, call);
  EpilogueArgs& args = shape.args;
  const bool parameters = p.grad_weight.data != nullptr || p.grad_bias.data != nullptr;
  if (p.columns == 0 || (!parameters && p.grad_input.data == nullptr)) return;
  args.partial = call.scratch<float>(int64_t{2} * args.parts * p.columns);
  args.means = call.scratch<float>(2 * p.columns);
  call.launch("encoder_epilogue gradient sums", epilogue_gradient_sums<T, N>, {args.parts, shape.column_blocks, 1}, kThreads, shape.table, args);
  if (parameters || p.training) {
    call.launch("encoder_epilogue gradient sums of all parts", epilogue_finish_sums, {finish_blocks(p), 1, 1}, kThreads, kFinishTable, args);
  }
  if (!p.training || p.grad_input.data == nullptr) return;
  const int64_t rows = int64_t{shape.workers} * kRowsOfWorker;
  call.launch("encoder_epilogue gradient", epilogue_gradient<T, N>, {(p.nodes + rows - 1) / rows, shape.column_blocks, 1}, kThreads, 0, args);
}

template <class T>
void run(const EpilogueProblem& p, DeviceCall& call, bool backward) {
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  const bool wide = fits(p, kWide);
  if (backward) {
    wide ? backward_of<T, kWide>(p, call) : backward_of<T, 1>(p, call);
  } else {
    wide ? forward_of<T, kWide>(p, call) : forward_of<T, 1>(p, call);
  }
}

void run_any(const EpilogueProblem& p, DeviceCall& call, bool backward) {
  switch (p.dtype) {
    case MOLFUSE_F32: return run<float>(p, call, backward);
    case MOLFUSE_F16: return run<f16>(p, call, backward);
    case MOLFUSE_BF16: return run<bf16>(p, call, backward);
    default: unsupported("encoder_epilogue: f64 is for the CPU only");
  }
}

}  // namespace

void encoder_epilogue_forward_device(const EpilogueProblem& p, DeviceCall& call) { run_any(p, call, false); }
void encoder_epilogue_backward_device(const EpilogueProblem& p, DeviceCall& call) { run_any(p, call, true); }

}  // namespace molfuse

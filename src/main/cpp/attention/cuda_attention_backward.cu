// SPDX-License-Identifier: Apache-2.0
// Attention on a GPU, backward, by recomputation from lse. One kernel goes over queries for each block of keys, with the gradients of key and
// value in registers; another over keys for each block of queries, with the gradient of query. The scores and their gradients are thus made
// twice, seven products in place of five: the price of adding up without atomics, in an order that timing cannot change. In both kernels a
// warp's own rows are the left operand, so weights go from one product to the next in registers.
#include <algorithm>

#include "attention/device.h"

namespace molfuse {
namespace attention_device {
namespace {

/// How a block is cut. Two resident tiles of 16 rows a warp, two streamed ones in each stage; 99 KB is what the smallest devices have.
template <class T, int DIM>
struct BackwardPlan {
  static constexpr int kRowBytes = Tile<T, DIM>::kRowBytes;
  static constexpr int kWarps = kRowBytes <= 256 ? 4 : 2;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kRows = 16 * kWarps;
  static constexpr int kStream = kRowBytes <= 128 ? 32 : 16;
  static constexpr int kStages = kRowBytes <= 512 ? 2 : 1;
  static constexpr int kResidentBytes = kRows * kRowBytes;
  static constexpr int kStreamBytes = kStream * kRowBytes;
  static constexpr int kTileBytes = 2 * kResidentBytes + kStages * 2 * kStreamBytes;
  /// Columns of the gradients of key and value that a block has registers for.
  static constexpr int kMostColumns = sizeof(T) == 2 ? 128 : 64;
  static constexpr int kColumns = DIM < kMostColumns ? DIM : kMostColumns;
  /// The same for the gradient of query.
  static constexpr int kQueryColumns = DIM < 128 ? DIM : 128;
  static constexpr int kBlocks = sizeof(T) == 2 && DIM <= 32 ? 3 : 2;
  /// The gradient of query, without features, fits in fewer registers if it must.
  static constexpr int kPlainQueryBlocks = sizeof(T) == 2 && DIM <= 64 ? (DIM == 64 ? 3 : 4) : kBlocks;
  /// One warp's tile of score gradients, from which it sums diagonals.
  static constexpr int kDiagonalFloats = diagonal_floats(kStream);
};

/// Which blocks there are for the biases' gradients, beside what Args says.
struct BiasWork {
  int32_t over_batch, over_heads, over_rows, over_columns;  // summed over
  int32_t row_blocks, column_blocks, parts;
  float* partial;  // [parts][elements of the gradient], where parts > 1
};

// ---- log-sums and row sums of out * grad_out

constexpr int kStatisticsThreads = 128, kStatisticsLanes = 8, kStatisticsRows = kStatisticsThreads / kStatisticsLanes;

template <class T>
MOLFUSE_KERNEL(kStatisticsThreads, 4) row_statistics(const Args args) {
  constexpr int kChunk = 16 / static_cast<int>(sizeof(T));
  using Chunk = Vector<T, kChunk>;
  const int row_tiles = (args.queries + kStatisticsRows - 1) / kStatisticsRows;
  const int pair = block_x() / row_tiles, row = block_x() % row_tiles * kStatisticsRows + thread_index() / kStatisticsLanes;
  const Sequence s = sequence_of(args, pair / args.heads, pair % args.heads);
  const bool exists = row < s.queries;
  float lse = -infinity();
  if (exists && s.limit(args, row) > 0) lse = load(lse_of(args, s) + row * args.lse_row);
  float sum = 0;
  if (lse != -infinity()) {
    const T* out = rows_of<const T>(args.out, s, s.first_query) + row * args.out.row;
    const T* grad = rows_of<const T>(args.grad_out, s, s.first_query) + row * args.grad_out.row;
    for (int c = thread_index() % kStatisticsLanes * kChunk; c < args.dim; c += kStatisticsLanes * kChunk) {
      if (args.out.aligned != 0 && args.grad_out.aligned != 0) {
        const Chunk a = load(reinterpret_cast<const Chunk*>(out + c)), b = load(reinterpret_cast<const Chunk*>(grad + c));
        MOLFUSE_UNROLL
        for (int e = 0; e < kChunk; ++e) sum = fused_multiply_add(to_float(a.item[e]), to_float(b.item[e]), sum);
      } else {
        for (int e = 0; e < kChunk; ++e) sum = fused_multiply_add(to_float(load(out + c + e)), to_float(load(grad + c + e)), sum);
      }
    }
  }
  sum = group_sum<kStatisticsLanes>(sum);
  if (exists && thread_index() % kStatisticsLanes == 0) {
    store(statistics_of(args, s) + row, lse == -infinity() ? RowStatistics{infinity(), 0.0f} : RowStatistics{lse * kScoreUnit<T>, sum});
  }
}

MOLFUSE_DEVICE RowStatistics statistics_at(const RowStatistics* statistics, int row, int rows) {
  return row < rows ? load(statistics + row) : RowStatistics{infinity(), 0.0f};
}

// ---- key and value

template <class T, int DIM, bool FEATURES>
MOLFUSE_KERNEL((BackwardPlan<T, DIM>::kThreads), (BackwardPlan<T, DIM>::kBlocks)) key_value_gradient(const Args args) {
  using Plan = BackwardPlan<T, DIM>;
  constexpr int kTiles = Plan::kStream / 8, kColumns = Plan::kColumns;
  unsigned char* keys = shared_memory();
  unsigned char* values = keys + Plan::kResidentBytes;
  unsigned char* stages = values + Plan::kResidentBytes;
  float* relative = reinterpret_cast<float*>(stages + Plan::kStages * 2 * Plan::kStreamBytes);
  const int key_tiles = (args.keys + Plan::kRows - 1) / Plan::kRows, column = block_y() * kColumns;
  const int pair = block_x() / key_tiles, first = block_x() % key_tiles * Plan::kRows;
  const Sequence s = sequence_of(args, pair / args.heads, pair % args.heads);
  if (first >= s.keys) return;
  const T* query = rows_of<const T>(args.query, s, s.first_query);
  const T* grad_out = rows_of<const T>(args.grad_out, s, s.first_query);
  const RowStatistics* statistics = statistics_of(args, s);
  // The first row that sees the first of the keys.
  int begin = s.first_row(args);
  if (args.causal != 0) begin = larger(begin, first - (s.keys - s.queries));
  const int first_tile = begin / Plan::kStream, end_tile = first < s.length ? (s.queries + Plan::kStream - 1) / Plan::kStream : 0;
  auto load_stage = [&](int tile) {
    unsigned char* to = stages + tile % Plan::kStages * 2 * Plan::kStreamBytes;
    const int at = tile * Plan::kStream;
    load_tile<T, DIM, Plan::kStream, Plan::kThreads>(to, args.query, query, at, s.first_row(args), s.queries, args.dim);
    load_tile<T, DIM, Plan::kStream, Plan::kThreads>(to + Plan::kStreamBytes, args.grad_out, grad_out, at, s.first_row(args), s.queries, args.dim);
    commit_copies();
  };
  load_tile<T, DIM, Plan::kRows, Plan::kThreads>(keys, args.key, rows_of<const T>(args.key, s, s.first_key), first, 0, s.length, args.dim);
  load_tile<T, DIM, Plan::kRows, Plan::kThreads>(values, args.value, rows_of<const T>(args.value, s, s.first_key), first, 0, s.length, args.dim);
  if constexpr (FEATURES) load_relative<T>(args, s.head, relative, Plan::kThreads);
  if (first_tile < end_tile) load_stage(first_tile);
  commit_copies();

  const int lane = lane_index(), own = 16 * warp_index();
  float grad_key[kColumns / 8][4] = {}, grad_value[kColumns / 8][4] = {};
  for (int tile = first_tile; tile < end_tile; ++tile) {
    const int at = tile * Plan::kStream;
    RowStatistics row[kTiles][2];
    MOLFUSE_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      MOLFUSE_UNROLL
      for (int c = 0; c < 2; ++c) row[n][c] = statistics_at(statistics, at + 8 * n + lane % 4 * 2 + c, s.queries);
    }
    wait_copies<0>();
    sync_block();
    if (Plan::kStages > 1 && tile + 1 < end_tile) load_stage(tile + 1);
    const unsigned char* queries = stages + tile % Plan::kStages * 2 * Plan::kStreamBytes;
    const unsigned char* grads = queries + Plan::kStreamBytes;
    float weights[kTiles][4], slopes[kTiles][4];
    multiply_rows<T, DIM, kTiles>(weights, keys, own, queries, args.tf32 != 0);
    const bool masked = at + Plan::kStream > s.queries || s.limit(args, at) < first + Plan::kRows;
    finish_scores<T, true, FEATURES>(weights, args, s, relative, first + own, at, masked);
    multiply_rows<T, DIM, kTiles>(slopes, values, own, grads, args.tf32 != 0);
    MOLFUSE_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      uint32_t mask = 15;
      if constexpr (FEATURES) {
        if (args.threshold != 0) mask = kept<true>(args, s, first + own, at, n);
      }
      MOLFUSE_UNROLL
      for (int e = 0; e < 4; ++e) {
        const bool keep = !FEATURES || (mask >> e & 1u) != 0;
        const float weight = power<T>(weights[n][e] - row[n][e & 1].log_sum);
        slopes[n][e] = score_gradient(weight, keep ? slopes[n][e] * args.keep_scale : 0.0f, row[n][e & 1].delta);
        weights[n][e] = keep ? weight : 0.0f;
      }
    }
    if (args.grad_value.data != nullptr) multiply_weights<T, DIM, kColumns>(grad_value, weights, grads, column, args.tf32 != 0);
    if (args.grad_key.data != nullptr) multiply_weights<T, DIM, kColumns>(grad_key, slopes, queries, column, args.tf32 != 0);
    if (Plan::kStages == 1 && tile + 1 < end_tile) {
      sync_block();
      load_stage(tile + 1);
    }
  }
  wait_copies<0>();
  sync_block();
  float key_factor[2], value_factor[2];
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const bool seen = first + own + lane / 4 + 8 * r < s.length;
    key_factor[r] = seen ? args.scale : 0.0f;
    value_factor[r] = seen ? args.keep_scale : 0.0f;
  }
  unsigned char* stage = keys + own * Plan::kRowBytes;
  if (args.grad_key.data != nullptr) {
    write_rows<T, kColumns>(grad_key, key_factor, stage, args.grad_key, rows_of<T>(args.grad_key, s, s.first_key), first + own, s.keys, column,
                            args.dim);
  }
  if (args.grad_value.data != nullptr) {
    write_rows<T, kColumns>(grad_value, value_factor, stage, args.grad_value, rows_of<T>(args.grad_value, s, s.first_key), first + own, s.keys,
                            column, args.dim);
  }
}

// ---- query, and what goes with it: a bias that is broadcast nowhere, and relative_bias

/// Weights and score gradients of a warp's 16 rows against streamed keys; leaves the latter in slopes. whole: these are all the keys the
/// rows see; the weights are then divided by their own sum, which lse's rounding is not in, and delta is taken from the scores, so that for
/// a few keys it has the very roundings of what it is subtracted from.
template <class T, int DIM, bool FEATURES, int TILES>
MOLFUSE_DEVICE void row_slopes(float (&slopes)[TILES][4], const Args& args, const Sequence& s, const float* relative,
                               const unsigned char* queries, const unsigned char* grads, const unsigned char* keys, const unsigned char* values,
                               RowStatistics (&row)[2], int own, int first, int first_key, bool masked, bool whole) {
  float weights[TILES][4];
  multiply_rows<T, DIM, TILES>(weights, queries, own, keys, args.tf32 != 0);
  finish_scores<T, false, FEATURES>(weights, args, s, relative, first + own, first_key, masked);
  multiply_rows<T, DIM, TILES>(slopes, grads, own, values, args.tf32 != 0);
  MOLFUSE_UNROLL
  for (int n = 0; n < TILES; ++n) {
    uint32_t mask = 15;
    if constexpr (FEATURES) {
      if (args.threshold != 0) mask = kept<false>(args, s, first + own, first_key, n);
    }
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) {
      const bool keep = !FEATURES || (mask >> e & 1u) != 0;
      weights[n][e] = power<T>(weights[n][e] - row[e >> 1].log_sum);
      slopes[n][e] = keep && weights[n][e] != 0 ? slopes[n][e] * args.keep_scale : 0.0f;
    }
  }
  if (whole) {
    MOLFUSE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float sum = 0, total = 0;
      MOLFUSE_UNROLL
      for (int n = 0; n < TILES; ++n) {
        MOLFUSE_UNROLL
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          sum = fused_multiply_add(weights[n][e], slopes[n][e], sum);
          total += weights[n][e];
        }
      }
      sum += shuffle_xor(sum, 1);
      sum += shuffle_xor(sum, 2);
      total += shuffle_xor(total, 1);
      total += shuffle_xor(total, 2);
      const float share = total == 0 ? 0.0f : 1.0f / total;
      MOLFUSE_UNROLL
      for (int n = 0; n < TILES; ++n) {
        MOLFUSE_UNROLL
        // What is hidden stays 0, even if the sum is NaN.
        for (int e = 2 * r; e < 2 * r + 2; ++e) weights[n][e] = weights[n][e] == 0 ? 0.0f : weights[n][e] * share;
      }
      row[r].delta = sum * share;
    }
  }
  MOLFUSE_UNROLL
  for (int n = 0; n < TILES; ++n) {
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) slopes[n][e] = score_gradient(weights[n][e], slopes[n][e], row[e >> 1].delta);
  }
}

/// parts: blocks that share the tiles of queries of a head, each with its own sums for relative_bias, as has each of the `splits` that share
/// the keys.
template <class T, int DIM, bool FEATURES>
MOLFUSE_KERNEL((BackwardPlan<T, DIM>::kThreads), (FEATURES ? BackwardPlan<T, DIM>::kBlocks : BackwardPlan<T, DIM>::kPlainQueryBlocks))
query_gradient(const Args args, int parts) {
  using Plan = BackwardPlan<T, DIM>;
  constexpr int kTiles = Plan::kStream / 8, kColumns = Plan::kQueryColumns;
  // What is not about columns is the affair of the first columns' blocks.
  constexpr int kColumnBlocks = DIM / kColumns;
  const int column = block_y() % kColumnBlocks * kColumns, split = block_y() / kColumnBlocks;
  const bool sums_distances = args.relative_parts != nullptr && column == 0, writes_bias = args.grad_bias_direct != 0 && column == 0;
  unsigned char* queries = shared_memory();
  unsigned char* grads = queries + Plan::kResidentBytes;
  unsigned char* stages = grads + Plan::kResidentBytes;
  const int pair = block_x() / parts, part = block_x() % parts, distances = 2 * args.radius + 1;
  const int lane = lane_index(), warp = warp_index(), own = 16 * warp;
  float* rest = reinterpret_cast<float*>(stages + Plan::kStages * 2 * Plan::kStreamBytes);
  float* diagonals = rest + warp * Plan::kDiagonalFloats;
  if (args.relative_parts != nullptr) rest += Plan::kWarps * Plan::kDiagonalFloats;
  const float* relative = rest;
  if (args.relative_shared != 0) rest += distances;
  float* global_sums = args.relative_parts + ((static_cast<int64_t>(block_x()) * args.splits + split) * Plan::kWarps + warp) * distances;
  float* sums = args.relative_parts_shared != 0 ? rest + warp * distances : global_sums;
  float low = 0, high = 0;
  const Sequence s = sequence_of(args, pair / args.heads, pair % args.heads);
  const T* key = rows_of<const T>(args.key, s, s.first_key);
  const T* value = rows_of<const T>(args.value, s, s.first_key);
  if constexpr (FEATURES) {
    load_relative<T>(args, s.head, rest - (args.relative_shared != 0 ? distances : 0), Plan::kThreads);
    if (sums_distances) begin_diagonals(args, sums);
  }
  for (int first = part * Plan::kRows; first < s.queries; first += parts * Plan::kRows) {
    const KeyRange range = keys_of_rows(args, s, first, Plan::kRows);
    const int tiles = (range.some + Plan::kStream - 1) / Plan::kStream;
    const int begin = tiles * split / args.splits, count = tiles * (split + 1) / args.splits;
    auto load_stage = [&](int tile) {
      unsigned char* to = stages + tile % Plan::kStages * 2 * Plan::kStreamBytes;
      const int at = tile * Plan::kStream;
      load_tile<T, DIM, Plan::kStream, Plan::kThreads>(to, args.key, key, at, 0, s.length, args.dim);
      load_tile<T, DIM, Plan::kStream, Plan::kThreads>(to + Plan::kStreamBytes, args.value, value, at, 0, s.length, args.dim);
      commit_copies();
    };
    // Everyone is done with the rows before.
    sync_block();
    load_tile<T, DIM, Plan::kRows, Plan::kThreads>(queries, args.query, rows_of<const T>(args.query, s, s.first_query), first, s.first_row(args),
                                                   s.queries, args.dim);
    load_tile<T, DIM, Plan::kRows, Plan::kThreads>(grads, args.grad_out, rows_of<const T>(args.grad_out, s, s.first_query), first,
                                                   s.first_row(args), s.queries, args.dim);
    if (begin < count) load_stage(begin);
    commit_copies();
    RowStatistics row[2];
    float factor[2];
    MOLFUSE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int at = first + own + lane / 4 + 8 * r;
      row[r] = statistics_at(statistics_of(args, s), at, s.queries);
      factor[r] = row[r].log_sum == infinity() ? 0.0f : args.scale;
    }
    float grad_query[kColumns / 8][4] = {};
    for (int tile = begin; tile < count; ++tile) {
      const int first_key = tile * Plan::kStream;
      wait_copies<0>();
      sync_block();
      if (Plan::kStages > 1 && tile + 1 < count) load_stage(tile + 1);
      const unsigned char* at = stages + tile % Plan::kStages * 2 * Plan::kStreamBytes;
      float slopes[kTiles][4];
      row_slopes<T, DIM, FEATURES>(slopes, args, s, relative, queries, grads, at, at + Plan::kStreamBytes, row, own, first, first_key,
                                   first_key + Plan::kStream > range.all, tiles == 1);
      if constexpr (FEATURES) {
        if (writes_bias) {
          const auto position = Position<false>::of_lane(first + own, first_key);
          const BiasStrides& strides = args.grad_bias_strides;
          MOLFUSE_UNROLL
          for (int n = 0; n < kTiles; ++n) {
            MOLFUSE_UNROLL
            for (int e = 0; e < 4; ++e) {
              const int i = position.query(n, e), j = position.key(n, e);
              if (i < s.queries && j < s.keys) {
                store(args.grad_bias + s.batch * strides.batch + s.head * strides.head + i * strides.row + j * strides.column, slopes[n][e]);
              }
            }
          }
        }
        if (sums_distances) add_diagonals<false>(slopes, args, s, first + own, first_key, diagonals, sums, &low, &high);
      }
      if (args.grad_query.data != nullptr) multiply_weights<T, DIM, kColumns>(grad_query, slopes, at, column, args.tf32 != 0);
      if (Plan::kStages == 1 && tile + 1 < count) {
        sync_block();
        load_stage(tile + 1);
      }
    }
    MOLFUSE_UNROLL
    for (int r = 0; r < 2; ++r) {
      // For the kernels that follow.
      const int at = first + own + lane / 4 + 8 * r;
      if (tiles == 1 && begin < count && lane % 4 == 0 && at < s.queries) store(&statistics_of(args, s)[at].delta, row[r].delta);
    }
    if constexpr (FEATURES) {
      if (writes_bias && split == args.splits - 1) {
        // Keys that none of these rows sees.
        const int seen = smaller(tiles * Plan::kStream, s.keys), hidden = s.keys - seen;
        for (int n = thread_index(); n < hidden * Plan::kRows; n += Plan::kThreads) {
          const int i = first + n / hidden, j = seen + n % hidden;
          const BiasStrides& strides = args.grad_bias_strides;
          if (i < s.queries) {
            store(args.grad_bias + s.batch * strides.batch + s.head * strides.head + i * strides.row + j * strides.column, 0.0f);
          }
        }
      }
    }
    wait_copies<0>();
    sync_block();
    if (args.grad_query.data != nullptr && args.splits > 1) {
      MOLFUSE_UNROLL
      for (int r = 0; r < 2; ++r) write_share(args, split, pair, first + own + lane / 4 + 8 * r, s.queries, column, r, grad_query);
    } else if (args.grad_query.data != nullptr) {
      write_rows<T, kColumns>(grad_query, factor, queries + own * Plan::kRowBytes, args.grad_query,
                              rows_of<T>(args.grad_query, s, s.first_query), first + own, s.queries, column, args.dim);
    }
  }
  if constexpr (FEATURES) {
    if (sums_distances) finish_diagonals(args, sums, low, high, global_sums);
  }
}

/// The gradient of query from its shares: a warp has a row.
template <class T>
MOLFUSE_KERNEL(kJoinThreads, 4) sum_shares(const Args args) {
  const int64_t n = static_cast<int64_t>(block_x()) * (kJoinThreads / kWarp) + warp_index(), pairs = int64_t{args.batch} * args.heads;
  if (n >= pairs * args.queries) return;
  const int pair = static_cast<int>(n / args.queries), row = static_cast<int>(n % args.queries);
  const Sequence s = sequence_of(args, pair / args.heads, pair % args.heads);
  if (row >= s.queries) return;
  const bool sees = load(&statistics_of(args, s)[row].log_sum) != infinity();
  T* to = rows_of<T>(args.grad_query, s, s.first_query) + row * args.grad_query.row;
  for (int column = lane_index(); column < args.dim; column += kWarp) {
    float sum = 0;
    for (int split = 0; split < args.splits; ++split) sum += load(share_row(args, split, n) + column);
    store(to + column, from_float<T>(sees ? sum * args.scale : 0.0f));
  }
}

constexpr int kSumThreads = 256, kSumColumns = 32, kSumSlices = kSumThreads / kSumColumns;

/// Gradient of relative_bias: a block adds up 32 columns of a head's parts, eight slices of them at a time, and then the slices.
MOLFUSE_KERNEL(kSumThreads, 4) sum_relative(const Args args, int parts, float* to, int64_t head_stride, int64_t column_stride) {
  float* slices = reinterpret_cast<float*>(shared_memory());
  const int column = block_x() * kSumColumns + thread_index() % kSumColumns, slice = thread_index() / kSumColumns, head = block_y();
  const int distances = 2 * args.radius + 1;
  float sum = 0;
  if (column < distances) {
    for (int64_t n = slice; n < static_cast<int64_t>(args.batch) * parts; n += kSumSlices) {
      sum += load(args.relative_parts + ((n / parts * args.heads + head) * parts + n % parts) * distances + column);
    }
  }
  store(slices + thread_index(), sum);
  sync_block();
  if (slice != 0 || column >= distances) return;
  for (int n = 1; n < kSumSlices; ++n) sum += load(slices + n * kSumColumns + thread_index());
  store(to + head * head_stride + column * column_stride, sum);
}

// ---- a bias that is broadcast

/// A block owns a part of the bias: rows x keys, one row or one column, or one number; it goes over everything that adds to it, one tile
/// after the other, and keeps the sum of the score gradients in registers.
template <class T, int DIM>
MOLFUSE_KERNEL((BackwardPlan<T, DIM>::kThreads), 2) bias_gradient(const Args args, const BiasWork work) {
  using Plan = BackwardPlan<T, DIM>;
  constexpr int kTiles = Plan::kStream / 8;
  unsigned char* queries = shared_memory();
  unsigned char* grads = queries + Plan::kResidentBytes;
  unsigned char* keys = grads + Plan::kResidentBytes;
  unsigned char* values = keys + Plan::kStreamBytes;
  float* rest = reinterpret_cast<float*>(values + Plan::kStreamBytes);
  const int lane = lane_index(), own = 16 * warp_index();
  int index = block_x();
  const int part = index % work.parts;
  index /= work.parts;
  const int column_block = index % work.column_blocks;
  index /= work.column_blocks;
  const int row_block = index % work.row_blocks, slab = index / work.row_blocks;
  const int slab_heads = work.over_heads != 0 ? 1 : args.heads, slab_batch = slab / slab_heads, slab_head = slab % slab_heads;
  const int row_tiles = work.over_rows != 0 ? (args.queries + Plan::kRows - 1) / Plan::kRows : 1;
  const int column_tiles = work.over_columns != 0 ? (args.keys + Plan::kStream - 1) / Plan::kStream : 1;
  const int group_heads = work.over_heads != 0 ? args.heads : 1;
  const int64_t items = static_cast<int64_t>(work.over_batch != 0 ? args.batch : 1) * group_heads * row_tiles * column_tiles;
  float sum[kTiles][4] = {};
  int loaded_head = -1;
  for (int64_t item = items * part / work.parts; item < items * (part + 1) / work.parts; ++item) {
    int64_t n = item;
    const int column_tile = static_cast<int>(n % column_tiles);
    n /= column_tiles;
    const int row_tile = static_cast<int>(n % row_tiles);
    n /= row_tiles;
    const int head = work.over_heads != 0 ? static_cast<int>(n % group_heads) : slab_head;
    const int b = work.over_batch != 0 ? static_cast<int>(n / group_heads) : slab_batch;
    const Sequence s = sequence_of(args, b, head);
    const int first = (work.over_rows != 0 ? row_tile : row_block) * Plan::kRows;
    const int first_key = (work.over_columns != 0 ? column_tile : column_block) * Plan::kStream;
    const KeyRange range = keys_of_rows(args, s, first, Plan::kRows);
    if (first_key >= range.some) continue;
    sync_block();
    load_tile<T, DIM, Plan::kRows, Plan::kThreads>(queries, args.query, rows_of<const T>(args.query, s, 0), first, s.first_row(args), s.queries,
                                                   args.dim);
    load_tile<T, DIM, Plan::kRows, Plan::kThreads>(grads, args.grad_out, rows_of<const T>(args.grad_out, s, 0), first, s.first_row(args),
                                                   s.queries, args.dim);
    load_tile<T, DIM, Plan::kStream, Plan::kThreads>(keys, args.key, rows_of<const T>(args.key, s, 0), first_key, 0, s.length, args.dim);
    load_tile<T, DIM, Plan::kStream, Plan::kThreads>(values, args.value, rows_of<const T>(args.value, s, 0), first_key, 0, s.length, args.dim);
    commit_copies();
    if (head != loaded_head) load_relative<T>(args, head, rest, Plan::kThreads);
    loaded_head = head;
    RowStatistics row[2];
    MOLFUSE_UNROLL
    for (int r = 0; r < 2; ++r) row[r] = statistics_at(statistics_of(args, s), first + own + lane / 4 + 8 * r, s.queries);
    wait_copies<0>();
    sync_block();
    float slopes[kTiles][4];
    row_slopes<T, DIM, true>(slopes, args, s, rest, queries, grads, keys, values, row, own, first, first_key, true, false);
    MOLFUSE_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      MOLFUSE_UNROLL
      for (int e = 0; e < 4; ++e) sum[t][e] += slopes[t][e];
    }
  }
  // Over rows: over a lane's two and its warp's lanes of a column, then over warps. Over columns: over a lane's, and four lanes.
  if (work.over_columns != 0) {
    MOLFUSE_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      MOLFUSE_UNROLL
      for (int e = 0; e < 4; ++e) {
        if (t != 0 || (e & 1) != 0) sum[0][e & 2] += sum[t][e];
      }
    }
    MOLFUSE_UNROLL
    for (int r = 0; r < 2; ++r) {
      sum[0][2 * r] += shuffle_xor(sum[0][2 * r], 1);
      sum[0][2 * r] += shuffle_xor(sum[0][2 * r], 2);
    }
  }
  float* warps = reinterpret_cast<float*>(queries);
  if (work.over_rows != 0) {
    sync_block();
    MOLFUSE_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      MOLFUSE_UNROLL
      for (int c = 0; c < 2; ++c) {
        float column_sum = sum[t][c] + sum[t][2 + c];
        column_sum += shuffle_xor(column_sum, 4);
        column_sum += shuffle_xor(column_sum, 8);
        column_sum += shuffle_xor(column_sum, 16);
        if (lane < 4) store(warps + warp_index() * Plan::kStream + 8 * t + 2 * lane + c, column_sum);
      }
    }
    sync_block();
  }
  const int rows = work.over_rows != 0 ? 1 : args.queries, columns = work.over_columns != 0 ? 1 : args.keys;
  auto put = [&](int i, int j, float value) {
    if (i >= rows || j >= columns) return;
    if (work.parts > 1) {
      const int64_t slabs = static_cast<int64_t>(work.over_batch != 0 ? 1 : args.batch) * slab_heads;
      store(work.partial + ((part * slabs + slab) * rows + i) * columns + j, value);
    } else {
      const BiasStrides& strides = args.grad_bias_strides;
      store(args.grad_bias + slab_batch * strides.batch + slab_head * strides.head + i * strides.row + j * strides.column, value);
    }
  };
  if (work.over_rows != 0) {
    const int width = work.over_columns != 0 ? 1 : Plan::kStream;
    for (int c = thread_index(); c < width; c += Plan::kThreads) {
      float total = 0;
      for (int w = 0; w < Plan::kWarps; ++w) total += load(warps + w * Plan::kStream + c);
      put(0, column_block * Plan::kStream + c, total);
    }
    return;
  }
  const auto position = Position<false>::of_lane(row_block * Plan::kRows + own, column_block * Plan::kStream);
  if (work.over_columns != 0) {
    MOLFUSE_UNROLL
    for (int r = 0; r < 2; ++r) {
      if (lane % 4 == 0) put(position.query(0, 2 * r), 0, sum[0][2 * r]);
    }
    return;
  }
  MOLFUSE_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) put(position.query(t, e), position.key(t, e), sum[t][e]);
  }
}

/// Adds up the parts of a bias's gradient [batch, heads, rows, columns], in order.
struct BiasSizes {
  int64_t heads, rows, columns, elements;
};
MOLFUSE_KERNEL(kSumThreads, 4) sum_bias(const Args args, const BiasWork work, const BiasSizes sizes) {
  const int64_t n = static_cast<int64_t>(block_x()) * kSumThreads + thread_index();
  if (n >= sizes.elements) return;
  float sum = 0;
  for (int part = 0; part < work.parts; ++part) sum += load(work.partial + part * sizes.elements + n);
  const int64_t j = n % sizes.columns, i = n / sizes.columns % sizes.rows, slab = n / sizes.columns / sizes.rows;
  const BiasStrides& strides = args.grad_bias_strides;
  store(args.grad_bias + slab / sizes.heads * strides.batch + slab % sizes.heads * strides.head + i * strides.row + j * strides.column, sum);
}

// ---- dispatch

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T, int DIM>
void launch_bias(Args args, const AttentionProblem& p, DeviceCall& call) {
  using Plan = BackwardPlan<T, DIM>;
  const int64_t batch = p.bias_size[0], heads = p.bias_size[1], rows = p.bias_size[2], columns = p.bias_size[3];
  const BiasSizes sizes{heads, rows, columns, batch * heads * rows * columns};
  if (sizes.elements == 0) return;
  BiasWork work{};
  work.over_batch = batch != p.batch;
  work.over_heads = heads != p.heads;
  work.over_rows = rows != p.queries;
  work.over_columns = columns != p.keys;
  work.row_blocks = static_cast<int32_t>(work.over_rows != 0 ? 1 : divide_up(rows, Plan::kRows));
  work.column_blocks = static_cast<int32_t>(work.over_columns != 0 ? 1 : divide_up(columns, Plan::kStream));
  const int64_t blocks = batch * heads * work.row_blocks * work.column_blocks;
  // Few blocks are divided into parts. What that needs of memory stays linear: a row or a column each, and for a bias of N x M no more than
  // lse has.
  int64_t parts = divide_up(int64_t{4} * call.device().multiprocessors, blocks);
  const int64_t items = (p.batch / std::max<int64_t>(batch, 1)) * (p.heads / std::max<int64_t>(heads, 1));
  parts = std::min<int64_t>(parts, work.over_rows != 0 || work.over_columns != 0 ? 64 : std::min(items, p.batch * p.heads * p.queries / sizes.elements));
  work.parts = static_cast<int32_t>(std::max<int64_t>(parts, 1));
  if (work.parts > 1) work.partial = call.scratch<float>(work.parts * sizes.elements);
  const size_t shared = place_relative(args, 2 * Plan::kResidentBytes + 2 * Plan::kStreamBytes, call);
  call.launch("attention bias_gradient", bias_gradient<T, DIM>, Grid{blocks * work.parts, 1, 1}, Plan::kThreads, shared, args, work);
  if (work.parts > 1) {
    call.launch("attention sum_bias", sum_bias, Grid{divide_up(sizes.elements, kSumThreads), 1, 1}, kSumThreads, 0, args, work, sizes);
  }
}

// f32 has one set of kernels: its products take so long that the features' tests are not seen.
template <class T>
constexpr bool kOneSet = sizeof(T) == 4;

template <class T, int DIM>
void launch_query(Args args, const AttentionProblem& p, DeviceCall& call) {
  using Plan = BackwardPlan<T, DIM>;
  if (p.grad_query.data == nullptr && p.grad_relative == nullptr && args.grad_bias_direct == 0) return;
  const int64_t pairs = p.batch * p.heads;
  int64_t parts = divide_up(p.queries, Plan::kRows);
  size_t shared = Plan::kTileBytes;
  const int64_t column_blocks = DIM / Plan::kQueryColumns, rows = pairs * p.queries;
  args.splits = splits_of(pairs * parts * column_blocks, Plan::kBlocks, p.keys, call);
  if (args.splits > 1 && p.grad_query.data != nullptr) args.shares = call.scratch<float>(args.splits * rows * args.dim);
  if (p.grad_relative != nullptr) {
    // Each part has a row of sums for every warp: no more parts than fill the device.
    parts = std::max<int64_t>(1, std::min({parts, int64_t{64}, divide_up(int64_t{4} * call.device().multiprocessors, std::max<int64_t>(pairs, 1))}));
    args.relative_parts = call.scratch<float>(pairs * parts * args.splits * Plan::kWarps * (2 * p.radius + 1));
    shared += Plan::kWarps * Plan::kDiagonalFloats * sizeof(float);
  }
  shared = place_relative(args, shared, call);
  if (p.grad_relative != nullptr) shared = place_relative_sums(args, Plan::kWarps, shared, call);
  const auto kernel = has_features(args) ? query_gradient<T, DIM, true> : query_gradient<T, DIM, kOneSet<T>>;
  call.launch("attention query_gradient", kernel, Grid{pairs * parts, column_blocks * args.splits, 1}, Plan::kThreads, shared, args,
              static_cast<int>(parts));
  constexpr int kJoinRows = kJoinThreads / kWarp;
  if (args.shares != nullptr) call.launch("attention sum_shares", sum_shares<T>, Grid{divide_up(rows, kJoinRows), 1, 1}, kJoinThreads, 0, args);
  if (p.grad_relative != nullptr) reduce_relative(args, p, parts * args.splits * Plan::kWarps, call);
}

template <class T, int DIM>
void launch_key_value(Args args, const AttentionProblem& p, DeviceCall& call) {
  using Plan = BackwardPlan<T, DIM>;
  if (p.grad_key.data == nullptr && p.grad_value.data == nullptr) return;
  const size_t shared = place_relative(args, Plan::kTileBytes, call);
  const auto kernel = has_features(args) ? key_value_gradient<T, DIM, true> : key_value_gradient<T, DIM, kOneSet<T>>;
  const Grid grid{p.batch * p.heads * divide_up(p.keys, Plan::kRows), DIM / Plan::kColumns, 1};
  call.launch("attention key_value_gradient", kernel, grid, Plan::kThreads, shared, args);
}

template <class T, int DIM>
void launch_backward(Args args, const AttentionProblem& p, DeviceCall& call) {
  const int64_t pairs = p.batch * p.heads;
  const bool over_any = p.grad_bias != nullptr && (p.bias_size[0] != p.batch || p.bias_size[1] != p.heads || p.bias_size[2] != p.queries ||
                                                   p.bias_size[3] != p.keys);
  args.grad_bias_direct = p.grad_bias != nullptr && !over_any;
  // Where all keys of a row are seen together, its sums come from the scores: better than from out, which is rounded.
  if (over_any) args.statistics = call.scratch<RowStatistics>(pairs * p.queries);
  if (!tiny_backward(args, p, call) && !short_backward(args, p, call)) {
    if (!over_any) args.statistics = call.scratch<RowStatistics>(p.cu_q != nullptr ? p.heads * p.total_q : pairs * p.queries);
    const Grid grid{pairs * divide_up(p.queries, kStatisticsRows), 1, 1};
    call.launch("attention row_statistics", row_statistics<T>, grid, kStatisticsThreads, 0, args);
    launch_query<T, DIM>(args, p, call);
    launch_key_value<T, DIM>(args, p, call);
  }
  if (over_any) launch_bias<T, DIM>(args, p, call);
}

using Launcher = void (*)(Args, const AttentionProblem&, DeviceCall&);

template <class T>
Launcher launcher_of(int64_t dim) {
  if (dim <= 16) return launch_backward<T, 16>;
  if (dim <= 32) return launch_backward<T, 32>;
  if (dim <= 64) return launch_backward<T, 64>;
  if constexpr (sizeof(T) == 2) {
    if (dim <= 96 && dim > 64) return launch_backward<T, 96>;
  }
  if (dim <= 128) return launch_backward<T, 128>;
  return launch_backward<T, 256>;
}

}  // namespace

void reduce_relative(const Args& args, const AttentionProblem& p, int64_t parts, DeviceCall& call) {
  call.launch("attention sum_relative", sum_relative, Grid{divide_up(2 * p.radius + 1, kSumColumns), p.heads, 1}, kSumThreads,
              kSumThreads * sizeof(float), args, static_cast<int>(parts), static_cast<float*>(p.grad_relative), p.grad_relative_head,
              p.grad_relative_column);
}

}  // namespace attention_device

void attention_backward_device(const AttentionProblem& p, DeviceCall& call) {
  const attention_device::Args args = attention_device::device_args(p, call);
  switch (p.dtype) {
    case MOLFUSE_F16: return attention_device::launcher_of<f16>(p.dim)(args, p, call);
    case MOLFUSE_BF16: return attention_device::launcher_of<bf16>(p.dim)(args, p, call);
    default: return attention_device::launcher_of<float>(p.dim)(args, p, call);
  }
}

}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// What the attention kernels for GPUs share: their view of a call, tiles in shared memory, products on tensor cores (runtime/tiles.h), and
// what is done to a score.
#pragma once

#include <cstdint>

#include "attention/kernels.h"
#include "runtime/device_report.h"
#include "runtime/tiles.h"

namespace molfuse {
namespace attention_device {

using namespace device;

constexpr float kLog2e = 1.4426950408889634f;

/// Scores are kept times this. In f32 they stay as they are, so that a weight's exponent is rounded only after the subtraction, when it is
/// small; the 16-bit types save the product by log2(e) for each of them.
template <class T>
constexpr float kScoreUnit = sizeof(T) == 4 ? 1.0f : kLog2e;
template <class T>
constexpr float kToLog = sizeof(T) == 4 ? 1.0f : 0.6931471805599453f;
/// e to the power of a difference of kept scores.
template <class T>
MOLFUSE_DEVICE float power(float difference) {
  return exp2_fast(sizeof(T) == 4 ? difference * kLog2e : difference);
}

/// Rows of head-size elements. aligned: every row begins at a multiple of 16 bytes.
struct Operand {
  void* data;
  int64_t batch, head, row;
  int32_t aligned;
};

/// Strides of a bias, or of its gradient; 0 where broadcast.
struct BiasStrides {
  int64_t batch, head, row, column;
};

/// A row's log-sum-exp, in the unit of scores, and the sum of out * grad_out. +infinity for a row that sees nothing: its weights are then 0.
struct alignas(8) RowStatistics {
  float log_sum, delta;
};

/// Of the keys that a block has seen of a row: the largest score and the sum of powers over it.
struct alignas(8) ShareSoftmax {
  float largest, total;
};

struct Args {
  Operand query, key, value, out, grad_out, grad_query, grad_key, grad_value, key_new, value_new;
  const int32_t *cu_q, *cu_k;
  int64_t total_q, total_k;
  const void* key_lengths;
  int64_t lengths_stride;
  int32_t lengths_wide;
  int32_t batch, heads, queries, keys, dim;
  int32_t causal, tf32;
  float* lse;
  int64_t lse_batch, lse_head, lse_row;
  const void* bias;
  int32_t bias_narrow;  // of the operands' type, else f32
  BiasStrides bias_strides;
  float* grad_bias;
  BiasStrides grad_bias_strides;
  int32_t grad_bias_direct;  // bias is broadcast nowhere: the kernel of the query gradient writes each element
  const void* relative;
  int32_t relative_narrow, relative_shared;
  int64_t relative_head, relative_column;
  int32_t radius;
  float* relative_parts;  // [parts][2R+1] of each head, NULL: not wanted
  int32_t relative_parts_shared;
  float scale, score_scale, keep_scale;
  uint32_t threshold, offset_low, key_low, key_high;
  RowStatistics* statistics;
  /// Where a row's keys are shared by `splits` > 1 blocks: what each has summed, [splits][B * H * N][dim], and its softmax.
  int32_t splits;
  float* shares;
  ShareSoftmax* share_softmax;
  unsigned long long* report;
};

/// Fills what both directions use. Throws for f64.
Args device_args(const AttentionProblem&, DeviceCall&);

/// Biases, dropout and gradients of biases have kernels of their own: without them, a kernel needs fewer registers.
inline bool has_features(const Args& args) {
  return args.bias != nullptr || args.relative != nullptr || args.threshold != 0;
}

/// Most that a relative bias, or the sums of its gradient, may take of a block's shared memory; larger ones stay in global memory.
constexpr size_t kRelativeBytes = size_t{16} << 10;

/// Both return the shared memory that the block needs then.
inline size_t place_relative(Args& args, size_t shared, const DeviceCall& call) {
  const size_t bytes = (2 * static_cast<size_t>(args.radius) + 1) * sizeof(float);
  args.relative_shared = args.relative != nullptr && bytes <= kRelativeBytes && shared + bytes <= call.device().shared_per_block;
  return shared + (args.relative_shared != 0 ? bytes : 0);
}
inline size_t place_relative_sums(Args& args, int warps, size_t shared, const DeviceCall& call) {
  const size_t bytes = static_cast<size_t>(warps) * (2 * static_cast<size_t>(args.radius) + 1) * sizeof(float);
  args.relative_parts_shared = bytes <= kRelativeBytes && shared + bytes <= call.device().shared_per_block;
  return shared + (args.relative_parts_shared != 0 ? bytes : 0);
}

/// Blocks that share the keys of a block of queries: one where `blocks` of them, so many to a multiprocessor, fill half of the device.
int32_t splits_of(int64_t blocks, int per_multiprocessor, int64_t keys, const DeviceCall&);

/// Adds up parts [B][H][parts][2R+1] to the gradient of relative_bias.
void reduce_relative(const Args&, const AttentionProblem&, int64_t parts, DeviceCall&);
/// Both directions of at most 16 queries and keys; false if the problem is not of that kind. Backward leaves out the gradients of biases that
/// are sums over heads or sequences.
bool tiny_forward(const Args&, const AttentionProblem&, DeviceCall&);
bool tiny_backward(const Args&, const AttentionProblem&, DeviceCall&);
/// The backward pass of few keys in one kernel; false if the problem is not of that kind.
bool short_backward(const Args&, const AttentionProblem&, DeviceCall&);

// ---- which rows and keys a block is about

/// One head of one sequence. length: keys that can be seen at all.
struct Sequence {
  int32_t batch, head, queries, keys, length;
  int64_t first_query, first_key;  // in the packed form's rows

  /// How many keys row i sees: those below.
  MOLFUSE_DEVICE int limit(const Args& args, int i) const {
    if (i < 0 || i >= queries) return 0;
    if (args.causal == 0) return length;
    const int seen = i + keys - queries + 1;
    return seen < 0 ? 0 : seen < length ? seen : length;
  }
  /// The first row that sees anything.
  MOLFUSE_DEVICE int first_row(const Args& args) const {
    if (length == 0) return queries;
    return args.causal != 0 && queries > keys ? queries - keys : 0;
  }
};

/// One of the two packed operands' ranges; a wrong one is reported and is empty.
MOLFUSE_DEVICE void packed_range(const Args& args, const int32_t* starts, int b, int64_t total, int longest, Fault fault, bool reports,
                                 int64_t* first, int32_t* count) {
  const int64_t begin = load(starts + b), end = load(starts + b + 1);
  const bool begins = b > 0 || begin == 0, ends = b + 1 < args.batch || end == total;
  if (begin < 0 || end < begin || end > total || end - begin > longest || !begins || !ends) {
    const bool blame_begin = begin < 0 || begin > total || !begins;
    if (reports) report_fault(args.report, fault, blame_begin ? b : b + 1, blame_begin ? begin : end);
    *first = 0;
    *count = 0;
    return;
  }
  *first = begin;
  *count = static_cast<int32_t>(end - begin);
}

MOLFUSE_DEVICE int64_t length_at(const Args& args, int b) {
  if (args.lengths_wide != 0) return load(static_cast<const int64_t*>(args.key_lengths) + b * args.lengths_stride);
  return load(static_cast<const int32_t*>(args.key_lengths) + b * args.lengths_stride);
}

/// reports: whether the calling thread reports what is wrong.
MOLFUSE_DEVICE Sequence sequence_of(const Args& args, int b, int head, bool reports) {
  Sequence s{b, head, args.queries, args.keys, args.keys, 0, 0};
  if (args.cu_q != nullptr) {
    packed_range(args, args.cu_q, b, args.total_q, args.queries, Fault::cu_seqlens_q, reports, &s.first_query, &s.queries);
    packed_range(args, args.cu_k, b, args.total_k, args.keys, Fault::cu_seqlens_k, reports, &s.first_key, &s.keys);
    s.length = s.keys;
  } else if (args.key_lengths != nullptr) {
    const int64_t length = length_at(args, b);
    if (length < 0 || length > args.keys) {
      if (reports) report_fault(args.report, Fault::key_lengths, b, length);
      s.length = 0;
    } else {
      s.length = static_cast<int32_t>(length);
    }
  }
  return s;
}

MOLFUSE_DEVICE Sequence sequence_of(const Args& args, int b, int head) { return sequence_of(args, b, head, thread_index() == 0); }

/// Row 0 of a sequence's head.
template <class T>
MOLFUSE_DEVICE T* rows_of(const Operand& operand, const Sequence& s, int64_t first) {
  return static_cast<T*>(operand.data) + s.batch * operand.batch + s.head * operand.head + first * operand.row;
}
MOLFUSE_DEVICE float* lse_of(const Args& args, const Sequence& s) {
  return args.lse + s.batch * args.lse_batch + s.head * args.lse_head + s.first_query * args.lse_row;
}
MOLFUSE_DEVICE RowStatistics* statistics_of(const Args& args, const Sequence& s) {
  if (args.cu_q != nullptr) return args.statistics + s.head * args.total_q + s.first_query;
  return args.statistics + (static_cast<int64_t>(s.batch) * args.heads + s.head) * args.queries;
}

// ---- tiles in shared memory

/// Begins to load ROWS rows from row `first` on; rows outside begin..end-1 and columns from dim on are zero.
template <class T, int DIM, int ROWS, int THREADS>
MOLFUSE_DEVICE void load_tile(unsigned char* to, const Operand& operand, const T* base, int first, int begin, int end, int dim) {
  using Rows = Tile<T, DIM>;
  for (int n = thread_index(); n < ROWS * Rows::kChunks; n += THREADS) {
    const int row = n / Rows::kChunks, chunk = n % Rows::kChunks, at = first + row;
    const bool valid = at >= begin && at < end && chunk * Rows::kChunk < dim;
    const T* from = valid ? base + at * operand.row + chunk * Rows::kChunk : base;
    if (operand.aligned != 0) {
      copy_async(to + Rows::offset(row, chunk), from, valid);
    } else {
      Vector<T, Rows::kChunk> v;
      MOLFUSE_UNROLL
      for (int e = 0; e < Rows::kChunk; ++e) v.item[e] = valid ? load(from + e) : from_float<T>(0.0f);
      store(reinterpret_cast<Vector<T, Rows::kChunk>*>(to + Rows::offset(row, chunk)), v);
    }
  }
}

/// Writes a warp's 16 rows of accumulators, times a factor for each of the lane's two rows, by way of `stage`, 16 rows of shared memory
/// that are the warp's own. A factor of 0 writes zeros, whatever the accumulators hold.
template <class T, int COLUMNS>
MOLFUSE_DEVICE void write_rows(const float (&acc)[COLUMNS / 8][4], const float (&factor)[2], unsigned char* stage, const Operand& operand,
                               T* base, int first, int end, int first_column, int dim) {
  using Rows = Tile<T, COLUMNS>;
  const int lane = lane_index(), g = lane / 4, t = lane % 4;
  sync_warp();
  MOLFUSE_UNROLL
  for (int n = 0; n < COLUMNS / 8; ++n) {
    MOLFUSE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const float low = factor[r] == 0 ? 0.0f : acc[n][2 * r] * factor[r], high = factor[r] == 0 ? 0.0f : acc[n][2 * r + 1] * factor[r];
      if constexpr (sizeof(T) == 2) {
        store(reinterpret_cast<uint32_t*>(stage + Rows::offset(g + 8 * r, n) + 4 * t), pack<T>(low, high));
      } else {
        store(reinterpret_cast<Vector<float, 2>*>(stage + Rows::offset(g + 8 * r, 2 * n + t / 2) + t % 2 * 8), Vector<float, 2>{{low, high}});
      }
    }
  }
  sync_warp();
  for (int n = lane; n < 16 * Rows::kChunks; n += kWarp) {
    const int row = n / Rows::kChunks, chunk = n % Rows::kChunks, column = first_column + chunk * Rows::kChunk;
    if (first + row >= end || column >= dim) continue;
    const auto v = load(reinterpret_cast<const Vector<T, Rows::kChunk>*>(stage + Rows::offset(row, chunk)));
    T* to = base + (first + row) * operand.row + column;
    if (operand.aligned != 0) {
      store(reinterpret_cast<Vector<T, Rows::kChunk>*>(to), v);
    } else {
      MOLFUSE_UNROLL
      for (int e = 0; e < Rows::kChunk; ++e) store(to + e, v.item[e]);
    }
  }
  sync_warp();
}

constexpr int kJoinThreads = 128;

/// Row n of B * H * N, as a block's share of it.
MOLFUSE_DEVICE float* share_row(const Args& args, int split, int64_t n) {
  return args.shares + (split * (int64_t{args.batch} * args.heads * args.queries) + n) * args.dim;
}
MOLFUSE_DEVICE ShareSoftmax* share_softmax(const Args& args, int split, int64_t n) {
  return args.share_softmax + split * (int64_t{args.batch} * args.heads * args.queries) + n;
}

/// Writes a lane's part of a row of accumulators, element 2r and 2r + 1 of each tile, as a share.
template <int TILES>
MOLFUSE_DEVICE void write_share(const Args& args, int split, int pair, int row, int rows, int column, int r, const float (&acc)[TILES][4]) {
  if (row >= rows) return;
  float* to = share_row(args, split, static_cast<int64_t>(pair) * args.queries + row);
  MOLFUSE_UNROLL
  for (int n = 0; n < TILES; ++n) {
    const int at = column + 8 * n + lane_index() % 4 * 2;
    if (at < args.dim) store(reinterpret_cast<Vector<float, 2>*>(to + at), Vector<float, 2>{{acc[n][2 * r], acc[n][2 * r + 1]}});
  }
}

// ---- products

/// f32's products have so many addresses that, kept over the caller's loop, they would not fit in registers.
template <class T>
MOLFUSE_DEVICE int product_lane() {
  return sizeof(T) == 4 ? fresh(lane_index()) : lane_index();
}

/// Sets acc to the products of 16 rows of one tile, from row `row` on, with 8 * TILES rows of another.
template <class T, int DIM, int TILES>
MOLFUSE_DEVICE void multiply_rows(float (&acc)[TILES][4], const unsigned char* left, int row, const unsigned char* right, bool tf32) {
  using Rows = Tile<T, DIM>;
  const int lane = product_lane<T>();
  MOLFUSE_UNROLL
  for (int n = 0; n < TILES; ++n) {
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) acc[n][e] = 0;
  }
  // The sums of the small products of f32 are kept apart: fewer roundings of the large ones. Where a score's gradient is the difference of
  // two almost equal sums, they would be seen.
  constexpr bool kApart = sizeof(T) == 4;
  float small[kApart ? TILES : 1][4] = {};
  // f32's long loops would keep every address of theirs in a register.
  [[maybe_unused]] constexpr int kUnroll = kApart ? 2 : Rows::kRowBytes / 32;
  MOLFUSE_UNROLL_BY(kUnroll)
  for (int k = 0; k < Rows::kRowBytes / 32; ++k) {
    uint32_t bits[4];
    load_matrices(bits, left + Rows::offset(row + (lane & 15), 2 * k + (lane >> 4)));
    const Left<T> a = left_of<T>(bits, tf32);
    MOLFUSE_UNROLL
    for (int n = 0; n < TILES; n += 2) {
      uint32_t b[4];
      load_matrices(b, right + Rows::offset(8 * n + (lane & 7) + (lane >> 4 << 3), 2 * k + (lane >> 3 & 1)));
      multiply<T>(acc[n], small[kApart ? n : 0], a, b[0], b[1], tf32);
      multiply<T>(acc[n + 1], small[kApart ? n + 1 : 0], a, b[2], b[3], tf32);
    }
  }
  if constexpr (kApart) {
    MOLFUSE_UNROLL
    for (int n = 0; n < TILES; ++n) {
      MOLFUSE_UNROLL
      for (int e = 0; e < 4; ++e) acc[n][e] += small[n][e];
    }
  }
}

/// acc += weights * right, where weights [16, 8 * TILES] are accumulators of a product before and right has 8 * TILES rows, of which
/// COLUMNS columns from `column` on are taken. An accumulator is half a left fragment for 16-bit types; for f32 it is a whole one if its
/// columns 2t and 2t+1 are called depths t and t+4 and right's rows are taken in that order.
template <class T, int DIM, int COLUMNS, int TILES>
MOLFUSE_DEVICE void multiply_weights(float (&acc)[COLUMNS / 8][4], const float (&weights)[TILES][4], const unsigned char* right, int column,
                                     bool tf32) {
  using Rows = Tile<T, DIM>;
  const int lane = product_lane<T>(), g = lane / 4, t = lane % 4;
  constexpr int kStep = sizeof(T) == 4 ? 1 : 2;
  MOLFUSE_UNROLL
  for (int s = 0; s < TILES; s += kStep) {
    uint32_t bits[4];
    if constexpr (sizeof(T) == 4) {
      bits[0] = bits_of(weights[s][0]);
      bits[1] = bits_of(weights[s][2]);
      bits[2] = bits_of(weights[s][1]);
      bits[3] = bits_of(weights[s][3]);
    } else {
      bits[0] = pack<T>(weights[s][0], weights[s][1]);
      bits[1] = pack<T>(weights[s][2], weights[s][3]);
      bits[2] = pack<T>(weights[s + 1][0], weights[s + 1][1]);
      bits[3] = pack<T>(weights[s + 1][2], weights[s + 1][3]);
    }
    const Left<T> a = left_of<T>(bits, tf32);
    MOLFUSE_UNROLL
    for (int n = 0; n < COLUMNS / 8; n += 2) {
      uint32_t b[4];
      if constexpr (sizeof(T) == 4) {
        MOLFUSE_UNROLL
        for (int m = 0; m < 4; ++m) {
          const int at = column + 8 * (n + m / 2) + g;
          b[m] = load(reinterpret_cast<const uint32_t*>(right + Rows::offset(8 * s + 2 * t + m % 2, at / 4) + at % 4 * 4));
        }
      } else {
        load_matrices_transposed(b, right + Rows::offset(8 * s + (lane & 15), column / 8 + n + (lane >> 4)));
      }
      multiply<T>(acc[n], acc[n], a, b[0], b[1], tf32);
      multiply<T>(acc[n + 1], acc[n + 1], a, b[2], b[3], tf32);
    }
  }
}

// ---- scores. Accumulators of a tile have queries for rows and keys for columns, or the other way round if TRANSPOSED.

/// Query and key of element e of tile n of the calling lane.
template <bool TRANSPOSED>
struct Position {
  int row, column;  // of element 0 of tile 0
  static MOLFUSE_DEVICE Position of_lane(int first_row, int first_column) {
    return {first_row + lane_index() / 4, first_column + lane_index() % 4 * 2};
  }
  MOLFUSE_DEVICE int query(int n, int e) const { return TRANSPOSED ? column + 8 * n + (e & 1) : row + 8 * (e >> 1); }
  MOLFUSE_DEVICE int key(int n, int e) const { return TRANSPOSED ? row + 8 * (e >> 1) : column + 8 * n + (e & 1); }
};

template <class T>
MOLFUSE_DEVICE float float_at(const void* data, int narrow, int64_t at) {
  if constexpr (sizeof(T) == 2) {
    if (narrow != 0) return to_float(load(static_cast<const T*>(data) + at));
  }
  return load(static_cast<const float*>(data) + at);
}

/// Copies the head's relative bias, in the unit of scores, to shared memory where there is room for it.
template <class T>
MOLFUSE_DEVICE void load_relative(const Args& args, int head, float* to, int threads) {
  if (args.relative == nullptr || args.relative_shared == 0) return;
  for (int n = thread_index(); n < 2 * args.radius + 1; n += threads) {
    store(to + n, float_at<T>(args.relative, args.relative_narrow, head * args.relative_head + n * args.relative_column) * kScoreUnit<T>);
  }
}

/// Column of the relative bias for a pair.
MOLFUSE_DEVICE int relative_column(const Args& args, const Sequence& s, int i, int j) {
  const int64_t distance = static_cast<int64_t>(j) - i - (s.keys - s.queries), radius = args.radius;
  return static_cast<int>((distance < -radius ? -radius : distance > radius ? radius : distance) + radius);
}

/// Products become scores, -infinity where not visible. masked: whether anything in the tile may be invisible.
template <class T, bool TRANSPOSED, bool FEATURES, int TILES>
MOLFUSE_DEVICE void finish_scores(float (&s)[TILES][4], const Args& args, const Sequence& sequence, const float* relative, int first_row,
                                  int first_column, bool masked) {
  const auto position = Position<TRANSPOSED>::of_lane(first_row, first_column);
  MOLFUSE_UNROLL
  for (int n = 0; n < TILES; ++n) {
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) s[n][e] *= args.score_scale;
  }
  if (!masked && !(FEATURES && (args.bias != nullptr || args.relative != nullptr))) return;
  const int64_t bias_head = sequence.batch * args.bias_strides.batch + sequence.head * args.bias_strides.head;
  MOLFUSE_UNROLL
  for (int n = 0; n < TILES; ++n) {
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int i = position.query(n, e), j = position.key(n, e);
      if (j >= sequence.limit(args, i)) {
        s[n][e] = -infinity();
        continue;
      }
      if constexpr (FEATURES) {
        if (args.bias != nullptr) {
          const float bias = float_at<T>(args.bias, args.bias_narrow, bias_head + i * args.bias_strides.row + j * args.bias_strides.column);
          s[n][e] = fused_multiply_add(bias, kScoreUnit<T>, s[n][e]);
        }
        if (args.relative != nullptr) {
          const int column = relative_column(args, sequence, i, j);
          s[n][e] += args.relative_shared != 0 ? load(relative + column)
                                               : kScoreUnit<T> * float_at<T>(args.relative, args.relative_narrow,
                                                                      sequence.head * args.relative_head + column * args.relative_column);
        }
      }
    }
  }
}

/// Bit e: whether dropout keeps element e of tile n. A call of Philox decides for four neighbouring keys of a query; lanes that hold
/// elements of the same four share the calls among themselves.
template <bool TRANSPOSED>
MOLFUSE_DEVICE uint32_t kept(const Args& args, const Sequence& s, int first_row, int first_column, int n) {
  const int lane = lane_index(), g = lane / 4, t = lane % 4;
  const auto position = Position<TRANSPOSED>::of_lane(first_row, first_column);
  const int own = TRANSPOSED ? g & 3 : (t & 1) * 2;
  const PhiloxWords words = philox(static_cast<uint32_t>(position.key(n, own)) / 4, static_cast<uint32_t>(position.query(n, own)),
                                   static_cast<uint32_t>(s.batch * args.heads + s.head), args.offset_low, args.key_low, args.key_high);
  uint32_t drawn = 0;
  MOLFUSE_UNROLL
  for (int w = 0; w < 4; ++w) drawn |= words.w[w] >= args.threshold ? 1u << w : 0u;
  uint32_t mask = 0;
  if (TRANSPOSED) {
    // Lane g % 4 drew for element g % 4; bit 4e + (key % 4) of all.
    drawn <<= 4 * (g & 3);
    drawn |= shuffle_xor(drawn, 4);
    drawn |= shuffle_xor(drawn, 8);
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) mask |= (drawn >> (4 * e + (g & 3)) & 1u) << e;
  } else {
    drawn <<= 4 * (t & 1);
    drawn |= shuffle_xor(drawn, 1);
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) mask |= (drawn >> (4 * (e >> 1) + 2 * (t & 1) + (e & 1)) & 1u) << e;
  }
  return mask;
}

// ---- gradients of scores

/// The gradient of a score from its weight and the gradient of the weight after dropout. A weight of 0 adds nothing, whatever it is
/// multiplied with: what is not seen may hold anything.
MOLFUSE_DEVICE float score_gradient(float weight, float gradient, float delta) { return weight == 0 ? 0.0f : weight * (gradient - delta); }

/// Sums of score gradients by distance, for the gradient of relative_bias: each warp has its own, [2R+1], and a tile of shared memory.
constexpr int diagonal_floats(int width) { return 16 * (width + 1); }
MOLFUSE_DEVICE void begin_diagonals(const Args& args, float* sums) {
  for (int n = lane_index(); n < 2 * args.radius + 1; n += kWarp) store(sums + n, 0.0f);
  sync_warp();
}
/// Adds a warp's 16 rows. A lane takes whole diagonals, in order; what is beyond the radius it keeps in registers until the end, as several
/// diagonals go there.
template <bool TRANSPOSED, int TILES>
MOLFUSE_DEVICE void add_diagonals(const float (&slopes)[TILES][4], const Args& args, const Sequence& s, int first_row, int first_column,
                                  float* tile, float* sums, float* low, float* high) {
  constexpr int kWidth = 8 * TILES;
  const int lane = lane_index(), g = lane / 4, t = lane % 4;
  const int64_t offset = s.keys - s.queries;
  // Distance of diagonal 0, the smallest.
  const int64_t corner = TRANSPOSED ? static_cast<int64_t>(first_row) - (first_column + kWidth - 1) - offset
                                    : static_cast<int64_t>(first_column) - (first_row + 15) - offset;
  const bool all_high = corner >= args.radius, all_low = corner + kWidth + 14 <= -args.radius;
  if (all_high || all_low) {
    float sum = 0;
    MOLFUSE_UNROLL
    for (int n = 0; n < TILES; ++n) {
      MOLFUSE_UNROLL
      for (int e = 0; e < 4; ++e) sum += slopes[n][e];
    }
    // Not through a pointer that is chosen: that would put both into memory.
    if (all_high) {
      *high += sum;
    } else {
      *low += sum;
    }
    return;
  }
  MOLFUSE_UNROLL
  for (int n = 0; n < TILES; ++n) {
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) store(tile + (g + 8 * (e >> 1)) * (kWidth + 1) + 8 * n + 2 * t + (e & 1), slopes[n][e]);
  }
  sync_warp();
  for (int d = lane; d < kWidth + 15; d += kWarp) {
    float sum = 0;
    for (int r = 0; r < 16; ++r) {
      const int c = TRANSPOSED ? kWidth - 1 - d + r : d - 15 + r;
      if (c >= 0 && c < kWidth) sum += load(tile + r * (kWidth + 1) + c);
    }
    const int64_t distance = corner + d;
    if (distance >= args.radius) {
      *high += sum;
    } else if (distance <= -args.radius) {
      *low += sum;
    } else {
      store(sums + args.radius + distance, load(sums + args.radius + distance) + sum);
    }
  }
  sync_warp();
}
/// Adds what lanes kept, and copies the sums to where they are wanted, if they are not there already.
MOLFUSE_DEVICE void finish_diagonals(const Args& args, float* sums, float low, float high, float* to) {
  const int distances = 2 * args.radius + 1;
  sync_warp();
  low = group_sum(low);
  high = group_sum(high);
  if (lane_index() == 0) {
    store(sums, load(sums) + low);
    store(sums + distances - 1, load(sums + distances - 1) + high);
  }
  sync_warp();
  if (sums == to) return;
  for (int n = lane_index(); n < distances; n += kWarp) store(to + n, load(sums + n));
}

// Beside the one of int, which would hide it and take floats for ints.
using device::larger;
MOLFUSE_DEVICE int smaller(int a, int b) { return a < b ? a : b; }
MOLFUSE_DEVICE int larger(int a, int b) { return a > b ? a : b; }

/// Keys that some row of a tile sees (those below), and keys that every one of its rows sees.
struct KeyRange {
  int some, all;
};
MOLFUSE_DEVICE KeyRange keys_of_rows(const Args& args, const Sequence& s, int first, int rows) {
  const int last = smaller(first + rows, s.queries) - 1;
  return {s.limit(args, last), s.limit(args, first)};
}

}  // namespace attention_device
}  // namespace molfuse

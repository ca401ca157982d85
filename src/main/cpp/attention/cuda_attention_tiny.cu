// SPDX-License-Identifier: Apache-2.0
// Attention over at most 16 queries and keys, on a GPU. A warp has several pairs of a batch and a head: four of up to 4 queries and keys,
// two of up to 8, one of up to 16, side by side in one tile of 16 x 16 scores, of which the blocks on the diagonal count. Nothing passes
// through shared memory and no warp waits for another: operands go from global memory to the fragments of the products, and weights from one
// product to the next, in registers.
//
// What the kernels wait for is global memory. Forward, a warp has all of its 48 rows of inputs in flight before its first product: with the
// warps that the launch bounds make room for, 96 KB for each multiprocessor at 32 channels of 16 bits, 120 KB at 64 and 144 KB at 128.
// Backward it has 64 rows, at most 128 bytes of each at a time: 80, 128 and 96 KB. Its second look at three of the four operands, as right
// sides of products of weights, finds them in the first-level cache.
//
// The order of a sum is free, and so is the numbering of the columns of a product. With words of a row numbered so that a lane has
// neighbours, every load and store of the operands is one of 16 bytes a lane (8 for 32 channels of 16 bits in column form).
#include <algorithm>
#include <cstdlib>

#include "attention/device.h"

namespace molfuse {
namespace attention_device {
namespace {

template <class T, int DIM>
struct TinyPlan {
  static constexpr int kWarps = 4, kThreads = kWarps * kWarp;
  /// Row form: lane t of a row's four has 16 bytes of every 64.
  static constexpr int kChunk = 16 / static_cast<int>(sizeof(T)), kChunks = DIM / (4 * kChunk);
  /// Column form: lane g of eight has kWide channels, one for each of kWide products, of every 8 * kWide.
  static constexpr int kWide = DIM / 8 < kChunk ? DIM / 8 : kChunk, kGroups = DIM / (8 * kWide);
  static constexpr int kWords = kWide * static_cast<int>(sizeof(T)) / 4;
  static constexpr int kRowBytes = DIM * static_cast<int>(sizeof(T));
  /// Chunks of a row that backward has at a time.
  static constexpr int kDepth = kChunks < 2 ? kChunks : 2;
  static constexpr int kForwardBlocks = kRowBytes <= 64 ? 8 : kRowBytes <= 128 ? 5 : kRowBytes <= 256 ? 3 : 2;
  static constexpr int kBackwardBlocks = kRowBytes <= 64 ? 5 : kRowBytes <= 128 ? 4 : kRowBytes <= 256 ? 3 : 2;
};

/// How pairs are laid out. shift: log2 of the queries and keys a pair has room for.
struct TinyWork {
  int32_t pairs, shift;
  uint32_t heads_factor, heads_shift;  // pair / heads = (high word of pair * factor, plus pair) >> shift
};

/// The 16 rows of a warp's tile, as a lane of the row form has them: rows g and g + 8, each of a sequence and a row in it.
struct Rows {
  Sequence sequence[2];
  int row[2];
};

MOLFUSE_DEVICE Sequence pair_of(const Args& args, const TinyWork& work, int pair) {
  if (pair >= work.pairs) return Sequence{0, 0, 0, 0, 0, 0, 0};
  const auto n = static_cast<uint32_t>(pair);
  const auto high = static_cast<uint32_t>(static_cast<uint64_t>(n) * work.heads_factor >> 32);
  const auto batch = static_cast<int>((high + n) >> work.heads_shift);
  return sequence_of(args, batch, pair - batch * args.heads, true);
}

template <bool WHOLE>
MOLFUSE_DEVICE Rows rows_of_lane(const Args& args, const TinyWork& work, int first) {
  const int g = lane_index() / 4;
  Rows rows;
  rows.sequence[0] = pair_of(args, work, first + (WHOLE ? 0 : g >> work.shift));
  rows.sequence[1] = WHOLE ? rows.sequence[0] : pair_of(args, work, first + ((g + 8) >> work.shift));
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) rows.row[r] = WHOLE ? g + 8 * r : g & ((1 << work.shift) - 1);
  return rows;
}

// ---- from global memory. The dispatch has made sure that offsets have 31 bits.

/// Offset of a sequence's row 0.
MOLFUSE_DEVICE int offset_of(const Operand& operand, const Sequence& s, int64_t first) {
  return s.batch * static_cast<int>(operand.batch) + s.head * static_cast<int>(operand.head) +
         static_cast<int>(first) * static_cast<int>(operand.row);
}

/// Rows g and g + 8 of one operand, CHUNKS chunks from one on. word[r][c]: 64 c + 16 t bytes from there on.
template <int CHUNKS>
struct RowForm {
  uint32_t word[2][CHUNKS][4];
};
template <class T, int CHUNKS>
MOLFUSE_DEVICE void load_rows(RowForm<CHUNKS>& to, const Operand& operand, const int (&offset)[2], const bool (&valid)[2], int first, int dim) {
  constexpr int kChunk = 16 / static_cast<int>(sizeof(T));
  const int column = (4 * first + lane_index() % 4) * kChunk;
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const T* row = static_cast<const T*>(operand.data) + offset[r] + column;
    MOLFUSE_UNROLL
    for (int c = 0; c < CHUNKS; ++c) {
      Vector<uint32_t, 4> v{{0, 0, 0, 0}};
      if (valid[r] && column + 4 * c * kChunk < dim) v = load(reinterpret_cast<const Vector<uint32_t, 4>*>(row + 4 * c * kChunk));
      MOLFUSE_UNROLL
      for (int w = 0; w < 4; ++w) to.word[r][c][w] = v.item[w];
    }
  }
}

/// Where the column form's rows begin: rows 2t, 2t + 1, 2t + 8, 2t + 9, the first two of one sequence and the last two of one.
struct ColumnRows {
  int begin[2], end[2], row[2];  // rows begin..end-1 of a sequence hold something; row: that of the lane's even one

  MOLFUSE_DEVICE bool valid(int r) const { return row[r / 2] + r % 2 >= begin[r / 2] && row[r / 2] + r % 2 < end[r / 2]; }
};
template <bool WHOLE>
MOLFUSE_DEVICE ColumnRows column_rows(const TinyWork& work, int begin0, int end0, int begin1, int end1) {
  const int t = lane_index() % 4;
  ColumnRows rows;
  rows.begin[0] = shuffle(begin0, 8 * t);
  rows.end[0] = shuffle(end0, 8 * t);
  rows.begin[1] = WHOLE ? rows.begin[0] : shuffle(begin1, 8 * t);
  rows.end[1] = WHOLE ? rows.end[0] : shuffle(end1, 8 * t);
  rows.row[0] = WHOLE ? 2 * t : 2 * t & ((1 << work.shift) - 1);
  rows.row[1] = WHOLE ? 2 * t + 8 : rows.row[0];
  return rows;
}

/// The lane's channels of four rows, in one group of channels.
template <class T, int DIM>
struct ColumnForm {
  uint32_t word[4][TinyPlan<T, DIM>::kWords];
};
/// Of the two sequences, where row 0 is; of all four rows, the lane's channels in the first group.
template <class T, int DIM, bool WHOLE>
MOLFUSE_DEVICE void column_offsets(int (&to)[4], const Operand& operand, const int (&offset)[2], const ColumnRows& rows) {
  const int lane = lane_index(), channel = lane / 4 * TinyPlan<T, DIM>::kWide;
  const int first = shuffle(offset[0], 8 * (lane % 4)), second = WHOLE ? first : shuffle(offset[1], 8 * (lane % 4));
  const int stride = static_cast<int>(operand.row);
  to[0] = first + rows.row[0] * stride + channel;
  to[1] = to[0] + stride;
  to[2] = second + rows.row[1] * stride + channel;
  to[3] = to[2] + stride;
}
template <class T, int DIM>
MOLFUSE_DEVICE void load_columns(ColumnForm<T, DIM>& to, const Operand& operand, const int (&offset)[4], const ColumnRows& rows, int group,
                                 int dim) {
  using Plan = TinyPlan<T, DIM>;
  using Chunk = Vector<uint32_t, Plan::kWords>;
  const int first = 8 * Plan::kWide * group;
  const bool inside = first + lane_index() / 4 * Plan::kWide < dim;
  MOLFUSE_UNROLL
  for (int r = 0; r < 4; ++r) {
    Chunk v{};
    if (inside && rows.valid(r)) v = load(reinterpret_cast<const Chunk*>(static_cast<const T*>(operand.data) + offset[r] + first));
    MOLFUSE_UNROLL
    for (int w = 0; w < Plan::kWords; ++w) to.word[r][w] = v.item[w];
  }
}

// ---- scores

/// All three products of f32, even where one would be allowed: these kernels wait for memory.
constexpr bool kTf32 = false;

/// Elements of a lane's scores. WHOLE: tile n has columns 8n + 2t, 8n + 2t + 1 of rows g and g + 8. Otherwise the one tile has columns 2t
/// and 2t + 1 of row g, and 2t + 8 and 2t + 9 of row g + 8: nothing else can be on the diagonal.
template <bool WHOLE>
constexpr int kTinyTiles = WHOLE ? 2 : 1;

/// Sums of products of rows with rows. The small products of f32 are added apart from the large ones, as in multiply_rows.
struct RowProducts {
  float acc[2][4], small[2][4];
};
template <class T, int CHUNKS>
MOLFUSE_DEVICE void add_products(RowProducts& to, const RowForm<CHUNKS>& left, const RowForm<CHUNKS>& right) {
  MOLFUSE_UNROLL
  for (int c = 0; c < CHUNKS; ++c) {
    MOLFUSE_UNROLL
    for (int w = 0; w < 4; w += 2) {
      const Left<T> a = left_of<T>({left.word[0][c][w], left.word[1][c][w], left.word[0][c][w + 1], left.word[1][c][w + 1]}, kTf32);
      MOLFUSE_UNROLL
      for (int n = 0; n < 2; ++n) multiply<T>(to.acc[n], to.small[n], a, right.word[n][c][w], right.word[n][c][w + 1], kTf32);
    }
  }
}
template <bool WHOLE>
MOLFUSE_DEVICE void take_products(float (&to)[kTinyTiles<WHOLE>][4], const RowProducts& from) {
  MOLFUSE_UNROLL
  for (int n = 0; n < kTinyTiles<WHOLE>; ++n) {
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) to[n][e] = from.acc[WHOLE ? n : e / 2][e] + from.small[WHOLE ? n : e / 2][e];
  }
}

/// Whether the lane's columns are of its rows' pairs.
MOLFUSE_DEVICE bool on_diagonal(const TinyWork& work) {
  const int lane = lane_index();
  return (2 * (lane % 4)) >> work.shift == (lane / 4) >> work.shift;
}
template <bool WHOLE>
MOLFUSE_DEVICE int key_of(const TinyWork& work, int n, int e) {
  const int t = lane_index() % 4;
  return WHOLE ? 8 * n + 2 * t + (e & 1) : (2 * t & ((1 << work.shift) - 1)) + (e & 1);
}

/// Products become weights whose sum is in total, with the largest score in largest. A row that sees nothing has weights and
/// a total of 0.
template <class T, bool WHOLE>
MOLFUSE_DEVICE void weigh(float (&s)[kTinyTiles<WHOLE>][4], float (&largest)[2], float (&total)[2], const Args& args, const TinyWork& work,
                          const Rows& rows) {
  const bool diagonal = WHOLE || on_diagonal(work);
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const Sequence& sequence = rows.sequence[r];
    const int limit = diagonal ? sequence.limit(args, rows.row[r]) : 0;
    float most = -infinity();
    MOLFUSE_UNROLL
    for (int n = 0; n < kTinyTiles<WHOLE>; ++n) {
      MOLFUSE_UNROLL
      for (int e = 2 * r; e < 2 * r + 2; ++e) {
        const int j = key_of<WHOLE>(work, n, e);
        float score = -infinity();
        if (j < limit) {
          score = s[n][e] * args.score_scale;
          if (args.bias != nullptr) {
            const int64_t at = sequence.batch * args.bias_strides.batch + sequence.head * args.bias_strides.head +
                               rows.row[r] * args.bias_strides.row + j * args.bias_strides.column;
            score = fused_multiply_add(float_at<T>(args.bias, args.bias_narrow, at), kScoreUnit<T>, score);
          }
          if (args.relative != nullptr) {
            const int64_t at = sequence.head * args.relative_head + relative_column(args, sequence, rows.row[r], j) * args.relative_column;
            score = fused_multiply_add(float_at<T>(args.relative, args.relative_narrow, at), kScoreUnit<T>, score);
          }
        }
        s[n][e] = score;
        most = larger(most, score);
      }
    }
    most = larger(most, shuffle_xor(most, 1));
    most = larger(most, shuffle_xor(most, 2));
    // Where every score is -inf, shifting by 0 keeps the powers at 0 rather than NaN.
    const float shift = most == -infinity() ? 0.0f : most;
    largest[r] = most;
    total[r] = 0;
    MOLFUSE_UNROLL
    for (int n = 0; n < kTinyTiles<WHOLE>; ++n) {
      MOLFUSE_UNROLL
      for (int e = 2 * r; e < 2 * r + 2; ++e) {
        s[n][e] = power<T>(s[n][e] - shift);
        total[r] += s[n][e];
      }
    }
    total[r] += shuffle_xor(total[r], 1);
    total[r] += shuffle_xor(total[r], 2);
  }
}

/// Bit e: whether dropout keeps element e of tile n. Lanes t and t ^ 1 hold the four keys of a call of Philox; one calls for row g, one for
/// row g + 8.
template <bool WHOLE>
MOLFUSE_DEVICE uint32_t tiny_kept(const Args& args, const TinyWork& work, const Rows& rows, int n) {
  const int t = lane_index() % 4;
  const bool second = t % 2 != 0;
  const int batch = second ? rows.sequence[1].batch : rows.sequence[0].batch, head = second ? rows.sequence[1].head : rows.sequence[0].head;
  const PhiloxWords words =
      philox(static_cast<uint32_t>(key_of<WHOLE>(work, n, 0)) / 4, static_cast<uint32_t>(second ? rows.row[1] : rows.row[0]),
             static_cast<uint32_t>(batch * args.heads + head), args.offset_low, args.key_low, args.key_high);
  uint32_t drawn = 0;
  MOLFUSE_UNROLL
  for (int w = 0; w < 4; ++w) drawn |= words.w[w] >= args.threshold ? 1u << w : 0u;
  drawn <<= 4 * (t & 1);
  drawn |= shuffle_xor(drawn, 1);
  uint32_t mask = 0;
  MOLFUSE_UNROLL
  for (int e = 0; e < 4; ++e) mask |= (drawn >> (4 * (e >> 1) + 2 * (t & 1) + (e & 1)) & 1u) << e;
  return mask;
}

// ---- products of weights

/// A block of 8 x 8 weights: columns 2t and 2t + 1 of row g.
template <class T>
struct Block {
  uint32_t word[sizeof(T) == 4 ? 2 : 1];
};
template <class T>
MOLFUSE_DEVICE Block<T> block_of(float first, float second) {
  if constexpr (sizeof(T) == 4) {
    return {{bits_of(first), bits_of(second)}};
  } else {
    return {{pack<T>(first, second)}};
  }
}
template <class T>
MOLFUSE_DEVICE Block<T> transpose(const Block<T>& block) {
  const int g = lane_index() / 4, from = lane_index() % 4 * 8 + g / 2;
  const bool odd = g % 2 != 0;
  if constexpr (sizeof(T) == 4) {
    Block<T> to;
    MOLFUSE_UNROLL
    for (int e = 0; e < 2; ++e) {
      const uint32_t first = shuffle(block.word[0], from + 4 * e), second = shuffle(block.word[1], from + 4 * e);
      to.word[e] = odd ? second : first;
    }
    return to;
  } else {
    const uint32_t first = shuffle(block.word[0], from), second = shuffle(block.word[0], from + 4);
    return {{permute_bytes(first, second, odd ? 0x7632u : 0x5410u)}};
  }
}

/// 16 x 16 weights as left operands: one of depth 16, or two of depth 8 for f32, whose depths t and t + 4 are the weights' columns 2t and
/// 2t + 1.
template <class T>
struct Weights {
  static constexpr int kSteps = sizeof(T) == 4 ? 2 : 1;
  Left<T> step[kSteps];
};
template <class T, bool WHOLE, bool TRANSPOSED>
MOLFUSE_DEVICE Weights<T> weights_of(const float (&w)[kTinyTiles<WHOLE>][4]) {
  Block<T> block[2][2] = {};
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    MOLFUSE_UNROLL
    for (int n = 0; n < 2; ++n) {
      if (!WHOLE && n != r) continue;
      const auto from = block_of<T>(w[WHOLE ? n : 0][2 * r], w[WHOLE ? n : 0][2 * r + 1]);
      if constexpr (TRANSPOSED) {
        block[n][r] = transpose(from);
      } else {
        block[r][n] = from;
      }
    }
  }
  Weights<T> weights;
  if constexpr (sizeof(T) == 4) {
    MOLFUSE_UNROLL
    for (int n = 0; n < 2; ++n) {
      weights.step[n] = left_of<T>({block[0][n].word[0], block[1][n].word[0], block[0][n].word[1], block[1][n].word[1]}, kTf32);
    }
  } else {
    weights.step[0] = left_of<T>({block[0][0].word[0], block[1][0].word[0], block[0][1].word[0], block[1][1].word[0]}, kTf32);
  }
  return weights;
}

template <class T, int DIM>
MOLFUSE_DEVICE void right_of(uint32_t (&to)[2 * Weights<T>::kSteps], const ColumnForm<T, DIM>& right, int channel) {
  if constexpr (sizeof(T) == 4) {
    MOLFUSE_UNROLL
    for (int r = 0; r < 4; ++r) to[r] = right.word[r][channel];
  } else {
    const uint32_t selector = channel % 2 != 0 ? 0x7632u : 0x5410u;
    to[0] = permute_bytes(right.word[0][channel / 2], right.word[1][channel / 2], selector);
    to[1] = permute_bytes(right.word[2][channel / 2], right.word[3][channel / 2], selector);
  }
}

/// The same without what a row has no weight for: one row of weights at a time, each against right rows of which the others are zero. The
/// order of additions does not change.
template <class T, int DIM>
MOLFUSE_DEVICE void weighted_columns_by_row(float (&acc)[TinyPlan<T, DIM>::kWide][4], const Weights<T>& weights,
                                            const ColumnForm<T, DIM>& right) {
  constexpr int kWide = TinyPlan<T, DIM>::kWide, kSteps = Weights<T>::kSteps;
  const int lane = lane_index();
  MOLFUSE_UNROLL_BY(1)
  for (int row = 0; row < 16; ++row) {
    uint32_t keep[2 * kSteps];
    MOLFUSE_UNROLL
    for (int n = 0; n < 2 * kSteps; ++n) {
      const uint32_t(&part)[4] = weights.step[n / 2].part;
      const uint32_t word = shuffle(row < 8 ? part[n % 2 * 2] : part[n % 2 * 2 + 1], row % 8 * 4 + lane % 4);
      if constexpr (sizeof(T) == 4) {
        keep[n] = (word & 0x7FFFFFFFu) != 0 ? 0xFFFFFFFFu : 0u;
      } else {
        keep[n] = ((word & 0x7FFFu) != 0 ? 0xFFFFu : 0u) | ((word & 0x7FFF0000u) != 0 ? 0xFFFF0000u : 0u);
      }
    }
    MOLFUSE_UNROLL
    for (int j = 0; j < kWide; ++j) {
      uint32_t b[2 * kSteps];
      right_of(b, right, j);
      float product[4] = {};
      MOLFUSE_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        multiply<T>(product, product, weights.step[s], b[2 * s] & keep[2 * s], b[2 * s + 1] & keep[2 * s + 1], kTf32);
      }
      MOLFUSE_UNROLL
      for (int e = 0; e < 4; ++e) acc[j][e] = lane / 4 + 8 * (e >> 1) == row ? product[e] : acc[j][e];
    }
  }
}

/// acc[j]: the weights times channel j of the lanes' channels. Off the diagonal and where nothing is seen weights are 0, but a product with
/// 0 is not where the other factor is infinite or NaN: that is found in the result and made good, so that no pair sees another.
template <class T, int DIM>
MOLFUSE_DEVICE void weighted_columns(float (&acc)[TinyPlan<T, DIM>::kWide][4], const Weights<T>& weights, const ColumnForm<T, DIM>& right) {
  constexpr int kWide = TinyPlan<T, DIM>::kWide, kSteps = Weights<T>::kSteps;
  float sum = 0;
  MOLFUSE_UNROLL
  for (int j = 0; j < kWide; ++j) {
    uint32_t b[2 * kSteps];
    right_of(b, right, j);
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) acc[j][e] = 0;
    MOLFUSE_UNROLL
    for (int s = 0; s < kSteps; ++s) multiply<T>(acc[j], acc[j], weights.step[s], b[2 * s], b[2 * s + 1], kTf32);
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) sum += acc[j][e];
  }
  if (ballot(is_nan(sum - sum)) != 0) weighted_columns_by_row(acc, weights, right);
}

/// Writes a group of channels of rows g and g + 8, times a factor; a factor of 0 writes zeros.
template <class T, int DIM>
MOLFUSE_DEVICE void write_group(const float (&acc)[TinyPlan<T, DIM>::kWide][4], const Operand& operand, const int (&offset)[2],
                                const bool (&valid)[2], const float (&factor)[2], int group, int dim) {
  using Plan = TinyPlan<T, DIM>;
  // A lane has 2 * kWide neighbouring channels: those of columns 2t and 2t + 1.
  constexpr int kStores = 2 * Plan::kWide / Plan::kChunk;
  const int first = 8 * Plan::kWide * group + 2 * Plan::kWide * (lane_index() % 4);
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    T* row = static_cast<T*>(operand.data) + offset[r] + first;
    MOLFUSE_UNROLL
    for (int n = 0; n < kStores; ++n) {
      if (!valid[r] || first + n * Plan::kChunk >= dim) continue;
      Vector<T, Plan::kChunk> v;
      MOLFUSE_UNROLL
      for (int i = 0; i < Plan::kChunk; ++i) {
        const int at = n * Plan::kChunk + i;
        const float value = acc[at % Plan::kWide][2 * r + at / Plan::kWide] * factor[r];
        v.item[i] = from_float<T>(factor[r] == 0 ? 0.0f : value);
      }
      store(reinterpret_cast<Vector<T, Plan::kChunk>*>(row + n * Plan::kChunk), v);
    }
  }
}

// ---- kernels

template <class T, int DIM, bool WHOLE>
MOLFUSE_KERNEL((TinyPlan<T, DIM>::kThreads), (TinyPlan<T, DIM>::kForwardBlocks)) tiny_outputs(const Args args, const TinyWork work) {
  using Plan = TinyPlan<T, DIM>;
  const int first = (block_x() * Plan::kWarps + warp_index()) << (4 - work.shift);
  if (first >= work.pairs) return;
  const Rows rows = rows_of_lane<WHOLE>(args, work, first);
  int query[2], key[2], value[2];
  bool sees[2], shown[2];
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const Sequence& s = rows.sequence[r];
    sees[r] = s.limit(args, rows.row[r]) > 0;
    shown[r] = rows.row[r] < s.length;
    query[r] = offset_of(args.query, s, s.first_query) + rows.row[r] * static_cast<int>(args.query.row);
    key[r] = offset_of(args.key, s, s.first_key) + rows.row[r] * static_cast<int>(args.key.row);
    value[r] = offset_of(args.value, s, s.first_key);
  }
  RowForm<Plan::kChunks> queries, keys;
  load_rows<T>(queries, args.query, query, sees, 0, args.dim);
  load_rows<T>(keys, args.key, key, shown, 0, args.dim);
  const ColumnRows key_rows = column_rows<WHOLE>(work, 0, rows.sequence[0].length, 0, rows.sequence[1].length);
  int columns[4];
  column_offsets<T, DIM, WHOLE>(columns, args.value, value, key_rows);
  ColumnForm<T, DIM> values[Plan::kGroups];
  MOLFUSE_UNROLL
  for (int n = 0; n < Plan::kGroups; ++n) load_columns(values[n], args.value, columns, key_rows, n, args.dim);

  float scores[kTinyTiles<WHOLE>][4], largest[2], total[2];
  RowProducts products{};
  add_products<T>(products, queries, keys);
  take_products<WHOLE>(scores, products);
  weigh<T, WHOLE>(scores, largest, total, args, work, rows);
  if (args.threshold != 0) {
    MOLFUSE_UNROLL
    for (int n = 0; n < kTinyTiles<WHOLE>; ++n) {
      const uint32_t mask = tiny_kept<WHOLE>(args, work, rows, n);
      MOLFUSE_UNROLL
      for (int e = 0; e < 4; ++e) scores[n][e] = (mask >> e & 1u) != 0 ? scores[n][e] : 0.0f;
    }
  }
  const Weights<T> weights = weights_of<T, WHOLE, false>(scores);
  int out[2];
  bool exists[2];
  float factor[2];
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const Sequence& s = rows.sequence[r];
    exists[r] = rows.row[r] < s.queries;
    out[r] = offset_of(args.out, s, s.first_query) + rows.row[r] * static_cast<int>(args.out.row);
    factor[r] = total[r] == 0 ? 0.0f : args.keep_scale / total[r];
    if (args.lse != nullptr && lane_index() % 4 == 0 && exists[r]) {
      store(lse_of(args, s) + rows.row[r] * args.lse_row, total[r] == 0 ? -infinity() : largest[r] * kToLog<T> + log(total[r]));
    }
  }
  MOLFUSE_UNROLL
  for (int n = 0; n < Plan::kGroups; ++n) {
    float acc[Plan::kWide][4];
    weighted_columns(acc, weights, values[n]);
    write_group<T, DIM>(acc, args.out, out, exists, factor, n, args.dim);
  }
}

/// The gradient of an operand: weights times rows of another.
template <class T, int DIM, bool WHOLE>
MOLFUSE_DEVICE void write_gradient(const Args& args, const Operand& gradient, const Rows& rows, bool of_query, const Weights<T>& weights,
                                   const Operand& right, const int (&right_offset)[2], const ColumnRows& right_rows,
                                   const float (&factor)[2]) {
  using Plan = TinyPlan<T, DIM>;
  int columns[4], to[2];
  bool exists[2];
  column_offsets<T, DIM, WHOLE>(columns, right, right_offset, right_rows);
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const Sequence& s = rows.sequence[r];
    exists[r] = rows.row[r] < (of_query ? s.queries : s.keys);
    to[r] = offset_of(gradient, s, of_query ? s.first_query : s.first_key) + rows.row[r] * static_cast<int>(gradient.row);
  }
  MOLFUSE_UNROLL
  for (int n = 0; n < Plan::kGroups; ++n) {
    ColumnForm<T, DIM> form;
    load_columns(form, right, columns, right_rows, n, args.dim);
    float acc[Plan::kWide][4];
    weighted_columns(acc, weights, form);
    write_group<T, DIM>(acc, gradient, to, exists, factor, n, args.dim);
  }
}

/// All gradients of a pair but those that are sums over pairs. Weights are made anew from the scores and divided by their own sum, so that
/// neither out nor lse is read.
template <class T, int DIM, bool WHOLE>
MOLFUSE_KERNEL((TinyPlan<T, DIM>::kThreads), (TinyPlan<T, DIM>::kBackwardBlocks)) tiny_gradients(const Args args, const TinyWork work) {
  using Plan = TinyPlan<T, DIM>;
  constexpr int kTiles = kTinyTiles<WHOLE>;
  const int first = (block_x() * Plan::kWarps + warp_index()) << (4 - work.shift);
  if (first >= work.pairs) return;
  const Rows rows = rows_of_lane<WHOLE>(args, work, first);
  // Of row 0 of the lane's two sequences.
  int query[2], key[2], value[2], grad[2];
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const Sequence& s = rows.sequence[r];
    query[r] = offset_of(args.query, s, s.first_query);
    grad[r] = offset_of(args.grad_out, s, s.first_query);
    key[r] = offset_of(args.key, s, s.first_key);
    value[r] = offset_of(args.value, s, s.first_key);
  }
  float weights[kTiles][4], slopes[kTiles][4];
  {
    int at[4][2];
    bool sees[2], shown[2];
    MOLFUSE_UNROLL
    for (int r = 0; r < 2; ++r) {
      sees[r] = rows.sequence[r].limit(args, rows.row[r]) > 0;
      shown[r] = rows.row[r] < rows.sequence[r].length;
      at[0][r] = query[r] + rows.row[r] * static_cast<int>(args.query.row);
      at[1][r] = key[r] + rows.row[r] * static_cast<int>(args.key.row);
      at[2][r] = grad[r] + rows.row[r] * static_cast<int>(args.grad_out.row);
      at[3][r] = value[r] + rows.row[r] * static_cast<int>(args.value.row);
    }
    RowProducts scores{}, gradients{};
    MOLFUSE_UNROLL_BY(1)
    for (int c = 0; c < Plan::kChunks; c += Plan::kDepth) {
      RowForm<Plan::kDepth> queries, keys, grads, values;
      load_rows<T>(queries, args.query, at[0], sees, c, args.dim);
      load_rows<T>(keys, args.key, at[1], shown, c, args.dim);
      load_rows<T>(grads, args.grad_out, at[2], sees, c, args.dim);
      load_rows<T>(values, args.value, at[3], shown, c, args.dim);
      add_products<T>(scores, queries, keys);
      add_products<T>(gradients, grads, values);
    }
    take_products<WHOLE>(weights, scores);
    take_products<WHOLE>(slopes, gradients);
  }
  float largest[2], total[2];
  weigh<T, WHOLE>(weights, largest, total, args, work, rows);
  uint32_t keep = 0xFFu;
  if (args.threshold != 0) {
    keep = 0;
    MOLFUSE_UNROLL
    for (int n = 0; n < kTiles; ++n) keep |= tiny_kept<WHOLE>(args, work, rows, n) << (4 * n);
  }
  const bool diagonal = WHOLE || on_diagonal(work);
  float query_factor[2], key_factor[2], value_factor[2];
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const Sequence& s = rows.sequence[r];
    const float share = total[r] == 0 ? 0.0f : 1.0f / total[r];
    float delta = 0;
    MOLFUSE_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      MOLFUSE_UNROLL
      for (int e = 2 * r; e < 2 * r + 2; ++e) {
        // The zeros of other pairs and of what is hidden stay zeros, even if the sum is NaN.
        weights[n][e] = weights[n][e] == 0 ? 0.0f : weights[n][e] * share;
        slopes[n][e] = weights[n][e] == 0 || (keep >> (4 * n + e) & 1u) == 0 ? 0.0f : slopes[n][e] * args.keep_scale;
        delta = fused_multiply_add(weights[n][e], slopes[n][e], delta);
      }
    }
    delta += shuffle_xor(delta, 1);
    delta += shuffle_xor(delta, 2);
    // For the kernel of a bias that is broadcast.
    if (args.statistics != nullptr && lane_index() % 4 == 0 && rows.row[r] < s.queries) {
      const float log_sum = total[r] == 0 ? infinity() : largest[r] + kScoreUnit<T> * log(total[r]);
      store(statistics_of(args, s) + rows.row[r], RowStatistics{log_sum, delta});
    }
    MOLFUSE_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      MOLFUSE_UNROLL
      for (int e = 2 * r; e < 2 * r + 2; ++e) {
        slopes[n][e] = score_gradient(weights[n][e], slopes[n][e], delta);
        if ((keep >> (4 * n + e) & 1u) == 0) weights[n][e] = 0;
        const int i = rows.row[r], j = key_of<WHOLE>(work, n, e);
        if (args.grad_bias_direct != 0 && diagonal && i < s.queries && j < s.keys) {
          const BiasStrides& strides = args.grad_bias_strides;
          store(args.grad_bias + s.batch * strides.batch + s.head * strides.head + i * strides.row + j * strides.column, slopes[n][e]);
        }
      }
    }
    query_factor[r] = total[r] == 0 ? 0.0f : args.scale;
    key_factor[r] = rows.row[r] < s.length ? args.scale : 0.0f;
    value_factor[r] = rows.row[r] < s.length ? args.keep_scale : 0.0f;
  }
  const Sequence &s0 = rows.sequence[0], &s1 = rows.sequence[1];
  const ColumnRows key_rows = column_rows<WHOLE>(work, 0, s0.length, 0, s1.length);
  const ColumnRows query_rows = column_rows<WHOLE>(work, s0.first_row(args), s0.queries, s1.first_row(args), s1.queries);
  if (args.grad_query.data != nullptr) {
    write_gradient<T, DIM, WHOLE>(args, args.grad_query, rows, true, weights_of<T, WHOLE, false>(slopes), args.key, key, key_rows, query_factor);
  }
  if (args.grad_key.data != nullptr) {
    write_gradient<T, DIM, WHOLE>(args, args.grad_key, rows, false, weights_of<T, WHOLE, true>(slopes), args.query, query, query_rows,
                                  key_factor);
  }
  if (args.grad_value.data != nullptr) {
    write_gradient<T, DIM, WHOLE>(args, args.grad_value, rows, false, weights_of<T, WHOLE, true>(weights), args.grad_out, grad, query_rows,
                                  value_factor);
  }
}

// ---- dispatch

/// Whether an operand, if given, is read by 16 bytes and has offsets of 31 bits.
bool fits(const Operand& operand, const AttentionProblem& p, int64_t rows) {
  if (operand.data == nullptr) return true;
  constexpr int64_t kMost = INT32_MAX;
  const int64_t stride = std::max({std::llabs(operand.batch), std::llabs(operand.head), std::llabs(operand.row)});
  if (operand.aligned == 0 || stride > kMost || rows > kMost) return false;
  const double span = static_cast<double>(p.batch) * static_cast<double>(std::llabs(operand.batch)) +
                      static_cast<double>(p.heads) * static_cast<double>(std::llabs(operand.head)) +
                      static_cast<double>(rows + 16) * static_cast<double>(std::llabs(operand.row)) + static_cast<double>(p.dim);
  return span <= static_cast<double>(kMost);
}

bool is_tiny(const Args& args, const AttentionProblem& p) {
  if (p.queries > 16 || p.keys > 16 || p.dim > 128 || p.batch * p.heads > INT32_MAX / 2) return false;
  const int64_t queries = p.cu_q != nullptr ? p.total_q : p.queries, keys = p.cu_q != nullptr ? p.total_k : p.keys;
  for (const Operand* operand : {&args.query, &args.out, &args.grad_out, &args.grad_query}) {
    if (!fits(*operand, p, queries)) return false;
  }
  for (const Operand* operand : {&args.key, &args.value, &args.grad_key, &args.grad_value}) {
    if (!fits(*operand, p, keys)) return false;
  }
  return true;
}

using TinyKernel = void (*)(Args, TinyWork);

template <class T, int DIM>
TinyKernel kernel_of(bool backward, bool whole) {
  if (backward) return whole ? tiny_gradients<T, DIM, true> : tiny_gradients<T, DIM, false>;
  return whole ? tiny_outputs<T, DIM, true> : tiny_outputs<T, DIM, false>;
}
template <class T>
TinyKernel kernel_of(int64_t dim, bool backward, bool whole) {
  if (dim <= 32) return kernel_of<T, 32>(backward, whole);
  if (dim <= 64) return kernel_of<T, 64>(backward, whole);
  return kernel_of<T, 128>(backward, whole);
}

void launch_tiny(const Args& args, const AttentionProblem& p, bool backward, DeviceCall& call) {
  const int64_t rows = std::max(p.queries, p.keys);
  TinyWork work{};
  work.pairs = static_cast<int32_t>(p.batch * p.heads);
  work.shift = rows <= 4 ? 2 : rows <= 8 ? 3 : 4;
  // Granlund and Montgomery 1994, section 4.
  while (int64_t{1} << work.heads_shift < p.heads) ++work.heads_shift;
  if (p.heads > 0) {
    work.heads_factor = static_cast<uint32_t>((uint64_t{1} << 32) * ((uint64_t{1} << work.heads_shift) - static_cast<uint64_t>(p.heads)) /
                                                  static_cast<uint64_t>(p.heads) + 1);
  }
  const int64_t pairs_of_block = int64_t{TinyPlan<float, 32>::kWarps} << (4 - work.shift);
  TinyKernel kernel = nullptr;
  switch (p.dtype) {
    case MOLFUSE_F16: kernel = kernel_of<f16>(p.dim, backward, work.shift == 4); break;
    case MOLFUSE_BF16: kernel = kernel_of<bf16>(p.dim, backward, work.shift == 4); break;
    default: kernel = kernel_of<float>(p.dim, backward, work.shift == 4); break;
  }
  call.launch(backward ? "attention tiny_gradients" : "attention tiny_outputs", kernel,
              Grid{(work.pairs + pairs_of_block - 1) / pairs_of_block, 1, 1}, TinyPlan<float, 32>::kThreads, 0, args, work);
}

}  // namespace

bool tiny_forward(const Args& args, const AttentionProblem& p, DeviceCall& call) {
  if (!is_tiny(args, p)) return false;
  launch_tiny(args, p, false, call);
  return true;
}

bool tiny_backward(const Args& args, const AttentionProblem& p, DeviceCall& call) {
  if (p.grad_relative != nullptr || !is_tiny(args, p)) return false;
  launch_tiny(args, p, true, call);
  return true;
}

}  // namespace attention_device
}  // namespace molfuse

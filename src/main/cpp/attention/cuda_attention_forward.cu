// SPDX-License-Identifier: Apache-2.0
// Attention on a GPU, forward: a warp has 16 queries, a block 64 or 32, or 16 where there are no more; tiles of keys and values pass through
// shared memory, the next one on its way while one is worked on, with one barrier a tile. The softmax is online, in powers of two. Where
// blocks of queries do not fill the device, several share the keys of one, and a second kernel joins their sums.
#include <algorithm>

#include "attention/device.h"

namespace molfuse {
namespace attention_device {
namespace {

/// How a block is cut for a type and a head size. Queries, and two stages of keys and values, fit in the 99 KB of the smallest devices;
/// fewer keys where registers hold many columns of the output. SMALL: for 16 queries or fewer; blocks of one warp with little shared
/// memory, so that a multiprocessor has dozens of them, each waiting for memory of its own.
template <class T, int DIM, bool SMALL>
struct ForwardPlan {
  static constexpr bool kWide = sizeof(T) == 4;
  static constexpr int kWarps = SMALL ? 1 : kWide && DIM == 256 ? 2 : 4;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kRows = 16 * kWarps;
  static constexpr int kKeys = SMALL ? 16 : DIM * static_cast<int>(sizeof(T)) <= 256 ? 64 : DIM * static_cast<int>(sizeof(T)) <= 512 ? 32 : 16;
  static constexpr int kQueryBytes = kRows * Tile<T, DIM>::kRowBytes;
  static constexpr int kKeyBytes = kKeys * Tile<T, DIM>::kRowBytes;
  static constexpr int kShared = kQueryBytes + 4 * kKeyBytes;
  /// Columns of the output that a block has registers for; blocks for the others make the scores again.
  static constexpr int kColumns = kWide && DIM == 256 ? 128 : DIM;
  static constexpr int kBlocks = SMALL ? (DIM > 32 ? 8 : kWide ? 12 : 16) : DIM <= 64 && !kWide ? 3 : 2;
};

template <class T, int DIM, bool FEATURES, bool SMALL>
MOLFUSE_KERNEL((ForwardPlan<T, DIM, SMALL>::kThreads), (ForwardPlan<T, DIM, SMALL>::kBlocks)) forward_tiles(const Args args) {
  using Plan = ForwardPlan<T, DIM, SMALL>;
  constexpr int kTiles = Plan::kKeys / 8, kColumns = Plan::kColumns;
  unsigned char* queries = shared_memory();
  unsigned char* stages = queries + Plan::kQueryBytes;
  float* relative = reinterpret_cast<float*>(stages + 4 * Plan::kKeyBytes);
  // Under a causal mask the last rows see most: they go first.
  const int row_tiles = (args.queries + Plan::kRows - 1) / Plan::kRows;
  const int pair = block_x() / row_tiles, first = (row_tiles - 1 - block_x() % row_tiles) * Plan::kRows;
  constexpr int kColumnBlocks = DIM / kColumns;
  const int column = block_y() % kColumnBlocks * kColumns, split = block_y() / kColumnBlocks;
  const Sequence s = sequence_of(args, pair / args.heads, pair % args.heads);
  if (first >= s.queries) return;
  const KeyRange range = keys_of_rows(args, s, first, Plan::kRows);
  const int tiles = (range.some + Plan::kKeys - 1) / Plan::kKeys;
  const int begin = tiles * split / args.splits, count = tiles * (split + 1) / args.splits;
  const T* key = rows_of<const T>(args.key, s, s.first_key);
  const T* value = rows_of<const T>(args.value, s, s.first_key);
  auto load_stage = [&](int tile) {
    unsigned char* to = stages + tile % 2 * 2 * Plan::kKeyBytes;
    load_tile<T, DIM, Plan::kKeys, Plan::kThreads>(to, args.key, key, tile * Plan::kKeys, 0, s.length, args.dim);
    load_tile<T, DIM, Plan::kKeys, Plan::kThreads>(to + Plan::kKeyBytes, args.value, value, tile * Plan::kKeys, 0, s.length, args.dim);
    commit_copies();
  };
  load_tile<T, DIM, Plan::kRows, Plan::kThreads>(queries, args.query, rows_of<const T>(args.query, s, s.first_query), first,
                                                 s.first_row(args), s.queries, args.dim);
  if constexpr (FEATURES) load_relative<T>(args, s.head, relative, Plan::kThreads);
  if (begin < count) load_stage(begin);
  commit_copies();

  const int lane = lane_index(), own = 16 * warp_index();
  float out[kColumns / 8][4] = {};
  float largest[2] = {-infinity(), -infinity()}, total[2] = {0, 0};
  for (int tile = begin; tile < count; ++tile) {
    wait_copies<0>();
    // Everyone is done with the tile before, whose place the next one takes.
    sync_block();
    if (tile + 1 < count) load_stage(tile + 1);
    const unsigned char* at = stages + tile % 2 * 2 * Plan::kKeyBytes;
    const int first_key = tile * Plan::kKeys;
    float scores[kTiles][4];
    multiply_rows<T, DIM, kTiles>(scores, queries, own, at, args.tf32 != 0);
    finish_scores<T, false, FEATURES>(scores, args, s, relative, first + own, first_key, first_key + Plan::kKeys > range.all);
    MOLFUSE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float most = largest[r];
      MOLFUSE_UNROLL
      for (int n = 0; n < kTiles; ++n) most = larger(most, larger(scores[n][2 * r], scores[n][2 * r + 1]));
      most = larger(most, shuffle_xor(most, 1));
      most = larger(most, shuffle_xor(most, 2));
      // While every score is -inf, shifting by 0 keeps the powers at 0 rather than NaN.
      const float shift = most == -infinity() ? 0.0f : most, factor = power<T>(largest[r] - shift);
      largest[r] = most;
      total[r] *= factor;
      MOLFUSE_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        MOLFUSE_UNROLL
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          scores[n][e] = power<T>(scores[n][e] - shift);
          total[r] += scores[n][e];
        }
      }
      MOLFUSE_UNROLL
      for (int n = 0; n < kColumns / 8; ++n) {
        out[n][2 * r] *= factor;
        out[n][2 * r + 1] *= factor;
      }
    }
    if constexpr (FEATURES) {
      if (args.threshold != 0) {
        MOLFUSE_UNROLL
        for (int n = 0; n < kTiles; ++n) {
          const uint32_t mask = kept<false>(args, s, first + own, first_key, n);
          MOLFUSE_UNROLL
          for (int e = 0; e < 4; ++e) scores[n][e] = (mask >> e & 1u) != 0 ? scores[n][e] : 0.0f;
        }
      }
    }
    multiply_weights<T, DIM, kColumns>(out, scores, at + Plan::kKeyBytes, column, args.tf32 != 0);
  }
  // The queries' copies, where there was no key to wait for.
  wait_copies<0>();
  sync_block();
  float factor[2];
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    total[r] += shuffle_xor(total[r], 1);
    total[r] += shuffle_xor(total[r], 2);
    if (args.splits > 1) {
      const int row = first + own + lane / 4 + 8 * r;
      write_share(args, split, pair, row, s.queries, column, r, out);
      if (column == 0 && lane % 4 == 0 && row < s.queries) {
        store(share_softmax(args, split, static_cast<int64_t>(pair) * args.queries + row), ShareSoftmax{largest[r], total[r]});
      }
      continue;
    }
    factor[r] = total[r] == 0 ? 0.0f : args.keep_scale / total[r];
    const int row = first + own + lane / 4 + 8 * r;
    if (args.lse != nullptr && column == 0 && lane % 4 == 0 && row < s.queries) {
      store(lse_of(args, s) + row * args.lse_row, total[r] == 0 ? -infinity() : largest[r] * kToLog<T> + log(total[r]));
    }
  }
  if (args.splits > 1) return;
  write_rows<T, kColumns>(out, factor, queries + own * Tile<T, DIM>::kRowBytes, args.out, rows_of<T>(args.out, s, s.first_query), first + own,
                          s.queries, column, args.dim);
}

/// Joins what blocks made of a row's keys each: a warp has a row.
template <class T>
MOLFUSE_KERNEL(kJoinThreads, 4) join_shares(const Args args) {
  const int64_t n = static_cast<int64_t>(block_x()) * (kJoinThreads / kWarp) + warp_index(), pairs = int64_t{args.batch} * args.heads;
  if (n >= pairs * args.queries) return;
  const int pair = static_cast<int>(n / args.queries), row = static_cast<int>(n % args.queries), lane = lane_index();
  const Sequence s = sequence_of(args, pair / args.heads, pair % args.heads);
  if (row >= s.queries) return;
  float largest = -infinity(), total = 0;
  for (int split = 0; split < args.splits; ++split) largest = larger(largest, load(share_softmax(args, split, n)).largest);
  const float shift = largest == -infinity() ? 0.0f : largest;
  for (int split = 0; split < args.splits; ++split) {
    const ShareSoftmax share = load(share_softmax(args, split, n));
    total = fused_multiply_add(share.total, power<T>(share.largest - shift), total);
  }
  const float factor = total == 0 ? 0.0f : args.keep_scale / total;
  T* to = rows_of<T>(args.out, s, s.first_query) + row * args.out.row;
  for (int column = lane; column < args.dim; column += kWarp) {
    float sum = 0;
    for (int split = 0; split < args.splits; ++split) {
      const float weight = power<T>(load(share_softmax(args, split, n)).largest - shift);
      sum = fused_multiply_add(load(share_row(args, split, n) + column), weight, sum);
    }
    store(to + column, from_float<T>(factor == 0 ? 0.0f : sum * factor));
  }
  if (args.lse != nullptr && lane == 0) {
    store(lse_of(args, s) + row * args.lse_row, total == 0 ? -infinity() : largest * kToLog<T> + log(total));
  }
}

// ---- dispatch

template <class T, int DIM, bool SMALL>
void launch_forward(Args args, DeviceCall& call) {
  using Plan = ForwardPlan<T, DIM, SMALL>;
  const size_t shared = place_relative(args, Plan::kShared, call);
  const int64_t tiles = (args.queries + Plan::kRows - 1) / Plan::kRows;
  const int64_t rows = int64_t{args.batch} * args.heads * args.queries, column_blocks = DIM / Plan::kColumns;
  args.splits = splits_of(tiles * args.batch * args.heads * column_blocks, Plan::kBlocks, args.keys, call);
  if (args.splits > 1) {
    args.shares = call.scratch<float>(args.splits * rows * args.dim);
    args.share_softmax = call.scratch<ShareSoftmax>(args.splits * rows);
  }
  const Grid grid{tiles * args.batch * args.heads, column_blocks * args.splits, 1};
  // f32 has one kernel, as its products take so long that the features' tests are not seen; and small blocks, which wait for memory.
  const auto kernel = has_features(args) ? forward_tiles<T, DIM, true, SMALL> : forward_tiles<T, DIM, sizeof(T) == 4 || SMALL, SMALL>;
  call.launch("attention forward_tiles", kernel, grid, Plan::kThreads, shared, args);
  constexpr int kJoinRows = kJoinThreads / kWarp;
  if (args.splits > 1) call.launch("attention join_shares", join_shares<T>, Grid{(rows + kJoinRows - 1) / kJoinRows, 1, 1}, kJoinThreads, 0, args);
}

using Launcher = void (*)(Args, DeviceCall&);

/// The table: head sizes between those compiled run in the next one, their further columns zero.
template <class T>
Launcher launcher_of(int64_t dim, int64_t queries) {
  const bool small = queries <= 16;
  if (dim <= 16) return small ? launch_forward<T, 16, true> : launch_forward<T, 16, false>;
  if (dim <= 32) return small ? launch_forward<T, 32, true> : launch_forward<T, 32, false>;
  if (dim <= 64) return small ? launch_forward<T, 64, true> : launch_forward<T, 64, false>;
  if constexpr (sizeof(T) == 2) {
    if (dim <= 96 && dim > 64) return small ? launch_forward<T, 96, true> : launch_forward<T, 96, false>;
  }
  if (dim <= 128) return small ? launch_forward<T, 128, true> : launch_forward<T, 128, false>;
  return launch_forward<T, 256, false>;
}

/// A share has as many keys as are worth a block's start.
constexpr int64_t kLeastShare = 128;

Operand operand_of(const AttentionOperand& operand, int64_t element) {
  const int64_t chunk = 16 / element;
  const bool aligned = reinterpret_cast<uintptr_t>(operand.data) % 16 == 0 && operand.batch % chunk == 0 && operand.head % chunk == 0 &&
                       operand.row % chunk == 0;
  return {operand.data, operand.batch, operand.head, operand.row, aligned};
}

int32_t fitting(const char* name, int64_t value) {
  if (value > INT32_MAX / 4) unsupported("attention: %s is too large for a device, got %lld", name, static_cast<long long>(value));
  return static_cast<int32_t>(value);
}

}  // namespace

int32_t splits_of(int64_t blocks, int per_multiprocessor, int64_t keys, const DeviceCall& call) {
  const int64_t room = int64_t{per_multiprocessor} * call.device().multiprocessors;
  if (blocks == 0 || 2 * blocks > room) return 1;
  return static_cast<int32_t>(std::max<int64_t>(1, std::min(room / blocks, keys / kLeastShare)));
}

Args device_args(const AttentionProblem& p, DeviceCall& call) {
  if (p.dtype == MOLFUSE_F64) unsupported("attention: f64 is for the CPU only");
  const auto element = static_cast<int64_t>(molfuse_dtype_size(p.dtype));
  Args args{};
  args.query = operand_of(p.query, element);
  args.key = operand_of(p.key, element);
  args.value = operand_of(p.value, element);
  args.out = operand_of(p.out, element);
  args.grad_out = operand_of(p.grad_out, element);
  args.grad_query = operand_of(p.grad_query, element);
  args.grad_key = operand_of(p.grad_key, element);
  args.grad_value = operand_of(p.grad_value, element);
  args.key_new = operand_of(p.key_new, element);
  args.value_new = operand_of(p.value_new, element);
  args.cu_q = p.cu_q;
  args.cu_k = p.cu_k;
  args.total_q = p.total_q;
  args.total_k = p.total_k;
  args.key_lengths = p.key_lengths.data;
  args.lengths_stride = p.key_lengths.stride[0];
  args.lengths_wide = p.key_lengths.dtype == MOLFUSE_I64;
  args.batch = fitting("the batch", p.batch);
  args.heads = fitting("the number of heads", p.heads);
  args.queries = fitting("the number of queries", p.queries);
  args.keys = fitting("the number of keys", p.keys);
  args.dim = static_cast<int32_t>(p.dim);
  args.causal = p.causal;
  args.tf32 = call.allow_tf32();
  args.lse = static_cast<float*>(p.lse);
  args.lse_batch = p.lse_batch;
  args.lse_head = p.lse_head;
  args.lse_row = p.lse_row;
  args.bias = p.bias;
  args.bias_narrow = p.bias_dtype == p.dtype && p.dtype != MOLFUSE_F32;
  args.bias_strides = {p.bias_batch, p.bias_head, p.bias_row, p.bias_column};
  args.grad_bias = static_cast<float*>(p.grad_bias);
  args.grad_bias_strides = {p.grad_bias_batch, p.grad_bias_head, p.grad_bias_row, p.grad_bias_column};
  args.relative = p.relative;
  args.relative_narrow = p.relative_dtype == p.dtype && p.dtype != MOLFUSE_F32;
  args.relative_head = p.relative_head;
  args.relative_column = p.relative_column;
  args.radius = fitting("the radius of relative_bias", p.radius);
  args.scale = static_cast<float>(p.scale);
  args.score_scale = static_cast<float>(p.dtype == MOLFUSE_F32 ? p.scale : p.scale * 1.4426950408889634);
  args.keep_scale = static_cast<float>(1 / (1 - p.dropout_p));
  args.threshold = p.threshold;
  args.offset_low = p.offset_low;
  args.key_low = static_cast<uint32_t>(p.philox_key);
  args.key_high = static_cast<uint32_t>(p.philox_key >> 32);
  args.splits = 1;
  args.report = call.report();
  return args;
}

}  // namespace attention_device

void attention_forward_device(const AttentionProblem& p, DeviceCall& call) {
  const attention_device::Args args = attention_device::device_args(p, call);
  if (p.batch == 0 || p.heads == 0 || p.queries == 0) return;
  if (attention_device::tiny_forward(args, p, call)) return;
  switch (p.dtype) {
    case MOLFUSE_F16: return attention_device::launcher_of<f16>(p.dim, p.queries)(args, call);
    case MOLFUSE_BF16: return attention_device::launcher_of<bf16>(p.dim, p.queries)(args, call);
    default: return attention_device::launcher_of<float>(p.dim, p.queries)(args, call);
  }
}

}  // namespace molfuse

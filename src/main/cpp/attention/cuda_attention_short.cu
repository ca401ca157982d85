// SPDX-License-Identifier: Apache-2.0
// Backward for few keys, on a GPU, in one kernel: a block has a head of a sequence, each of its warps 16 or 32 of the keys for good, with the
// gradients of key and value in registers. Queries come by 32 or 16. Scores are made once, five products in all; the gradients of a step's scores
// pass through shared memory to the warps, each of which then has a part of the gradient of those queries, whole: all keys are here, so
// nothing is added up between blocks or steps. The sum of weights times their gradients, which the recomputation elsewhere takes from out,
// is taken from the scores, and so is the sum of weights, which lse gives no better than its own rounding: out is not read, and where a row
// has one key only, or one that outweighs the others, the gradients of its scores are exactly 0.
#include <algorithm>

#include "attention/device.h"

namespace molfuse {
namespace attention_device {
namespace {

/// PARTS: 16 keys each that a warp has.
template <class T, int DIM, int WARPS, int PARTS>
struct ShortPlan {
  /// Queries at a time: fewer where the gradients of key and value leave few registers.
  static constexpr int kStep = DIM * static_cast<int>(sizeof(T)) >= 256 || PARTS == 2 ? 16 : 32, kStepTiles = kStep / 8, kHalves = kStep / 16;
  static constexpr int kWarps = WARPS, kThreads = WARPS * kWarp, kOwnKeys = 16 * PARTS, kKeys = kOwnKeys * WARPS;
  static constexpr int kRowBytes = Tile<T, DIM>::kRowBytes;
  static constexpr int kKeyBytes = kKeys * kRowBytes;
  static constexpr int kStageBytes = kStep * kRowBytes;
  static constexpr int kSlopeBytes = kKeys * Tile<T, kStep>::kRowBytes;
  static constexpr int kDeltaBytes = WARPS * kStep * 2 * static_cast<int>(sizeof(float));  // sums of weights, and times gradients
  static constexpr int kTileBytes = 2 * kKeyBytes + 4 * kStageBytes + kSlopeBytes + kStageBytes + kDeltaBytes;
  static constexpr int kDiagonalFloats = diagonal_floats(kStep);
  /// Columns of the gradient of 16 queries that a warp has, and that it takes at a time. Of 32 queries, every other warp has the second half.
  static constexpr int kOwnColumns = (DIM * kHalves / WARPS + 15) / 16 * 16;
  static constexpr int kColumns = kOwnColumns % 32 == 0 ? 32 : 16;
  static constexpr int kBlocks = WARPS >= 8 ? 1 : WARPS == 2 ? (DIM <= 32 && sizeof(T) == 2 ? 6 : 4) : DIM <= 32 && sizeof(T) == 2 ? 3 : 2;
};

/// acc += the transpose of score gradients [key, query], 16 queries from `first` on, times columns of the keys.
template <class T, int DIM, int COLUMNS, int STEP>
MOLFUSE_DEVICE void multiply_slopes(float (&acc)[COLUMNS / 8][4], const unsigned char* slopes, int first, const unsigned char* keys, int column,
                                    int length, bool tf32) {
  using Slopes = Tile<T, STEP>;
  using Rows = Tile<T, DIM>;
  constexpr int kDepth = 32 / static_cast<int>(sizeof(T));
  const int lane = lane_index(), g = lane / 4, t = lane % 4;
  for (int k = 0; k < length; k += kDepth) {
    uint32_t bits[4];
    if constexpr (sizeof(T) == 4) {
      MOLFUSE_UNROLL
      for (int m = 0; m < 4; ++m) {
        const int at = first + g + m % 2 * 8;
        bits[m] = load(reinterpret_cast<const uint32_t*>(slopes + Slopes::offset(k + 2 * t + m / 2, at / 4) + at % 4 * 4));
      }
    } else {
      load_matrices_transposed(bits, slopes + Slopes::offset(k + (lane & 7) + (lane >> 4 << 3), first / 8 + (lane >> 3 & 1)));
    }
    const Left<T> a = left_of<T>(bits, tf32);
    MOLFUSE_UNROLL
    for (int n = 0; n < COLUMNS / 8; n += 2) {
      uint32_t b[4];
      if constexpr (sizeof(T) == 4) {
        MOLFUSE_UNROLL
        for (int m = 0; m < 4; ++m) {
          const int at = column + 8 * (n + m / 2) + g;
          b[m] = load(reinterpret_cast<const uint32_t*>(keys + Rows::offset(k + 2 * t + m % 2, at / 4) + at % 4 * 4));
        }
      } else {
        load_matrices_transposed(b, keys + Rows::offset(k + (lane & 15), column / 8 + n + (lane >> 4)));
      }
      multiply<T>(acc[n], acc[n], a, b[0], b[1], tf32);
      multiply<T>(acc[n + 1], acc[n + 1], a, b[2], b[3], tf32);
    }
  }
}

template <class T, int DIM, int WARPS, int PARTS>
MOLFUSE_KERNEL((ShortPlan<T, DIM, WARPS, PARTS>::kThreads), (ShortPlan<T, DIM, WARPS, PARTS>::kBlocks)) short_gradients(const Args args) {
  using Plan = ShortPlan<T, DIM, WARPS, PARTS>;
  constexpr int kStep = Plan::kStep, kStepTiles = Plan::kStepTiles, kColumns = Plan::kColumns;
  using Slopes = Tile<T, kStep>;
  unsigned char* keys = shared_memory();
  unsigned char* values = keys + Plan::kKeyBytes;
  unsigned char* stages = values + Plan::kKeyBytes;
  unsigned char* shared_slopes = stages + 4 * Plan::kStageBytes;
  unsigned char* out_stage = shared_slopes + Plan::kSlopeBytes;
  float* deltas = reinterpret_cast<float*>(out_stage + Plan::kStageBytes);
  const int distances = 2 * args.radius + 1;
  const int lane = lane_index(), g = lane / 4, t = lane % 4, warp = warp_index(), own = Plan::kOwnKeys * warp;
  float* rest = deltas + Plan::kWarps * kStep * 2;
  float* diagonals = rest + warp * Plan::kDiagonalFloats;
  if (args.relative_parts != nullptr) rest += Plan::kWarps * Plan::kDiagonalFloats;
  float* relative = rest;
  if (args.relative_shared != 0) rest += distances;
  float* global_sums = args.relative_parts + (static_cast<int64_t>(block_x()) * Plan::kWarps + warp) * distances;
  float* sums = args.relative_parts_shared != 0 ? rest + warp * distances : global_sums;
  float low = 0, high = 0;
  const Sequence s = sequence_of(args, block_x() / args.heads, block_x() % args.heads);
  const T* query = rows_of<const T>(args.query, s, s.first_query);
  const T* grad_out = rows_of<const T>(args.grad_out, s, s.first_query);
  const int count = (s.queries + kStep - 1) / kStep;
  auto load_stage = [&](int step) {
    unsigned char* to = stages + step % 2 * 2 * Plan::kStageBytes;
    load_tile<T, DIM, kStep, Plan::kThreads>(to, args.query, query, step * kStep, s.first_row(args), s.queries, args.dim);
    load_tile<T, DIM, kStep, Plan::kThreads>(to + Plan::kStageBytes, args.grad_out, grad_out, step * kStep, s.first_row(args), s.queries, args.dim);
    commit_copies();
  };
  load_tile<T, DIM, Plan::kKeys, Plan::kThreads>(keys, args.key, rows_of<const T>(args.key, s, s.first_key), 0, 0, s.length, args.dim);
  load_tile<T, DIM, Plan::kKeys, Plan::kThreads>(values, args.value, rows_of<const T>(args.value, s, s.first_key), 0, 0, s.length, args.dim);
  load_relative<T>(args, s.head, relative, Plan::kThreads);
  if (count > 0) load_stage(0);
  commit_copies();
  if (args.relative_parts != nullptr) begin_diagonals(args, sums);

  float grad_key[PARTS][DIM / 8][4] = {}, grad_value[PARTS][DIM / 8][4] = {};
  for (int step = 0; step < count; ++step) {
    const int at = step * kStep;
    float log_sum[kStepTiles][2];
    MOLFUSE_UNROLL
    for (int n = 0; n < kStepTiles; ++n) {
      MOLFUSE_UNROLL
      for (int c = 0; c < 2; ++c) {
        const int i = at + 8 * n + 2 * t + c;
        const float lse = s.limit(args, i) > 0 ? load(lse_of(args, s) + i * args.lse_row) : -infinity();
        log_sum[n][c] = lse == -infinity() ? infinity() : lse * kScoreUnit<T>;
      }
    }
    wait_copies<0>();
    sync_block();
    if (step + 1 < count) load_stage(step + 1);
    const unsigned char* queries = stages + step % 2 * 2 * Plan::kStageBytes;
    const unsigned char* grads = queries + Plan::kStageBytes;
    float weights[PARTS][kStepTiles][4], slopes[PARTS][kStepTiles][4];
    uint32_t keep = args.threshold != 0 ? 0u : 0xFFFFu;  // a bit for each element
    MOLFUSE_UNROLL
    for (int p = 0; p < PARTS; ++p) {
      const int key = own + 16 * p;
      multiply_rows<T, DIM, kStepTiles>(weights[p], keys, key, queries, args.tf32 != 0);
      const bool masked = at + kStep > s.queries || s.limit(args, at) < key + 16;
      finish_scores<T, true, true>(weights[p], args, s, relative, key, at, masked);
      multiply_rows<T, DIM, kStepTiles>(slopes[p], values, key, grads, args.tf32 != 0);
      if (args.threshold != 0) {
        MOLFUSE_UNROLL
        for (int n = 0; n < kStepTiles; ++n) keep |= kept<true>(args, s, key, at, n) << (4 * (p * kStepTiles + n));
      }
    }
    MOLFUSE_UNROLL
    for (int n = 0; n < kStepTiles; ++n) {
      float sum[2] = {0, 0}, total[2] = {0, 0};
      MOLFUSE_UNROLL
      for (int p = 0; p < PARTS; ++p) {
        MOLFUSE_UNROLL
        for (int e = 0; e < 4; ++e) {
          float &weight = weights[p][n][e], &slope = slopes[p][n][e];
          weight = power<T>(weight - log_sum[n][e & 1]);
          total[e & 1] += weight;
          slope = weight == 0 || (keep >> (4 * (p * kStepTiles + n) + e) & 1u) == 0 ? 0.0f : slope * args.keep_scale;
          sum[e & 1] = fused_multiply_add(weight, slope, sum[e & 1]);
        }
      }
      MOLFUSE_UNROLL
      for (int c = 0; c < 2; ++c) {
        MOLFUSE_UNROLL
        for (int distance = 4; distance < kWarp; distance *= 2) {
          sum[c] += shuffle_xor(sum[c], distance);
          total[c] += shuffle_xor(total[c], distance);
        }
      }
      if (lane < 4) {
        store(reinterpret_cast<Vector<float, 4>*>(deltas + 2 * (warp * kStep + 8 * n + 2 * lane)),
              Vector<float, 4>{{sum[0], total[0], sum[1], total[1]}});
      }
    }
    sync_block();
    MOLFUSE_UNROLL
    for (int n = 0; n < kStepTiles; ++n) {
      float delta[2] = {0, 0}, share[2] = {0, 0};
      MOLFUSE_UNROLL
      for (int w = 0; w < Plan::kWarps; ++w) {
        const auto part = load(reinterpret_cast<const Vector<float, 4>*>(deltas + 2 * (w * kStep + 8 * n + 2 * t)));
        MOLFUSE_UNROLL
        for (int c = 0; c < 2; ++c) {
          delta[c] += part.item[2 * c];
          share[c] += part.item[2 * c + 1];
        }
      }
      MOLFUSE_UNROLL
      for (int c = 0; c < 2; ++c) {
        share[c] = share[c] == 0 ? 0.0f : 1.0f / share[c];
        delta[c] *= share[c];
        const int i = at + 8 * n + 2 * t + c;
        // For the kernel of a bias that is broadcast.
        if (args.statistics != nullptr && warp == 0 && g == 0 && i < s.queries) {
          store(statistics_of(args, s) + i, RowStatistics{log_sum[n][c], delta[c]});
        }
      }
      MOLFUSE_UNROLL
      for (int p = 0; p < PARTS; ++p) {
        MOLFUSE_UNROLL
        for (int e = 0; e < 4; ++e) {
          float &weight = weights[p][n][e], &slope = slopes[p][n][e];
          // What is hidden stays 0, even if the sum is NaN.
          weight = weight == 0 ? 0.0f : weight * share[e & 1];
          slope = score_gradient(weight, slope, delta[e & 1]);
          if ((keep >> (4 * (p * kStepTiles + n) + e) & 1u) == 0) weight = 0;
        }
        MOLFUSE_UNROLL
        for (int r = 0; r < 2; ++r) {
          const int row = own + 16 * p + g + 8 * r;
          const float first = slopes[p][n][2 * r], second = slopes[p][n][2 * r + 1];
          if constexpr (sizeof(T) == 2) {
            store(reinterpret_cast<uint32_t*>(shared_slopes + Slopes::offset(row, n) + 4 * t), pack<T>(first, second));
          } else {
            store(reinterpret_cast<Vector<float, 2>*>(shared_slopes + Slopes::offset(row, 2 * n + t / 2) + t % 2 * 8), Vector<float, 2>{{first, second}});
          }
        }
      }
    }
    MOLFUSE_UNROLL
    for (int p = 0; p < PARTS; ++p) {
      const int key = own + 16 * p;
      multiply_weights<T, DIM, DIM>(grad_value[p], weights[p], grads, 0, args.tf32 != 0);
      multiply_weights<T, DIM, DIM>(grad_key[p], slopes[p], queries, 0, args.tf32 != 0);
      if (args.grad_bias_direct != 0) {
        const auto position = Position<true>::of_lane(key, at);
        const BiasStrides& strides = args.grad_bias_strides;
        MOLFUSE_UNROLL
        for (int n = 0; n < kStepTiles; ++n) {
          MOLFUSE_UNROLL
          for (int e = 0; e < 4; ++e) {
            const int i = position.query(n, e), j = position.key(n, e);
            if (i < s.queries && j < s.keys) {
              store(args.grad_bias + s.batch * strides.batch + s.head * strides.head + i * strides.row + j * strides.column, slopes[p][n][e]);
            }
          }
        }
      }
      if (args.relative_parts != nullptr) add_diagonals<true>(slopes[p], args, s, key, at, diagonals, sums, &low, &high);
    }
    sync_block();
    const int half = warp % Plan::kHalves * 16, begin = warp / Plan::kHalves * Plan::kOwnColumns, end = smaller(begin + Plan::kOwnColumns, DIM);
    for (int column = begin; column < end && args.grad_query.data != nullptr; column += kColumns) {
      float grad_query[kColumns / 8][4] = {};
      multiply_slopes<T, DIM, kColumns, kStep>(grad_query, shared_slopes, half, keys, column, s.length, args.tf32 != 0);
      float factor[2];
      MOLFUSE_UNROLL
      for (int r = 0; r < 2; ++r) factor[r] = s.limit(args, at + half + g + 8 * r) > 0 ? args.scale : 0.0f;
      write_rows<T, kColumns>(grad_query, factor, out_stage + warp * 16 * Tile<T, kColumns>::kRowBytes, args.grad_query,
                              rows_of<T>(args.grad_query, s, s.first_query), at + half, s.queries, column, args.dim);
    }
  }
  wait_copies<0>();
  sync_block();
  MOLFUSE_UNROLL
  for (int p = 0; p < PARTS; ++p) {
    const int key = own + 16 * p;
    float key_factor[2], value_factor[2];
    MOLFUSE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const bool seen = key + g + 8 * r < s.length;
      key_factor[r] = seen ? args.scale : 0.0f;
      value_factor[r] = seen ? args.keep_scale : 0.0f;
    }
    unsigned char* stage = keys + key * Plan::kRowBytes;
    if (args.grad_key.data != nullptr) {
      write_rows<T, DIM>(grad_key[p], key_factor, stage, args.grad_key, rows_of<T>(args.grad_key, s, s.first_key), key, s.keys, 0, args.dim);
    }
    if (args.grad_value.data != nullptr) {
      write_rows<T, DIM>(grad_value[p], value_factor, stage, args.grad_value, rows_of<T>(args.grad_value, s, s.first_key), key, s.keys, 0, args.dim);
    }
  }
  if (args.relative_parts != nullptr) finish_diagonals(args, sums, low, high, global_sums);
}

// ---- dispatch

template <class T, int DIM, int WARPS, int PARTS = 1>
bool launch_short(Args args, const AttentionProblem& p, DeviceCall& call) {
  using Plan = ShortPlan<T, DIM, WARPS, PARTS>;
  const int64_t pairs = p.batch * p.heads;
  size_t shared = Plan::kTileBytes;
  if (p.grad_relative != nullptr) shared += Plan::kWarps * Plan::kDiagonalFloats * sizeof(float);
  if (shared > call.device().shared_per_block) return false;
  shared = place_relative(args, shared, call);
  if (p.grad_relative != nullptr) {
    args.relative_parts = call.scratch<float>(pairs * Plan::kWarps * (2 * p.radius + 1));
    shared = place_relative_sums(args, Plan::kWarps, shared, call);
  }
  call.launch("attention short_gradients", short_gradients<T, DIM, WARPS, PARTS>, Grid{pairs, 1, 1}, Plan::kThreads, shared, args);
  if (p.grad_relative != nullptr) reduce_relative(args, p, Plan::kWarps, call);
  return true;
}

using Launcher = bool (*)(Args, const AttentionProblem&, DeviceCall&);

/// The table: by head size and the keys that 2, 4 or 8 warps have, 16 each, or 32 so that what a thread needs beside them is there once. Larger ones have no place in registers or shared memory.
template <class T, int DIM, int MOST>
Launcher launcher_for(int64_t keys) {
  if (keys > MOST) return nullptr;
  if constexpr (MOST >= 256) {
    if (keys > 128) return launch_short<T, DIM, 8, 2>;
  }
  if constexpr (MOST >= 128) {
    if (keys > 64) return launch_short<T, DIM, 8>;
  }
  if constexpr (DIM * sizeof(T) <= 128) {
    if (keys <= 32) return launch_short<T, DIM, 2>;
  }
  return launch_short<T, DIM, 4>;
}
template <class T>
Launcher launcher_of(int64_t dim, int64_t keys) {
  if constexpr (sizeof(T) == 4) {
    return dim <= 32 ? launcher_for<T, 32, 64>(keys) : dim <= 64 ? launcher_for<T, 64, 64>(keys) : nullptr;
  } else {
    if (dim <= 16) return launcher_for<T, 16, 256>(keys);
    if (dim <= 32) return launcher_for<T, 32, 256>(keys);
    if (dim <= 64) return launcher_for<T, 64, 256>(keys);
    if (dim <= 96) return launcher_for<T, 96, 64>(keys);
    return dim <= 128 ? launcher_for<T, 128, 64>(keys) : nullptr;
  }
}

}  // namespace

bool short_backward(const Args& args, const AttentionProblem& p, DeviceCall& call) {
  // One block goes over all queries of its head: many of them only where heads fill the device.
  if (p.keys == 0 || (p.queries > 256 && p.batch * p.heads < 2 * call.device().multiprocessors)) return false;
  Launcher launch = nullptr;
  switch (p.dtype) {
    case MOLFUSE_F16: launch = launcher_of<f16>(p.dim, p.keys); break;
    case MOLFUSE_BF16: launch = launcher_of<bf16>(p.dim, p.keys); break;
    default: launch = launcher_of<float>(p.dim, p.keys); break;
  }
  return launch != nullptr && launch(args, p, call);
}

}  // namespace attention_device
}  // namespace molfuse

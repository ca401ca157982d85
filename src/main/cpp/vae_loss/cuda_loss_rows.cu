// SPDX-License-Identifier: Apache-2.0
// Rows of up to 1024 classes that lie side by side. A warp takes a tile of up to 32 rows, and while it works on one, the next is on its way
// to shared memory by asynchronous copies: 2 to 4 KB a warp, with the 16 to 32 warps that fit a multiprocessor 50 to 100 KB in flight all
// the time, where an H200 needs some 30 KB to keep its memory busy. A group of 8 or 32 lanes takes a row into registers: one read, one
// exponential an element. A lane answers for a row's target, loss and divisions, for all of the tile's rows at once.
//
// A tile is copied by 16 bytes however long a row is, 39 classes of bf16 as well as 40: as one span where its rows follow each other
// without a gap, else as a span for each row. The gradient goes back the same way, through the place of the logits in shared memory; rows
// that are whole vectors of 16 bytes are written straight from registers. Chunks that hold only padding are not read.
#include <algorithm>

#include "vae_loss/loss_kernel.h"

namespace molfuse {

/// How rows become tiles: tokens in the order in which they lie in memory, rows n of `spans` spans of `span_rows` neighbours each, of
/// which a tile has up to `tile_rows`.
struct RowsPlan {
  int64_t spans, span_rows, tiles_per_span, tiles;
  int64_t inner;  // length of the faster of the dimensions B and T
  int64_t logits_outer, logits_inner, grad_outer, grad_inner;
  int32_t by_batch;  // the faster one is B
  int32_t tile_rows, stage_bytes;
  // In shared memory. Apart: every row is a span, and begins in a chunk of its own.
  int32_t apart;
  int32_t pitch;      // elements from row to row
  int32_t head_step;  // of what precedes a row in its chunk, from row to row
  int32_t chunks;     // of a span, at most
  uint64_t reciprocal;  // 2^32 / classes, rounded up
};

namespace {

using namespace loss;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

/// How a row of classes lies in the registers of a group of lanes: chunk c of lane l is the vector c * LANES + l of N classes.
template <class T, int LANES, int N, int CHUNKS>
struct Layout {
  using Type = T;
  static constexpr int kLanes = LANES, kVector = N, kChunks = CHUNKS, kGroups = kWarp / LANES;
  /// Of 256 threads on a multiprocessor: up to 64, 80 or 128 registers a thread.
  static constexpr int kBlocks = N * CHUNKS <= (LANES == 8 && N == 1 ? 5 : 10) ? 4 : (N * CHUNKS <= 16 ? 3 : 2);
};

struct Place {
  int64_t b, t, logits, grad;  // offsets of a row's first element
};
MOLFUSE_DEVICE Place place_of(const RowsPlan& plan, int64_t n) {
  const Split at = split(n, plan.inner);
  const bool by_batch = plan.by_batch != 0;
  return {by_batch ? at.remainder : at.quotient, by_batch ? at.quotient : at.remainder,
          at.quotient * plan.logits_outer + at.remainder * plan.logits_inner, at.quotient * plan.grad_outer + at.remainder * plan.grad_inner};
}

struct Tile {
  int64_t first;
  int rows;
};
MOLFUSE_DEVICE Tile tile_at(const RowsPlan& plan, int64_t tile) {
  if (tile >= plan.tiles) return {0, 0};
  const Split at = split(tile, plan.tiles_per_span);
  const int64_t left = plan.span_rows - at.remainder * plan.tile_rows;
  return {at.quotient * plan.span_rows + at.remainder * plan.tile_rows, left < plan.tile_rows ? static_cast<int>(left) : plan.tile_rows};
}

/// What a lane knows of its row before the row's logits are there; target as loaded, or as a class.
template <class TARGET>
struct RowInputs {
  TARGET target;
  float lse, scale;
};
template <bool BACKWARD>
MOLFUSE_DEVICE RowInputs<int64_t> fetch(const LossKernelArgs& args, const RowsPlan& plan, int64_t tile) {
  RowInputs<int64_t> row{args.pad, 0.0f, 0.0f};
  const Tile at = tile_at(plan, tile);
  if (lane_index() >= at.rows) return row;
  const Place place = place_of(plan, at.first + lane_index());
  row.target = load_target(args, place.b, place.t);
  if (BACKWARD) {
    row.lse = element_of<float>(args.row_lse, place.b, place.t);
    if (args.grad_nll.data != nullptr) row.scale = element_of<float>(args.grad_nll, place.b, place.t);
  }
  return row;
}
template <bool BACKWARD>
MOLFUSE_DEVICE RowInputs<int> checked(const LossKernelArgs& args, const RowsPlan& plan, int64_t tile, const RowInputs<int64_t>& row) {
  int target = target_of(args, row.target, 0, 0, false);
  if (!BACKWARD && target == kWrong) {
    const Place place = place_of(plan, tile_at(plan, tile).first + lane_index());
    target = target_of(args, row.target, place.b, place.t, true);
  }
  return {target, row.lse, row.scale};
}

/// Calls work(row, chunk of the span that begins with it) for all chunks of a tile, by a warp.
template <class WORK>
MOLFUSE_DEVICE void each_chunk(const RowsPlan& plan, int rows, const WORK& work) {
  if (plan.apart == 0) {
    for (int q = lane_index(); q < plan.chunks; q += kWarp) work(0, q);
    return;
  }
  for (int n = lane_index(); n < rows * plan.chunks; n += kWarp) work(n / plan.chunks, n % plan.chunks);
}
/// Elements of a row's first chunk that come before it.
template <class T>
MOLFUSE_DEVICE int head_of(const RowsPlan& plan, int head, int row) { return (head + row * plan.head_step) & (kChunk<T> - 1); }

/// Begins to copy a tile, but for chunks of uncounted rows only.
template <class T>
MOLFUSE_DEVICE void stage_tile(const LossKernelArgs& args, const RowsPlan& plan, int64_t tile, int target, unsigned char* to) {
  const uint32_t counted = ballot(target >= 0);
  if (counted == 0) return;
  const Tile at = tile_at(plan, tile);
  const T* from = static_cast<const T*>(args.logits) + place_of(plan, at.first).logits;
  const int first_head = span_head(from), elements = plan.apart != 0 ? args.classes : at.rows * args.classes;
  each_chunk(plan, at.rows, [&](int row, int q) {
    const int head = head_of<T>(plan, first_head, row), begin = q * kChunk<T> - head, end = begin + kChunk<T> - 1;
    if (begin >= elements) return;
    const auto row_of = [&](int element) { return static_cast<int>(static_cast<uint32_t>(element) * plan.reciprocal >> 32); };
    const int low = plan.apart != 0 ? row : row_of(begin < 0 ? 0 : begin), high = plan.apart != 0 ? row : row_of(end < elements ? end : elements - 1);
    if ((counted >> low & ((2u << (high - low)) - 1u)) == 0) return;
    copy_chunk(args, to + (row * plan.pitch * static_cast<int>(sizeof(T)) + q * 16), from + row * plan.logits_inner, head, q);
  });
}
/// Writes a tile's gradient from where it is in shared memory.
template <class T>
MOLFUSE_DEVICE void write_tile(const LossKernelArgs& args, const RowsPlan& plan, int rows, int first_head, const unsigned char* from, T* to) {
  const int elements = plan.apart != 0 ? args.classes : rows * args.classes;
  each_chunk(plan, rows, [&](int row, int q) {
    const int head = head_of<T>(plan, first_head, row), begin = q * kChunk<T> - head;
    T* out = to + row * plan.grad_inner;
    const T* staged = reinterpret_cast<const T*>(from) + row * plan.pitch + q * kChunk<T>;
    if (begin >= 0 && begin + kChunk<T> <= elements && span_head(out) == head) {
      store_once(reinterpret_cast<Vector<T, kChunk<T>>*>(out + begin), load_chunk<T>(staged));
    } else {
      for (int i = 0; i < kChunk<T>; ++i) {
        if (begin + i >= 0 && begin + i < elements) store(out + begin + i, load(staged + i));
      }
    }
  });
}

template <class R, bool BACKWARD>
MOLFUSE_KERNEL(kThreads, R::kBlocks) loss_rows(MOLFUSE_GRID_CONSTANT const LossKernelArgs args, MOLFUSE_GRID_CONSTANT const RowsPlan plan) {
  using T = typename R::Type;
  constexpr int kN = R::kVector, kLanes = R::kLanes, kGroups = R::kGroups;
  if (!BACKWARD && block_x() < args.latent_blocks) return latent_forward(args);
  const int lane = lane_index(), sub = lane % kLanes, group = lane / kLanes;
  const int64_t warps = (grid_x() - args.latent_blocks) * kWarps;
  int64_t tile = (block_x() - args.latent_blocks) * kWarps + warp_index();
  unsigned char* stages = shared_memory() + kLossShared + warp_index() * 2 * plan.stage_bytes;
  RowInputs<int> next = checked<BACKWARD>(args, plan, tile, fetch<BACKWARD>(args, plan, tile));
  RowInputs<int64_t> later = fetch<BACKWARD>(args, plan, tile + warps);
  stage_tile<T>(args, plan, tile, next.target, stages);
  commit_copies();
  const bool gradient = BACKWARD || args.grad != nullptr;
  const float scale_of_all = BACKWARD ? (args.grad_nll.data == nullptr ? backward_scale(args) : 0.0f) : forward_scale(args);
  ThreadSums sums;
  for (int turn = 0; tile < plan.tiles; tile += warps, turn ^= 1) {
    const RowInputs<int> row = next;
    next = checked<BACKWARD>(args, plan, tile + warps, later);
    later = fetch<BACKWARD>(args, plan, tile + 2 * warps);
    stage_tile<T>(args, plan, tile + warps, next.target, stages + (turn ^ 1) * plan.stage_bytes);
    commit_copies();
    const Tile at = tile_at(plan, tile);
    const Place first_place = place_of(plan, at.first);
    const int own_target = row.target;
    const uint32_t counted = ballot(own_target >= 0);
    const int first_head = span_head(static_cast<const T*>(args.logits) + first_place.logits);
    unsigned char* const stage = stages + turn * plan.stage_bytes;
    const auto staged_row = [&](int r) { return reinterpret_cast<T*>(stage) + r * plan.pitch + head_of<T>(plan, first_head, r); };
    wait_copies<1>();
    sync_warp();
    const float own_logit = own_target >= 0 ? to_float(load(staged_row(lane) + own_target)) : 0.0f;
    float own_largest = 0, own_total = 0;
    bool own_argmax = false;
    for (int first = 0; first < at.rows; first += kGroups) {
      const int r = first + group;
      const int target = shuffle(own_target, r);
      const bool counts = target >= 0;
      T* const staged = staged_row(r) + sub * kN;
      const int left = args.classes - sub * kN;  // classes from this lane's first one on
      float x[R::kChunks][kN];
      float factor = target == kWrong ? quiet_nan() : 0.0f, at_target = factor;
      if ((counted >> first & ((1u << kGroups) - 1u)) == 0) {
        MOLFUSE_UNROLL
        for (int c = 0; c < R::kChunks; ++c) {
          MOLFUSE_UNROLL
          for (int i = 0; i < kN; ++i) x[c][i] = 0;
        }
      } else {
        MOLFUSE_UNROLL
        for (int c = 0; c < R::kChunks; ++c) {
          if (counts && c * kLanes * kN < left) {
            const Vector<T, kN> v = load(reinterpret_cast<const Vector<T, kN>*>(staged + c * kLanes * kN));
            MOLFUSE_UNROLL
            for (int i = 0; i < kN; ++i) x[c][i] = to_float(v.item[i]);
          } else {
            MOLFUSE_UNROLL
            for (int i = 0; i < kN; ++i) x[c][i] = -infinity();
          }
        }
        const float logit = shuffle(own_logit, r);
        float shift;
        if (BACKWARD) {
          shift = shuffle(row.lse, r);
        } else {
          float largest = -infinity();
          MOLFUSE_UNROLL
          for (int c = 0; c < R::kChunks; ++c) {
            MOLFUSE_UNROLL
            for (int i = 0; i < kN; ++i) largest = larger(largest, x[c][i]);
          }
          largest = group_largest<kLanes>(largest);
          // The target is the argmax if it is the largest and no class before it is as large.
          bool before = false;
          if (counts && logit == largest) {
            const int to_target = target - sub * kN;
            MOLFUSE_UNROLL
            for (int c = 0; c < R::kChunks; ++c) {
              MOLFUSE_UNROLL
              for (int i = 0; i < kN; ++i) before = before || (x[c][i] == largest && c * kLanes * kN + i < to_target);
            }
          }
          const uint32_t befores = ballot(before);
          if (lane / kGroups * kGroups == first) {
            const uint32_t mask = kLanes == kWarp ? kFullMask : (1u << (kLanes % kWarp)) - 1u;
            own_argmax = (befores >> (lane % kGroups * kLanes) & mask) == 0;
          }
          shift = largest;
        }
        // Nothing is left of rows that do not count, nor of classes that are not there.
        shift = counts ? shift : 0.0f;
        float total = 0;
        MOLFUSE_UNROLL
        for (int c = 0; c < R::kChunks; ++c) {
          MOLFUSE_UNROLL
          for (int i = 0; i < kN; ++i) {
            x[c][i] = exp_difference(x[c][i], shift);
            total += x[c][i];
          }
        }
        total = group_sum<kLanes>(total);
        if (!BACKWARD) {
          const float row_largest = shuffle(shift, lane % kGroups * kLanes), row_total = shuffle(total, lane % kGroups * kLanes);
          if (lane / kGroups * kGroups == first) {
            own_largest = row_largest;
            own_total = row_total;
          }
        }
        if (gradient) {
          // Divided by the sum of the terms, which in backward is one but for the rounding of the stored log-sum-exp.
          const float scale = BACKWARD && args.grad_nll.data != nullptr ? shuffle(row.scale, r) : scale_of_all;
          const float inverse = 1.0f / total;
          if (counts) {
            factor = inverse * scale;
            at_target = (exp_difference(logit, shift) * inverse - 1.0f) * scale;
          }
        }
      }
      if (!gradient || r >= at.rows) continue;
      const int to_target = counts ? target - sub * kN : -1;  // from this lane's first class
      if (kN == 1) {
        MOLFUSE_UNROLL
        for (int c = 0; c < R::kChunks; ++c) {
          if (c * kLanes < left) store(staged + c * kLanes, from_float<T>(x[c][0] * factor));
        }
        if (to_target >= 0 && to_target % kLanes == 0) store(staged + to_target, from_float<T>(at_target));
        continue;
      }
      T* out = static_cast<T*>(args.grad) + first_place.grad + r * plan.grad_inner + sub * kN;
      MOLFUSE_UNROLL
      for (int c = 0; c < R::kChunks; ++c) {
        if (c * kLanes * kN >= left) continue;
        Vector<T, kN> v;
        MOLFUSE_UNROLL
        for (int i = 0; i < kN; ++i) v.item[i] = from_float<T>(x[c][i] * factor);
        if (to_target >= c * kLanes * kN && to_target < c * kLanes * kN + kN) {
          MOLFUSE_UNROLL
          for (int i = 0; i < kN; ++i) {
            if (c * kLanes * kN + i == to_target) v.item[i] = from_float<T>(at_target);
          }
        }
        store_once(reinterpret_cast<Vector<T, kN>*>(out + c * kLanes * kN), v);
      }
    }
    if (!BACKWARD && lane < at.rows) {
      const Place own = place_of(plan, at.first + lane);
      if (own_target >= 0) {
        finish_token(args, own.b, own.t, own_largest, own_total, own_logit, own_argmax && own_logit == own_largest, sums);
      } else {
        finish_masked(args, own.b, own.t, own_target, sums);
      }
    }
    // Other lanes' gradients are to be read, and then this stage is to be filled again.
    sync_warp();
    if (kN == 1 && gradient) {
      write_tile(args, plan, at.rows, first_head, stage, static_cast<T*>(args.grad) + first_place.grad);
      sync_warp();
    }
  }
  if (!BACKWARD) write_partial(args, sums, 0);
}

// ---- dispatch

using Launcher = void (*)(const LossKernelArgs&, const RowsPlan&, DeviceCall&, int64_t blocks, size_t shared);

template <class R, bool BACKWARD>
void launch(const LossKernelArgs& args, const RowsPlan& plan, DeviceCall& call, int64_t blocks, size_t shared) {
  call.launch("vae_loss rows", loss_rows<R, BACKWARD>, {blocks, 1, 1}, kThreads, shared, args, plan);
}

struct Choice {
  Launcher launch;
  int groups, blocks;  // rows that a warp takes at a time; blocks that fit a multiprocessor's registers
  bool wide;
};
template <class R, bool BACKWARD>
Choice choice() {
  return {launch<R, BACKWARD>, R::kGroups, R::kBlocks, R::kVector > 1};
}

/// The table. A row of 6 vectors or more keeps most lanes of a group busy with whole ones; one of fewer is taken class by class, as all
/// rows are that are not aligned.
template <class T, bool BACKWARD>
Choice choose(int64_t classes, bool wide) {
  constexpr int kWide = kChunk<T>;
  const int64_t vectors = classes / kWide;
  if (wide && vectors >= 6) {
    if (vectors <= 8) return choice<Layout<T, 8, kWide, 1>, BACKWARD>();
    if (vectors <= 16) return choice<Layout<T, 8, kWide, 2>, BACKWARD>();
    if (vectors <= 64) return choice<Layout<T, 32, kWide, 2>, BACKWARD>();
    if (vectors <= 128) return choice<Layout<T, 32, kWide, 4>, BACKWARD>();
  }
  if (classes <= 32) return choice<Layout<T, 8, 1, 4>, BACKWARD>();
  if (classes <= 40) return choice<Layout<T, 8, 1, 5>, BACKWARD>();
  if (classes <= 64) return choice<Layout<T, 8, 1, 8>, BACKWARD>();
  if (classes <= 128) return choice<Layout<T, 32, 1, 4>, BACKWARD>();
  if (classes <= 320) return choice<Layout<T, 32, 1, 10>, BACKWARD>();
  return choice<Layout<T, 32, 1, 32>, BACKWARD>();
}
template <class T>
Choice choose(int64_t classes, bool wide, bool backward) {
  return backward ? choose<T, true>(classes, wide) : choose<T, false>(classes, wide);
}

/// Four groups of 8 lanes read words of rows `row_bytes` apart: how many of them meet in one bank, at worst.
int conflicts(int64_t row_bytes, int64_t element) {
  int used[32] = {}, worst = 0;
  for (int64_t group = 0; group < 4; ++group) {
    for (int64_t word = 0; word < 2 * element; ++word) worst = std::max(worst, ++used[(group * row_bytes / 4 + word) % 32]);
  }
  return worst;
}

}  // namespace

int64_t launch_loss_rows(LossKernelArgs& args, int32_t dtype, bool backward, DeviceCall& call) {
  const int64_t element = static_cast<int64_t>(molfuse_dtype_size(dtype)), vector = 16 / element, classes = args.classes;
  const bool gradient = args.grad != nullptr;
  RowsPlan plan{};
  // The faster dimension is the one whose rows are neighbours, if there is one.
  plan.by_batch = args.logits_batch == classes && args.logits_token != classes;
  plan.inner = plan.by_batch != 0 ? args.batch : args.length;
  plan.logits_outer = plan.by_batch != 0 ? args.logits_token : args.logits_batch;
  plan.logits_inner = plan.by_batch != 0 ? args.logits_batch : args.logits_token;
  plan.grad_outer = plan.by_batch != 0 ? args.grad_token : args.grad_batch;
  plan.grad_inner = plan.by_batch != 0 ? args.grad_batch : args.grad_token;
  const int64_t outer = plan.by_batch != 0 ? args.length : args.batch;
  const bool neighbours = plan.logits_inner == classes && (!gradient || plan.grad_inner == classes);
  const auto joined = [&](int64_t stride) { return outer == 1 || stride == plan.inner * classes; };
  const bool one_span = neighbours && joined(plan.logits_outer) && (!gradient || joined(plan.grad_outer));
  if (one_span) {
    plan.logits_outer = plan.inner * classes;
    plan.grad_outer = plan.inner * classes;
  }
  plan.spans = one_span ? 1 : outer;
  plan.span_rows = one_span ? outer * plan.inner : plan.inner;
  const auto aligned = [&](const void* data, int64_t batch, int64_t token) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && (args.batch == 1 || batch % vector == 0) && (args.length == 1 || token % vector == 0);
  };
  const bool wide = classes % vector == 0 && aligned(args.logits, args.logits_batch, args.logits_token) &&
                    (!gradient || aligned(args.grad, args.grad_batch, args.grad_token));
  const Choice chosen = dtype == MOLFUSE_F32   ? choose<float>(classes, wide, backward)
                        : dtype == MOLFUSE_F16 ? choose<f16>(classes, wide, backward)
                                               : choose<bf16>(classes, wide, backward);
  const int64_t row_bytes = classes * element, multiprocessors = call.device().multiprocessors, shared_limit = static_cast<int64_t>(call.device().shared_per_block);
  // Half as much where shared memory is small, so that more than one block fits; and few rows where there are few, so that all warps work.
  const int64_t tile_bytes = shared_limit >= (int64_t{160} << 10) ? 4096 : 2048;
  int64_t rows = 32;
  while (rows > chosen.groups && (rows * row_bytes > tile_bytes || outer * plan.inner < rows * chosen.blocks * kWarps * multiprocessors)) rows /= 2;
  plan.tile_rows = static_cast<int32_t>(rows);
  // Rows without gaps are one span, but where groups of lanes would read the same banks: apart, rows can begin 16 bytes later each.
  plan.apart = !neighbours || (!chosen.wide && chosen.groups > 1 && conflicts(row_bytes, element) > 2);
  if (plan.apart != 0) {
    plan.head_step = static_cast<int32_t>(plan.logits_inner % vector);
    plan.chunks = static_cast<int32_t>((classes + vector - 1 + (chosen.wide ? 0 : vector - 1)) / vector);
    plan.pitch = static_cast<int32_t>(plan.chunks * vector);
    if (conflicts((plan.pitch + vector) * element, element) < conflicts(plan.pitch * element, element)) plan.pitch += static_cast<int32_t>(vector);
    plan.stage_bytes = static_cast<int32_t>(rows * plan.pitch * element);
  } else {
    plan.chunks = static_cast<int32_t>((rows * classes + vector - 1 + vector - 1) / vector);
    plan.pitch = static_cast<int32_t>(classes);
    plan.stage_bytes = plan.chunks * 16;
  }
  plan.tiles_per_span = (plan.span_rows + rows - 1) / rows;
  plan.tiles = plan.spans * plan.tiles_per_span;
  plan.reciprocal = ((uint64_t{1} << 32) + static_cast<uint64_t>(classes) - 1) / static_cast<uint64_t>(classes);
  const size_t shared = kLossShared + static_cast<size_t>(2 * kWarps * plan.stage_bytes);
  const int64_t fitting = std::clamp<int64_t>(shared_limit / static_cast<int64_t>(shared + 1024), 1, chosen.blocks);
  const int64_t blocks = loss_blocks(args, (plan.tiles + kWarps - 1) / kWarps, fitting, backward, call);
  chosen.launch(args, plan, call, blocks, shared);
  return blocks;
}

}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// The loss of a linear layer's logits on a GPU. Logits exist as tiles of accumulators of tensor cores only. A block of `rows` takes a tile
// of tokens, whose hidden rows stay in shared memory, through all classes: once for the softmax, and once more, computing the logits again
// unless all classes are one tile, for the gradient of the hidden rows. The gradient of the weights is a sum over tokens: where all classes
// are one tile, the same block adds it up in registers over all tiles it takes (hidden is then read once in all); otherwise blocks of
// `classes` take a tile of classes through a part of the tokens. Parts are added up in order: the same result every time.
#include <algorithm>

#include "runtime/tiles.h"
#include "vae_loss/linear_device.h"
#include "vae_loss/loss_kernel.h"

namespace molfuse {
namespace {

using namespace loss;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

/// [B,T,C] or [K,C] rows. aligned: every row begins at a multiple of 16 bytes, and channels fill whole 16 bytes.
struct Rows {
  void* data;
  int64_t batch, token, channel;
  int32_t aligned;
};

struct LinearKernelArgs {
  LossKernelArgs loss;
  Rows hidden, weight, grad_hidden;  // of weight, token is the class; grad_hidden: data null if not wanted
  const void* bias;                  // null: none
  int64_t bias_step;
  int32_t channels, tf32;
  int32_t backward;
  int32_t gradients;      // whether the gradient of hidden or of the weights is wanted
  float* lse;             // [tokens] between forward's kernels; null: loss.row_lse
  float* weight_parts;    // [parts][classes][channels], null: not wanted
  float* bias_parts;      // [parts][classes]
  int32_t parts;
  int32_t stages;         // tiles of classes (of tokens, where all classes are one tile) that there is room for: 1 or 2
};

/// How a kernel shares its work out: tiles of SIZE tokens and SIZE classes, rows padded to DIM channels.
template <class TYPE, int DIM_, int SIZE_>
struct Plan {
  using T = TYPE;
  static constexpr int kDim = DIM_, kSize = SIZE_;
  static constexpr int kRowWarps = kSize / 16, kColumnWarps = kWarps / kRowWarps;
  static constexpr int kTiles = kSize / kColumnWarps / 8;    // of a warp's logits
  static constexpr int kOutTiles = kDim / kColumnWarps / 8;  // of a warp's gradients
  static constexpr size_t kOperand = size_t{kSize} * kDim * sizeof(T), kGradient = size_t{kSize} * kSize * sizeof(T);
  // Shared memory: the blocks' sums and the tables of a tile, then the operands and the gradient of the logits.
  static constexpr size_t kTables = kLossShared, kOperands = kTables + size_t{kSize} * 4 * 4 + size_t{kSize} * 4 * (3 * kColumnWarps > kRowWarps ? 3 * kColumnWarps : kRowWarps);
  static constexpr size_t kFirst = (kOperands + 127) / 128 * 128;
};

template <class PLAN>
struct Shared {
  MOLFUSE_DEVICE int* target() const { return reinterpret_cast<int*>(shared_memory() + PLAN::kTables); }
  MOLFUSE_DEVICE float* lse() const { return reinterpret_cast<float*>(target() + PLAN::kSize); }
  MOLFUSE_DEVICE float* scale() const { return lse() + PLAN::kSize; }         // of each token, for grad_nll
  MOLFUSE_DEVICE float* target_logit() const { return scale() + PLAN::kSize; }
  MOLFUSE_DEVICE float* column() const { return target_logit() + PLAN::kSize; }  // [kColumnWarps][kSize][3]: a row's softmax in each
  MOLFUSE_DEVICE unsigned char* gradient() const { return shared_memory() + PLAN::kFirst; }
  MOLFUSE_DEVICE unsigned char* operand(int n) const { return gradient() + PLAN::kGradient + n * PLAN::kOperand; }
};

/// Begins to load a tile of rows; `row_of(r)` is the first element of row r, or null for a row of zeros.
template <class PLAN, class Row>
MOLFUSE_DEVICE void load_rows(unsigned char* to, const Rows& rows, int channels, const Row& row_of) {
  using T = typename PLAN::T;
  using Place = Tile<T, PLAN::kDim>;
  for (int n = thread_index(); n < PLAN::kSize * Place::kChunks; n += kThreads) {
    const int row = n / Place::kChunks, chunk = n % Place::kChunks, left = channels - chunk * Place::kChunk;
    const T* from = row_of(row);
    const bool valid = from != nullptr && left > 0;
    if (rows.aligned != 0) {
      copy_async(to + Place::offset(row, chunk), valid ? from + chunk * Place::kChunk : static_cast<const T*>(rows.data), valid);
    } else {
      Vector<T, Place::kChunk> v;
      MOLFUSE_UNROLL
      for (int e = 0; e < Place::kChunk; ++e) {
        v.item[e] = valid && e < left ? load(from + (chunk * Place::kChunk + e) * rows.channel) : from_float<T>(0.0f);
      }
      store(reinterpret_cast<Vector<T, Place::kChunk>*>(to + Place::offset(row, chunk)), v);
    }
  }
}

/// Targets, and what a gradient needs, of the tokens from `first` on. Returns whether any of them counts, to every thread.
template <class PLAN>
MOLFUSE_DEVICE bool describe_tokens(const LinearKernelArgs& args, int64_t first, bool finished, bool report) {
  const Shared<PLAN> shared;
  bool counts = false;
  if (thread_index() < PLAN::kSize) {
    const int r = thread_index();
    const int64_t n = first + r;
    int target = kPadding;
    float lse = 0, scale = 1;
    if (n < args.loss.batch * args.loss.length) {
      const Split at = split(n, args.loss.length);
      const int64_t b = at.quotient, t = at.remainder;
      target = target_of(args.loss, load_target(args.loss, b, t), b, t, report);
      if (finished) lse = args.lse != nullptr ? load(args.lse + n) : element_of<float>(args.loss.row_lse, b, t);
      if (args.loss.grad_nll.data != nullptr) scale = element_of<float>(args.loss.grad_nll, b, t);
    }
    store(shared.target() + r, target);
    store(shared.lse() + r, lse);
    store(shared.scale() + r, scale);
    counts = target != kPadding;
  }
  int* warps = reinterpret_cast<int*>(shared.column());
  const bool some = ballot(counts) != 0;
  if (lane_index() == 0) store(warps + warp_index(), some ? 1 : 0);
  sync_block();
  int any = 0;
  for (int w = 0; w < kWarps; ++w) any |= load(warps + w);
  return any != 0;
}

template <class PLAN>
MOLFUSE_DEVICE void load_tokens(const LinearKernelArgs& args, unsigned char* to, int64_t first) {
  using T = typename PLAN::T;
  load_rows<PLAN>(to, args.hidden, args.channels, [&](int row) -> const T* {
    if (first + row >= args.loss.batch * args.loss.length) return nullptr;
    const Split at = split(first + row, args.loss.length);
    // Padding's rows are zeros, whatever they hold: their gradients of 0 are factors of a product.
    if (load_target(args.loss, at.quotient, at.remainder) == args.loss.pad) return nullptr;
    return static_cast<const T*>(args.hidden.data) + at.quotient * args.hidden.batch + at.remainder * args.hidden.token;
  });
}
template <class PLAN>
MOLFUSE_DEVICE void load_classes(const LinearKernelArgs& args, unsigned char* to, int first) {
  using T = typename PLAN::T;
  load_rows<PLAN>(to, args.weight, args.channels, [&](int row) -> const T* {
    return first + row < args.loss.classes ? static_cast<const T*>(args.weight.data) + (first + row) * args.weight.token : nullptr;
  });
}
template <class T>
MOLFUSE_DEVICE float bias_of(const LinearKernelArgs& args, int k) {
  return args.bias == nullptr || k >= args.loss.classes ? 0.0f : to_float(load(static_cast<const T*>(args.bias) + k * args.bias_step));
}

/// A warp's place in a tile of logits, and in one of gradients.
template <class PLAN>
struct WarpPlace {
  int row, column, out_column;  // first ones
  static MOLFUSE_DEVICE WarpPlace of_thread() {
    const int w = warp_index();
    return {w / PLAN::kColumnWarps * 16, w % PLAN::kColumnWarps * PLAN::kTiles * 8, w % PLAN::kColumnWarps * PLAN::kOutTiles * 8};
  }
};

template <int TILES>
MOLFUSE_DEVICE void clear(float (&acc)[TILES][4]) {
  MOLFUSE_UNROLL
  for (int n = 0; n < TILES; ++n) {
    MOLFUSE_UNROLL
    for (int e = 0; e < 4; ++e) acc[n][e] = 0;
  }
}

/// Puts a warp's rows of accumulators, times a factor, into a tile.
template <class PLAN, int TILES>
MOLFUSE_DEVICE void put_rows(unsigned char* tile, int row, int column, const float (&acc)[TILES][4], float factor) {
  const int g = lane_index() / 4, t = lane_index() % 4;
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    // Zeros of padding stay zeros, whatever the factor is.
    const float own = load(Shared<PLAN>().target() + row + g + 8 * r) == kPadding ? 0.0f : factor;
    MOLFUSE_UNROLL
    for (int n = 0; n < TILES; ++n) {
      const float first = own == 0 ? 0.0f : acc[n][2 * r] * own, second = own == 0 ? 0.0f : acc[n][2 * r + 1] * own;
      put_pair<typename PLAN::T, PLAN::kDim>(tile, row + g + 8 * r, column + 8 * n + 2 * t, first, second);
    }
  }
}

/// Gradient of a token's loss by a logit.
MOLFUSE_DEVICE float logit_gradient(float logit, float lse, int target, int k, float scale) {
  if (target < 0) return target == kWrong ? quiet_nan() : 0.0f;
  return (exp_difference(logit, lse) - (k == target ? 1.0f : 0.0f)) * scale;
}

/// A row's softmax in progress, over the classes of one lane: with the lowest class that has the largest logit.
struct RowSoftmax {
  float largest, total;
  int argmax;
};
MOLFUSE_DEVICE RowSoftmax joined(const RowSoftmax& a, const RowSoftmax& b) {
  RowSoftmax all = a;
  if (b.largest > a.largest || (b.largest == a.largest && b.argmax < a.argmax)) all = b;
  // NaN is in a total: larger() passes it over.
  const float shift = usable_shift(all.largest);
  all.total = a.total * exp_difference(a.largest, shift) + b.total * exp_difference(b.largest, shift);
  return all;
}

/// Writes a warp's rows of the weight gradient, of the classes from `first` on, as part `part`.
template <class PLAN>
MOLFUSE_DEVICE void write_weight_rows(const LinearKernelArgs& args, int64_t part, int first, const float (&out)[PLAN::kOutTiles][4]) {
  if (args.weight_parts == nullptr) return;
  const auto place = WarpPlace<PLAN>::of_thread();
  const int g = lane_index() / 4, t = lane_index() % 4;
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int k = first + place.row + g + 8 * r;
    if (k >= args.loss.classes) continue;
    float* to = args.weight_parts + (part * args.loss.classes + k) * args.channels;
    MOLFUSE_UNROLL
    for (int n = 0; n < PLAN::kOutTiles; ++n) {
      MOLFUSE_UNROLL
      for (int e = 0; e < 2; ++e) {
        const int c = place.out_column + 8 * n + 2 * t + e;
        if (c < args.channels) store(to + c, out[n][2 * r + e]);
      }
    }
  }
}

/// Tokens through all classes.
template <class PLAN, bool FUSED>
MOLFUSE_KERNEL(kThreads, 1) linear_loss_rows(MOLFUSE_GRID_CONSTANT const LinearKernelArgs args) {
  [[maybe_unused]] const bool tf32 = args.tf32 != 0;
  using T = typename PLAN::T;
  constexpr int kSize = PLAN::kSize, kTiles = PLAN::kTiles, kOutTiles = PLAN::kOutTiles;
  const bool backward = args.backward != 0;
  if (!backward && block_x() < args.loss.latent_blocks) return latent_forward(args.loss);
  const Shared<PLAN> shared;
  const auto place = WarpPlace<PLAN>::of_thread();
  const int lane = lane_index(), g = lane / 4, t = lane % 4;
  const int classes = args.loss.classes, class_tiles = (classes + kSize - 1) / kSize;
  const int64_t tokens = args.loss.batch * args.loss.length, token_tiles = (tokens + kSize - 1) / kSize;
  unsigned char* const gradient = shared.gradient();
  unsigned char* hidden = shared.operand(0);
  const float scale = backward ? backward_scale(args.loss) : forward_scale(args.loss);
  const float out_scale = args.loss.grad_nll.data != nullptr ? 1.0f : scale;

  ThreadSums sums;
  float out_weight[FUSED ? kOutTiles : 1][4], out_bias[FUSED ? kTiles : 1][2] = {};
  clear(out_weight);
  const int64_t own = block_x() - args.loss.latent_blocks, blocks = grid_x() - args.loss.latent_blocks;
  // Classes are walked through as steps, over all passes of all tiles of tokens, the next one on its way while one is worked on.
  int step = 0, turn = 0;
  auto weight_of = [&](int n) { return shared.operand(FUSED ? 2 : 1 + (args.stages == 2 ? n & 1 : 0)); };
  auto begin_load = [&](int n) {
    load_classes<PLAN>(args, weight_of(n), n % class_tiles * kSize);
    commit_copies();
  };
  /// The next tile of classes; what was begun before is there, too.
  auto next_classes = [&]() -> const unsigned char* {
    if (class_tiles > 1 && args.stages == 1 && step > 0) {
      sync_block();
      begin_load(step);
    }
    // One group is of the tokens after these.
    wait_copies<FUSED ? 1 : 0>();
    sync_block();
    if (class_tiles == 1) return weight_of(0);
    if (args.stages == 2) begin_load(step + 1);
    return weight_of(step++);
  };
  begin_load(0);
  if constexpr (FUSED) {
    if (own < token_tiles) load_tokens<PLAN>(args, hidden, own * kSize);
    commit_copies();
  }
  for (int64_t tile = own; tile < token_tiles; tile += blocks) {
    sync_block();
    const bool any = describe_tokens<PLAN>(args, tile * kSize, backward, !backward);
    if constexpr (FUSED) {
      hidden = shared.operand(turn);
      turn ^= 1;
      if (tile + blocks < token_tiles) load_tokens<PLAN>(args, shared.operand(turn), (tile + blocks) * kSize);
      commit_copies();
      if (!any) {
        // Nobody works on this tile, but its zeros must be there before others are written over them.
        wait_copies<1>();
        sync_block();
      }
    } else if (any) {
      load_tokens<PLAN>(args, hidden, tile * kSize);
      commit_copies();
    }
    const unsigned char* weight = nullptr;
    float logits[kTiles][4];
    if (!backward) {
      RowSoftmax softmax[2] = {{-infinity(), 0.0f, 0x7FFFFFFF}, {-infinity(), 0.0f, 0x7FFFFFFF}};
      for (int k0 = 0; any && k0 < classes; k0 += kSize) {
        weight = next_classes();
        clear(logits);
        multiply_rows<T, PLAN::kDim, kTiles>(logits, hidden, place.row, weight, place.column, tf32);
        MOLFUSE_UNROLL
        for (int r = 0; r < 2; ++r) {
          RowSoftmax here{-infinity(), 0.0f, 0x7FFFFFFF};
          const int target = load(shared.target() + place.row + g + 8 * r);
          MOLFUSE_UNROLL
          for (int n = 0; n < kTiles; ++n) {
            MOLFUSE_UNROLL
            for (int e = 0; e < 2; ++e) {
              const int k = k0 + place.column + 8 * n + 2 * t + e;
              float& logit = logits[n][2 * r + e];
              logit = k < classes ? logit + bias_of<T>(args, k) : -infinity();
              if (logit > here.largest) {
                here.largest = logit;
                here.argmax = k;
              }
              if (k == target) store(shared.target_logit() + place.row + g + 8 * r, logit);
            }
          }
          const float shift = usable_shift(here.largest);
          MOLFUSE_UNROLL
          for (int n = 0; n < kTiles; ++n) here.total += exp_difference(logits[n][2 * r], shift) + exp_difference(logits[n][2 * r + 1], shift);
          softmax[r] = joined(softmax[r], here);
        }
      }
      MOLFUSE_UNROLL
      for (int r = 0; any && r < 2; ++r) {
        MOLFUSE_UNROLL
        for (int step = 1; step < 4; step *= 2) {
          softmax[r] = joined(softmax[r], {shuffle_xor(softmax[r].largest, step), shuffle_xor(softmax[r].total, step), shuffle_xor(softmax[r].argmax, step)});
        }
        if (t == 0) {
          float* to = shared.column() + 3 * (warp_index() % PLAN::kColumnWarps * kSize + place.row + g + 8 * r);
          store(to, softmax[r].largest);
          store(to + 1, softmax[r].total);
          store(to + 2, float_from_bits(static_cast<uint32_t>(softmax[r].argmax)));
        }
      }
      sync_block();
      const int64_t n = tile * kSize + thread_index();
      if (thread_index() < kSize && n < tokens) {
        const Split at = split(n, args.loss.length);
        const int target = load(shared.target() + thread_index());
        float lse = 0;
        if (target >= 0) {
          RowSoftmax all{-infinity(), 0.0f, 0x7FFFFFFF};
          for (int w = 0; w < PLAN::kColumnWarps; ++w) {
            const float* from = shared.column() + 3 * (w * kSize + thread_index());
            all = joined(all, {load(from), load(from + 1), static_cast<int>(bits_of(load(from + 2)))});
          }
          const float shift = usable_shift(all.largest);
          finish_token(args.loss, at.quotient, at.remainder, shift, all.total, load(shared.target_logit() + thread_index()), all.argmax == target, sums);
          lse = shift + log(all.total);
        } else {
          finish_masked(args.loss, at.quotient, at.remainder, target, sums);
        }
        store(shared.lse() + thread_index(), lse);
        if (args.lse != nullptr) store(args.lse + n, lse);
      }
    }
    if (args.gradients == 0 || (!FUSED && args.grad_hidden.data == nullptr)) continue;

    // Half of the columns at a time, beside the weights' sums there are no registers for more.
    constexpr int kHalves = FUSED && kOutTiles >= 4 ? 2 : 1, kHeld = kOutTiles / kHalves;
    float out[kHeld][4];
    clear(out);
    for (int k0 = 0; any && k0 < classes; k0 += kSize) {
      if (class_tiles > 1 || backward) {
        weight = next_classes();
        clear(logits);
        multiply_rows<T, PLAN::kDim, kTiles>(logits, hidden, place.row, weight, place.column, tf32);
      } else {
        sync_block();  // the rows' sums are there
      }
      const bool biased = class_tiles == 1 && !backward;  // the logits of forward have their bias already
      MOLFUSE_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        const int column = place.column + 8 * n + 2 * t;
        MOLFUSE_UNROLL
        for (int r = 0; r < 2; ++r) {
          const int row = place.row + g + 8 * r, target = load(shared.target() + row);
          const float lse = load(shared.lse() + row), own_scale = load(shared.scale() + row);
          float value[2];
          MOLFUSE_UNROLL
          for (int e = 0; e < 2; ++e) {
            const int k = k0 + column + e;
            const float logit = biased ? logits[n][2 * r + e] : logits[n][2 * r + e] + bias_of<T>(args, k);
            value[e] = k < classes ? logit_gradient(logit, lse, target, k, own_scale) : 0.0f;
            if constexpr (FUSED) out_bias[n][e] += value[e];
          }
          put_pair<T, kSize>(gradient, row, column, value[0], value[1]);
        }
      }
      sync_block();
      if constexpr (FUSED) {
        MOLFUSE_UNROLL
        for (int depth = 0; depth < kSize; depth += Left<T>::kDepth) {
          multiply_columns<T, PLAN::kDim, kOutTiles>(out_weight, left_columns<T, kSize>(gradient, place.row, depth, tf32), hidden, depth, place.out_column,
            tf32);
        }
      } else {
        MOLFUSE_UNROLL_BY(1)
        for (int depth = 0; depth < kSize; depth += Left<T>::kDepth) {
          multiply_columns<T, PLAN::kDim, kOutTiles>(out, left_rows<T, kSize>(gradient, place.row, depth, tf32), weight, depth, place.out_column,
            tf32);
        }
      }
    }
    if (args.grad_hidden.data == nullptr) continue;
    // By way of the hidden tile, whose rows are used up, to whole rows.
    sync_block();
    if constexpr (FUSED) {
      MOLFUSE_UNROLL
      for (int half = 0; half < kHalves; ++half) {
        const int column = place.out_column + half * kHeld * 8;
        clear(out);
        MOLFUSE_UNROLL
        for (int depth = 0; any && depth < kSize; depth += Left<T>::kDepth) {
          multiply_columns<T, PLAN::kDim, kHeld>(out, left_rows<T, kSize>(gradient, place.row, depth, tf32), weight, depth, column, tf32);
        }
        put_rows<PLAN, kHeld>(hidden, place.row, column, out, out_scale);
      }
    } else {
      put_rows<PLAN, kHeld>(hidden, place.row, place.out_column, out, out_scale);
    }
    sync_block();
    using Place = Tile<T, PLAN::kDim>;
    for (int n = thread_index(); n < kSize * Place::kChunks; n += kThreads) {
      const int row = n / Place::kChunks, chunk = n % Place::kChunks, left = args.channels - chunk * Place::kChunk;
      if (tile * kSize + row >= tokens || left <= 0) continue;
      const Split at = split(tile * kSize + row, args.loss.length);
      T* to = static_cast<T*>(args.grad_hidden.data) + at.quotient * args.grad_hidden.batch + at.remainder * args.grad_hidden.token;
      const auto v = load(reinterpret_cast<const Vector<T, Place::kChunk>*>(hidden + Place::offset(row, chunk)));
      if (args.grad_hidden.aligned != 0) {
        store_once(reinterpret_cast<Vector<T, Place::kChunk>*>(to + chunk * Place::kChunk), v);
      } else {
        MOLFUSE_UNROLL
        for (int e = 0; e < Place::kChunk; ++e) {
          if (e < left) store(to + (chunk * Place::kChunk + e) * args.grad_hidden.channel, v.item[e]);
        }
      }
    }
  }
  wait_copies<0>();  // of a tile of classes that has nobody to work on it
  if constexpr (FUSED) {
    write_weight_rows<PLAN>(args, own, 0, out_weight);
    // A class's bias gradient lies with the lanes and warps that had its column.
    sync_block();
    float* const table = shared.column();  // [kRowWarps][kSize]
    MOLFUSE_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      MOLFUSE_UNROLL
      for (int e = 0; e < 2; ++e) {
        float sum = out_bias[n][e];
        MOLFUSE_UNROLL
        for (int lanes = 4; lanes < kWarp; lanes *= 2) sum += shuffle_xor(sum, lanes);
        if (g == 0) store(table + place.row / 16 * kSize + place.column + 8 * n + 2 * t + e, sum);
      }
    }
    sync_block();
    if (thread_index() < classes && args.bias_parts != nullptr) {
      float sum = 0;
      for (int w = 0; w < PLAN::kRowWarps; ++w) sum += load(table + w * kSize + thread_index());
      store(args.bias_parts + own * classes + thread_index(), sum);
    }
  }
  if (!backward) write_partial(args.loss, sums, 0);
}

/// A tile of classes through a part of the tokens: that part's share of the weight gradient.
template <class PLAN>
MOLFUSE_KERNEL(kThreads, 1) linear_loss_classes(MOLFUSE_GRID_CONSTANT const LinearKernelArgs args) {
  [[maybe_unused]] const bool tf32 = args.tf32 != 0;
  using T = typename PLAN::T;
  constexpr int kSize = PLAN::kSize, kTiles = PLAN::kTiles, kOutTiles = PLAN::kOutTiles;
  const Shared<PLAN> shared;
  const auto place = WarpPlace<PLAN>::of_thread();
  const int lane = lane_index(), g = lane / 4, t = lane % 4;
  const int first_class = block_x() * kSize;
  const int64_t tokens = args.loss.batch * args.loss.length, token_tiles = (tokens + kSize - 1) / kSize;
  const int64_t begin = token_tiles * block_y() / args.parts, end = token_tiles * (block_y() + 1) / args.parts;
  unsigned char *const weight = shared.operand(0), *const gradient = shared.gradient();
  auto hidden_of = [&](int64_t tile) { return shared.operand(1 + (args.stages == 2 ? static_cast<int>(tile & 1) : 0)); };
  load_classes<PLAN>(args, weight, first_class);
  if (args.stages == 2 && begin < end) load_tokens<PLAN>(args, hidden_of(begin), begin * kSize);
  commit_copies();
  float out[kOutTiles][4], out_bias[2] = {}, bias[2];
  clear(out);
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) bias[r] = bias_of<T>(args, first_class + place.row + g + 8 * r);
  for (int64_t tile = begin; tile < end; ++tile) {
    wait_copies<0>();
    sync_block();
    const bool any = describe_tokens<PLAN>(args, tile * kSize, true, false);
    unsigned char* const hidden = hidden_of(tile);
    if (args.stages == 2) {
      if (tile + 1 < end) load_tokens<PLAN>(args, hidden_of(tile + 1), (tile + 1) * kSize);
      commit_copies();
    } else if (any) {
      load_tokens<PLAN>(args, hidden, tile * kSize);
      commit_copies();
      wait_copies<0>();
      sync_block();
    }
    if (!any) continue;
    // Classes are the rows here, and tokens the columns.
    float logits[kTiles][4];
    clear(logits);
    multiply_rows<T, PLAN::kDim, kTiles>(logits, weight, place.row, hidden, place.column, tf32);
    MOLFUSE_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      MOLFUSE_UNROLL
      for (int r = 0; r < 2; ++r) {
        const int k = first_class + place.row + g + 8 * r, column = place.column + 8 * n + 2 * t;
        float value[2];
        MOLFUSE_UNROLL
        for (int e = 0; e < 2; ++e) {
          const int token = column + e;
          value[e] = k >= args.loss.classes ? 0.0f
                                            : logit_gradient(logits[n][2 * r + e] + bias[r], load(shared.lse() + token), load(shared.target() + token), k,
                                                             load(shared.scale() + token));
          out_bias[r] += value[e];
        }
        put_pair<T, kSize>(gradient, place.row + g + 8 * r, column, value[0], value[1]);
      }
    }
    sync_block();
    MOLFUSE_UNROLL
    for (int depth = 0; depth < kSize; depth += Left<T>::kDepth) {
      multiply_columns<T, PLAN::kDim, kOutTiles>(out, left_rows<T, kSize>(gradient, place.row, depth, tf32), hidden, depth, place.out_column,
        tf32);
    }
  }
  wait_copies<0>();
  // A class's bias gradient lies with four lanes of each of the warps side by side.
  sync_block();
  MOLFUSE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const float sum = group_sum<4>(out_bias[r]);
    if (t == 0) store(shared.column() + warp_index() % PLAN::kColumnWarps * kSize + place.row + g + 8 * r, sum);
  }
  write_weight_rows<PLAN>(args, block_y(), first_class, out);
  sync_block();
  const int k = first_class + thread_index();
  if (thread_index() >= kSize || k >= args.loss.classes || args.bias_parts == nullptr) return;
  float sum = 0;
  for (int w = 0; w < PLAN::kColumnWarps; ++w) sum += load(shared.column() + w * kSize + thread_index());
  store(args.bias_parts + static_cast<int64_t>(block_y()) * args.loss.classes + k, sum);
}

/// Adds the parts of the weight gradient up in order, and scales the sums. One thread an element.
MOLFUSE_KERNEL(kThreads, 4) linear_loss_weights(MOLFUSE_GRID_CONSTANT const LinearKernelArgs args, float* grad_weight, int64_t row, int64_t column,
                                                float* grad_bias, int64_t bias_step) {
  float scale = 1;
  if (args.loss.grad_nll.data == nullptr) scale = args.backward != 0 ? backward_scale(args.loss) : forward_scale(args.loss);
  const int64_t weights = grad_weight == nullptr ? 0 : static_cast<int64_t>(args.loss.classes) * args.channels;
  const int64_t n = static_cast<int64_t>(block_x()) * kThreads + thread_index();
  if (n < weights) {
    float sum = 0;
    for (int part = 0; part < args.parts; ++part) sum += load(args.weight_parts + part * weights + n);
    const Split at = split(n, args.channels);
    store(grad_weight + at.quotient * row + at.remainder * column, sum * scale);
  } else if (grad_bias != nullptr && n - weights < args.loss.classes) {
    const int64_t k = n - weights;
    float sum = 0;
    for (int part = 0; part < args.parts; ++part) sum += load(args.bias_parts + static_cast<int64_t>(part) * args.loss.classes + k);
    store(grad_bias + k * bias_step, sum * scale);
  }
}

// ---- dispatch

bool rows_aligned(const Rows& rows, int64_t outer, int channels, int64_t element) {
  const int64_t vector = 16 / element;
  return reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && rows.channel == 1 && channels % vector == 0 && rows.token % vector == 0 &&
         (outer <= 1 || rows.batch % vector == 0);
}

template <class PLAN>
size_t shared_bytes(int operands) {
  return PLAN::kFirst + PLAN::kGradient + static_cast<size_t>(operands) * PLAN::kOperand;
}

struct LinearCall {
  LinearKernelArgs args;
  const LinearDeviceProblem& p;
  int32_t reduction;
  DeviceCall& call;
  bool weights;  // a gradient of weight or bias is wanted

  void add_parts() {
    const int64_t elements = (args.weight_parts == nullptr ? 0 : args.loss.classes * int64_t{args.channels}) +
                             (args.bias_parts == nullptr ? 0 : args.loss.classes);
    call.launch("linear_vae_loss weights", linear_loss_weights, {(elements + kThreads - 1) / kThreads, 1, 1}, kThreads, kLossShared, args,
                static_cast<float*>(p.grad_weight.data), p.grad_weight.stride[0], p.grad_weight.stride[1],
                static_cast<float*>(p.grad_weight_bias.data), p.grad_weight_bias.stride[0]);
  }
  void allocate_parts(int64_t parts) {
    args.parts = static_cast<int32_t>(parts);
    if (present(p.grad_weight)) args.weight_parts = call.scratch<float>(parts * args.loss.classes * args.channels);
    if (present(p.grad_weight_bias)) args.bias_parts = call.scratch<float>(parts * args.loss.classes);
  }
};

/// Returns the number of blocks that left partial sums.
template <class PLAN, bool CAN_FUSE>
int64_t run_plan(LinearCall& c) {
  const int64_t tiles = (c.args.loss.batch * c.args.loss.length + PLAN::kSize - 1) / PLAN::kSize;
  const bool backward = c.args.backward != 0;
  const size_t room = c.call.device().shared_per_block;
  int64_t blocks = 0;
  if constexpr (CAN_FUSE) {
    if (c.weights && c.args.loss.classes <= PLAN::kSize && shared_bytes<PLAN>(3) <= room) {
      blocks = loss_blocks(c.args.loss, tiles, 1, backward, c.call);
      c.allocate_parts(blocks - c.args.loss.latent_blocks);
      c.call.launch("linear_vae_loss", linear_loss_rows<PLAN, true>, {blocks, 1, 1}, kThreads, shared_bytes<PLAN>(3), c.args);
      c.add_parts();
      return blocks;
    }
  }
  c.args.stages = shared_bytes<PLAN>(3) <= room ? 2 : 1;
  const size_t bytes = shared_bytes<PLAN>(c.args.stages + 1);
  if (!backward && c.weights && c.args.loss.row_lse.data == nullptr) c.args.lse = c.call.scratch<float>(c.args.loss.batch * c.args.loss.length);
  if (!backward || c.args.grad_hidden.data != nullptr) {
    blocks = loss_blocks(c.args.loss, tiles, 1, backward, c.call);
    c.call.launch("linear_vae_loss", linear_loss_rows<PLAN, false>, {blocks, 1, 1}, kThreads, bytes, c.args);
  }
  if (!c.weights) return blocks;
  const int64_t class_tiles = (c.args.loss.classes + PLAN::kSize - 1) / PLAN::kSize;
  // A block a multiprocessor; parts of several tiles, so that adding them up stays small beside making them.
  c.allocate_parts(std::max<int64_t>(1, std::min<int64_t>(c.call.device().multiprocessors / class_tiles, (tiles + 3) / 4)));
  c.call.launch("linear_vae_loss classes", linear_loss_classes<PLAN>, {class_tiles, c.args.parts, 1}, kThreads, bytes, c.args);
  c.add_parts();
  return blocks;
}

/// The table: 64 rows of up to 256 channels, of 16 bits each, are 32 KB; so are 32 rows of f32.
template <class T>
int64_t run_type(LinearCall& c) {
  if constexpr (sizeof(T) == 2) {
    if (c.args.channels <= 64) return run_plan<Plan<T, 64, 64>, true>(c);
    if (c.args.channels <= 128) return run_plan<Plan<T, 128, 64>, true>(c);
    if (c.args.channels <= 256) return run_plan<Plan<T, 256, 64>, true>(c);
    if (c.args.channels <= 512) return run_plan<Plan<T, 512, 32>, false>(c);
    if (c.args.channels <= 1024) return run_plan<Plan<T, 1024, 32>, false>(c);
    unsupported("linear_vae_loss: at most 1024 channels on a device, got %d", c.args.channels);
  } else {
    if (c.args.channels <= 64) return run_plan<Plan<T, 64, 32>, true>(c);
    if (c.args.channels <= 128) return run_plan<Plan<T, 128, 32>, false>(c);
    if (c.args.channels <= 256) return run_plan<Plan<T, 256, 32>, false>(c);
    if (c.args.channels <= 512) return run_plan<Plan<T, 512, 32>, false>(c);
    unsupported("linear_vae_loss: at most 512 channels in f32 on a device, got %d", c.args.channels);
  }
}

int64_t run(LinearCall& c, int32_t dtype) {
  switch (dtype) {
    case MOLFUSE_F32: return run_type<float>(c);
    case MOLFUSE_F16: return run_type<f16>(c);
    case MOLFUSE_BF16: return run_type<bf16>(c);
    default: unsupported("linear_vae_loss: f64 is for the CPU only");
  }
}

LinearCall prepare(const LinearDeviceProblem& p, const LossArgs& a, DeviceCall& call) {
  if (p.classes > (1 << 30) || p.channels > (1 << 30)) unsupported("linear_vae_loss: at most 2^30 classes and channels on a device");
  if (a.batch * a.length > INT32_MAX) unsupported("linear_vae_loss: at most 2^31 - 1 tokens on a device, got %lld", static_cast<long long>(a.batch * a.length));
  LinearCall c{{}, p, a.reduction, call, present(p.grad_weight) || present(p.grad_weight_bias)};
  LinearKernelArgs& args = c.args;
  args.loss = loss_kernel_args(a, p.targets, p.row_lse, p.nll, call);
  args.channels = static_cast<int32_t>(p.channels);
  args.tf32 = call.allow_tf32();
  args.hidden = {p.hidden.data, p.hidden.stride[0], p.hidden.stride[1], p.channels == 1 ? 1 : p.hidden.stride[2], 0};
  args.weight = {p.weight.data, 0, p.weight.stride[0], p.channels == 1 ? 1 : p.weight.stride[1], 0};
  if (present(p.grad_hidden)) {
    args.grad_hidden = {p.grad_hidden.data, p.grad_hidden.stride[0], p.grad_hidden.stride[1], p.channels == 1 ? 1 : p.grad_hidden.stride[2], 0};
  }
  const auto element = static_cast<int64_t>(molfuse_dtype_size(a.dtype));
  args.hidden.aligned = rows_aligned(args.hidden, a.batch, args.channels, element);
  args.weight.aligned = rows_aligned(args.weight, 1, args.channels, element);
  args.grad_hidden.aligned = rows_aligned(args.grad_hidden, a.batch, args.channels, element);
  if (present(p.weight_bias)) {
    args.bias = p.weight_bias.data;
    args.bias_step = p.weight_bias.stride[0];
  }
  args.gradients = present(p.grad_hidden) || c.weights;
  return c;
}

}  // namespace

void linear_vae_loss_forward_device(const LinearDeviceProblem& p, const LossArgs& a, DeviceCall& call) {
  LinearCall c = prepare(p, a, call);
  begin_loss_forward(c.args.loss, a, c.args.gradients != 0 && a.dtype != MOLFUSE_F16, call);
  finish_loss_forward(c.args.loss, a, run(c, a.dtype), call);
}

void linear_vae_loss_backward_device(const LinearDeviceProblem& p, const LossArgs& a, DeviceCall& call) {
  LinearCall c = prepare(p, a, call);
  c.args.backward = 1;
  begin_loss_backward(c.args.loss, a);
  if (c.args.gradients != 0) run(c, a.dtype);
  launch_latent_backward(c.args.loss, call);
}

}  // namespace molfuse

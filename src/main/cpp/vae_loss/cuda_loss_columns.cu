// SPDX-License-Identifier: Apache-2.0
// Logits whose classes are not side by side. Where the tokens are ([B,K,T]), a block takes a tile of up to 256 tokens of a sample with all
// their classes into shared memory, by asynchronous copies of 16 bytes whatever the alignment of T: one read. The tile of a whole sample
// without gaps is one span, of which the gradient goes back 16 bytes at a time; of a part of the tokens, every class gives a span, of 32
// bytes at least, and the gradient is written by threads of neighbouring tokens. What a span's first and last chunk hold of other tiles is
// read too, but those tiles are worked on at the same time, so that it comes from the second-level cache. There are two blocks on a
// multiprocessor, where tiles of 32 bytes a class allow that, so that one copies while the other computes, and small tiles have two stages:
// 40 to 110 KB in flight.
//
// A thread has one token, and one of the slices into which the classes are cut; the running sum is rescaled once in four classes, and only
// if there is a new largest logit. The gradient takes the exponential again: what it would be kept in is wider than the logits.
//
// Anything else - other strides, or so many classes that not even tiles of 32 bytes fit - is read from global memory, for the gradient
// twice: warps have 32 tokens and a part of the classes each, and leave their sums for a small kernel.
#include <algorithm>

#include "vae_loss/loss_kernel.h"

namespace molfuse {

struct ColumnsPlan {
  int64_t tiles;
  int32_t tiles_per_sample, tile_tokens;
  int32_t token_threads;  // of a block, a power of two; the others take other slices of classes
  int32_t threads;
  int32_t pitch;          // elements from class to class in shared memory
  int32_t stages, stage_bytes;
};

struct StridedPlan {
  int32_t parts, part_classes;
  // [parts,tokens], and per token
  float* largest;
  float* total;
  int* argmax;
  float* target_logit;
  float* shift;
  float* inverse;
};

namespace {

using namespace loss;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMostThreads = 512;
constexpr int kTogether = 4;  // classes between two looks at the largest logit

/// What the slices of a token's classes tell each other.
struct Slice {
  float largest, total;
  int argmax;
};
constexpr size_t kSlices = kMostThreads * sizeof(Slice);

/// A token's softmax over `count` classes, first, first + step, ...; at(n) gives the n-th one's logit.
template <class AT>
MOLFUSE_DEVICE Slice softmax_of(int first, int step, int count, const AT& at) {
  Slice own{-infinity(), 0.0f, first};
  for (int n = 0; n < count; n += kTogether) {
    float x[kTogether];
    MOLFUSE_UNROLL
    for (int j = 0; j < kTogether; ++j) x[j] = n + j < count ? at(n + j) : -infinity();
    float largest = x[0];
    MOLFUSE_UNROLL
    for (int j = 1; j < kTogether; ++j) largest = larger(largest, x[j]);
    if (largest > own.largest) {
      own.total *= exp_difference(own.largest, largest);
      own.largest = largest;
      MOLFUSE_UNROLL
      for (int j = kTogether - 1; j >= 0; --j) {
        if (x[j] == largest) own.argmax = first + (n + j) * step;
      }
    }
    const float shift = usable_shift(own.largest);
    MOLFUSE_UNROLL
    for (int j = 0; j < kTogether; ++j) own.total += exp_difference(x[j], shift);
  }
  return own;
}
/// The sum of the terms with a given shift.
template <class AT>
MOLFUSE_DEVICE float terms_of(int count, float shift, const AT& at) {
  float total = 0;
  MOLFUSE_UNROLL_BY(4)
  for (int n = 0; n < count; ++n) total += exp_difference(at(n), shift);
  return total;
}
MOLFUSE_DEVICE void join(Slice& all, const Slice& part) {
  if (part.largest > all.largest) {
    all.argmax = part.argmax;
  } else if (part.largest == all.largest && part.argmax < all.argmax) {
    all.argmax = part.argmax;
  }
  const float largest = larger(all.largest, part.largest), shift = usable_shift(largest);
  all.total = all.total * exp_difference(all.largest, shift) + part.total * exp_difference(part.largest, shift);
  all.largest = largest;
}

// ---- tiles in shared memory

struct TokenInputs {
  int64_t target;
  float lse, scale;
};

/// WHOLE: a tile is a sample, without gaps.
template <class T, bool BACKWARD, bool WHOLE>
MOLFUSE_KERNEL(kMostThreads, 2) loss_columns(MOLFUSE_GRID_CONSTANT const LossKernelArgs args, MOLFUSE_GRID_CONSTANT const ColumnsPlan plan) {
  constexpr int kN = kChunk<T>;
  if (!BACKWARD && block_x() < args.latent_blocks) return latent_forward(args);
  const bool gradient = BACKWARD || args.grad != nullptr;
  const int classes = args.classes;
  const int threads = block_threads(), token = thread_index() & (plan.token_threads - 1), slice = thread_index() / plan.token_threads;
  const int slices = threads / plan.token_threads, slice_classes = slice < classes ? (classes - slice + slices - 1) / slices : 0;
  unsigned char* stages = shared_memory() + kLossShared + kSlices;
  const int64_t blocks = grid_x() - args.latent_blocks;

  struct Tile {
    int64_t b, first;
    int tokens;
  };
  const auto tile_at = [&](int64_t tile) {
    if (WHOLE) return Tile{tile, 0, static_cast<int>(args.length)};
    const Split at = split(tile, plan.tiles_per_sample);
    const int64_t first = at.remainder * plan.tile_tokens, left = args.length - first;
    return Tile{at.quotient, first, left < plan.tile_tokens ? static_cast<int>(left) : plan.tile_tokens};
  };
  const auto fetch = [&](int64_t tile) {
    TokenInputs in{args.pad, 0.0f, 0.0f};
    if (tile >= plan.tiles) return in;
    const Tile at = tile_at(tile);
    if (token >= at.tokens) return in;
    in.target = load_target(args, at.b, at.first + token);
    if (BACKWARD) {
      in.lse = element_of<float>(args.row_lse, at.b, at.first + token);
      if (args.grad_nll.data != nullptr) in.scale = element_of<float>(args.grad_nll, at.b, at.first + token);
    }
    return in;
  };
  const auto logits_of = [&](const Tile& at) { return static_cast<const T*>(args.logits) + at.b * args.logits_batch + at.first; };
  // A class's place in shared memory, without the token.
  const int step = WHOLE ? 0 : static_cast<int>(args.logits_class % kN);
  const auto place = [&](int head, int k) { return WHOLE ? head + k * plan.pitch : k * plan.pitch + ((head + k * step) & (kN - 1)); };
  const auto copy_tile = [&](int64_t tile, unsigned char* to) {
    if (tile >= plan.tiles) return;
    const Tile at = tile_at(tile);
    const T* from = logits_of(at);
    if (WHOLE) {
      const int head = span_head(from), chunks = (head + classes * at.tokens + kN - 1) / kN;
      for (int q = thread_index(); q < chunks; q += threads) copy_chunk(args, to + q * 16, from, head, q);
      return;
    }
    // As many neighbouring threads as a span may have chunks take a class.
    const int chunks = plan.pitch / kN;
    int k = thread_index() / chunks, q = thread_index() % chunks;
    const int add_k = threads / chunks, add_q = threads % chunks;
    while (k < classes) {
      const T* row = from + k * args.logits_class;
      const int head = span_head(row);
      if (q * kN < head + at.tokens) copy_chunk(args, to + (k * chunks + q) * 16, row, head, q);
      k += add_k;
      q += add_q;
      if (q >= chunks) {
        q -= chunks;
        ++k;
      }
    }
  };

  int64_t tile = block_x() - args.latent_blocks;
  TokenInputs next = fetch(tile);
  if (plan.stages == 2) {
    copy_tile(tile, stages);
    commit_copies();
  }
  const float scale_of_all = BACKWARD ? (args.grad_nll.data == nullptr ? backward_scale(args) : 0.0f) : forward_scale(args);
  ThreadSums sums;
  for (int turn = 0; tile < plan.tiles; tile += blocks) {
    const TokenInputs in = next;
    next = fetch(tile + blocks);
    T* const staged = reinterpret_cast<T*>(stages + turn * plan.stage_bytes);
    if (plan.stages == 2) {
      turn ^= 1;
      copy_tile(tile + blocks, stages + turn * plan.stage_bytes);
      commit_copies();
      wait_copies<1>();
    } else {
      copy_tile(tile, stages);
      commit_copies();
      wait_copies<0>();
    }
    sync_block();
    const Tile at = tile_at(tile);
    const int head = span_head(logits_of(at));
    const bool there = token < at.tokens;
    const int target = there ? target_of(args, in.target, at.b, at.first + token, !BACKWARD && slice == 0) : kPadding;
    const bool counts = target >= 0;
    // Where a tile is not whole, slices are a multiple of a chunk's elements, and so all classes of one are alike in what precedes them.
    T* const own = staged + place(head, slice) + token;
    const int own_step = slices * plan.pitch;
    const auto logit = [&](int n) { return to_float(load(own + n * own_step)); };
    Slice all{-infinity(), 0.0f, 0};
    float target_logit = 0;
    if (counts) {
      if (BACKWARD) {
        all.largest = in.lse;
        all.total = terms_of(slice_classes, in.lse, logit);
      } else {
        all = softmax_of(slice, slices, slice_classes, logit);
      }
      target_logit = to_float(load(staged + place(head, target) + token));
    }
    if (slices > 1) {
      Slice* table = reinterpret_cast<Slice*>(shared_memory() + kLossShared);
      Slice* entry = table + thread_index();
      store(&entry->largest, all.largest);
      store(&entry->total, all.total);
      store(&entry->argmax, all.argmax);
      sync_block();
      if (counts) {
        if (BACKWARD) all.total = 0;
        if (!BACKWARD) all = Slice{-infinity(), 0.0f, classes};
        for (int s = 0; s < slices; ++s) {
          const Slice* part = table + s * plan.token_threads + token;
          if (BACKWARD) {
            all.total += load(&part->total);
          } else {
            join(all, Slice{load(&part->largest), load(&part->total), load(&part->argmax)});
          }
        }
      }
    }
    if (!BACKWARD && there && slice == 0) {
      if (counts) {
        finish_token(args, at.b, at.first + token, all.largest, all.total, target_logit, all.argmax == target, sums);
      } else {
        finish_masked(args, at.b, at.first + token, target, sums);
      }
    }
    if (gradient) {
      T* out = static_cast<T*>(args.grad) + at.b * args.grad_batch + at.first;
      if (there) {
        const float scale = BACKWARD && args.grad_nll.data != nullptr ? in.scale : scale_of_all, inverse = 1.0f / all.total;
        const float factor = counts ? inverse * scale : (target == kWrong ? quiet_nan() : 0.0f);
        T* const to = WHOLE ? own : out + slice * args.grad_class + token;
        const int64_t to_step = WHOLE ? own_step : slices * args.grad_class;
        MOLFUSE_UNROLL_BY(4)
        for (int n = 0; n < slice_classes; ++n) {
          store(to + n * to_step, from_float<T>(counts ? exp_difference(logit(n), all.largest) * factor : factor));
        }
        if (counts && (target & (slices - 1)) == slice) {
          const float value = (exp_difference(target_logit, all.largest) * inverse - 1.0f) * scale;
          store(WHOLE ? staged + place(head, target) + token : out + target * args.grad_class + token, from_float<T>(value));
        }
      }
      if (WHOLE) {
        sync_block();
        write_span(staged + head, out, head, classes * at.tokens, thread_index(), threads);
      }
    }
    sync_block();  // before the stage, and the table, are used again
  }
  if (!BACKWARD) write_partial(args, sums, 0);
}

// ---- any strides

struct Unit {
  int64_t token;
  int part;
};
/// Unit n of a warp: 32 tokens and a part of the classes.
MOLFUSE_DEVICE Unit unit_of(const StridedPlan& plan, int64_t n) {
  const Split at = split(n, plan.parts);
  return {at.quotient * kWarp + lane_index(), static_cast<int>(at.remainder)};
}
MOLFUSE_DEVICE int64_t units_of(const LossKernelArgs& args, const StridedPlan& plan) {
  return (args.batch * args.length + kWarp - 1) / kWarp * plan.parts;
}

template <class T, bool BACKWARD>
MOLFUSE_KERNEL(kThreads, 4) loss_strided_sums(MOLFUSE_GRID_CONSTANT const LossKernelArgs args, MOLFUSE_GRID_CONSTANT const StridedPlan plan) {
  const int64_t tokens = args.batch * args.length, units = units_of(args, plan);
  for (int64_t n = static_cast<int64_t>(block_x()) * kWarps + warp_index(); n < units; n += static_cast<int64_t>(grid_x()) * kWarps) {
    const Unit unit = unit_of(plan, n);
    if (unit.token >= tokens) continue;
    const Split at = split(unit.token, args.length);
    const int target = target_of(args, load_target(args, at.quotient, at.remainder), 0, 0, false);
    if (target < 0) continue;
    const T* row = static_cast<const T*>(args.logits) + at.quotient * args.logits_batch + at.remainder * args.logits_token;
    const int first = unit.part * plan.part_classes, end = first + plan.part_classes < args.classes ? first + plan.part_classes : args.classes;
    const auto logit = [&](int n) { return to_float(load(row + (first + n) * args.logits_class)); };
    const int64_t to = unit.part * tokens + unit.token;
    if (BACKWARD) {
      store(plan.total + to, terms_of(end - first, element_of<float>(args.row_lse, at.quotient, at.remainder), logit));
    } else {
      const Slice own = softmax_of(first, 1, end - first, logit);
      store(plan.largest + to, own.largest);
      store(plan.total + to, own.total);
      store(plan.argmax + to, own.argmax);
      if (target >= first && target < end) store(plan.target_logit + unit.token, logit(target - first));
    }
  }
}

template <bool BACKWARD>
MOLFUSE_KERNEL(kThreads, 4) loss_strided_tokens(MOLFUSE_GRID_CONSTANT const LossKernelArgs args, MOLFUSE_GRID_CONSTANT const StridedPlan plan) {
  if (!BACKWARD && block_x() < args.latent_blocks) return latent_forward(args);
  ThreadSums sums;
  const int64_t tokens = args.batch * args.length, blocks = grid_x() - args.latent_blocks;
  for (int64_t n = (block_x() - args.latent_blocks) * kThreads + thread_index(); n < tokens; n += blocks * kThreads) {
    const Split at = split(n, args.length);
    const int target = target_of(args, load_target(args, at.quotient, at.remainder), at.quotient, at.remainder, !BACKWARD);
    if (target < 0) {
      if (!BACKWARD) finish_masked(args, at.quotient, at.remainder, target, sums);
      continue;
    }
    Slice all{-infinity(), 0.0f, args.classes};
    for (int part = 0; part < plan.parts; ++part) {
      const int64_t from = part * tokens + n;
      if (BACKWARD) {
        all.total += load(plan.total + from);
      } else {
        join(all, Slice{load(plan.largest + from), load(plan.total + from), load(plan.argmax + from)});
      }
    }
    if (BACKWARD) all.largest = element_of<float>(args.row_lse, at.quotient, at.remainder);
    if (!BACKWARD) finish_token(args, at.quotient, at.remainder, all.largest, all.total, load(plan.target_logit + n), all.argmax == target, sums);
    store(plan.shift + n, all.largest);
    store(plan.inverse + n, 1.0f / all.total);
  }
  if (!BACKWARD) write_partial(args, sums, 0);
}

template <class T, bool BACKWARD>
MOLFUSE_KERNEL(kThreads, 4) loss_strided_gradient(MOLFUSE_GRID_CONSTANT const LossKernelArgs args, MOLFUSE_GRID_CONSTANT const StridedPlan plan) {
  const int64_t tokens = args.batch * args.length, units = units_of(args, plan);
  const float scale_of_all = BACKWARD ? (args.grad_nll.data == nullptr ? backward_scale(args) : 0.0f) : forward_scale(args);
  for (int64_t n = static_cast<int64_t>(block_x()) * kWarps + warp_index(); n < units; n += static_cast<int64_t>(grid_x()) * kWarps) {
    const Unit unit = unit_of(plan, n);
    if (unit.token >= tokens) continue;
    const Split at = split(unit.token, args.length);
    const int target = target_of(args, load_target(args, at.quotient, at.remainder), 0, 0, false);
    const T* row = static_cast<const T*>(args.logits) + at.quotient * args.logits_batch + at.remainder * args.logits_token;
    T* out = static_cast<T*>(args.grad) + at.quotient * args.grad_batch + at.remainder * args.grad_token;
    const int first = unit.part * plan.part_classes, end = first + plan.part_classes < args.classes ? first + plan.part_classes : args.classes;
    if (target < 0) {
      const T value = from_float<T>(target == kWrong ? quiet_nan() : 0.0f);
      for (int k = first; k < end; ++k) store(out + k * args.grad_class, value);
      continue;
    }
    const float shift = load(plan.shift + unit.token), inverse = load(plan.inverse + unit.token);
    const float scale = BACKWARD && args.grad_nll.data != nullptr ? element_of<float>(args.grad_nll, at.quotient, at.remainder) : scale_of_all;
    for (int k = first; k < end; k += kTogether) {
      float x[kTogether];
      MOLFUSE_UNROLL
      for (int j = 0; j < kTogether; ++j) x[j] = k + j < end ? to_float(load(row + (k + j) * args.logits_class)) : 0.0f;
      MOLFUSE_UNROLL
      for (int j = 0; j < kTogether; ++j) {
        const float p = exp_difference(x[j], shift) * inverse;
        if (k + j < end) store(out + (k + j) * args.grad_class, from_float<T>((k + j == target ? p - 1.0f : p) * scale));
      }
    }
  }
}

// ---- dispatch

template <class T, bool BACKWARD>
int64_t launch_tiles(LossKernelArgs& args, const ColumnsPlan& plan, bool whole, DeviceCall& call, int64_t blocks, size_t shared) {
  call.launch("vae_loss columns", whole ? loss_columns<T, BACKWARD, true> : loss_columns<T, BACKWARD, false>, {blocks, 1, 1}, plan.threads, shared, args, plan);
  return blocks;
}

/// A plan whose tiles fit shared memory, or one of no tokens.
ColumnsPlan plan_tiles(const LossKernelArgs& args, int64_t element, int64_t limit, bool* whole) {
  const int64_t vector = 16 / element, most = limit - static_cast<int64_t>(kLossShared + kSlices), half = (limit - 1024) / 2 - static_cast<int64_t>(kLossShared + kSlices);
  ColumnsPlan plan{};
  const bool gaps = args.logits_class != args.length || (args.grad != nullptr && args.grad_class != args.length);
  int64_t tokens = args.length;
  const auto bytes_of = [&](int64_t count) { return args.classes * ((count + 2 * vector - 2) / vector * 16); };
  *whole = !gaps && tokens <= kThreads && args.classes * tokens * element + 32 <= half;
  if (*whole) {
    plan.pitch = static_cast<int32_t>(tokens);
    plan.stage_bytes = static_cast<int32_t>((args.classes * tokens * element + 32) / 16 * 16);
  } else {
    const int64_t fewest = std::min(tokens, 32 / element);
    tokens = std::min<int64_t>(tokens, 64);
    while (tokens > fewest && bytes_of(tokens) > half) --tokens;
    if (bytes_of(tokens) > most) return plan;
    const int64_t tiles = (args.length + tokens - 1) / tokens;
    tokens = (args.length + tiles - 1) / tiles;
    plan.pitch = static_cast<int32_t>((tokens + 2 * vector - 2) / vector * vector);
    plan.stage_bytes = static_cast<int32_t>(bytes_of(tokens));
  }
  plan.tile_tokens = static_cast<int32_t>(tokens);
  plan.tiles_per_sample = static_cast<int32_t>((args.length + tokens - 1) / tokens);
  plan.tiles = args.batch * plan.tiles_per_sample;
  // A thread of a small tile would have too few classes for the work that every thread does.
  plan.threads = *whole && args.classes * tokens <= 16384 ? kThreads : kMostThreads;
  plan.token_threads = 8;
  while (plan.token_threads < tokens) plan.token_threads *= 2;
  plan.stages = 8 * plan.stage_bytes <= limit ? 2 : 1;
  return plan;
}

template <class T, bool BACKWARD>
int64_t launch_strided(LossKernelArgs& args, DeviceCall& call) {
  const int64_t tokens = args.batch * args.length, groups = (tokens + kWarp - 1) / kWarp, multiprocessors = call.device().multiprocessors;
  // Parts of 64 classes at least, in number enough for all warps.
  StridedPlan plan{};
  const int64_t wanted = groups > 0 ? (4 * kWarps * multiprocessors + groups - 1) / groups : 1;
  plan.parts = static_cast<int32_t>(std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, args.classes / 64)));
  plan.part_classes = (args.classes + plan.parts - 1) / plan.parts;
  plan.largest = call.scratch<float>(plan.parts * tokens);
  plan.total = call.scratch<float>(plan.parts * tokens);
  plan.argmax = call.scratch<int>(plan.parts * tokens);
  plan.target_logit = call.scratch<float>(tokens);
  plan.shift = call.scratch<float>(tokens);
  plan.inverse = call.scratch<float>(tokens);
  const int64_t warps = std::min<int64_t>((groups * plan.parts + kWarps - 1) / kWarps, 4 * multiprocessors);
  call.launch("vae_loss strided sums", loss_strided_sums<T, BACKWARD>, {warps, 1, 1}, kThreads, 0, args, plan);
  const int64_t blocks = loss_blocks(args, (tokens + kThreads - 1) / kThreads, 4, BACKWARD, call);
  call.launch("vae_loss strided tokens", loss_strided_tokens<BACKWARD>, {blocks, 1, 1}, kThreads, kLossShared, args, plan);
  if (args.grad != nullptr) {
    call.launch("vae_loss strided gradient", loss_strided_gradient<T, BACKWARD>, {warps, 1, 1}, kThreads, kLossShared, args, plan);
  }
  return blocks;
}

template <class T, bool BACKWARD>
int64_t launch(LossKernelArgs& args, DeviceCall& call) {
  const auto limit = static_cast<int64_t>(call.device().shared_per_block);
  bool whole = false;
  const bool tiles = args.logits_token == 1 && (args.grad == nullptr || args.grad_token == 1) && args.length > 0;
  const ColumnsPlan plan = tiles ? plan_tiles(args, static_cast<int64_t>(sizeof(T)), limit, &whole) : ColumnsPlan{};
  if (plan.tiles == 0) return launch_strided<T, BACKWARD>(args, call);
  const size_t shared = kLossShared + kSlices + static_cast<size_t>(plan.stages * plan.stage_bytes);
  const int64_t fitting = std::clamp<int64_t>((limit + 1024) / static_cast<int64_t>(shared + 1024), 1, 2 * kMostThreads / plan.threads);
  return launch_tiles<T, BACKWARD>(args, plan, whole, call, loss_blocks(args, plan.tiles, fitting, BACKWARD, call), shared);
}

}  // namespace

int64_t launch_loss_columns(LossKernelArgs& args, int32_t dtype, bool backward, DeviceCall& call) {
  switch (dtype) {
    case MOLFUSE_F32: return backward ? launch<float, true>(args, call) : launch<float, false>(args, call);
    case MOLFUSE_F16: return backward ? launch<f16, true>(args, call) : launch<f16, false>(args, call);
    default: return backward ? launch<bf16, true>(args, call) : launch<bf16, false>(args, call);
  }
}

}  // namespace molfuse

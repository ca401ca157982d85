// SPDX-License-Identifier: Apache-2.0
// Rows of more than 1024 classes that lie side by side: a block takes a row, which is read once. Every thread copies chunks of 16 bytes to
// shared memory asynchronously and is the only one that reads them, so that the copies need no barrier; as soon as it has written a
// chunk's gradient, it begins to copy the next row's chunk to the same place. So a row's worth of bytes is under way for every block, all
// the time: with 227 KB on a multiprocessor, 64 KB for rows of 2000 classes of bf16, 192 KB (three blocks) for 32000, 128 KB in f32.
//
// Forward takes one exponential an element: a thread's running sum is rescaled once a chunk, and only if the chunk has a new largest
// logit. The gradient takes another; on an H200 the two of a bf16 element keep the special function units busy for some 60 % of the time
// that its bytes take, one would need registers for the whole row in f32, of which there are none left beyond 32,000 classes.
//
// Rows too long for a block's shared memory (some 57,000 classes of f32 or 115,000 of 16 bits where a block may have 227 KB, fewer than
// half of that on consumers' devices) are read from global memory twice, forward with a gradient and backward. A cluster of blocks could
// hold them on some devices; vocabularies of that size are not those of molecules.
#include <algorithm>

#include "vae_loss/loss_kernel.h"

namespace molfuse {
namespace {

using namespace loss;

/// What warps tell each other about a row. Of two counted rows by turns, so that one barrier a row is enough.
struct WarpSoftmax {
  float largest, total;
  int argmax;
  float target_logit;
};
constexpr size_t kExchange = 2 * kWarp * sizeof(WarpSoftmax);
constexpr int kNone = 0x7FFFFFFF;

/// Largest logit, and the sum of exp(logit - largest), of a thread, a warp or a block.
struct Softmax {
  float largest, total;
};
/// That of all lanes.
MOLFUSE_DEVICE Softmax warp_joined(const Softmax& own) {
  const float largest = group_largest<kWarp>(own.largest);
  return {largest, group_sum(own.total * exp_difference(own.largest, usable_shift(largest)))};
}

/// RESIDENT: the row fits shared memory.
template <class T, bool BACKWARD, bool RESIDENT>
MOLFUSE_KERNEL(kLossMostThreads, 1) loss_long_rows(MOLFUSE_GRID_CONSTANT const LossKernelArgs args) {
  constexpr int kN = kChunk<T>;
  if (!BACKWARD && block_x() < args.latent_blocks) return latent_forward(args);
  const int threads = block_threads(), thread = thread_index();
  const int64_t blocks = grid_x() - args.latent_blocks, rows = args.batch * args.length;
  const bool gradient = BACKWARD || args.grad != nullptr;
  unsigned char* chunks = shared_memory() + kLossShared + kExchange;

  const auto row_at = [&](int64_t n) {
    const Split at = split(n, args.length);
    return static_cast<const T*>(args.logits) + at.quotient * args.logits_batch + at.remainder * args.logits_token;
  };
  const auto target_at = [&](int64_t n) {
    if (n >= rows) return args.pad;
    const Split at = split(n, args.length);
    return load_target(args, at.quotient, at.remainder);
  };
  const auto chunks_of = [&](int head) { return (head + args.classes + kN - 1) / kN; };

  int64_t n = block_x() - args.latent_blocks;
  // Known before the row's copies begin: padding is not read.
  int64_t target_value = args.pad, next_value = args.pad;
  if (RESIDENT) {
    target_value = target_at(n);
    next_value = target_at(n + blocks);
  }
  if (RESIDENT && target_of(args, target_value, 0, 0, false) >= 0) {
    const T* row = row_at(n);
    const int head = span_head(row);
    for (int q = thread; q < chunks_of(head); q += threads) copy_chunk(args, chunks + q * 16, row, head, q);
  }
  commit_copies();
  const float scale_of_all = BACKWARD ? (args.grad_nll.data == nullptr ? backward_scale(args) : 0.0f) : forward_scale(args);
  ThreadSums sums;
  for (int turn = 0; n < rows; n += blocks) {
    const Split at = split(n, args.length);
    const int64_t b = at.quotient, t = at.remainder;
    if (!RESIDENT) target_value = load_target(args, b, t);
    const int target = target_of(args, target_value, b, t, !BACKWARD && thread == 0);
    const bool counts = target >= 0;  // the same in all threads
    const T* row = row_at(n);
    const int head = span_head(row), count = chunks_of(head);
    if (RESIDENT) {
      target_value = next_value;
      next_value = target_at(n + 2 * blocks);
    }
    const bool copy_next = RESIDENT && n + blocks < rows && target_of(args, target_value, 0, 0, false) >= 0;
    const T* next_row = copy_next ? row_at(n + blocks) : row;
    const int next_head = span_head(next_row), next_count = copy_next ? chunks_of(next_head) : 0;
    float scale = scale_of_all;
    float lse = 0;
    if (BACKWARD && counts) {
      lse = element_of<float>(args.row_lse, b, t);
      if (args.grad_nll.data != nullptr) scale = element_of<float>(args.grad_nll, b, t);
    }
    // A chunk's logits; -inf where there is no class.
    const auto take = [&](int q, float (&x)[kN]) {
      const int k = q * kN - head;
      if (k >= 0 && k + kN <= args.classes) {
        const Vector<T, kN> v = RESIDENT ? load_chunk<T>(chunks + q * 16) : load_chunk<T>(row + k);
        MOLFUSE_UNROLL
        for (int i = 0; i < kN; ++i) x[i] = to_float(v.item[i]);
      } else {
        MOLFUSE_UNROLL
        for (int i = 0; i < kN; ++i) {
          const bool there = k + i >= 0 && k + i < args.classes;
          x[i] = there ? to_float(RESIDENT ? load(reinterpret_cast<const T*>(chunks + q * 16) + i) : load(row + k + i)) : -infinity();
        }
      }
    };
    wait_copies<0>();
    float shift = 0, total = 1;
    if (counts) {
      Softmax own{-infinity(), 0.0f};
      int first_largest = thread;  // the chunk in which the largest logit was met first
      float target_logit = 0;
      for (int q = thread; q < count; q += threads) {
        float x[kN];
        take(q, x);
        if (!BACKWARD) {
          float largest = x[0];
          MOLFUSE_UNROLL
          for (int i = 1; i < kN; ++i) largest = larger(largest, x[i]);
          if (largest > own.largest) {
            own.total *= exp_difference(own.largest, largest);
            own.largest = largest;
            first_largest = q;
          }
          if (target + head >= q * kN && target + head < (q + 1) * kN) {
            MOLFUSE_UNROLL
            for (int i = 0; i < kN; ++i) target_logit = q * kN - head + i == target ? x[i] : target_logit;
          }
        }
        const float from = BACKWARD ? lse : usable_shift(own.largest);
        MOLFUSE_UNROLL
        for (int i = 0; i < kN; ++i) own.total += exp_difference(x[i], from);
      }
      WarpSoftmax* exchange = reinterpret_cast<WarpSoftmax*>(shared_memory() + kLossShared) + turn * kWarp;
      turn ^= 1;
      Softmax all{0.0f, 0.0f};
      int argmax = kNone;
      if (BACKWARD) {
        const float warp = group_sum(own.total);
        if (lane_index() == 0) store(&exchange[warp_index()].total, warp);
        sync_block();
        all.total = group_sum(lane_index() < threads / kWarp ? load(&exchange[lane_index()].total) : 0.0f);
      } else {
        const Softmax warp = warp_joined(own);
        if (own.largest == warp.largest && thread < count) {
          float x[kN];
          take(first_largest, x);
          MOLFUSE_UNROLL
          for (int i = kN - 1; i >= 0; --i) {
            if (x[i] == warp.largest) argmax = first_largest * kN - head + i;
          }
        }
        argmax = warp_smallest(argmax);
        target_logit = group_sum(target_logit);  // one thread has it, the others 0
        if (lane_index() == 0) {
          store(&exchange[warp_index()].largest, warp.largest);
          store(&exchange[warp_index()].total, warp.total);
          store(&exchange[warp_index()].argmax, argmax);
          store(&exchange[warp_index()].target_logit, target_logit);
        }
        sync_block();
        const bool there = lane_index() < threads / kWarp;
        const Softmax part{there ? load(&exchange[lane_index()].largest) : -infinity(), there ? load(&exchange[lane_index()].total) : 0.0f};
        all = warp_joined(part);
        argmax = warp_smallest(there && part.largest == all.largest ? load(&exchange[lane_index()].argmax) : kNone);
        target_logit = group_sum(there ? load(&exchange[lane_index()].target_logit) : 0.0f);
        if (thread == 0) finish_token(args, b, t, all.largest, all.total, target_logit, argmax == target, sums);
      }
      // A row of nothing but -inf has no probabilities.
      shift = BACKWARD ? lse : all.largest;
      total = all.total;
    } else if (!BACKWARD && thread == 0) {
      finish_masked(args, b, t, target, sums);
    }
    const float inverse = 1.0f / total, factor = counts ? inverse * scale : (target == kWrong ? quiet_nan() : 0.0f);
    T* out = gradient ? static_cast<T*>(args.grad) + b * args.grad_batch + t * args.grad_token : nullptr;
    const bool vectors = gradient && span_head(out) == head;
    for (int q = thread; q < count || q < next_count; q += threads) {
      if (gradient && q < count) {
        const int k = q * kN - head;
        float x[kN];
        if (counts) take(q, x);
        Vector<T, kN> v;
        MOLFUSE_UNROLL
        for (int i = 0; i < kN; ++i) v.item[i] = from_float<T>(counts ? exp_difference(x[i], shift) * factor : factor);
        if (counts && target >= k && target < k + kN) {
          MOLFUSE_UNROLL
          for (int i = 0; i < kN; ++i) {
            if (k + i == target) v.item[i] = from_float<T>((exp_difference(x[i], shift) * inverse - 1.0f) * scale);
          }
        }
        if (vectors && k >= 0 && k + kN <= args.classes) {
          store_once(reinterpret_cast<Vector<T, kN>*>(out + k), v);
        } else {
          MOLFUSE_UNROLL
          for (int i = 0; i < kN; ++i) {
            if (k + i >= 0 && k + i < args.classes) store(out + k + i, v.item[i]);
          }
        }
      }
      if (q < next_count) copy_chunk(args, chunks + q * 16, next_row, next_head, q);
    }
    commit_copies();
  }
  if (!BACKWARD) write_partial(args, sums, 0);
}

template <class T, bool BACKWARD>
void launch(bool resident, const LossKernelArgs& args, DeviceCall& call, int64_t blocks, int threads, size_t shared) {
  call.launch("vae_loss long rows", resident ? loss_long_rows<T, BACKWARD, true> : loss_long_rows<T, BACKWARD, false>, {blocks, 1, 1}, threads, shared, args);
}
template <class T>
void launch(bool backward, bool resident, const LossKernelArgs& args, DeviceCall& call, int64_t blocks, int threads, size_t shared) {
  (backward ? launch<T, true> : launch<T, false>)(resident, args, call, blocks, threads, shared);
}

}  // namespace

int64_t launch_loss_long_rows(LossKernelArgs& args, int32_t dtype, bool backward, DeviceCall& call) {
  const auto element = static_cast<int64_t>(molfuse_dtype_size(dtype)), vector = 16 / element;
  const auto limit = static_cast<int64_t>(call.device().shared_per_block), fixed = static_cast<int64_t>(kLossShared + kExchange);
  const auto aligned = [&](const void* data, int64_t batch, int64_t token) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && (args.batch == 1 || batch % vector == 0) && (args.length == 1 || token % vector == 0);
  };
  // One more where rows begin inside a chunk.
  const int64_t chunks = (args.classes + vector - 1) / vector + (aligned(args.logits, args.logits_batch, args.logits_token) ? 0 : 1);
  const bool resident = fixed + chunks * 16 <= limit;
  const int64_t shared = fixed + (resident ? chunks * 16 : 0);
  // Some four chunks a thread: with fewer the sums of a row cost more than its elements, with more there are too few threads. Where a row
  // leaves no room for a second block, this one has to keep the multiprocessor busy.
  const int64_t fill = 2 * (shared + 1024) > limit || !resident ? kLossMostThreads : std::clamp<int64_t>((chunks / 4 + kWarp - 1) / kWarp * kWarp, 64, 512);
  const int threads = static_cast<int>(std::min<int64_t>(fill, (chunks + kWarp - 1) / kWarp * kWarp));
  const int64_t fitting = std::max<int64_t>(1, std::min<int64_t>(limit / (shared + 1024), kLossMostThreads / threads));
  const int64_t blocks = loss_blocks(args, args.batch * args.length, fitting, backward, call);
  switch (dtype) {
    case MOLFUSE_F32: launch<float>(backward, resident, args, call, blocks, threads, static_cast<size_t>(shared)); break;
    case MOLFUSE_F16: launch<f16>(backward, resident, args, call, blocks, threads, static_cast<size_t>(shared)); break;
    default: launch<bf16>(backward, resident, args, call, blocks, threads, static_cast<size_t>(shared)); break;
  }
  return blocks;
}

}  // namespace molfuse

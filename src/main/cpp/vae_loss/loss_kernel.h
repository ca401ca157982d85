// SPDX-License-Identifier: Apache-2.0
// What the kernels of vae_loss share: their arguments, tokens and targets, the scale of a gradient, the blocks' sums, and spans of memory
// that are no whole number of 16-byte accesses.
#pragma once

#include "runtime/device_report.h"
#include "runtime/log_var.h"
#include "vae_loss/device.h"

namespace molfuse {

/// The sums of one block.
struct LossPartial {
  double nll, kl;
  long long correct, count;
};

struct LossMatrix {  // [B,T] or [B,L]
  void* data;
  int64_t row, column;
};

struct LossKernelArgs {
  const void* logits;
  int64_t logits_batch, logits_token, logits_class;
  const void *logits_begin, *logits_end;  // of all elements: the lowest one, and behind the highest
  void* grad;              // null: not wanted
  int64_t grad_batch, grad_token, grad_class;
  int64_t batch, length;
  int32_t classes;
  const int64_t* targets;
  int64_t targets_batch, targets_token, pad;
  LossMatrix row_lse, nll;  // f32
  // gradient: scale of every token, or of each (grad_nll)
  LossMatrix grad_nll;
  const float* stats;
  int64_t stats_stride;
  const float* grad_stats;
  int64_t grad_stats_stride;
  const int* counts;  // of tokens, to be added up, for forward's gradient of a mean; null: 1 instead
  int32_t count_parts;
  int32_t sum_reduction;
  // latents
  LossMatrix mean, log_var, grad_mean, grad_log_var, kl_sample, grad_kl_sample;
  int32_t latent_type;
  int64_t dim;
  float beta;
  int64_t latent_blocks;  // the first blocks of forward; those of tokens follow
  LossPartial* partials;
  unsigned long long* report;
};

/// Blocks of at most this many threads, so that their warps' sums have a place in shared memory.
constexpr int kLossMostThreads = 1024;
/// Shared memory that loss_partial and count_scale need, at its beginning.
constexpr size_t kLossShared = kLossMostThreads / 32 * sizeof(LossPartial);

/// Blocks of a launch whose tokens would fill `needed`, when `fitting` of them are on a multiprocessor at a time: no more than are on the
/// device at once, those of the latents included, so that all have an equal part. Allocates forward's partial sums.
int64_t loss_blocks(LossKernelArgs& args, int64_t needed, int64_t fitting, bool backward, DeviceCall& call);

// ---- what both losses do around their kernels

/// Everything but logits and gradients.
LossKernelArgs loss_kernel_args(const LossArgs&, const TokenTargets&, const TokenValues& row_lse, const TokenValues& nll, DeviceCall&);
/// The latents' share of forward, and with `gradients` the counting of the tokens that a mean's gradient is divided by.
void begin_loss_forward(LossKernelArgs&, const LossArgs&, bool gradients, DeviceCall&);
/// Adds the blocks' sums up and writes the statistics.
void finish_loss_forward(const LossKernelArgs&, const LossArgs&, int64_t blocks, DeviceCall&);
void begin_loss_backward(LossKernelArgs&, const LossArgs&);
void launch_latent_backward(const LossKernelArgs&, DeviceCall&);

// Each launches its kernel over all tokens, and in forward over the latents, and returns the number of its blocks.
/// Up to kRowsClasses classes, side by side.
constexpr int64_t kRowsClasses = 1024;
int64_t launch_loss_rows(LossKernelArgs& args, int32_t dtype, bool backward, DeviceCall& call);
/// Any number of classes, side by side.
int64_t launch_loss_long_rows(LossKernelArgs& args, int32_t dtype, bool backward, DeviceCall& call);
/// Classes that are not side by side.
int64_t launch_loss_columns(LossKernelArgs& args, int32_t dtype, bool backward, DeviceCall& call);

}  // namespace molfuse

#if defined(__CUDACC__) || defined(MOLFUSE_SIMT)
namespace molfuse {
namespace loss {

using namespace device;

constexpr float kCountEpsilon = 1e-8f;
constexpr float kLog2OfE = 1.44269504088896341f;

/// exp(x - shift). The difference comes first, so that the exponent's error is small where the result is not: its product with log2(e)
/// is off by 2^-24 of itself, which for a result r of exp is an error of at most 2^-24 r |log r|.
MOLFUSE_DEVICE float exp_difference(float x, float shift) { return exp2_fast((x - shift) * kLog2OfE); }

template <class T>
MOLFUSE_DEVICE float element_of(const LossMatrix& matrix, int64_t row, int64_t column) {
  return to_float(load(static_cast<const T*>(matrix.data) + row * matrix.row + column * matrix.column));
}
MOLFUSE_DEVICE void put_float(const LossMatrix& matrix, int64_t row, int64_t column, float value) {
  store(static_cast<float*>(matrix.data) + row * matrix.row + column * matrix.column, value);
}

/// Quotient and remainder, by 32-bit division where the numbers allow it: that of 64 bits is a subroutine of some hundred instructions.
struct Split {
  int64_t quotient, remainder;
};
MOLFUSE_DEVICE Split split(int64_t n, int64_t by) {
  if ((n | by) >> 31 == 0) {
    const uint32_t q = static_cast<uint32_t>(n) / static_cast<uint32_t>(by);
    return {q, static_cast<uint32_t>(n) - q * static_cast<uint32_t>(by)};
  }
  return {n / by, n % by};
}

constexpr int kPadding = -1, kWrong = -2;  // instead of a target

MOLFUSE_DEVICE int64_t load_target(const LossKernelArgs& args, int64_t b, int64_t t) {
  return load(args.targets + b * args.targets_batch + t * args.targets_token);
}
/// The class, kPadding, or kWrong, which is reported.
MOLFUSE_DEVICE int target_of(const LossKernelArgs& args, int64_t value, int64_t b, int64_t t, bool report) {
  if (value == args.pad) return kPadding;
  if (value >= 0 && value < args.classes) return static_cast<int>(value);
  if (report) report_fault(args.report, Fault::target, b * args.length + t, value);
  return kWrong;
}

/// d(loss)/d(nll) in backward, the same for every token (without grad_nll); of a mean, times the number of tokens unless `divide`.
MOLFUSE_DEVICE float backward_scale(const LossKernelArgs& args, bool divide = true) {
  if (args.grad_stats == nullptr) return 0.0f;
  const float count = load(args.stats + MOLFUSE_VAE_TOKEN_COUNT * args.stats_stride) + kCountEpsilon;
  const float direct = load(args.grad_stats + MOLFUSE_VAE_TOTAL * args.grad_stats_stride) + load(args.grad_stats + MOLFUSE_VAE_RECON * args.grad_stats_stride);
  float perplexity = load(args.grad_stats + MOLFUSE_VAE_PERPLEXITY * args.grad_stats_stride);
  // An infinite perplexity that nobody differentiates must not make a NaN.
  if (perplexity != 0) perplexity *= load(args.stats + MOLFUSE_VAE_PERPLEXITY * args.stats_stride);
  if (args.sum_reduction != 0) return direct + perplexity / count;
  return divide ? (direct + perplexity) / count : direct + perplexity;
}
/// The same in forward's gradient: every block adds up the counts that the blocks of count_tokens left. All threads must call it.
MOLFUSE_DEVICE float forward_scale(const LossKernelArgs& args) {
  if (args.counts == nullptr) return 1.0f;
  int* warps = reinterpret_cast<int*>(shared_memory());
  int count = 0;
  for (int n = thread_index(); n < args.count_parts; n += block_threads()) count += load(args.counts + n);
  MOLFUSE_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) count += shuffle_xor(count, step);
  if (lane_index() == 0) store(warps + warp_index(), count);
  sync_block();
  count = 0;
  for (int w = 0; w < block_threads() / kWarp; ++w) count += load(warps + w);
  sync_block();
  return 1.0f / (static_cast<float>(count) + kCountEpsilon);
}

/// Sums of the tokens that one thread has answered for.
struct ThreadSums {
  double nll = 0;
  int correct = 0, count = 0;
};

/// What a token's softmax gives: `total` is the sum of exp(logit - largest).
MOLFUSE_DEVICE void finish_token(const LossKernelArgs& args, int64_t b, int64_t t, float largest, float total, float target_logit,
                                 bool is_argmax, ThreadSums& sums) {
  const float log_total = log(total), nll = log_total + (largest - target_logit);
  if (args.row_lse.data != nullptr) put_float(args.row_lse, b, t, largest + log_total);
  if (args.nll.data != nullptr) put_float(args.nll, b, t, nll);
  sums.nll += static_cast<double>(nll);
  sums.correct += is_argmax && total > 0 ? 1 : 0;
  ++sums.count;
}
/// The same for kPadding and kWrong.
MOLFUSE_DEVICE void finish_masked(const LossKernelArgs& args, int64_t b, int64_t t, int target, ThreadSums& sums) {
  const float value = target == kWrong ? quiet_nan() : 0.0f;
  if (args.row_lse.data != nullptr) put_float(args.row_lse, b, t, value);
  if (args.nll.data != nullptr) put_float(args.nll, b, t, value);
  if (target == kWrong) sums.nll += static_cast<double>(value);
}

/// Adds up the threads' sums in a fixed order and leaves them as the block's. All threads must call it, as the last thing.
MOLFUSE_DEVICE void write_partial(const LossKernelArgs& args, const ThreadSums& sums, double kl) {
  LossPartial* rows = reinterpret_cast<LossPartial*>(shared_memory());
  sync_block();
  LossPartial own{sums.nll, kl, sums.correct, sums.count};
  MOLFUSE_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) {
    own.nll += shuffle_xor(own.nll, step);
    own.kl += shuffle_xor(own.kl, step);
    own.correct += shuffle_xor(own.correct, step);
    own.count += shuffle_xor(own.count, step);
  }
  if (lane_index() == 0) {
    store(&rows[warp_index()].nll, own.nll);
    store(&rows[warp_index()].kl, own.kl);
    store(&rows[warp_index()].correct, own.correct);
    store(&rows[warp_index()].count, own.count);
  }
  sync_block();
  if (thread_index() != 0) return;
  LossPartial all{0, 0, 0, 0};
  for (int w = 0; w < block_threads() / kWarp; ++w) {
    all.nll += load(&rows[w].nll);
    all.kl += load(&rows[w].kl);
    all.correct += load(&rows[w].correct);
    all.count += load(&rows[w].count);
  }
  LossPartial* to = args.partials + block_x();
  store(&to->nll, all.nll);
  store(&to->kl, all.kl);
  store(&to->correct, all.correct);
  store(&to->count, all.count);
}

/// log_var inside its bounds, and whether it was outside; NaN stays.
MOLFUSE_DEVICE float clamped(float log_var, bool* outside) {
  const float low = static_cast<float>(kLogVarLowest), high = static_cast<float>(kLogVarHighest);
  *outside = log_var < low || log_var > high;
  return log_var < low ? low : (log_var > high ? high : log_var);
}
MOLFUSE_DEVICE float latent_element(const LossKernelArgs& args, const LossMatrix& matrix, int64_t row, int64_t column) {
  switch (args.latent_type) {
    case MOLFUSE_F16: return element_of<f16>(matrix, row, column);
    case MOLFUSE_BF16: return element_of<bf16>(matrix, row, column);
    default: return element_of<float>(matrix, row, column);
  }
}

/// The divergence of the samples of this block: a warp takes a sample. The first blocks of the grid do this, so that it is done beside
/// the tokens and not behind them.
MOLFUSE_DEVICE void latent_forward(const LossKernelArgs& args) {
  double kl = 0;
  const int warps = block_threads() / kWarp;
  for (int64_t b = static_cast<int64_t>(block_x()) * warps + warp_index(); b < args.batch; b += args.latent_blocks * warps) {
    float sum = 0;
    for (int64_t l = lane_index(); l < args.dim; l += kWarp) {
      bool outside;
      const float mean = latent_element(args, args.mean, b, l), lv = clamped(latent_element(args, args.log_var, b, l), &outside);
      sum += mean * mean + ((exp(lv) - 1.0f) - lv);
    }
    sum = 0.5f * group_sum(sum);
    if (lane_index() == 0) {
      if (args.kl_sample.data != nullptr) put_float(args.kl_sample, b, 0, sum);
      kl += static_cast<double>(sum);
    }
  }
  write_partial(args, ThreadSums{}, kl);
}

template <int WIDTH>
MOLFUSE_DEVICE float group_largest(float value) {
  MOLFUSE_UNROLL
  for (int step = WIDTH / 2; step > 0; step /= 2) value = larger(value, shuffle_xor(value, step));
  return value;
}
MOLFUSE_DEVICE int warp_smallest(int value) {
  MOLFUSE_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const int other = shuffle_xor(value, step);
    value = other < value ? other : value;
  }
  return value;
}

// ---- spans. A span is a range of elements in memory; its chunks are the 16 bytes, aligned to 16, that hold some of it. In the first and
// the last one there may be elements of others, which are read but not looked at, and not written.

template <class T>
constexpr int kChunk = 16 / static_cast<int>(sizeof(T));  // elements

/// Elements of the first chunk that come before `from`.
template <class T>
MOLFUSE_DEVICE int span_head(const T* from) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(from) % 16 / sizeof(T));
}

/// Begins to copy chunk q of the span that begins at `from` to shared memory; elements that are not part of logits are not read.
template <class T>
MOLFUSE_DEVICE void copy_chunk(const LossKernelArgs& args, void* to, const T* from, int head, int q) {
  const T* at = from - head + static_cast<int64_t>(q) * kChunk<T>;
  const T *begin = static_cast<const T*>(args.logits_begin), *end = static_cast<const T*>(args.logits_end);
  if (at >= begin && at + kChunk<T> <= end) return copy_async(to, at);
  for (int i = 0; i < kChunk<T>; ++i) {
    if (at + i >= begin && at + i < end) store(static_cast<T*>(to) + i, load(at + i));
  }
}

template <class T>
MOLFUSE_DEVICE Vector<T, kChunk<T>> load_chunk(const void* from) {
  return load(static_cast<const Vector<T, kChunk<T>>*>(from));
}

/// Writes the span of `elements` elements that is in shared memory at `staged`, `head` elements into a chunk. This thread is number
/// `first` of `step` threads that do so.
template <class T>
MOLFUSE_DEVICE void write_span(const T* staged, T* to, int head, int elements, int first, int step) {
  if (span_head(to) != head) {
    for (int n = first; n < elements; n += step) store(to + n, load(staged + n));
    return;
  }
  for (int n = first * kChunk<T> - head; n < elements; n += step * kChunk<T>) {
    if (n >= 0 && n + kChunk<T> <= elements) {
      store_once(reinterpret_cast<Vector<T, kChunk<T>>*>(to + n), load_chunk<T>(staged + n));
    } else {
      for (int i = 0; i < kChunk<T>; ++i) {
        if (n + i >= 0 && n + i < elements) store(to + n + i, load(staged + n + i));
      }
    }
  }
}

/// -inf as the largest logit says that there was nothing yet, or nothing but -inf.
MOLFUSE_DEVICE float usable_shift(float largest) { return largest == -infinity() ? 0.0f : largest; }

}  // namespace loss
}  // namespace molfuse
#endif

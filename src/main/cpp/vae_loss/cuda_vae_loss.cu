// SPDX-License-Identifier: Apache-2.0
// The loss of given logits on a GPU. Rows of up to some thousand classes are read once into the registers of a group of lanes; longer ones
// are walked by a whole block; where tokens lie side by side and classes do not ([B,K,T]), each thread walks the classes of one token.
// Every block leaves one partial sum, and a last block adds these up in order: no atomics, the same result every time. Extra blocks of the
// same launch do the latent divergence.
#include <algorithm>

#include "runtime/device_report.h"
#include "runtime/log_var.h"
#include "vae_loss/device.h"

namespace molfuse {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr float kCountEpsilon = 1e-8f;

enum class Mode { forward, forward_gradient, backward };

struct Matrix {  // [B,T] or [B,L]
  void* data;
  int64_t row, column;
};

/// The sums of one block.
struct Partial {
  double nll, kl;
  long long correct, count;
};

struct LossKernelArgs {
  const void* logits;
  int64_t logits_batch, logits_token, logits_class;
  void* grad;
  int64_t grad_batch, grad_token, grad_class;
  int64_t batch, length;
  int32_t classes;
  const int64_t* targets;
  int64_t targets_batch, targets_token, pad;
  Matrix row_lse, nll;  // f32
  // gradient: scale of every token, or of each (grad_nll)
  Matrix grad_nll;
  const float* stats;
  int64_t stats_stride;
  const float* grad_stats;
  int64_t grad_stats_stride;
  const long long* count;  // of tokens, for forward's gradient of a mean; null: 1 instead
  int32_t sum_reduction;
  // latents
  Matrix mean, log_var, grad_mean, grad_log_var, kl_sample, grad_kl_sample;
  int32_t latent_type;
  int64_t dim;
  float beta;
  int64_t token_blocks;
  Partial* partials;
  unsigned long long* report;
};

template <class T>
MOLFUSE_DEVICE float element_of(const Matrix& matrix, int64_t row, int64_t column) {
  return to_float(load(static_cast<const T*>(matrix.data) + row * matrix.row + column * matrix.column));
}
MOLFUSE_DEVICE void put_float(const Matrix& matrix, int64_t row, int64_t column, float value) {
  store(static_cast<float*>(matrix.data) + row * matrix.row + column * matrix.column, value);
}

/// A token that counts, or not: `target` is negative for padding, and for a wrong target, which is reported.
struct Token {
  int64_t b, t;
  int32_t target;
  bool wrong;
};
MOLFUSE_DEVICE Token token_of(const LossKernelArgs& args, int64_t n, bool report) {
  Token token{n / args.length, n % args.length, -1, false};
  const int64_t target = load(args.targets + token.b * args.targets_batch + token.t * args.targets_token);
  if (target == args.pad) return token;
  if (target < 0 || target >= args.classes) {
    token.wrong = true;
    if (report) report_fault(args.report, Fault::target, n, target);
    return token;
  }
  token.target = static_cast<int32_t>(target);
  return token;
}

/// d(loss)/d(nll) of a token.
template <Mode MODE>
MOLFUSE_DEVICE float scale_of(const LossKernelArgs& args, const Token& token) {
  if (MODE == Mode::forward_gradient) return args.count == nullptr ? 1.0f : 1.0f / (static_cast<float>(load(args.count)) + kCountEpsilon);
  if (args.grad_nll.data != nullptr) return element_of<float>(args.grad_nll, token.b, token.t);
  if (args.grad_stats == nullptr) return 0.0f;
  const float count = load(args.stats + MOLFUSE_VAE_TOKEN_COUNT * args.stats_stride) + kCountEpsilon;
  const float direct = load(args.grad_stats + MOLFUSE_VAE_TOTAL * args.grad_stats_stride) + load(args.grad_stats + MOLFUSE_VAE_RECON * args.grad_stats_stride);
  float perplexity = load(args.grad_stats + MOLFUSE_VAE_PERPLEXITY * args.grad_stats_stride);
  // An infinite perplexity that nobody differentiates must not make a NaN.
  if (perplexity != 0) perplexity *= load(args.stats + MOLFUSE_VAE_PERPLEXITY * args.stats_stride);
  return args.sum_reduction != 0 ? direct + perplexity / count : (direct + perplexity) / count;
}

/// Sums of the rows that one thread has answered for.
struct ThreadSums {
  double nll;
  int correct, count;
};

/// What a row's softmax gives, once per row.
MOLFUSE_DEVICE void finish_row(const LossKernelArgs& args, const Token& token, float largest, float total, float target_logit, bool is_argmax,
                               ThreadSums& sums) {
  const float log_total = log(total), nll = log_total + (largest - target_logit);
  if (args.row_lse.data != nullptr) put_float(args.row_lse, token.b, token.t, largest + log_total);
  if (args.nll.data != nullptr) put_float(args.nll, token.b, token.t, nll);
  sums.nll += static_cast<double>(nll);
  sums.correct += is_argmax && total > 0 ? 1 : 0;
  ++sums.count;
}
/// The same for padding and for wrong targets.
MOLFUSE_DEVICE void finish_masked(const LossKernelArgs& args, const Token& token, ThreadSums& sums) {
  const float value = token.wrong ? quiet_nan() : 0.0f;
  if (args.row_lse.data != nullptr) put_float(args.row_lse, token.b, token.t, value);
  if (args.nll.data != nullptr) put_float(args.nll, token.b, token.t, value);
  if (token.wrong) sums.nll += static_cast<double>(value);
}

template <int WIDTH>
MOLFUSE_DEVICE int group_minimum(int value) {
  MOLFUSE_UNROLL
  for (int step = WIDTH / 2; step > 0; step /= 2) {
    const int other = shuffle_xor(value, step);
    value = other < value ? other : value;
  }
  return value;
}

/// Adds up the threads' sums in a fixed order and leaves them as the block's.
MOLFUSE_DEVICE void write_partial(const LossKernelArgs& args, const ThreadSums& sums, double kl) {
  struct Row {
    double nll, kl;
    long long correct, count;
  };
  Row* rows = reinterpret_cast<Row*>(shared_memory());
  sync_block();
  Row own{sums.nll, kl, sums.correct, sums.count};
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
  Partial all{0, 0, 0, 0};
  for (int w = 0; w < kWarps; ++w) {
    all.nll += load(&rows[w].nll);
    all.kl += load(&rows[w].kl);
    all.correct += load(&rows[w].correct);
    all.count += load(&rows[w].count);
  }
  Partial* to = args.partials + block_x();
  store(&to->nll, all.nll);
  store(&to->kl, all.kl);
  store(&to->correct, all.correct);
  store(&to->count, all.count);
}

/// exp(clamp(log_var)) and whether log_var is inside the clamp; NaN stays.
MOLFUSE_DEVICE float clamped(float log_var, bool* outside) {
  const float low = static_cast<float>(kLogVarLowest), high = static_cast<float>(kLogVarHighest);
  *outside = log_var < low || log_var > high;
  return log_var < low ? low : (log_var > high ? high : log_var);
}

MOLFUSE_DEVICE float latent_element(const LossKernelArgs& args, const Matrix& matrix, int64_t row, int64_t column) {
  switch (args.latent_type) {
    case MOLFUSE_F16: return element_of<f16>(matrix, row, column);
    case MOLFUSE_BF16: return element_of<bf16>(matrix, row, column);
    default: return element_of<float>(matrix, row, column);
  }
}
MOLFUSE_DEVICE void put_latent(const LossKernelArgs& args, const Matrix& matrix, int64_t row, int64_t column, float value) {
  const int64_t at = row * matrix.row + column * matrix.column;
  switch (args.latent_type) {
    case MOLFUSE_F16: store(static_cast<f16*>(matrix.data) + at, from_float<f16>(value)); break;
    case MOLFUSE_BF16: store(static_cast<bf16*>(matrix.data) + at, from_float<bf16>(value)); break;
    default: store(static_cast<float*>(matrix.data) + at, value);
  }
}

/// The divergence of the samples of this block: a warp takes a sample.
MOLFUSE_DEVICE void latent_forward(const LossKernelArgs& args) {
  double kl = 0;
  const int64_t blocks = grid_x() - args.token_blocks, first = (block_x() - args.token_blocks) * kWarps + warp_index();
  for (int64_t b = first; b < args.batch; b += blocks * kWarps) {
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
  write_partial(args, ThreadSums{0, 0, 0}, kl);
}

/// How a row of classes lies in the registers of a group of lanes: chunk c of lane l is the vector c * LANES + l of N classes.
template <class T, int LANES, int N, int CHUNKS>
struct Layout {
  using Type = T;
  static constexpr int kLanes = LANES, kVector = N, kChunks = CHUNKS;
  static MOLFUSE_DEVICE int class_at(int chunk, int lane, int item) { return (chunk * LANES + lane) * N + item; }
};

template <class R, Mode MODE>
MOLFUSE_DEVICE void group_row(const LossKernelArgs& args, int64_t n, bool active, ThreadSums& sums) {
  using T = typename R::Type;
  constexpr int kN = R::kVector;
  const int lane = lane_index() % R::kLanes;
  const Token token = active ? token_of(args, n, MODE != Mode::backward && lane == 0) : Token{0, 0, -1, false};
  const bool counts = token.target >= 0;
  float x[R::kChunks][kN];
  const T* row = static_cast<const T*>(args.logits) + token.b * args.logits_batch + token.t * args.logits_token;
  MOLFUSE_UNROLL
  for (int c = 0; c < R::kChunks; ++c) {
    const int at = R::class_at(c, lane, 0);
    if (counts && at < args.classes) {
      const Vector<T, kN> v = load_once(reinterpret_cast<const Vector<T, kN>*>(row + at));
      MOLFUSE_UNROLL
      for (int i = 0; i < kN; ++i) x[c][i] = to_float(v.item[i]);
    } else {
      MOLFUSE_UNROLL
      for (int i = 0; i < kN; ++i) x[c][i] = -infinity();
    }
  }
  float largest = -infinity(), target_logit = 0;
  MOLFUSE_UNROLL
  for (int c = 0; c < R::kChunks; ++c) {
    MOLFUSE_UNROLL
    for (int i = 0; i < kN; ++i) {
      largest = x[c][i] > largest || is_nan(x[c][i]) ? x[c][i] : largest;
      if (R::class_at(c, lane, i) == token.target) target_logit = x[c][i];
    }
  }
  float shift = 0;
  int argmax = 0x7FFFFFFF;
  if (MODE == Mode::backward) {
    if (counts) shift = element_of<float>(args.row_lse, token.b, token.t);
  } else {
    shift = largest = group_maximum<R::kLanes>(largest);
    target_logit = group_sum<R::kLanes>(target_logit);  // one lane has it, the others 0
    MOLFUSE_UNROLL
    for (int c = R::kChunks - 1; c >= 0; --c) {
      MOLFUSE_UNROLL
      for (int i = kN - 1; i >= 0; --i) {
        if (x[c][i] == largest) argmax = R::class_at(c, lane, i);
      }
    }
    argmax = group_minimum<R::kLanes>(argmax);
  }
  float total = 0;
  MOLFUSE_UNROLL
  for (int c = 0; c < R::kChunks; ++c) {
    MOLFUSE_UNROLL
    for (int i = 0; i < kN; ++i) {
      const bool there = R::class_at(c, lane, i) < args.classes;
      x[c][i] = there ? exp(x[c][i] - shift) : 0.0f;
      total += x[c][i];
    }
  }
  total = group_sum<R::kLanes>(total);
  if (!active) return;
  if (MODE != Mode::backward && lane == 0) {
    if (counts) {
      finish_row(args, token, largest, total, target_logit, argmax == token.target, sums);
    } else {
      finish_masked(args, token, sums);
    }
  }
  if (MODE == Mode::forward) return;
  // Divided by the sum of the terms, which in backward is one but for the rounding of the stored log-sum-exp.
  const float scale = counts ? scale_of<MODE>(args, token) : 0.0f, inverse = 1.0f / total;
  T* out = static_cast<T*>(args.grad) + token.b * args.grad_batch + token.t * args.grad_token;
  MOLFUSE_UNROLL
  for (int c = 0; c < R::kChunks; ++c) {
    const int at = R::class_at(c, lane, 0);
    if (at >= args.classes) continue;
    Vector<T, kN> v;
    MOLFUSE_UNROLL
    for (int i = 0; i < kN; ++i) {
      const float p = x[c][i] * inverse - (at + i == token.target ? 1.0f : 0.0f);
      v.item[i] = from_float<T>(counts ? p * scale : (token.wrong ? quiet_nan() : 0.0f));
    }
    store_once(reinterpret_cast<Vector<T, kN>*>(out + at), v);
  }
}

template <class R, Mode MODE>
MOLFUSE_KERNEL(kThreads, 2) loss_rows(MOLFUSE_GRID_CONSTANT const LossKernelArgs args) {
  if (MODE != Mode::backward && block_x() >= args.token_blocks) return latent_forward(args);
  ThreadSums sums{0, 0, 0};
  constexpr int kGroups = kThreads / R::kLanes;
  const int64_t tokens = args.batch * args.length;
  for (int64_t first = static_cast<int64_t>(block_x()) * kGroups; first < tokens; first += args.token_blocks * kGroups) {
    const int64_t n = first + thread_index() / R::kLanes;
    group_row<R, MODE>(args, n, n < tokens, sums);
  }
  if (MODE != Mode::backward) write_partial(args, sums, 0);
}

/// One token by one thread, at any strides: coalesced where neighbouring tokens are neighbours in memory.
template <class T, Mode MODE>
MOLFUSE_DEVICE void thread_row(const LossKernelArgs& args, int64_t n, ThreadSums& sums) {
  const Token token = token_of(args, n, MODE != Mode::backward);
  const bool counts = token.target >= 0;
  const T* row = static_cast<const T*>(args.logits) + token.b * args.logits_batch + token.t * args.logits_token;
  float shift = -infinity(), total = 0;
  if (counts && MODE == Mode::backward) {
    shift = element_of<float>(args.row_lse, token.b, token.t);
    for (int k = 0; k < args.classes; ++k) total += exp(to_float(load(row + k * args.logits_class)) - shift);
  } else if (counts) {
    float target_logit = 0;
    int argmax = 0;
    for (int k = 0; k < args.classes; ++k) {
      const float x = to_float(load(row + k * args.logits_class));
      if (k == token.target) target_logit = x;
      if (x > shift || is_nan(x)) {
        // An all -inf beginning has total 0 to rescale.
        total = total == 0 ? 0.0f : total * exp(shift - x);
        shift = x;
        argmax = k;
      }
      if (shift != -infinity()) total += exp(x - shift);
    }
    finish_row(args, token, shift, total, target_logit, argmax == token.target, sums);
  } else if (MODE != Mode::backward) {
    finish_masked(args, token, sums);
  }
  if (MODE == Mode::forward) return;
  const float scale = counts ? scale_of<MODE>(args, token) : 0.0f, inverse = 1.0f / total;
  T* out = static_cast<T*>(args.grad) + token.b * args.grad_batch + token.t * args.grad_token;
  for (int k = 0; k < args.classes; ++k) {
    float gradient = token.wrong ? quiet_nan() : 0.0f;
    if (counts) gradient = (exp(to_float(load(row + k * args.logits_class)) - shift) * inverse - (k == token.target ? 1.0f : 0.0f)) * scale;
    store(out + k * args.grad_class, from_float<T>(gradient));
  }
}

template <class T, Mode MODE>
MOLFUSE_KERNEL(kThreads, 2) loss_columns(MOLFUSE_GRID_CONSTANT const LossKernelArgs args) {
  if (MODE != Mode::backward && block_x() >= args.token_blocks) return latent_forward(args);
  ThreadSums sums{0, 0, 0};
  const int64_t tokens = args.batch * args.length;
  for (int64_t n = static_cast<int64_t>(block_x()) * kThreads + thread_index(); n < tokens; n += args.token_blocks * kThreads) {
    thread_row<T, MODE>(args, n, sums);
  }
  if (MODE != Mode::backward) write_partial(args, sums, 0);
}

// ---- rows too long for a group's registers: a block walks one, N classes a thread at a time

/// A softmax in progress, with the lowest class that has the largest logit.
struct LongSoftmax {
  float largest, total;
  int argmax;
};
MOLFUSE_DEVICE LongSoftmax joined(const LongSoftmax& a, const LongSoftmax& b) {
  LongSoftmax all = a;
  if (b.largest > a.largest || is_nan(b.largest)) {
    all.largest = b.largest;
    all.argmax = b.argmax;
  } else if (b.largest == a.largest && b.argmax < a.argmax) {
    all.argmax = b.argmax;
  }
  const float shift = all.largest == -infinity() ? 0.0f : all.largest;
  all.total = a.total * exp(a.largest - shift) + b.total * exp(b.largest - shift);
  return all;
}

template <class T, int N>
MOLFUSE_DEVICE void load_classes(const T* at, float (&x)[N]) {
  const Vector<T, N> v = load(reinterpret_cast<const Vector<T, N>*>(at));
  MOLFUSE_UNROLL
  for (int i = 0; i < N; ++i) x[i] = to_float(v.item[i]);
}

/// The block's value of a softmax; every thread gets it.
MOLFUSE_DEVICE LongSoftmax block_joined(LongSoftmax own) {
  float* numbers = reinterpret_cast<float*>(shared_memory());
  MOLFUSE_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) {
    own = joined(own, LongSoftmax{shuffle_xor(own.largest, step), shuffle_xor(own.total, step), shuffle_xor(own.argmax, step)});
  }
  sync_block();
  if (lane_index() == 0) {
    store(numbers + 3 * warp_index(), own.largest);
    store(numbers + 3 * warp_index() + 1, own.total);
    store(numbers + 3 * warp_index() + 2, float_from_bits(static_cast<uint32_t>(own.argmax)));
  }
  sync_block();
  LongSoftmax all{-infinity(), 0.0f, 0x7FFFFFFF};
  for (int w = 0; w < kWarps; ++w) {
    all = joined(all, LongSoftmax{load(numbers + 3 * w), load(numbers + 3 * w + 1), static_cast<int>(bits_of(load(numbers + 3 * w + 2)))});
  }
  return all;
}

template <class T, int N, Mode MODE>
MOLFUSE_DEVICE void block_row(const LossKernelArgs& args, int64_t n, ThreadSums& sums) {
  const Token token = token_of(args, n, MODE != Mode::backward && thread_index() == 0);
  const bool counts = token.target >= 0;  // the same in all threads
  const T* row = static_cast<const T*>(args.logits) + token.b * args.logits_batch + token.t * args.logits_token;
  float shift = 0, total = 1;
  if (counts) {
    LongSoftmax own{-infinity(), 0.0f, 0x7FFFFFFF};
    const float lse = MODE == Mode::backward ? element_of<float>(args.row_lse, token.b, token.t) : 0.0f;
    for (int k = thread_index() * N; k < args.classes; k += kThreads * N) {
      float x[N];
      load_classes<T, N>(row + k, x);
      if (MODE == Mode::backward) {
        own.largest = 0;  // sums of terms with one shift, as they are
        MOLFUSE_UNROLL
        for (int i = 0; i < N; ++i) own.total += exp(x[i] - lse);
      } else {
        MOLFUSE_UNROLL
        for (int i = 0; i < N; ++i) own = joined(own, LongSoftmax{x[i], x[i] == -infinity() ? 0.0f : 1.0f, k + i});
      }
    }
    const LongSoftmax all = block_joined(own);
    shift = MODE == Mode::backward ? lse : all.largest;
    total = all.total;
    if (MODE != Mode::backward && thread_index() == 0) {
      finish_row(args, token, shift, total, to_float(load(row + token.target)), all.argmax == token.target, sums);
    }
  } else if (MODE != Mode::backward && thread_index() == 0) {
    finish_masked(args, token, sums);
  }
  if (MODE == Mode::forward) return;
  const float scale = counts ? scale_of<MODE>(args, token) : 0.0f, inverse = 1.0f / total;
  T* out = static_cast<T*>(args.grad) + token.b * args.grad_batch + token.t * args.grad_token;
  for (int k = thread_index() * N; k < args.classes; k += kThreads * N) {
    Vector<T, N> v;
    float x[N] = {};
    if (counts) load_classes<T, N>(row + k, x);
    MOLFUSE_UNROLL
    for (int i = 0; i < N; ++i) {
      const float p = exp(x[i] - shift) * inverse - (k + i == token.target ? 1.0f : 0.0f);
      v.item[i] = from_float<T>(counts ? p * scale : (token.wrong ? quiet_nan() : 0.0f));
    }
    store_once(reinterpret_cast<Vector<T, N>*>(out + k), v);
  }
}

template <class T, int N, Mode MODE>
MOLFUSE_KERNEL(kThreads, 2) loss_long_rows(MOLFUSE_GRID_CONSTANT const LossKernelArgs args) {
  if (MODE != Mode::backward && block_x() >= args.token_blocks) return latent_forward(args);
  ThreadSums sums{0, 0, 0};
  for (int64_t n = block_x(); n < args.batch * args.length; n += args.token_blocks) block_row<T, N, MODE>(args, n, sums);
  if (MODE != Mode::backward) write_partial(args, sums, 0);
}

// ---- the small kernels around them

/// The number of tokens that count, by one block: what forward's gradient of a mean is divided by.
MOLFUSE_KERNEL(kThreads, 1) count_tokens(MOLFUSE_GRID_CONSTANT const LossKernelArgs args, long long* to) {
  long long* rows = reinterpret_cast<long long*>(shared_memory());
  long long count = 0;
  for (int64_t n = thread_index(); n < args.batch * args.length; n += kThreads) {
    count += load(args.targets + n / args.length * args.targets_batch + n % args.length * args.targets_token) != args.pad ? 1 : 0;
  }
  MOLFUSE_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) count += shuffle_xor(count, step);
  if (lane_index() == 0) store(rows + warp_index(), count);
  sync_block();
  if (thread_index() != 0) return;
  count = 0;
  for (int w = 0; w < kWarps; ++w) count += load(rows + w);
  store(to, count);
}

/// Adds the blocks' sums in order and writes the statistics: one block.
MOLFUSE_KERNEL(kThreads, 1) write_stats(MOLFUSE_GRID_CONSTANT const LossKernelArgs args, int blocks, int reduction, float* stats, int64_t stride) {
  ThreadSums sums{0, 0, 0};
  double kl = 0;
  for (int n = thread_index(); n < blocks; n += kThreads) {
    const Partial* part = args.partials + n;
    sums.nll += load(&part->nll);
    kl += load(&part->kl);
    sums.correct += static_cast<int>(load(&part->correct));
    sums.count += static_cast<int>(load(&part->count));
  }
  // The first row of the table becomes the sum.
  write_partial(args, sums, kl);
  if (thread_index() != 0) return;
  const Partial* all = args.partials;
  const double nll = load(&all->nll), count = static_cast<double>(load(&all->count)), mean = nll / (count + 1e-8);
  double divergence = load(&all->kl);
  const bool none = reduction == MOLFUSE_REDUCTION_NONE;
  if (reduction == MOLFUSE_REDUCTION_MEAN && divergence != 0) divergence /= static_cast<double>(args.batch) * static_cast<double>(args.dim);
  const double recon = reduction == MOLFUSE_REDUCTION_SUM ? nll : mean;
  auto put = [&](int at, double value) { store(stats + at * stride, static_cast<float>(value)); };
  put(MOLFUSE_VAE_TOTAL, none ? 0 : recon + static_cast<double>(args.beta) * divergence);
  put(MOLFUSE_VAE_RECON, none ? 0 : recon);
  put(MOLFUSE_VAE_KL, none ? 0 : divergence);
  put(MOLFUSE_VAE_PERPLEXITY, none ? 0 : static_cast<double>(exp(static_cast<float>(mean))));
  put(MOLFUSE_VAE_TOKEN_COUNT, count);
  put(MOLFUSE_VAE_CORRECT, static_cast<double>(load(&all->correct)));
}

MOLFUSE_KERNEL(kThreads, 2) latent_backward(MOLFUSE_GRID_CONSTANT const LossKernelArgs args) {
  const int64_t n = static_cast<int64_t>(block_x()) * kThreads + thread_index();
  if (n >= args.batch * args.dim) return;
  const int64_t b = n / args.dim, l = n % args.dim;
  float scale = 0;
  if (args.grad_kl_sample.data != nullptr) {
    scale = element_of<float>(args.grad_kl_sample, b, 0);
  } else if (args.grad_stats != nullptr) {
    scale = args.beta * load(args.grad_stats + MOLFUSE_VAE_TOTAL * args.grad_stats_stride) + load(args.grad_stats + MOLFUSE_VAE_KL * args.grad_stats_stride);
    if (args.sum_reduction == 0) scale /= static_cast<float>(args.batch) * static_cast<float>(args.dim);
  }
  if (args.grad_mean.data != nullptr) put_latent(args, args.grad_mean, b, l, latent_element(args, args.mean, b, l) * scale);
  if (args.grad_log_var.data != nullptr) {
    bool outside;
    const float lv = clamped(latent_element(args, args.log_var, b, l), &outside);
    put_latent(args, args.grad_log_var, b, l, outside ? 0.0f : (exp(lv) - 1.0f) * (0.5f * scale));
  }
}

// ---- dispatch

constexpr size_t kShared = kWarps * sizeof(Partial);

Matrix matrix_of(const TokenValues& values) { return {values.data, values.batch, values.token}; }
Matrix matrix_of(const molfuse_tensor& tensor) {
  if (!present(tensor)) return {nullptr, 0, 0};
  return {tensor.data, tensor.stride[0], tensor.ndim > 1 ? tensor.stride[1] : 0};
}

LossKernelArgs kernel_args(const VaeLossProblem& p, const LossArgs& a, DeviceCall& call) {
  LossKernelArgs args{};
  args.logits = p.logits;
  args.logits_batch = p.logits_batch;
  args.logits_token = p.logits_token;
  args.logits_class = p.logits_class;
  args.grad = p.grad_logits;
  args.grad_batch = p.grad_batch;
  args.grad_token = p.grad_token;
  args.grad_class = p.grad_class;
  args.batch = p.batch;
  args.length = p.length;
  args.classes = static_cast<int32_t>(p.classes);
  args.targets = p.targets.data;
  args.targets_batch = p.targets.batch;
  args.targets_token = p.targets.token;
  args.pad = p.targets.pad;
  args.row_lse = matrix_of(p.row_lse);
  args.nll = matrix_of(p.nll);
  args.sum_reduction = a.reduction == MOLFUSE_REDUCTION_SUM;
  args.beta = static_cast<float>(a.beta);
  if (present(a.mean)) {
    args.mean = matrix_of(a.mean);
    args.log_var = matrix_of(a.log_var);
    args.latent_type = a.mean.dtype;
    args.dim = a.mean.size[1];
  }
  args.report = call.report();
  return args;
}

using Launcher = void (*)(LossKernelArgs&, DeviceCall&, int64_t latent_blocks);

template <class R, Mode MODE>
void launch_rows(LossKernelArgs& args, DeviceCall& call, int64_t latent_blocks) {
  call.launch("vae_loss rows", loss_rows<R, MODE>, {args.token_blocks + latent_blocks, 1, 1}, kThreads, kShared, args);
}
template <class T, Mode MODE>
void launch_columns(LossKernelArgs& args, DeviceCall& call, int64_t latent_blocks) {
  call.launch("vae_loss columns", loss_columns<T, MODE>, {args.token_blocks + latent_blocks, 1, 1}, kThreads, kShared, args);
}
template <class T, int N, Mode MODE>
void launch_long_rows(LossKernelArgs& args, DeviceCall& call, int64_t latent_blocks) {
  call.launch("vae_loss long rows", loss_long_rows<T, N, MODE>, {args.token_blocks + latent_blocks, 1, 1}, kThreads, kShared, args);
}

/// What runs, and how many tokens a block takes at a time.
struct Choice {
  Launcher launch;
  int64_t tokens;
};

/// The table: rows in registers by how many vectors they have, 16 bytes each where rows are aligned for that, else single classes.
template <class T, Mode MODE>
Choice choose(const LossKernelArgs& args, bool rows, bool wide) {
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  if (!rows) return {launch_columns<T, MODE>, kThreads};
  if (wide) {
    const int vectors = args.classes / kWide;
    if (vectors <= 8) return {launch_rows<Layout<T, 8, kWide, 1>, MODE>, kThreads / 8};
    if (vectors <= 16) return {launch_rows<Layout<T, 8, kWide, 2>, MODE>, kThreads / 8};
    if (vectors <= 64) return {launch_rows<Layout<T, 32, kWide, 2>, MODE>, kThreads / 32};
    if (vectors <= 128) return {launch_rows<Layout<T, 32, kWide, 4>, MODE>, kThreads / 32};
    return {launch_long_rows<T, kWide, MODE>, 1};
  }
  if (args.classes <= 40) return {launch_rows<Layout<T, 8, 1, 5>, MODE>, kThreads / 8};
  if (args.classes <= 320) return {launch_rows<Layout<T, 32, 1, 10>, MODE>, kThreads / 32};
  if (args.classes <= 1024) return {launch_rows<Layout<T, 32, 1, 32>, MODE>, kThreads / 32};
  return {launch_long_rows<T, 1, MODE>, 1};
}

template <Mode MODE>
void launch_any(LossKernelArgs& args, int32_t dtype, DeviceCall& call, int64_t latent_blocks) {
  const auto element = static_cast<int64_t>(molfuse_dtype_size(dtype)), vector = 16 / element;
  const bool gradient = MODE != Mode::forward;
  const bool rows = args.logits_class == 1 && (!gradient || args.grad_class == 1);
  auto aligned = [&](const void* data, int64_t batch, int64_t token) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && batch % vector == 0 && token % vector == 0;
  };
  const bool wide = rows && args.classes % vector == 0 && aligned(args.logits, args.logits_batch, args.logits_token) &&
                    (!gradient || aligned(args.grad, args.grad_batch, args.grad_token));
  Choice choice{};
  switch (dtype) {
    case MOLFUSE_F32: choice = choose<float, MODE>(args, rows, wide); break;
    case MOLFUSE_F16: choice = choose<f16, MODE>(args, rows, wide); break;
    default: choice = choose<bf16, MODE>(args, rows, wide); break;
  }
  // Enough blocks to fill the chip; each then takes several sets of tokens, so that there are few partial sums.
  const int64_t needed = (args.batch * args.length + choice.tokens - 1) / choice.tokens;
  args.token_blocks = std::min<int64_t>(needed, int64_t{8} * call.device().multiprocessors);
  if (MODE == Mode::backward) return choice.launch(args, call, 0);
  args.partials = call.scratch<Partial>(args.token_blocks + latent_blocks);
  choice.launch(args, call, latent_blocks);
}

void refuse(const VaeLossProblem& p) {
  if (p.dtype == MOLFUSE_F64) unsupported("vae_loss: f64 is for the CPU only");
  if (p.classes > (1 << 30)) unsupported("vae_loss: at most 2^30 classes on a device, got %lld", static_cast<long long>(p.classes));
}

}  // namespace

void vae_loss_forward_device(const VaeLossProblem& p, const LossArgs& a, DeviceCall& call) {
  refuse(p);
  LossKernelArgs args = kernel_args(p, a, call);
  if (present(a.kl_sample)) {
    if (present(a.mean) && args.dim > 0) {
      args.kl_sample = matrix_of(a.kl_sample);
    } else {
      for (int64_t b = 0; b < p.batch; ++b) call.zero(static_cast<float*>(a.kl_sample.data) + b * a.kl_sample.stride[0], sizeof(float));
    }
  }
  const int64_t samples = present(a.mean) && args.dim > 0 ? p.batch : 0;
  const int64_t latent_blocks = std::min<int64_t>((samples + kWarps - 1) / kWarps, call.device().multiprocessors);
  if (p.grad_logits != nullptr && a.reduction == MOLFUSE_REDUCTION_MEAN && p.dtype != MOLFUSE_F16) {
    auto* count = call.scratch<long long>(1);
    call.launch("vae_loss count", count_tokens, {1, 1, 1}, kThreads, kShared, args, count);
    args.count = count;
  }
  if (p.grad_logits != nullptr) {
    launch_any<Mode::forward_gradient>(args, p.dtype, call, latent_blocks);
  } else {
    launch_any<Mode::forward>(args, p.dtype, call, latent_blocks);
  }
  const int blocks = static_cast<int>(args.token_blocks + latent_blocks);
  call.launch("vae_loss stats", write_stats, {1, 1, 1}, kThreads, kShared, args, blocks, a.reduction, static_cast<float*>(a.stats.data),
              a.stats.stride[0]);
}

void vae_loss_backward_device(const VaeLossProblem& p, const LossArgs& a, DeviceCall& call) {
  refuse(p);
  LossKernelArgs args = kernel_args(p, a, call);
  args.grad_nll = matrix_of(a.grad_nll);
  if (present(a.stats)) {
    args.stats = static_cast<const float*>(a.stats.data);
    args.stats_stride = a.stats.stride[0];
  }
  if (present(a.grad_stats)) {
    args.grad_stats = static_cast<const float*>(a.grad_stats.data);
    args.grad_stats_stride = a.grad_stats.stride[0];
  }
  args.grad_kl_sample = matrix_of(a.grad_kl_sample);
  args.grad_mean = matrix_of(a.grad_mean);
  args.grad_log_var = matrix_of(a.grad_log_var);
  if (p.grad_logits != nullptr && p.batch * p.length > 0) launch_any<Mode::backward>(args, p.dtype, call, 0);
  if (args.grad_mean.data == nullptr && args.grad_log_var.data == nullptr) return;
  call.launch("vae_loss latent backward", latent_backward, {(p.batch * args.dim + kThreads - 1) / kThreads, 1, 1}, kThreads, 0, args);
}

}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// The loss of given logits on a GPU: checks, the choice between the kernels for rows, long rows and columns, and the small kernels around
// them. Every block leaves one partial sum, and a last block adds these up in order: no atomics, the same result every time. The first
// blocks of forward's launch do the latent divergence.
#include <algorithm>

#include "vae_loss/loss_kernel.h"

namespace molfuse {
namespace {

using namespace loss;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

/// Leaves the number of tokens that count among this block's: what forward's gradient of a mean is divided by. Four targets of a thread
/// are on their way at a time.
MOLFUSE_KERNEL(kThreads, 8) count_tokens(MOLFUSE_GRID_CONSTANT const LossKernelArgs args, int* to) {
  int* warps = reinterpret_cast<int*>(shared_memory());
  const int64_t tokens = args.batch * args.length, step = static_cast<int64_t>(grid_x()) * kThreads;
  int count = 0;
  for (int64_t n = static_cast<int64_t>(block_x()) * kThreads + thread_index(); n < tokens; n += 4 * step) {
    int64_t target[4];
    MOLFUSE_UNROLL
    for (int i = 0; i < 4; ++i) {
      target[i] = args.pad;
      if (n + i * step >= tokens) continue;
      const Split at = split(n + i * step, args.length);
      target[i] = load_target(args, at.quotient, at.remainder);
    }
    MOLFUSE_UNROLL
    for (int i = 0; i < 4; ++i) count += target[i] != args.pad ? 1 : 0;
  }
  MOLFUSE_UNROLL
  for (int step_of_lanes = kWarp / 2; step_of_lanes > 0; step_of_lanes /= 2) count += shuffle_xor(count, step_of_lanes);
  if (lane_index() == 0) store(warps + warp_index(), count);
  sync_block();
  if (thread_index() != 0) return;
  count = 0;
  for (int w = 0; w < kWarps; ++w) count += load(warps + w);
  store(to + block_x(), count);
}

/// Adds the blocks' sums in order and writes the statistics: one block.
MOLFUSE_KERNEL(kLossMostThreads, 1) write_stats(MOLFUSE_GRID_CONSTANT const LossKernelArgs args, int blocks, int reduction, float* stats, int64_t stride) {
  ThreadSums sums;
  double kl = 0;
  for (int n = thread_index(); n < blocks; n += block_threads()) {
    const LossPartial* part = args.partials + n;
    sums.nll += load(&part->nll);
    kl += load(&part->kl);
    sums.correct += static_cast<int>(load(&part->correct));
    sums.count += static_cast<int>(load(&part->count));
  }
  // The first row of the table becomes the sum.
  write_partial(args, sums, kl);
  if (thread_index() != 0) return;
  const LossPartial* all = args.partials;
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

MOLFUSE_DEVICE void put_latent(const LossKernelArgs& args, const LossMatrix& matrix, int64_t row, int64_t column, float value) {
  const int64_t at = row * matrix.row + column * matrix.column;
  switch (args.latent_type) {
    case MOLFUSE_F16: store(static_cast<f16*>(matrix.data) + at, from_float<f16>(value)); break;
    case MOLFUSE_BF16: store(static_cast<bf16*>(matrix.data) + at, from_float<bf16>(value)); break;
    default: store(static_cast<float*>(matrix.data) + at, value);
  }
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

struct ScaleArgs {
  const void* gradient;
  void* out;
  int64_t count;
  LossKernelArgs loss;  // for backward_scale: statistics and upstream gradients
  int32_t divided;      // the gradient of a mean is divided by the number of tokens already
};

/// N > 1: both begin at 16 bytes. Nothing is touched where the factor is 1 and there is nowhere else to write to.
template <class T, int N>
MOLFUSE_KERNEL(kThreads, 4) scale_gradient(MOLFUSE_GRID_CONSTANT const ScaleArgs args) {
  const float factor = backward_scale(args.loss, args.divided == 0);
  if (factor == 1 && args.out == args.gradient) return;
  const T* from = static_cast<const T*>(args.gradient);
  T* to = static_cast<T*>(args.out);
  const int64_t step = static_cast<int64_t>(grid_x()) * kThreads * N;
  int64_t n = (static_cast<int64_t>(block_x()) * kThreads + thread_index()) * N;
  for (; n + N <= args.count; n += step) {
    Vector<T, N> v = load(reinterpret_cast<const Vector<T, N>*>(from + n));
    MOLFUSE_UNROLL
    for (int i = 0; i < N; ++i) v.item[i] = from_float<T>(to_float(v.item[i]) * factor);
    store_once(reinterpret_cast<Vector<T, N>*>(to + n), v);
  }
  for (; n < args.count; ++n) store(to + n, from_float<T>(to_float(load(from + n)) * factor));
}

LossMatrix matrix_of(const TokenValues& values) { return {values.data, values.batch, values.token}; }
LossMatrix matrix_of(const molfuse_tensor& tensor) {
  if (!present(tensor)) return {nullptr, 0, 0};
  return {tensor.data, tensor.stride[0], tensor.ndim > 1 ? tensor.stride[1] : 0};
}

LossKernelArgs kernel_args(const VaeLossProblem& p, const LossArgs& a, DeviceCall& call) {
  LossKernelArgs args = loss_kernel_args(a, p.targets, p.row_lse, p.nll, call);
  args.logits = p.logits;
  args.logits_batch = p.logits_batch;
  args.logits_token = p.logits_token;
  args.logits_class = p.logits_class;
  int64_t lowest = 0, highest = 0;
  for (const auto& [size, stride] : {std::pair<int64_t, int64_t>{p.batch, p.logits_batch}, {p.length, p.logits_token}, {p.classes, p.logits_class}}) {
    (stride < 0 ? lowest : highest) += (size - 1) * stride;
  }
  const auto element = static_cast<int64_t>(molfuse_dtype_size(p.dtype));
  args.logits_begin = static_cast<const char*>(p.logits) + lowest * element;
  args.logits_end = static_cast<const char*>(p.logits) + (highest + 1) * element;
  args.grad = p.grad_logits;
  args.grad_batch = p.grad_batch;
  args.grad_token = p.grad_token;
  args.grad_class = p.grad_class;
  return args;
}

int64_t launch_any(LossKernelArgs& args, int32_t dtype, bool backward, DeviceCall& call) {
  const bool rows = args.logits_class == 1 && (args.grad == nullptr || args.grad_class == 1);
  if (!rows) return launch_loss_columns(args, dtype, backward, call);
  return args.classes <= kRowsClasses ? launch_loss_rows(args, dtype, backward, call) : launch_loss_long_rows(args, dtype, backward, call);
}

void refuse(const VaeLossProblem& p) {
  if (p.dtype == MOLFUSE_F64) unsupported("vae_loss: f64 is for the CPU only");
  if (p.classes > (1 << 30)) unsupported("vae_loss: at most 2^30 classes on a device, got %lld", static_cast<long long>(p.classes));
  if (p.batch * p.length > INT32_MAX) unsupported("vae_loss: at most 2^31 - 1 tokens on a device, got %lld", static_cast<long long>(p.batch * p.length));
}

}  // namespace

int64_t loss_blocks(LossKernelArgs& args, int64_t needed, int64_t fitting, bool backward, DeviceCall& call) {
  if (backward) args.latent_blocks = 0;
  const int64_t most = std::max<int64_t>(fitting * call.device().multiprocessors - args.latent_blocks, call.device().multiprocessors);
  const int64_t blocks = args.latent_blocks + std::min(needed, most);
  if (!backward) args.partials = call.scratch<LossPartial>(blocks);
  return blocks;
}

LossKernelArgs loss_kernel_args(const LossArgs& a, const TokenTargets& targets, const TokenValues& row_lse, const TokenValues& nll, DeviceCall& call) {
  LossKernelArgs args{};
  args.batch = a.batch;
  args.length = a.length;
  args.classes = static_cast<int32_t>(a.classes);
  args.targets = targets.data;
  args.targets_batch = targets.batch;
  args.targets_token = targets.token;
  args.pad = targets.pad;
  args.row_lse = matrix_of(row_lse);
  args.nll = matrix_of(nll);
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

void begin_loss_forward(LossKernelArgs& args, const LossArgs& a, bool gradients, DeviceCall& call) {
  if (present(a.kl_sample)) {
    if (present(a.mean) && args.dim > 0) {
      args.kl_sample = matrix_of(a.kl_sample);
    } else {
      for (int64_t b = 0; b < a.batch; ++b) call.zero(static_cast<float*>(a.kl_sample.data) + b * a.kl_sample.stride[0], sizeof(float));
    }
  }
  const int64_t samples = present(a.mean) && args.dim > 0 ? a.batch : 0;
  args.latent_blocks = std::min<int64_t>((samples + kWarps - 1) / kWarps, call.device().multiprocessors);
  const int64_t tokens = a.batch * a.length;
  if (!gradients || a.reduction != MOLFUSE_REDUCTION_MEAN || tokens == 0) return;
  // Few enough for every block of the main kernel to add their counts up itself.
  const int64_t parts = std::min<int64_t>((tokens + 4 * kThreads - 1) / (4 * kThreads), 4 * call.device().multiprocessors);
  int* counts = call.scratch<int>(parts);
  call.launch("vae_loss count", count_tokens, {parts, 1, 1}, kThreads, kWarps * sizeof(int), args, counts);
  args.counts = counts;
  args.count_parts = static_cast<int32_t>(parts);
}

void finish_loss_forward(const LossKernelArgs& args, const LossArgs& a, int64_t blocks, DeviceCall& call) {
  const auto threads = static_cast<int>(std::clamp<int64_t>((blocks + kWarp - 1) / kWarp * kWarp, kWarp, kLossMostThreads));
  call.launch("vae_loss stats", write_stats, {1, 1, 1}, threads, kLossShared, args, static_cast<int>(blocks), a.reduction, static_cast<float*>(a.stats.data),
              a.stats.stride[0]);
}

void begin_loss_backward(LossKernelArgs& args, const LossArgs& a) {
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
}

void launch_latent_backward(const LossKernelArgs& args, DeviceCall& call) {
  if (args.grad_mean.data == nullptr && args.grad_log_var.data == nullptr) return;
  call.launch("vae_loss latent backward", latent_backward, {(args.batch * args.dim + kThreads - 1) / kThreads, 1, 1}, kThreads, 0, args);
}

namespace {

template <class T>
void scale_of(ScaleArgs& args, DeviceCall& call) {
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  const bool wide = (reinterpret_cast<uintptr_t>(args.gradient) | reinterpret_cast<uintptr_t>(args.out)) % 16 == 0;
  const int64_t elements = int64_t{kThreads} * (wide ? kWide : 1), blocks = std::min<int64_t>((args.count + elements - 1) / elements, int64_t{8} * call.device().multiprocessors);
  call.launch("vae_loss scale", wide ? scale_gradient<T, kWide> : scale_gradient<T, 1>, {blocks, 1, 1}, kThreads, 0, args);
}

}  // namespace

void vae_loss_scale_device(const molfuse_vae_loss_scale_args& a, DeviceCall& call) {
  ScaleArgs args{a.gradient.data, a.out.data, a.gradient.size[0], {}, a.reduction == MOLFUSE_REDUCTION_MEAN && a.input_dtype != MOLFUSE_F16};
  args.loss.stats = static_cast<const float*>(a.stats.data);
  args.loss.stats_stride = a.stats.stride[0];
  args.loss.grad_stats = static_cast<const float*>(a.grad_stats.data);
  args.loss.grad_stats_stride = a.grad_stats.stride[0];
  args.loss.sum_reduction = a.reduction == MOLFUSE_REDUCTION_SUM;
  switch (a.gradient.dtype) {
    case MOLFUSE_F32: return scale_of<float>(args, call);
    case MOLFUSE_F16: return scale_of<f16>(args, call);
    case MOLFUSE_BF16: return scale_of<bf16>(args, call);
    default: unsupported("vae_loss_scale: f64 is for the CPU only");
  }
}

void vae_loss_forward_device(const VaeLossProblem& p, const LossArgs& a, DeviceCall& call) {
  refuse(p);
  LossKernelArgs args = kernel_args(p, a, call);
  begin_loss_forward(args, a, p.grad_logits != nullptr && p.dtype != MOLFUSE_F16, call);
  finish_loss_forward(args, a, launch_any(args, p.dtype, false, call), call);
}

void vae_loss_backward_device(const VaeLossProblem& p, const LossArgs& a, DeviceCall& call) {
  refuse(p);
  LossKernelArgs args = kernel_args(p, a, call);
  begin_loss_backward(args, a);
  if (p.grad_logits != nullptr && p.batch * p.length > 0) launch_any(args, p.dtype, true, call);
  launch_latent_backward(args, call);
}

}  // namespace molfuse

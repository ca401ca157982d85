// SPDX-License-Identifier: Apache-2.0
#include "vae_loss/loss.h"

#include <algorithm>
#include <cmath>

namespace molfuse {
namespace {

// Latent elements of a task: enough to be worth a task, whatever the number of threads.
constexpr int64_t kLatentTask = 8192;
constexpr double kCountEpsilon = 1e-8;

long long print(int64_t value) { return static_cast<long long>(value); }

void check_statistics(const char* name, const molfuse_tensor& tensor, const LossArgs& args, std::initializer_list<int64_t> shape) {
  check_dtype(name, tensor, {args.statistics});
  check_shape(name, tensor, shape);
}

void check_latent_inputs(const LossArgs& args) {
  if (present(args.mean) != present(args.log_var)) {
    invalid("%s: is required, as %s is given", present(args.mean) ? "log_var" : "mean", present(args.mean) ? "mean" : "log_var");
  }
  if (!present(args.mean)) return;
  check_dtype("mean", args.mean, {args.dtype, args.statistics});
  check_shape("mean", args.mean, {args.batch, kAny});
  check_dtype("log_var", args.log_var, {args.mean.dtype});
  check_shape("log_var", args.log_var, {args.batch, args.mean.size[1]});
}

LatentMatrix matrix_of(const molfuse_tensor& tensor) { return {tensor.data, tensor.stride[0], tensor.stride[1]}; }

}  // namespace

double read_scalar(const molfuse_tensor& tensor, int64_t index) {
  const int64_t at = index * tensor.stride[0];
  return tensor.dtype == MOLFUSE_F64 ? static_cast<const double*>(tensor.data)[at]
                                     : static_cast<double>(static_cast<const float*>(tensor.data)[at]);
}

void write_scalar(const molfuse_tensor& tensor, int64_t index, double value) {
  const int64_t at = index * tensor.stride[0];
  if (tensor.dtype == MOLFUSE_F64) {
    static_cast<double*>(tensor.data)[at] = value;
  } else {
    static_cast<float*>(tensor.data)[at] = static_cast<float>(value);
  }
}

TokenValues token_values(const molfuse_tensor& tensor) { return {tensor.data, tensor.stride[0], tensor.stride[1]}; }

CheckedTargets check_loss_inputs(const LossArgs& args, bool on_device) {
  if (args.reduction < MOLFUSE_REDUCTION_MEAN || args.reduction > MOLFUSE_REDUCTION_NONE) {
    invalid("reduction: expected 0 (mean), 1 (sum) or 2 (none), got %d", args.reduction);
  }
  if (!std::isfinite(args.beta)) invalid("beta: expected a finite number, got %g", args.beta);
  check_dtype("targets", args.targets, {MOLFUSE_I64});
  check_shape("targets", args.targets, {args.batch, args.length});
  check_latent_inputs(args);
  CheckedTargets checked{{static_cast<const int64_t*>(args.targets.data), args.targets.stride[0], args.targets.stride[1], args.pad_index}, 0};
  if (on_device) return checked;
  const uint64_t classes = static_cast<uint64_t>(args.classes);
  int64_t padding = 0;
  for (int64_t b = 0; args.length > 0 && b < args.batch; ++b) {
    bool bad = false;
    const int64_t* row = checked.targets.data + b * checked.targets.batch;
    const int64_t step = checked.targets.token;
    for (int64_t t = 0; t < args.length; ++t) {
      const int64_t target = row[t * step];
      const bool pad = target == args.pad_index;
      padding += pad;
      bad |= !pad & (static_cast<uint64_t>(target) >= classes);
    }
    for (int64_t t = 0; bad && t < args.length; ++t) {
      const int64_t target = row[t * step];
      if (target != args.pad_index && static_cast<uint64_t>(target) >= classes) {
        invalid("targets: expected 0..%lld or pad_index %lld, got %lld at position [%lld,%lld]", print(args.classes - 1),
                print(args.pad_index), print(target), print(b), print(t));
      }
    }
  }
  checked.unmasked = args.batch * args.length - padding;
  return checked;
}

void check_forward_outputs(const LossArgs& args) {
  check_statistics("stats", args.stats, args, {MOLFUSE_VAE_STATS});
  check_output("stats", args.stats);
  const bool none = args.reduction == MOLFUSE_REDUCTION_NONE;
  if (present(args.row_lse)) {
    check_statistics("row_lse", args.row_lse, args, {args.batch, args.length});
    check_output("row_lse", args.row_lse);
  }
  if (none || present(args.nll)) {
    check_statistics("nll", args.nll, args, {args.batch, args.length});
    check_output("nll", args.nll);
  }
  if ((none && present(args.mean)) || present(args.kl_sample)) {
    check_statistics("kl_sample", args.kl_sample, args, {args.batch});
    check_output("kl_sample", args.kl_sample);
  }
  check_apart({{"stats", args.stats}, {"row_lse", args.row_lse}, {"nll", args.nll}, {"kl_sample", args.kl_sample}}, {{"targets", args.targets}});
}

void check_backward(const LossArgs& args, bool needs_lse) {
  const bool none = args.reduction == MOLFUSE_REDUCTION_NONE;
  if (needs_lse) check_statistics("row_lse", args.row_lse, args, {args.batch, args.length});
  if (present(args.grad_stats)) {
    if (none) invalid("grad_stats: has no meaning for reduction none; expected grad_nll and grad_kl_sample");
    check_statistics("grad_stats", args.grad_stats, args, {MOLFUSE_VAE_STATS});
    check_statistics("stats", args.stats, args, {MOLFUSE_VAE_STATS});
  }
  if (present(args.grad_nll)) {
    if (!none) invalid("grad_nll: is for reduction none only; expected grad_stats");
    check_statistics("grad_nll", args.grad_nll, args, {args.batch, args.length});
  }
  if (present(args.grad_kl_sample)) {
    if (!none) invalid("grad_kl_sample: is for reduction none only; expected grad_stats");
    check_statistics("grad_kl_sample", args.grad_kl_sample, args, {args.batch});
  }
  auto check_gradient = [&](const char* name, const molfuse_tensor& gradient) {
    if (!present(gradient)) return;
    if (!present(args.mean)) invalid("%s: is given without mean and log_var", name);
    check_dtype(name, gradient, {args.mean.dtype});
    check_shape(name, gradient, {args.batch, args.mean.size[1]});
    check_output(name, gradient);
  };
  check_gradient("grad_mean", args.grad_mean);
  check_gradient("grad_log_var", args.grad_log_var);
  check_apart({{"grad_mean", args.grad_mean}, {"grad_log_var", args.grad_log_var}}, {{"targets", args.targets}});
}

double token_scale(const LossArgs& args) {
  if (!present(args.grad_stats)) return 0;
  const double count = read_scalar(args.stats, MOLFUSE_VAE_TOKEN_COUNT) + kCountEpsilon;
  const double direct = read_scalar(args.grad_stats, MOLFUSE_VAE_TOTAL) + read_scalar(args.grad_stats, MOLFUSE_VAE_RECON);
  double perplexity = read_scalar(args.grad_stats, MOLFUSE_VAE_PERPLEXITY);
  // An infinite perplexity that nobody differentiates must not make a NaN.
  if (perplexity != 0) perplexity *= read_scalar(args.stats, MOLFUSE_VAE_PERPLEXITY);
  // recon is the sum over tokens, perplexity in any case exp of their mean.
  return args.reduction == MOLFUSE_REDUCTION_SUM ? direct + perplexity / count : (direct + perplexity) / count;
}

double forward_token_scale(const LossArgs& args, int64_t unmasked) {
  const bool mean = args.reduction == MOLFUSE_REDUCTION_MEAN && args.dtype != MOLFUSE_F16;
  return mean ? 1.0 / (static_cast<double>(unmasked) + kCountEpsilon) : 1.0;
}

Latent::Latent(const LossArgs& args, bool backward) : problem_{} {
  if (!present(args.mean) || args.batch == 0) return;
  problem_.dtype = args.mean.dtype;
  problem_.batch = args.batch;
  problem_.dim = args.mean.size[1];
  problem_.mean = matrix_of(args.mean);
  problem_.log_var = matrix_of(args.log_var);
  if (backward) {
    if (present(args.grad_mean)) problem_.grad_mean = matrix_of(args.grad_mean);
    if (present(args.grad_log_var)) problem_.grad_log_var = matrix_of(args.grad_log_var);
    if (problem_.grad_mean.data == nullptr && problem_.grad_log_var.data == nullptr) return;
  }
  group_ = std::max<int64_t>(1, kLatentTask / std::max<int64_t>(1, problem_.dim));
  tasks_ = (args.batch + group_ - 1) / group_;
  samples_.assign(static_cast<size_t>(args.batch), 0.0);
  if (!backward) return;
  if (args.reduction == MOLFUSE_REDUCTION_NONE) {
    for (int64_t b = 0; b < args.batch && present(args.grad_kl_sample); ++b) samples_[static_cast<size_t>(b)] = read_scalar(args.grad_kl_sample, b);
  } else if (present(args.grad_stats)) {
    double scale = args.beta * read_scalar(args.grad_stats, MOLFUSE_VAE_TOTAL) + read_scalar(args.grad_stats, MOLFUSE_VAE_KL);
    if (args.reduction == MOLFUSE_REDUCTION_MEAN) scale /= static_cast<double>(args.batch) * static_cast<double>(problem_.dim);
    samples_.assign(samples_.size(), scale);
  }
}

void Latent::forward(int64_t task) {
  const LatentKernels& kernels = select_latent_kernels();
  const int64_t end = std::min(problem_.batch, (task + 1) * group_);
  for (int64_t b = task * group_; b < end; ++b) samples_[static_cast<size_t>(b)] = kernels.forward(problem_, b, 0, problem_.dim);
}

void Latent::backward(int64_t task) const {
  const LatentKernels& kernels = select_latent_kernels();
  const int64_t end = std::min(problem_.batch, (task + 1) * group_);
  for (int64_t b = task * group_; b < end; ++b) kernels.backward(problem_, b, 0, problem_.dim, samples_[static_cast<size_t>(b)]);
}

void write_statistics(const LossArgs& args, const std::vector<TokenSums>& parts, int64_t unmasked, const Latent& latent) {
  double nll = 0, correct = 0, kl = 0;
  for (const TokenSums& part : parts) {
    nll += part.nll;
    correct += static_cast<double>(part.correct);
  }
  for (const double sample : latent.samples()) kl += sample;
  if (present(args.kl_sample)) {
    for (int64_t b = 0; b < args.batch; ++b) write_scalar(args.kl_sample, b, latent.samples().empty() ? 0.0 : latent.samples()[static_cast<size_t>(b)]);
  }
  const double count = static_cast<double>(unmasked), mean = nll / (count + kCountEpsilon);
  const bool none = args.reduction == MOLFUSE_REDUCTION_NONE;
  if (args.reduction == MOLFUSE_REDUCTION_MEAN && kl != 0) kl /= static_cast<double>(args.batch) * static_cast<double>(args.mean.size[1]);
  const double recon = args.reduction == MOLFUSE_REDUCTION_SUM ? nll : mean;
  write_scalar(args.stats, MOLFUSE_VAE_TOTAL, none ? 0 : recon + args.beta * kl);
  write_scalar(args.stats, MOLFUSE_VAE_RECON, none ? 0 : recon);
  write_scalar(args.stats, MOLFUSE_VAE_KL, none ? 0 : kl);
  write_scalar(args.stats, MOLFUSE_VAE_PERPLEXITY, none ? 0 : std::exp(mean));
  write_scalar(args.stats, MOLFUSE_VAE_TOKEN_COUNT, count);
  write_scalar(args.stats, MOLFUSE_VAE_CORRECT, correct);
}

}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// What vae_loss.cpp and linear_vae_loss.cpp share: checks of their common arguments, the latent divergence, the final statistics.
#pragma once

#include <vector>

#include "runtime/check.h"
#include "vae_loss/kernels.h"

namespace molfuse {

/// The arguments that both losses have, with the sizes they must agree with.
struct LossArgs {
  int32_t dtype;       ///< of logits or hidden
  int32_t statistics;  ///< S: f64 for f64, else f32
  int64_t batch, length, classes;
  molfuse_tensor targets, mean, log_var;
  int64_t pad_index;
  double beta;
  int32_t reduction;
  molfuse_tensor stats, row_lse, nll, kl_sample;
  molfuse_tensor grad_stats, grad_nll, grad_kl_sample, grad_mean, grad_log_var;
};

template <class Args>
LossArgs loss_args(const Args& a, int32_t dtype, int64_t batch, int64_t length, int64_t classes) {
  return {dtype,   accumulate_dtype(dtype), batch,        length,     classes,          a.targets,   a.mean,        a.log_var, a.pad_index, a.beta, a.reduction,
          a.stats, a.row_lse,               a.nll,        a.kl_sample, a.grad_stats, a.grad_nll, a.grad_kl_sample, a.grad_mean, a.grad_log_var};
}

double read_scalar(const molfuse_tensor& tensor, int64_t index);
void write_scalar(const molfuse_tensor& tensor, int64_t index, double value);

struct CheckedTargets {
  TokenTargets targets;
  int64_t unmasked;
};

/// Checks reduction, beta and every target; throws naming the first bad position and value. On a device the targets are seen, and counted,
/// by the kernels only.
CheckedTargets check_loss_inputs(const LossArgs& args, bool on_device);
/// Checks the outputs of forward; also the type of the inputs mean and log_var.
void check_forward_outputs(const LossArgs& args);
/// Checks the inputs and latent gradients of backward. needs_lse: a gradient through the tokens is wanted.
void check_backward(const LossArgs& args, bool needs_lse);

/// A [B,T] tensor as the kernels take it.
TokenValues token_values(const molfuse_tensor& tensor);

/// d(loss)/d(nll) of each unmasked token, for the upstream gradients in grad_stats; mean and sum.
double token_scale(const LossArgs& args);

/// The same in forward, for an upstream gradient of one. f16 rounds values below 3e-8 to zero, and a loss scale that would keep them up
/// comes only with the upstream gradient: there it is 1 for the mean, too.
double forward_token_scale(const LossArgs& args, int64_t unmasked);

/// The latent part of a call, as tasks beside those of the tokens.
class Latent {
 public:
  Latent(const LossArgs& args, bool backward);
  int64_t tasks() const { return tasks_; }
  void forward(int64_t task);
  void backward(int64_t task) const;
  const std::vector<double>& samples() const { return samples_; }

 private:
  LatentProblem problem_;
  int64_t group_ = 1, tasks_ = 0;
  std::vector<double> samples_;  // forward: divergence, backward: scale
};

/// Adds up the parts in order and writes stats and kl_sample.
void write_statistics(const LossArgs& args, const std::vector<TokenSums>& parts, int64_t unmasked, const Latent& latent);

}  // namespace molfuse

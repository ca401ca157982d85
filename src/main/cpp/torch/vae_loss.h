// SPDX-License-Identifier: Apache-2.0
// What vae_loss and linear_vae_loss share: their checks, outputs and upstream gradients.
#pragma once

#include <array>
#include <tuple>

#include "molfuse/vae_loss.h"
#include "torch/common.h"

namespace molfuse::torch_ops {

using ThreeTensors = std::tuple<Tensor, Tensor, Tensor>;
using FourTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using SixTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class... Tensors>
std::vector<Tensor> list(const std::tuple<Tensors...>& tensors) {
  return std::apply([](const auto&... tensor) { return std::vector<Tensor>{tensor...}; }, tensors);
}
inline SixTensors six(const variable_list& t) { return {t[0], t[1], t[2], t[3], t[4], t[5]}; }
inline FourTensors four(const variable_list& t) { return {t[0], t[1], t[2], t[3]}; }

/// A tensor an autograd function saves but does not differentiate; wrapped, so that it gets no edge.
struct SavedOnly {
  const Tensor& tensor;
};

/// The forward outputs of the C interface; absent ones undefined.
struct LossOutputs {
  Tensor stats;
  Tensor row_lse;
  Tensor nll;
  Tensor kl_sample;

  FourTensors tuple() const { return {stats, row_lse, nll, kl_sample}; }
  template <class Args>
  void give_to(Args& args) const {
    args.stats = view("stats", stats);
    if (row_lse.defined()) args.row_lse = view("row_lse", row_lse);
    if (nll.defined()) args.nll = view("nll", nll);
    if (kl_sample.defined()) args.kl_sample = view("kl_sample", kl_sample);
  }
};

int64_t parse_reduction(c10::string_view reduction);
void check_latent(const Tensor& input, const char* input_name, const OptionalTensor& mean, const OptionalTensor& log_var);
void check_targets(const Tensor& targets, const c10::SymInt& batch, const c10::SymInt& length, const Tensor& input,
                   const char* input_name);
LossOutputs empty_loss_outputs(const Tensor& input, const Tensor& targets, int64_t reduction, bool save_row_lse);

/// Scalars [] sharing the memory of stats [6], in the order of molfuse_vae_stat.
variable_list split_stats(const Tensor& stats);

/// S [6] of the gradients of the scalar outputs, undefined if none is defined.
Tensor gather_grad_stats(const Tensor& stats, const variable_list& grads);

/// mean and log_var in a type the kernels take beside this input.
std::pair<OptionalTensor, OptionalTensor> autocast_latent(const Tensor& input, const OptionalTensor& mean,
                                                          const OptionalTensor& log_var);

bool takes_gradient(const Tensor& input, const OptionalTensor& mean, const OptionalTensor& log_var);

/// {total, recon, kl, perplexity, token_count, correct}, or for reduction none {nll, kl_sample, token_count, correct}.
inline variable_list plain_loss_results(const Tensor& stats, const Tensor& nll, const Tensor& kl_sample) {
  variable_list scalars = split_stats(stats);
  if (!nll.defined()) return scalars;
  return {nll, kl_sample, scalars[MOLFUSE_VAE_TOKEN_COUNT], scalars[MOLFUSE_VAE_CORRECT]};
}

/// The same from inside an autograd function; counts are marked as having no gradient.
inline variable_list loss_results(AutogradContext* ctx, const Tensor& stats, const Tensor& nll, const Tensor& kl_sample) {
  at::AutoDispatchBelowADInplaceOrView guard;
  variable_list results = plain_loss_results(stats, nll, kl_sample);
  ctx->mark_non_differentiable({results[results.size() - 2], results[results.size() - 1]});
  return results;
}

/// Gradients of a loss's outputs in the form the C interface takes.
struct LossGradients {
  OptionalTensor stats;
  OptionalTensor nll;
  OptionalTensor kl_sample;

  LossGradients(int64_t reduction, const Tensor& forward_stats, const variable_list& grads) {
    if (reduction == MOLFUSE_REDUCTION_NONE) {
      nll = optional_of(grads[0]);
      kl_sample = optional_of(grads[1]);
    } else {
      stats = optional_of(gather_grad_stats(forward_stats, grads));
    }
  }
  bool any() const { return has(stats) || has(nll) || has(kl_sample); }
};

/// A gradient that forward made, times the upstream gradient of what it is of: through total, recon and perplexity. On a device it may be the
/// memory of `gradient`, if the autograd graph is not kept.
Tensor scaled_gradient(const Tensor& gradient, const Tensor& stats, const Tensor& grad_stats, int64_t reduction, at::ScalarType input_type);

}  // namespace molfuse::torch_ops

// SPDX-License-Identifier: Apache-2.0
// molfuse::linear_vae_loss (mean and sum) and linear_vae_loss_unreduced (none).
// Autocast: hidden, weight and weight_bias in the autocast type; every statistic is f32.
//
// For mean and sum the gradients of hidden, weight and weight_bias come out of the forward pass, while the tile of logits
// they need is still in cache; backward only multiplies them by the upstream gradient (and, of a mean in f16, by one over the
// number of tokens, see molfuse/vae_loss.h). For none, whose upstream gradient differs by token, backward makes the tiles again.
#include "torch/vae_loss.h"

namespace molfuse::torch_ops {
namespace {

using SevenTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using FiveTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

using ForwardSignature = SevenTensors(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias,
                                      const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
                                      double beta, int64_t pad_index, int64_t reduction, bool save_row_lse,
                                      std::array<bool, 3> grad_mask);
using BackwardSignature = FiveTensors(const OptionalTensor& grad_stats, const OptionalTensor& grad_nll,
                                      const OptionalTensor& grad_kl_sample, const Tensor& hidden, const Tensor& weight,
                                      const OptionalTensor& weight_bias, const Tensor& targets, const OptionalTensor& mean,
                                      const OptionalTensor& log_var, const Tensor& stats, const Tensor& row_lse, double beta,
                                      int64_t pad_index, int64_t reduction, std::array<bool, 5> output_mask);

void check_linear_vae_loss(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias,
                           const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var) {
  check_dims("hidden", hidden, 3, "[B, T, C]");
  check_float("hidden", hidden);
  check_dims("weight", weight, 2, "[K, C]");
  check_size("weight", weight, 1, hidden.sym_size(2), "[K, C]");
  MOLFUSE_CHECK(weight.sym_size(0) >= 1, "weight: expected at least one class K, got ", weight.sym_sizes());
  check_same_type("weight", weight, "hidden", hidden);
  check_same_device("weight", weight, "hidden", hidden);
  if (has(weight_bias)) {
    check_dims("weight_bias", *weight_bias, 1, "[K]");
    check_size("weight_bias", *weight_bias, 0, weight.sym_size(0), "[K]");
    check_same_type("weight_bias", *weight_bias, "hidden", hidden);
    check_same_device("weight_bias", *weight_bias, "hidden", hidden);
  }
  check_targets(targets, hidden.sym_size(0), hidden.sym_size(1), hidden, "hidden");
  check_latent(hidden, "hidden", mean, log_var);
}

molfuse_linear_vae_loss_args loss_args(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias,
                                       const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
                                       double beta, int64_t pad_index, int64_t reduction) {
  molfuse_linear_vae_loss_args args{};
  args.struct_size = sizeof(args);
  args.hidden = view("hidden", hidden);
  args.weight = view("weight", weight);
  args.weight_bias = view("weight_bias", weight_bias);
  args.targets = view("targets", targets);
  args.pad_index = pad_index;
  args.mean = view("mean", mean);
  args.log_var = view("log_var", log_var);
  args.beta = beta;
  args.reduction = static_cast<int32_t>(reduction);
  return args;
}

/// grad_hidden T, grad_weight S and grad_weight_bias S, as far as asked for.
struct ParameterGradients {
  Tensor hidden;
  Tensor weight;
  Tensor weight_bias;

  ParameterGradients(const Tensor& hidden_input, const Tensor& weight_input, const OptionalTensor& bias_input, bool for_hidden,
                     bool for_weight, bool for_bias) {
    const auto statistics = hidden_input.options().dtype(statistics_type(hidden_input.scalar_type()));
    if (for_hidden) hidden = at::empty_like(hidden_input, hidden_input.options(), at::MemoryFormat::Contiguous);
    if (for_weight) weight = at::empty_symint(weight_input.sym_sizes(), statistics);
    if (for_bias && has(bias_input)) weight_bias = at::empty_symint(bias_input->sym_sizes(), statistics);
  }
  void give_to(molfuse_linear_vae_loss_args& args) const {
    if (hidden.defined()) args.grad_hidden = view("grad_hidden", hidden);
    if (weight.defined()) args.grad_weight = view("grad_weight", weight);
    if (weight_bias.defined()) args.grad_weight_bias = view("grad_weight_bias", weight_bias);
  }
};

SevenTensors linear_vae_loss_forward_meta(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias,
                                          const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
                                          double, int64_t, int64_t reduction, bool save_row_lse,
                                          std::array<bool, 3> grad_mask) {
  check_linear_vae_loss(hidden, weight, weight_bias, targets, mean, log_var);
  const LossOutputs outputs = empty_loss_outputs(hidden, targets, reduction, save_row_lse);
  const ParameterGradients gradients(hidden, weight, weight_bias, grad_mask[0], grad_mask[1], grad_mask[2]);
  return std::tuple_cat(outputs.tuple(), ThreeTensors(gradients.hidden, gradients.weight, gradients.weight_bias));
}

SevenTensors linear_vae_loss_forward(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias,
                                     const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
                                     double beta, int64_t pad_index, int64_t reduction, bool save_row_lse,
                                     std::array<bool, 3> grad_mask) {
  check_linear_vae_loss(hidden, weight, weight_bias, targets, mean, log_var);
  const Tensor h = rows_contiguous(hidden), w = rows_contiguous(weight);
  const LossOutputs outputs = empty_loss_outputs(h, targets, reduction, save_row_lse);
  const ParameterGradients gradients(h, w, weight_bias, grad_mask[0], grad_mask[1], grad_mask[2]);
  molfuse_linear_vae_loss_args args = loss_args(h, w, weight_bias, targets, mean, log_var, beta, pad_index, reduction);
  outputs.give_to(args);
  gradients.give_to(args);
  const Execution execution(h);
  check_status(molfuse_linear_vae_loss_forward(&args, execution.get()), "linear_vae_loss");
  return std::tuple_cat(outputs.tuple(), ThreeTensors(gradients.hidden, gradients.weight, gradients.weight_bias));
}

FiveTensors linear_vae_loss_backward_meta(const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                                          const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias,
                                          const Tensor&, const OptionalTensor& mean, const OptionalTensor& log_var,
                                          const Tensor&, const Tensor&, double, int64_t, int64_t,
                                          std::array<bool, 5> output_mask) {
  const ParameterGradients gradients(hidden, weight, weight_bias, output_mask[0], output_mask[1], output_mask[2]);
  return {gradients.hidden, gradients.weight, gradients.weight_bias,
          output_mask[3] && has(mean) ? at::empty_like(*mean) : Tensor(),
          output_mask[4] && has(log_var) ? at::empty_like(*log_var) : Tensor()};
}

FiveTensors linear_vae_loss_backward(const OptionalTensor& grad_stats, const OptionalTensor& grad_nll,
                                     const OptionalTensor& grad_kl_sample, const Tensor& hidden, const Tensor& weight,
                                     const OptionalTensor& weight_bias, const Tensor& targets, const OptionalTensor& mean,
                                     const OptionalTensor& log_var, const Tensor& stats, const Tensor& row_lse, double beta,
                                     int64_t pad_index, int64_t reduction, std::array<bool, 5> output_mask) {
  check_linear_vae_loss(hidden, weight, weight_bias, targets, mean, log_var);
  const Tensor h = rows_contiguous(hidden), w = rows_contiguous(weight);
  const ParameterGradients gradients(h, w, weight_bias, output_mask[0], output_mask[1], output_mask[2]);
  Tensor grad_mean = output_mask[3] && has(mean) ? at::empty_like(*mean) : Tensor();
  Tensor grad_log_var = output_mask[4] && has(log_var) ? at::empty_like(*log_var) : Tensor();
  molfuse_linear_vae_loss_args args = loss_args(h, w, weight_bias, targets, mean, log_var, beta, pad_index, reduction);
  args.stats = view("stats", stats);
  args.row_lse = view("row_lse", row_lse);
  args.grad_stats = view("grad_stats", grad_stats);
  args.grad_nll = view("grad_nll", grad_nll);
  args.grad_kl_sample = view("grad_kl_sample", grad_kl_sample);
  gradients.give_to(args);
  if (grad_mean.defined()) args.grad_mean = view("grad_mean", grad_mean);
  if (grad_log_var.defined()) args.grad_log_var = view("grad_log_var", grad_log_var);
  const Execution execution(h);
  check_status(molfuse_linear_vae_loss_backward(&args, execution.get()), "linear_vae_loss backward");
  return {gradients.hidden, gradients.weight, gradients.weight_bias, grad_mean, grad_log_var};
}

struct LossCall {
  double beta;
  int64_t pad_index;
  int64_t reduction;
};

SevenTensors call_forward(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias, const Tensor& targets,
                          const OptionalTensor& mean, const OptionalTensor& log_var, const LossCall& call, bool save_row_lse,
                          std::array<bool, 3> grad_mask) {
  static const auto op = find_operator<ForwardSignature>("molfuse::_linear_vae_loss_forward");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(hidden, weight, weight_bias, targets, mean, log_var, call.beta, call.pad_index, call.reduction, save_row_lse,
                 grad_mask);
}

class LinearVaeLossFunction : public torch::autograd::Function<LinearVaeLossFunction> {
 public:
  // Edges: hidden 0, weight 1, then weight_bias, mean and log_var as far as given.
  static variable_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                               const OptionalTensor& weight_bias, const OptionalTensor& mean, const OptionalTensor& log_var,
                               const LossCall& call, const SavedOnly& targets) {
    const bool unreduced = call.reduction == MOLFUSE_REDUCTION_NONE;
    const std::array<bool, 3> grad_mask = {!unreduced && hidden.requires_grad(), !unreduced && weight.requires_grad(),
                                           !unreduced && requires_grad(weight_bias)};
    auto [stats, row_lse, nll, kl_sample, grad_hidden, grad_weight, grad_weight_bias] =
        call_forward(hidden, weight, weight_bias, targets.tensor, mean, log_var, call, true, grad_mask);
    // The scalars returned share the memory of stats, so that a change of one in place must not reach what backward reads.
    ctx->save_for_backward({hidden, weight, value_or_undefined(weight_bias), targets.tensor, value_or_undefined(mean),
                            value_or_undefined(log_var), stats.clone(), row_lse, grad_hidden, grad_weight, grad_weight_bias});
    ctx->set_materialize_grads(false);
    auto& saved = ctx->saved_data;
    saved["beta"] = call.beta;
    saved["pad_index"] = call.pad_index;
    saved["reduction"] = call.reduction;
    return loss_results(ctx, stats, nll, kl_sample);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list gradients(7);
    const auto saved = ctx->get_saved_variables();
    const Tensor &hidden = saved[0], &weight = saved[1], &stats = saved[6];
    const OptionalTensor weight_bias = optional_of(saved[2]), mean = optional_of(saved[4]), log_var = optional_of(saved[5]);
    const int64_t reduction = ctx->saved_data["reduction"].toInt();
    const LossGradients upstream(reduction, stats, grads);
    if (!upstream.any()) return gradients;
    size_t edge = 2;
    const bool needs_bias = has(weight_bias) && ctx->needs_input_grad(edge++);
    const bool needs_mean = has(mean) && ctx->needs_input_grad(edge++);
    const bool needs_log_var = has(mean) && ctx->needs_input_grad(edge);
    const bool unreduced = reduction == MOLFUSE_REDUCTION_NONE;
    {
      at::AutoDispatchBelowADInplaceOrView guard;
      if (unreduced || needs_mean || needs_log_var) {
        static const auto op = find_operator<BackwardSignature>("molfuse::_linear_vae_loss_backward");
        std::tie(gradients[0], gradients[1], gradients[2], gradients[3], gradients[4]) =
            op.call(upstream.stats, upstream.nll, upstream.kl_sample, hidden, weight, weight_bias, saved[3], mean, log_var,
                    stats, saved[7], ctx->saved_data["beta"].toDouble(), ctx->saved_data["pad_index"].toInt(), reduction,
                    {unreduced && ctx->needs_input_grad(0), unreduced && ctx->needs_input_grad(1), unreduced && needs_bias,
                     needs_mean, needs_log_var});
      }
      if (!unreduced) {
        const auto scaled = [&](const Tensor& made) {
          return scaled_gradient(made, stats, *upstream.stats, reduction, hidden.scalar_type());
        };
        if (ctx->needs_input_grad(0)) gradients[0] = scaled(saved[8]);
        if (ctx->needs_input_grad(1)) gradients[1] = scaled(saved[9]);
        if (needs_bias) gradients[2] = scaled(saved[10]);
      }
      if (gradients[1].defined()) gradients[1] = gradients[1].to(weight.scalar_type());
      if (gradients[2].defined()) gradients[2] = gradients[2].to(weight_bias->scalar_type());
    }
    variable_list inputs = grads;
    inputs.insert(inputs.end(), {hidden, weight, saved[2], saved[4], saved[5]});
    refuse_double_backward("linear_vae_loss", inputs, gradients);
    return gradients;
  }

};

variable_list linear_vae_loss_any(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias,
                                  const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
                                  const LossCall& call) {
  check_linear_vae_loss(hidden, weight, weight_bias, targets, mean, log_var);
  refuse_forward_mode("linear_vae_loss", hidden, weight, weight_bias, mean, log_var);
  if (c10::GradMode::is_enabled() &&
      (takes_gradient(hidden, mean, log_var) || weight.requires_grad() || requires_grad(weight_bias))) {
    return LinearVaeLossFunction::apply(hidden, weight, weight_bias, mean, log_var, call, SavedOnly{targets});
  }
  const SevenTensors outputs =
      call_forward(hidden, weight, weight_bias, targets, mean, log_var, call, false, {false, false, false});
  return plain_loss_results(std::get<0>(outputs), std::get<2>(outputs), std::get<3>(outputs));
}

SixTensors linear_vae_loss(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias, const Tensor& targets,
                           const OptionalTensor& mean, const OptionalTensor& log_var, double beta, int64_t pad_index,
                           c10::string_view reduction) {
  const int64_t kind = parse_reduction(reduction);
  MOLFUSE_CHECK(kind != MOLFUSE_REDUCTION_NONE,
                "reduction: expected \"mean\" or \"sum\", got \"none\"; molfuse::linear_vae_loss_unreduced gives the losses of "
                "each token");
  return six(linear_vae_loss_any(hidden, weight, weight_bias, targets, mean, log_var, {beta, pad_index, kind}));
}

FourTensors linear_vae_loss_unreduced(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias,
                                      const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
                                      int64_t pad_index) {
  return four(
      linear_vae_loss_any(hidden, weight, weight_bias, targets, mean, log_var, {1.0, pad_index, MOLFUSE_REDUCTION_NONE}));
}

using LinearVaeLossSignature = decltype(linear_vae_loss);
using LinearVaeLossUnreducedSignature = decltype(linear_vae_loss_unreduced);

OptionalTensor lower(const OptionalTensor& tensor, at::DeviceType device) {
  return has(tensor) ? OptionalTensor(autocast_lower(*tensor, device)) : tensor;
}

SixTensors linear_vae_loss_autocast(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias,
                                    const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
                                    double beta, int64_t pad_index, c10::string_view reduction) {
  const auto device = autocast_device(hidden);
  const WithoutAutocast guard(device);
  static const auto op = find_operator<LinearVaeLossSignature>("molfuse::linear_vae_loss");
  const Tensor low_hidden = autocast_lower(hidden, device);
  const auto [latent_mean, latent_log_var] = autocast_latent(low_hidden, mean, log_var);
  return op.call(low_hidden, autocast_lower(weight, device), lower(weight_bias, device), targets, latent_mean, latent_log_var,
                 beta, pad_index, reduction);
}

FourTensors linear_vae_loss_unreduced_autocast(const Tensor& hidden, const Tensor& weight, const OptionalTensor& weight_bias,
                                               const Tensor& targets, const OptionalTensor& mean,
                                               const OptionalTensor& log_var, int64_t pad_index) {
  const auto device = autocast_device(hidden);
  const WithoutAutocast guard(device);
  static const auto op = find_operator<LinearVaeLossUnreducedSignature>("molfuse::linear_vae_loss_unreduced");
  const Tensor low_hidden = autocast_lower(hidden, device);
  const auto [latent_mean, latent_log_var] = autocast_latent(low_hidden, mean, log_var);
  return op.call(low_hidden, autocast_lower(weight, device), lower(weight_bias, device), targets, latent_mean, latent_log_var,
                 pad_index);
}

TORCH_LIBRARY_FRAGMENT(molfuse, m) {
  m.def(
      "linear_vae_loss(Tensor hidden, Tensor weight, Tensor? weight_bias, Tensor targets, Tensor? mean=None, "
      "Tensor? log_var=None, float beta=1.0, int pad_index=0, str reduction='mean') -> (Tensor total, Tensor recon, Tensor kl, "
      "Tensor perplexity, Tensor token_count, Tensor correct)",
      TORCH_FN(linear_vae_loss));
  m.def(
      "linear_vae_loss_unreduced(Tensor hidden, Tensor weight, Tensor? weight_bias, Tensor targets, Tensor? mean=None, "
      "Tensor? log_var=None, int pad_index=0) -> (Tensor nll, Tensor kl_sample, Tensor token_count, Tensor correct)",
      TORCH_FN(linear_vae_loss_unreduced));
  m.def(
      "_linear_vae_loss_forward(Tensor hidden, Tensor weight, Tensor? weight_bias, Tensor targets, Tensor? mean, "
      "Tensor? log_var, float beta, int pad_index, int reduction, bool save_row_lse, bool[3] grad_mask) -> (Tensor stats, "
      "Tensor row_lse, Tensor nll, Tensor kl_sample, Tensor grad_hidden, Tensor grad_weight, Tensor grad_weight_bias)");
  m.def(
      "_linear_vae_loss_backward(Tensor? grad_stats, Tensor? grad_nll, Tensor? grad_kl_sample, Tensor hidden, Tensor weight, "
      "Tensor? weight_bias, Tensor targets, Tensor? mean, Tensor? log_var, Tensor stats, Tensor row_lse, float beta, "
      "int pad_index, int reduction, bool[5] output_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

void register_kernels(torch::Library& m) {
  m.impl("_linear_vae_loss_forward", TORCH_FN(linear_vae_loss_forward));
  m.impl("_linear_vae_loss_backward", TORCH_FN(linear_vae_loss_backward));
}
TORCH_LIBRARY_IMPL(molfuse, CPU, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, CUDA, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, Meta, m) {
  m.impl("_linear_vae_loss_forward", TORCH_FN(linear_vae_loss_forward_meta));
  m.impl("_linear_vae_loss_backward", TORCH_FN(linear_vae_loss_backward_meta));
}

void register_autocast(torch::Library& m) {
  m.impl("linear_vae_loss", TORCH_FN(linear_vae_loss_autocast));
  m.impl("linear_vae_loss_unreduced", TORCH_FN(linear_vae_loss_unreduced_autocast));
}
TORCH_LIBRARY_IMPL(molfuse, AutocastCPU, m) { register_autocast(m); }
TORCH_LIBRARY_IMPL(molfuse, AutocastCUDA, m) { register_autocast(m); }

}  // namespace
}  // namespace molfuse::torch_ops

namespace molfuse::torch_api {

std::vector<at::Tensor> linear_vae_loss(const at::Tensor& hidden, const at::Tensor& weight,
                                        const std::optional<at::Tensor>& weight_bias, const at::Tensor& targets,
                                        const std::optional<at::Tensor>& mean, const std::optional<at::Tensor>& log_var,
                                        double beta, int64_t pad_index, const std::string& reduction) {
  static const auto op = torch_ops::find_operator<torch_ops::LinearVaeLossSignature>("molfuse::linear_vae_loss");
  static const auto unreduced =
      torch_ops::find_operator<torch_ops::LinearVaeLossUnreducedSignature>("molfuse::linear_vae_loss_unreduced");
  if (reduction == "none") {
    return torch_ops::list(unreduced.call(hidden, weight, weight_bias, targets, mean, log_var, pad_index));
  }
  return torch_ops::list(op.call(hidden, weight, weight_bias, targets, mean, log_var, beta, pad_index, reduction));
}

}  // namespace molfuse::torch_api

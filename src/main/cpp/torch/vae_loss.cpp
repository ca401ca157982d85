// SPDX-License-Identifier: Apache-2.0
// molfuse::vae_loss (mean and sum) and vae_loss_unreduced (none).
// Autocast: logits, mean and log_var are taken in the type they have; every statistic is f32 (f64 for f64 logits).
//
// For mean and sum the gradient of the logits comes out of the forward pass, which has each row and its exponentials in cache; backward
// only multiplies it by the upstream gradient, and the logits are not kept. For none, whose upstream gradient differs by token, and for
// inplace_backward, where the gradient takes the logits' memory, backward computes it.
#include "torch/vae_loss.h"

#include <torch/csrc/autograd/graph_task.h>

namespace molfuse::torch_ops {

int64_t parse_reduction(c10::string_view reduction) {
  if (reduction == "mean") return MOLFUSE_REDUCTION_MEAN;
  if (reduction == "sum") return MOLFUSE_REDUCTION_SUM;
  MOLFUSE_CHECK(reduction == "none", "reduction: expected \"mean\", \"sum\" or \"none\", got \"", reduction, "\"");
  return MOLFUSE_REDUCTION_NONE;
}

void check_latent(const Tensor& input, const char* input_name, const OptionalTensor& mean, const OptionalTensor& log_var) {
  MOLFUSE_CHECK(has(mean) == has(log_var), "mean and log_var: expected both or neither");
  if (!has(mean)) return;
  check_dims("mean", *mean, 2, "[B, L]");
  check_size("mean", *mean, 0, input.sym_size(0), "[B, L]");
  check_type_or_statistics("mean", *mean, input.scalar_type());
  check_same_device("mean", *mean, input_name, input);
  check_same_sizes("log_var", *log_var, "mean", *mean);
  check_same_type("log_var", *log_var, "mean", *mean);
  check_same_device("log_var", *log_var, input_name, input);
}

void check_targets(const Tensor& targets, const c10::SymInt& batch, const c10::SymInt& length, const Tensor& input,
                   const char* input_name) {
  check_dims("targets", targets, 2, "[B, T]");
  check_size("targets", targets, 0, batch, "[B, T]");
  check_size("targets", targets, 1, length, "[B, T]");
  MOLFUSE_CHECK(targets.scalar_type() == at::kLong, "targets: expected element type int64, got ", targets.scalar_type());
  check_same_device("targets", targets, input_name, input);
}

LossOutputs empty_loss_outputs(const Tensor& input, const Tensor& targets, int64_t reduction, bool save_row_lse) {
  const auto options = input.options().dtype(statistics_type(input.scalar_type()));
  LossOutputs outputs;
  outputs.stats = at::empty({MOLFUSE_VAE_STATS}, options);
  if (save_row_lse) outputs.row_lse = at::empty_symint(targets.sym_sizes(), options);
  if (reduction == MOLFUSE_REDUCTION_NONE) {
    outputs.nll = at::empty_symint(targets.sym_sizes(), options);
    outputs.kl_sample = at::empty_symint({targets.sym_size(0)}, options);
  }
  return outputs;
}

namespace {

/// The factor as a number, where the statistics can be read.
template <class S>
double factor_value(const Tensor& stats, const Tensor& grad_stats, int64_t reduction, at::ScalarType input_type) {
  const S* s = stats.const_data_ptr<S>();
  const S* g = grad_stats.const_data_ptr<S>();
  const double count = static_cast<double>(s[MOLFUSE_VAE_TOKEN_COUNT]) + 1e-8;
  double factor = static_cast<double>(g[MOLFUSE_VAE_TOTAL]) + static_cast<double>(g[MOLFUSE_VAE_RECON]);
  // An infinite perplexity that nobody differentiates must not make a NaN.
  if (g[MOLFUSE_VAE_PERPLEXITY] != 0) {
    const double slope = static_cast<double>(g[MOLFUSE_VAE_PERPLEXITY]) * static_cast<double>(s[MOLFUSE_VAE_PERPLEXITY]);
    // perplexity is exp of the mean loss of a token, whatever recon is.
    factor += reduction == MOLFUSE_REDUCTION_SUM ? slope / count : slope;
  }
  // In f16 forward's gradients are of the sum, see molfuse/vae_loss.h.
  return reduction == MOLFUSE_REDUCTION_MEAN && input_type == at::kHalf ? factor / count : factor;
}

using ScaleSignature = Tensor(const Tensor& gradient, const Tensor& stats, const Tensor& grad_stats, int64_t reduction, at::ScalarType input_type);
using ScaleInPlaceSignature = void(Tensor gradient, const Tensor& stats, const Tensor& grad_stats, int64_t reduction, at::ScalarType input_type);

/// All of a dense tensor, as one line in the order of memory.
molfuse_tensor line(const char* name, const Tensor& tensor) {
  TORCH_INTERNAL_ASSERT(tensor.is_non_overlapping_and_dense());
  molfuse_tensor whole = view(name, tensor);
  whole.ndim = 1;
  whole.size[0] = tensor.numel();
  whole.stride[0] = 1;
  return whole;
}

void vae_loss_scale_out(const Tensor& gradient, const Tensor& out, const Tensor& stats, const Tensor& grad_stats, int64_t reduction,
                        at::ScalarType input_type) {
  molfuse_vae_loss_scale_args args{};
  args.struct_size = sizeof(args);
  args.gradient = line("gradient", gradient);
  args.out = line("out", out);
  args.stats = view("stats", stats);
  args.grad_stats = view("grad_stats", grad_stats);
  args.reduction = static_cast<int32_t>(reduction);
  args.input_dtype = view("input", at::empty({0}, at::TensorOptions(input_type))).dtype;
  const Execution execution(gradient);
  check_status(molfuse_vae_loss_scale(&args, execution.get()), "vae_loss backward");
}

Tensor vae_loss_scale(const Tensor& gradient, const Tensor& stats, const Tensor& grad_stats, int64_t reduction, at::ScalarType input_type) {
  Tensor out = at::empty_like(gradient);
  vae_loss_scale_out(gradient, out, stats, grad_stats, reduction, input_type);
  return out;
}
void vae_loss_scale_in_place(Tensor gradient, const Tensor& stats, const Tensor& grad_stats, int64_t reduction, at::ScalarType input_type) {
  vae_loss_scale_out(gradient, gradient, stats, grad_stats, reduction, input_type);
}
Tensor vae_loss_scale_meta(const Tensor& gradient, const Tensor&, const Tensor&, int64_t, at::ScalarType) { return at::empty_like(gradient); }
void vae_loss_scale_in_place_meta(Tensor, const Tensor&, const Tensor&, int64_t, at::ScalarType) {}

}  // namespace

Tensor scaled_gradient(const Tensor& gradient, const Tensor& stats, const Tensor& grad_stats, int64_t reduction, at::ScalarType input_type) {
  if (stats.is_cpu() && !is_traced(stats)) {
    // The usual case, total.backward(): nothing to multiply. By a number, libtorch multiplies f16 and bf16 in f32.
    const double value = stats.scalar_type() == at::kDouble ? factor_value<double>(stats, grad_stats, reduction, input_type)
                                                            : factor_value<float>(stats, grad_stats, reduction, input_type);
    // The saved tensor itself only where nobody will look at it again.
    if (value != 1.0) return gradient * value;
    return torch::autograd::get_current_graph_task_keep_graph() ? gradient.clone() : gradient;
  }
  // On a device, and in a traced graph, the value is not known here. In place, there is nothing to do where it is 1. A traced graph is left
  // without that: what it keeps for backward is not ours to change.
  if (is_traced(stats) || torch::autograd::get_current_graph_task_keep_graph()) {
    static const auto op = find_operator<ScaleSignature>("molfuse::_vae_loss_scale");
    return op.call(gradient, stats, grad_stats, reduction, input_type);
  }
  static const auto op = find_operator<ScaleInPlaceSignature>("molfuse::_vae_loss_scale_");
  op.call(gradient, stats, grad_stats, reduction, input_type);
  return gradient;
}

variable_list split_stats(const Tensor& stats) { return stats.unbind(0); }

Tensor gather_grad_stats(const Tensor& stats, const variable_list& grads) {
  const int count = MOLFUSE_VAE_PERPLEXITY + 1;
  bool any = false;
  for (int i = 0; i < count; ++i) any = any || grads[i].defined();
  if (!any) return Tensor();
  if (stats.is_cpu() && !is_traced(stats)) {
    Tensor result = at::zeros({MOLFUSE_VAE_STATS}, stats.options());
    for (int i = 0; i < count; ++i) {
      if (!grads[i].defined()) continue;
      const double value = grads[i].item().toDouble();
      if (stats.scalar_type() == at::kDouble) {
        result.mutable_data_ptr<double>()[i] = value;
      } else {
        result.mutable_data_ptr<float>()[i] = static_cast<float>(value);
      }
    }
    return result;
  }
  // On a device the values stay there: reading them would wait for it.
  const Tensor zero = at::zeros({}, stats.options());
  variable_list entries(MOLFUSE_VAE_STATS, zero);
  for (int i = 0; i < count; ++i) {
    if (grads[i].defined()) entries[i] = grads[i].to(stats.scalar_type());
  }
  return at::stack(entries);
}

bool takes_gradient(const Tensor& input, const OptionalTensor& mean, const OptionalTensor& log_var) {
  return input.requires_grad() || requires_grad(mean) || requires_grad(log_var);
}

std::pair<OptionalTensor, OptionalTensor> autocast_latent(const Tensor& input, const OptionalTensor& mean,
                                                          const OptionalTensor& log_var) {
  if (!has(mean) || !has(log_var)) return {mean, log_var};
  const auto type = mean->scalar_type();
  const auto statistics = statistics_type(input.scalar_type());
  if (type == log_var->scalar_type() && (type == input.scalar_type() || type == statistics)) return {mean, log_var};
  return {mean->to(statistics), log_var->to(statistics)};
}

namespace {

void check_vae_loss(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
                    bool class_second) {
  check_dims("logits", logits, 3, class_second ? "[B, K, T]" : "[B, T, K]");
  check_float("logits", logits);
  MOLFUSE_CHECK(logits.sym_size(class_second ? 1 : 2) >= 1, "logits: expected at least one class K, got ", logits.sym_sizes());
  check_targets(targets, logits.sym_size(0), logits.sym_size(class_second ? 2 : 1), logits, "logits");
  check_latent(logits, "logits", mean, log_var);
}

molfuse_vae_loss_args loss_args(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean,
                                const OptionalTensor& log_var, double beta, int64_t pad_index, int64_t reduction,
                                bool class_second) {
  molfuse_vae_loss_args args{};
  args.struct_size = sizeof(args);
  args.logits = view("logits", logits);
  args.class_second = class_second ? 1 : 0;
  args.targets = view("targets", targets);
  args.pad_index = pad_index;
  args.mean = view("mean", mean);
  args.log_var = view("log_var", log_var);
  args.beta = beta;
  args.reduction = static_cast<int32_t>(reduction);
  return args;
}

using FiveTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
/// save: 0 nothing for backward, 1 row_lse, 2 the gradient of the logits.
using VaeLossForwardSignature = FiveTensors(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean,
                                            const OptionalTensor& log_var, double beta, int64_t pad_index, int64_t reduction,
                                            bool class_second, int64_t save);
constexpr int64_t kSaveNothing = 0, kSaveRowLse = 1, kSaveGradient = 2;
using VaeLossBackwardSignature = ThreeTensors(const OptionalTensor& grad_stats, const OptionalTensor& grad_nll,
                                              const OptionalTensor& grad_kl_sample, const Tensor& logits,
                                              const Tensor& targets, const OptionalTensor& mean,
                                              const OptionalTensor& log_var, const Tensor& stats,
                                              const OptionalTensor& row_lse, double beta, int64_t pad_index, int64_t reduction, bool class_second,
                                              const OptionalTensor& grad_logits, std::array<bool, 3> output_mask);

FiveTensors with_gradient(const LossOutputs& outputs, const Tensor& grad_logits) {
  return std::tuple_cat(outputs.tuple(), std::make_tuple(grad_logits));
}

FiveTensors vae_loss_forward_meta(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean,
                                  const OptionalTensor& log_var, double, int64_t, int64_t reduction, bool class_second,
                                  int64_t save) {
  check_vae_loss(logits, targets, mean, log_var, class_second);
  return with_gradient(empty_loss_outputs(logits, targets, reduction, save == kSaveRowLse),
                       save == kSaveGradient ? at::empty_like(logits) : Tensor());
}

FiveTensors vae_loss_forward(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean,
                             const OptionalTensor& log_var, double beta, int64_t pad_index, int64_t reduction,
                             bool class_second, int64_t save) {
  check_vae_loss(logits, targets, mean, log_var, class_second);
  const LossOutputs outputs = empty_loss_outputs(logits, targets, reduction, save == kSaveRowLse);
  molfuse_vae_loss_args args = loss_args(logits, targets, mean, log_var, beta, pad_index, reduction, class_second);
  outputs.give_to(args);
  Tensor grad_logits;
  if (save == kSaveGradient) {
    grad_logits = at::empty_like(logits);
    args.grad_logits = view("grad_logits", grad_logits);
  }
  const Execution execution(logits);
  check_status(molfuse_vae_loss_forward(&args, execution.get()), "vae_loss");
  return with_gradient(outputs, grad_logits);
}

ThreeTensors vae_loss_backward_meta(const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const Tensor& logits,
                                    const Tensor&, const OptionalTensor& mean, const OptionalTensor& log_var, const Tensor&,
                                    const OptionalTensor&, double, int64_t, int64_t, bool, const OptionalTensor& grad_logits,
                                    std::array<bool, 3> output_mask) {
  return {output_mask[0] && !has(grad_logits) ? at::empty_like(logits) : Tensor(),
          output_mask[1] && has(mean) ? at::empty_like(*mean) : Tensor(),
          output_mask[2] && has(log_var) ? at::empty_like(*log_var) : Tensor()};
}

/// grad_logits, if given, receives the gradient of logits (and may share the logits' memory); the first result is then absent.
ThreeTensors vae_loss_backward(const OptionalTensor& grad_stats, const OptionalTensor& grad_nll,
                               const OptionalTensor& grad_kl_sample, const Tensor& logits, const Tensor& targets,
                               const OptionalTensor& mean, const OptionalTensor& log_var, const Tensor& stats,
                               const OptionalTensor& row_lse, double beta, int64_t pad_index, int64_t reduction,
                               bool class_second, const OptionalTensor& grad_logits, std::array<bool, 3> output_mask) {
  check_vae_loss(logits, targets, mean, log_var, class_second);
  Tensor new_grad_logits;
  if (has(grad_logits)) {
    check_same_sizes("grad_logits", *grad_logits, "logits", logits);
    check_same_type("grad_logits", *grad_logits, "logits", logits);
  } else if (output_mask[0]) {
    new_grad_logits = at::empty_like(logits);
  }
  Tensor grad_mean = output_mask[1] && has(mean) ? at::empty_like(*mean) : Tensor();
  Tensor grad_log_var = output_mask[2] && has(log_var) ? at::empty_like(*log_var) : Tensor();
  molfuse_vae_loss_args args = loss_args(logits, targets, mean, log_var, beta, pad_index, reduction, class_second);
  args.stats = view("stats", stats);
  args.row_lse = view("row_lse", row_lse);
  args.grad_stats = view("grad_stats", grad_stats);
  args.grad_nll = view("grad_nll", grad_nll);
  args.grad_kl_sample = view("grad_kl_sample", grad_kl_sample);
  if (has(grad_logits)) {
    args.grad_logits = view("grad_logits", grad_logits);
  } else if (output_mask[0]) {
    args.grad_logits = view("grad_logits", new_grad_logits);
  }
  if (grad_mean.defined()) args.grad_mean = view("grad_mean", grad_mean);
  if (grad_log_var.defined()) args.grad_log_var = view("grad_log_var", grad_log_var);
  const Execution execution(logits);
  check_status(molfuse_vae_loss_backward(&args, execution.get()), "vae_loss backward");
  return {new_grad_logits, grad_mean, grad_log_var};
}

struct LossCall {
  double beta;
  int64_t pad_index;
  int64_t reduction;
  bool class_second;
  bool inplace_backward;
};

FiveTensors call_forward(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
                         const LossCall& call, int64_t save) {
  static const auto op = find_operator<VaeLossForwardSignature>("molfuse::_vae_loss_forward");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(logits, targets, mean, log_var, call.beta, call.pad_index, call.reduction, call.class_second, save);
}

class VaeLossFunction : public torch::autograd::Function<VaeLossFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& logits, const OptionalTensor& mean,
                               const OptionalTensor& log_var, const LossCall& call, const SavedOnly& targets) {
    // In f16 the gradient always has to be scaled afterwards, which on a device costs more than to make it in backward.
    const bool in_forward = call.reduction != MOLFUSE_REDUCTION_NONE && !call.inplace_backward && logits.requires_grad() &&
                            (logits.is_cpu() || logits.scalar_type() != at::kHalf);
    auto [stats, row_lse, nll, kl_sample, grad_logits] =
        call_forward(logits, targets.tensor, mean, log_var, call, in_forward ? kSaveGradient : kSaveRowLse);
    // The scalars returned share the memory of stats, so that a change of one in place must not reach what backward reads. With the
    // gradient there, the logits' values are not needed any more; what still asks for their shape finds it in the gradient.
    ctx->save_for_backward({in_forward ? grad_logits : logits, targets.tensor, value_or_undefined(mean),
                            value_or_undefined(log_var), stats.clone(), row_lse});
    ctx->set_materialize_grads(false);
    auto& saved = ctx->saved_data;
    saved["beta"] = call.beta;
    saved["integers"] =
        c10::List<int64_t>({call.pad_index, call.reduction, call.class_second, call.inplace_backward, in_forward});
    return loss_results(ctx, stats, nll, kl_sample);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list gradients(5);
    const auto saved = ctx->get_saved_variables();
    const Tensor& logits = saved[0];  // or their gradient, if forward made it
    const OptionalTensor mean = optional_of(saved[2]), log_var = optional_of(saved[3]);
    const auto integers = ctx->saved_data["integers"].toIntVector();
    const LossGradients upstream(integers[1], saved[4], grads);
    if (!upstream.any()) return gradients;
    const bool made = integers[4] != 0, needs_logits = ctx->needs_input_grad(0);
    const std::array<bool, 3> mask = {needs_logits && !made, has(mean) && ctx->needs_input_grad(1),
                                      has(mean) && ctx->needs_input_grad(2)};
    const bool in_place = needs_logits && integers[3] != 0;
    static const auto op = find_operator<VaeLossBackwardSignature>("molfuse::_vae_loss_backward");
    {
      at::AutoDispatchBelowADInplaceOrView guard;
      if (mask[0] || mask[1] || mask[2]) {
        // detach() shares memory and version counter: whoever saved the logits learns that their values are gone.
        const Tensor target_memory = in_place ? logits.detach() : Tensor();
        std::tie(gradients[0], gradients[1], gradients[2]) =
            op.call(upstream.stats, upstream.nll, upstream.kl_sample, logits, saved[1], mean, log_var, saved[4],
                    optional_of(saved[5]), ctx->saved_data["beta"].toDouble(), integers[0], integers[1], integers[2] != 0,
                    optional_of(target_memory), mask);
        if (in_place) gradients[0] = target_memory;
      }
      if (made && needs_logits) {
        gradients[0] = scaled_gradient(logits, saved[4], *upstream.stats, integers[1], logits.scalar_type());
      }
    }
    if (in_place) torch::autograd::impl::bump_version(logits);
    variable_list inputs = grads;
    inputs.insert(inputs.end(), {logits, saved[2], saved[3]});
    refuse_double_backward("vae_loss", inputs, gradients);
    return gradients;
  }
};

variable_list vae_loss_any(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean,
                           const OptionalTensor& log_var, LossCall call) {
  check_vae_loss(logits, targets, mean, log_var, call.class_second);
  // The memory of a traced graph is planned by its compiler; there, logits may be an input that looks like a leaf.
  call.inplace_backward = call.inplace_backward && !is_traced(logits);
  refuse_forward_mode("vae_loss", logits, mean, log_var);
  if (c10::GradMode::is_enabled() && takes_gradient(logits, mean, log_var)) {
    if (call.inplace_backward && logits.requires_grad()) {
      MOLFUSE_CHECK(!logits.is_leaf(), "inplace_backward: expected logits computed by another operator, got a leaf tensor");
      MOLFUSE_CHECK(!logits.is_view() || !logits._base().is_leaf() || !logits._base().requires_grad(),
                    "inplace_backward: expected logits computed by another operator, got a view of a leaf tensor, whose values "
                    "would be overwritten");
      MOLFUSE_CHECK(logits.is_meta() || logits.is_non_overlapping_and_dense(),
                    "inplace_backward: expected dense logits without overlap, got strides ", logits.strides());
    }
    return VaeLossFunction::apply(logits, mean, log_var, call, SavedOnly{targets});
  }
  const auto [stats, row_lse, nll, kl_sample, grad_logits] = call_forward(logits, targets, mean, log_var, call, kSaveNothing);
  return plain_loss_results(stats, nll, kl_sample);
}

SixTensors vae_loss(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean, const OptionalTensor& log_var,
                    double beta, int64_t pad_index, c10::string_view reduction, bool class_second, bool inplace_backward) {
  const int64_t kind = parse_reduction(reduction);
  MOLFUSE_CHECK(kind != MOLFUSE_REDUCTION_NONE,
                "reduction: expected \"mean\" or \"sum\", got \"none\"; molfuse::vae_loss_unreduced gives the losses of each token");
  return six(vae_loss_any(logits, targets, mean, log_var, {beta, pad_index, kind, class_second, inplace_backward}));
}

FourTensors vae_loss_unreduced(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean,
                               const OptionalTensor& log_var, int64_t pad_index, bool class_second, bool inplace_backward) {
  return four(
      vae_loss_any(logits, targets, mean, log_var, {1.0, pad_index, MOLFUSE_REDUCTION_NONE, class_second, inplace_backward}));
}

using VaeLossSignature = decltype(vae_loss);
using VaeLossUnreducedSignature = decltype(vae_loss_unreduced);

SixTensors vae_loss_autocast(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean,
                             const OptionalTensor& log_var, double beta, int64_t pad_index, c10::string_view reduction,
                             bool class_second, bool inplace_backward) {
  const WithoutAutocast guard(autocast_device(logits));
  static const auto op = find_operator<VaeLossSignature>("molfuse::vae_loss");
  const auto [latent_mean, latent_log_var] = autocast_latent(logits, mean, log_var);
  return op.call(logits, targets, latent_mean, latent_log_var, beta, pad_index, reduction, class_second, inplace_backward);
}

FourTensors vae_loss_unreduced_autocast(const Tensor& logits, const Tensor& targets, const OptionalTensor& mean,
                                        const OptionalTensor& log_var, int64_t pad_index, bool class_second,
                                        bool inplace_backward) {
  const WithoutAutocast guard(autocast_device(logits));
  static const auto op = find_operator<VaeLossUnreducedSignature>("molfuse::vae_loss_unreduced");
  const auto [latent_mean, latent_log_var] = autocast_latent(logits, mean, log_var);
  return op.call(logits, targets, latent_mean, latent_log_var, pad_index, class_second, inplace_backward);
}

TORCH_LIBRARY_FRAGMENT(molfuse, m) {
  m.def("_vae_loss_scale(Tensor gradient, Tensor stats, Tensor grad_stats, int reduction, ScalarType input_type) -> Tensor");
  m.def("_vae_loss_scale_(Tensor(a!) gradient, Tensor stats, Tensor grad_stats, int reduction, ScalarType input_type) -> ()");
  m.def(
      "vae_loss(Tensor logits, Tensor targets, Tensor? mean=None, Tensor? log_var=None, float beta=1.0, int pad_index=0, "
      "str reduction='mean', bool class_second=False, bool inplace_backward=False) -> (Tensor total, Tensor recon, Tensor kl, "
      "Tensor perplexity, Tensor token_count, Tensor correct)",
      TORCH_FN(vae_loss));
  m.def(
      "vae_loss_unreduced(Tensor logits, Tensor targets, Tensor? mean=None, Tensor? log_var=None, int pad_index=0, "
      "bool class_second=False, bool inplace_backward=False) -> (Tensor nll, Tensor kl_sample, Tensor token_count, "
      "Tensor correct)",
      TORCH_FN(vae_loss_unreduced));
  m.def(
      "_vae_loss_forward(Tensor logits, Tensor targets, Tensor? mean, Tensor? log_var, float beta, int pad_index, "
      "int reduction, bool class_second, int save) -> (Tensor stats, Tensor row_lse, Tensor nll, Tensor kl_sample, "
      "Tensor grad_logits)");
  m.def(
      "_vae_loss_backward(Tensor? grad_stats, Tensor? grad_nll, Tensor? grad_kl_sample, Tensor logits, Tensor targets, "
      "Tensor? mean, Tensor? log_var, Tensor stats, Tensor? row_lse, float beta, int pad_index, int reduction, "
      "bool class_second, Tensor(a!)? grad_logits, bool[3] output_mask) -> (Tensor, Tensor, Tensor)");
}

void register_kernels(torch::Library& m) {
  m.impl("_vae_loss_forward", TORCH_FN(vae_loss_forward));
  m.impl("_vae_loss_backward", TORCH_FN(vae_loss_backward));
  m.impl("_vae_loss_scale", TORCH_FN(vae_loss_scale));
  m.impl("_vae_loss_scale_", TORCH_FN(vae_loss_scale_in_place));
}
TORCH_LIBRARY_IMPL(molfuse, CPU, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, CUDA, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, Meta, m) {
  m.impl("_vae_loss_forward", TORCH_FN(vae_loss_forward_meta));
  m.impl("_vae_loss_backward", TORCH_FN(vae_loss_backward_meta));
  m.impl("_vae_loss_scale", TORCH_FN(vae_loss_scale_meta));
  m.impl("_vae_loss_scale_", TORCH_FN(vae_loss_scale_in_place_meta));
}

void register_autocast(torch::Library& m) {
  m.impl("vae_loss", TORCH_FN(vae_loss_autocast));
  m.impl("vae_loss_unreduced", TORCH_FN(vae_loss_unreduced_autocast));
}
TORCH_LIBRARY_IMPL(molfuse, AutocastCPU, m) { register_autocast(m); }
TORCH_LIBRARY_IMPL(molfuse, AutocastCUDA, m) { register_autocast(m); }

}  // namespace
}  // namespace molfuse::torch_ops

namespace molfuse::torch_api {

std::vector<at::Tensor> vae_loss(const at::Tensor& logits, const at::Tensor& targets,
                                 const std::optional<at::Tensor>& mean, const std::optional<at::Tensor>& log_var,
                                 double beta, int64_t pad_index, const std::string& reduction, bool class_second,
                                 bool inplace_backward) {
  static const auto op = torch_ops::find_operator<torch_ops::VaeLossSignature>("molfuse::vae_loss");
  static const auto unreduced = torch_ops::find_operator<torch_ops::VaeLossUnreducedSignature>("molfuse::vae_loss_unreduced");
  if (reduction == "none") {
    return torch_ops::list(unreduced.call(logits, targets, mean, log_var, pad_index, class_second, inplace_backward));
  }
  return torch_ops::list(
      op.call(logits, targets, mean, log_var, beta, pad_index, reduction, class_second, inplace_backward));
}

}  // namespace molfuse::torch_api

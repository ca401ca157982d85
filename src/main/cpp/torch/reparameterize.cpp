// SPDX-License-Identifier: Apache-2.0
// molfuse::reparameterize.
// Autocast: mean and log_var are cast to the wider of their types; the arithmetic is in f32 anyway.
#include "molfuse/reparameterize.h"

#include <array>

#include "torch/common.h"

namespace molfuse::torch_ops {
namespace {

using ForwardSignature = Tensor(const Tensor& mean, const Tensor& log_var, c10::SymInt seed, c10::SymInt offset,
                                const OptionalTensor& drawn_seed);
using BackwardSignature = std::tuple<Tensor, Tensor>(const Tensor& grad_z, const Tensor& log_var, c10::SymInt seed, c10::SymInt offset,
                                                     const OptionalTensor& drawn_seed, std::array<bool, 2> output_mask);

void check_inputs(const Tensor& mean, const Tensor& log_var) {
  check_dims("mean", mean, 2, "[B, L]");
  check_float("mean", mean);
  check_same_sizes("log_var", log_var, "mean", mean);
  check_same_type("log_var", log_var, "mean", mean);
  check_same_device("log_var", log_var, "mean", mean);
}

Tensor reparameterize_forward_meta(const Tensor& mean, const Tensor& log_var, c10::SymInt, c10::SymInt, const OptionalTensor&) {
  check_inputs(mean, log_var);
  return at::empty_like(mean);
}

Tensor reparameterize_forward(const Tensor& mean, const Tensor& log_var, int64_t seed, int64_t offset, const OptionalTensor& drawn_seed) {
  check_inputs(mean, log_var);
  Tensor z = at::empty_like(mean);
  if (z.numel() == 0) return z;
  molfuse_reparameterize_args args{};
  args.struct_size = sizeof(args);
  args.mean = view("mean", mean);
  args.log_var = view("log_var", log_var);
  args.philox = philox_of(seed, offset, drawn_seed);
  args.z = view("z", z);
  const Execution execution(mean);
  check_status(molfuse_reparameterize_forward(&args, execution.get()), "reparameterize");
  return z;
}

std::tuple<Tensor, Tensor> reparameterize_backward_meta(const Tensor& grad_z, const Tensor& log_var, c10::SymInt, c10::SymInt,
                                                        const OptionalTensor&, std::array<bool, 2> output_mask) {
  check_inputs(grad_z, log_var);
  return {output_mask[0] ? at::empty_like(grad_z) : Tensor(), output_mask[1] ? at::empty_like(log_var) : Tensor()};
}

std::tuple<Tensor, Tensor> reparameterize_backward(const Tensor& grad_z, const Tensor& log_var, int64_t seed, int64_t offset,
                                                   const OptionalTensor& drawn_seed, std::array<bool, 2> output_mask) {
  check_inputs(grad_z, log_var);
  // The gradient of mean is grad_z itself.
  Tensor grad_mean = output_mask[0] ? grad_z : Tensor();
  Tensor grad_log_var = output_mask[1] ? at::empty_like(log_var) : Tensor();
  if (!output_mask[1] || log_var.numel() == 0) return {grad_mean, grad_log_var};
  molfuse_reparameterize_args args{};
  args.struct_size = sizeof(args);
  // mean's values do not enter its gradients; the C interface wants a tensor of its sizes.
  args.mean = args.log_var = view("log_var", log_var);
  args.philox = philox_of(seed, offset, drawn_seed);
  args.grad_z = view("grad_z", grad_z);
  args.grad_log_var = view("grad_log_var", grad_log_var);
  const Execution execution(log_var);
  check_status(molfuse_reparameterize_backward(&args, execution.get()), "reparameterize backward");
  return {grad_mean, grad_log_var};
}

Tensor call_forward(const Tensor& mean, const Tensor& log_var, const Randomness& random) {
  static const auto op = find_operator<ForwardSignature>("molfuse::_reparameterize_forward");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(mean, log_var, random.seed, random.offset, random.drawn_seed);
}

class ReparameterizeFunction : public torch::autograd::Function<ReparameterizeFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& mean, const Tensor& log_var, const Randomness& random) {
    Tensor z = call_forward(mean, log_var, random);
    ctx->save_for_backward({log_var, value_or_undefined(random.drawn_seed)});
    ctx->set_materialize_grads(false);
    ctx->saved_data["seed"] = random.seed;
    ctx->saved_data["offset"] = random.offset;
    return z;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list gradients(3);
    if (!grads[0].defined()) return gradients;
    const auto saved = ctx->get_saved_variables();
    const Tensor& log_var = saved[0];
    static const auto op = find_operator<BackwardSignature>("molfuse::_reparameterize_backward");
    {
      at::AutoDispatchBelowADInplaceOrView guard;
      std::tie(gradients[0], gradients[1]) =
          op.call(grads[0], log_var, ctx->saved_data["seed"].toSymInt(), ctx->saved_data["offset"].toSymInt(),
                  optional_of(saved[1]), {false, ctx->needs_input_grad(1)});
    }
    refuse_double_backward("reparameterize", {grads[0], log_var}, gradients);
    gradients[0] = grads[0];
    return gradients;
  }
};

Tensor reparameterize(const Tensor& mean, const Tensor& log_var, std::optional<c10::SymInt> seed, c10::SymInt offset) {
  check_inputs(mean, log_var);
  refuse_forward_mode("reparameterize", mean, log_var);
  const Randomness random = randomness_of(mean, seed, offset, true);
  if (c10::GradMode::is_enabled() && (mean.requires_grad() || log_var.requires_grad())) {
    return ReparameterizeFunction::apply(mean, log_var, random);
  }
  return call_forward(mean, log_var, random);
}

using ReparameterizeSignature = decltype(reparameterize);

Tensor reparameterize_autocast(const Tensor& mean, const Tensor& log_var, std::optional<c10::SymInt> seed, c10::SymInt offset) {
  const WithoutAutocast guard(autocast_device(mean));
  const auto type = at::promote_types(mean.scalar_type(), log_var.scalar_type());
  static const auto op = find_operator<ReparameterizeSignature>("molfuse::reparameterize");
  return op.call(mean.to(type), log_var.to(type), seed, offset);
}

TORCH_LIBRARY_FRAGMENT(molfuse, m) {
  m.def("reparameterize(Tensor mean, Tensor log_var, SymInt? seed=None, SymInt offset=0) -> Tensor", TORCH_FN(reparameterize));
  m.def("_reparameterize_forward(Tensor mean, Tensor log_var, SymInt seed, SymInt offset, Tensor? drawn_seed) -> Tensor");
  m.def(
      "_reparameterize_backward(Tensor grad_z, Tensor log_var, SymInt seed, SymInt offset, Tensor? drawn_seed, bool[2] output_mask) -> "
      "(Tensor grad_mean, Tensor grad_log_var)");
}

void register_kernels(torch::Library& m) {
  m.impl("_reparameterize_forward", TORCH_FN(reparameterize_forward));
  m.impl("_reparameterize_backward", TORCH_FN(reparameterize_backward));
}
TORCH_LIBRARY_IMPL(molfuse, CPU, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, CUDA, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, Meta, m) {
  m.impl("_reparameterize_forward", TORCH_FN(reparameterize_forward_meta));
  m.impl("_reparameterize_backward", TORCH_FN(reparameterize_backward_meta));
}
TORCH_LIBRARY_IMPL(molfuse, AutocastCPU, m) { m.impl("reparameterize", TORCH_FN(reparameterize_autocast)); }
TORCH_LIBRARY_IMPL(molfuse, AutocastCUDA, m) { m.impl("reparameterize", TORCH_FN(reparameterize_autocast)); }

}  // namespace
}  // namespace molfuse::torch_ops

namespace molfuse::torch_api {

at::Tensor reparameterize(const at::Tensor& mean, const at::Tensor& log_var, std::optional<int64_t> seed, int64_t offset) {
  static const auto op = torch_ops::find_operator<torch_ops::ReparameterizeSignature>("molfuse::reparameterize");
  return op.call(mean, log_var, seed, offset);
}

}  // namespace molfuse::torch_api

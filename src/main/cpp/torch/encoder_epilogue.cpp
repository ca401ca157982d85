// SPDX-License-Identifier: Apache-2.0
// molfuse::encoder_epilogue and encoder_epilogue_into.
// Autocast: input and residual are cast to the widest type among them; with `into` to the type of pooled. Parameters stay as they are.
#include "molfuse/encoder_epilogue.h"

#include <tuple>

#include "torch/slots.h"

namespace molfuse::torch_ops {

struct EpilogueSettings {
  OptionalTensor running_mean, running_var, graph_ptr;
  bool training;
  double momentum, eps, dropout_p;
  Randomness random;
  int64_t column_offset;
};

namespace {

using ForwardSignature = std::tuple<Tensor, Tensor, Tensor, Tensor>(
    const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, const OptionalTensor& bias,
    OptionalTensor running_mean, OptionalTensor running_var, bool training, double momentum, double eps, double dropout_p,
    c10::SymInt seed, c10::SymInt offset, const OptionalTensor& drawn_seed, OptionalTensor pooled, int64_t column_offset,
    const OptionalTensor& graph_ptr);
using BackwardSignature = std::tuple<Tensor, Tensor, Tensor>(
    const OptionalTensor& grad_out, const OptionalTensor& grad_pooled, int64_t column_offset, const OptionalTensor& graph_ptr,
    const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& save_mean, const Tensor& save_rstd,
    bool training, double dropout_p, c10::SymInt seed, c10::SymInt offset, const OptionalTensor& drawn_seed,
    std::array<bool, 3> output_mask);

void check_columns(const char* name, const OptionalTensor& columns, const Tensor& input) {
  if (!has(columns)) return;
  check_dims(name, *columns, 1, "[C]");
  check_type_or_statistics(name, *columns, input.scalar_type());
  check_size(name, *columns, 0, input.sym_size(1), "[C]");
  check_same_device(name, *columns, "input", input);
}

void check_statistics(const char* name, const OptionalTensor& statistics, const Tensor& input) {
  if (!has(statistics)) return;
  check_columns(name, statistics, input);
  MOLFUSE_CHECK(statistics->scalar_type() == statistics_type(input.scalar_type()), name, ": expected element type ",
                statistics_type(input.scalar_type()), ", got ", statistics->scalar_type());
  MOLFUSE_CHECK(!statistics->requires_grad(), name, ": is updated in place, and may not require a gradient");
}

void check_forward(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, const OptionalTensor& bias,
                   const OptionalTensor& running_mean, const OptionalTensor& running_var, bool training, double dropout_p,
                   const OptionalTensor& pooled, int64_t column_offset, const OptionalTensor& graph_ptr) {
  check_dims("input", input, 2, "[V, C]");
  check_float("input", input);
  if (has(residual)) {
    check_same_sizes("residual", *residual, "input", input);
    check_same_type("residual", *residual, "input", input);
    check_same_device("residual", *residual, "input", input);
  }
  check_columns("weight", weight, input);
  check_columns("bias", bias, input);
  check_statistics("running_mean", running_mean, input);
  check_statistics("running_var", running_var, input);
  MOLFUSE_CHECK(has(running_mean) == has(running_var), "running_mean: expected with running_var, got one of them");
  MOLFUSE_CHECK(training || has(running_mean), "running_mean: expected outside training, got none");
  if (has(running_mean)) check_no_overlap("running_mean", *running_mean, "running_var", *running_var);
  check_probability("dropout_p", dropout_p);
  if (!has(pooled)) return;
  MOLFUSE_CHECK(has(graph_ptr), "graph_ptr: expected with pooled, got none");
  check_dims("graph_ptr", *graph_ptr, 1, "[B+1]");
  check_index("graph_ptr", *graph_ptr);
  MOLFUSE_CHECK(graph_ptr->sym_size(0) >= 1, "graph_ptr: expected shape [B+1] with at least one entry, got ", graph_ptr->sym_sizes());
  check_same_device("graph_ptr", *graph_ptr, "input", input);
  check_dims("pooled", *pooled, 2, "[B, W]");
  check_same_type("pooled", *pooled, "input", input);
  check_same_device("pooled", *pooled, "input", input);
  check_size("pooled", *pooled, 0, graph_ptr->sym_size(0) - 1, "[B, W]");
  MOLFUSE_CHECK(column_offset >= 0 && pooled->sym_size(1) >= input.sym_size(1) + column_offset, "column_offset: expected a slot of ",
                input.sym_size(1), " columns inside pooled ", pooled->sym_sizes(), ", got it at ", column_offset);
  for (const auto& [name, tensor] : {std::pair<const char*, const OptionalTensor&>{"residual", residual}, {"weight", weight}, {"bias", bias},
                                     {"running_mean", running_mean}, {"running_var", running_var}}) {
    if (has(tensor)) check_no_overlap("pooled", *pooled, name, *tensor);
  }
  check_no_overlap("pooled", *pooled, "input", input);
}

/// out, x where it is not input itself, and the statistics used.
std::tuple<Tensor, Tensor, Tensor, Tensor> empty_results(const Tensor& input, const OptionalTensor& residual) {
  const auto statistics = input.options().dtype(statistics_type(input.scalar_type()));
  return {at::empty_symint(input.sym_sizes(), input.options()), has(residual) ? at::empty_symint(input.sym_sizes(), input.options()) : Tensor(),
          at::empty_symint({input.sym_size(1)}, statistics), at::empty_symint({input.sym_size(1)}, statistics)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> encoder_epilogue_forward_meta(
    const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, const OptionalTensor& bias, OptionalTensor running_mean,
    OptionalTensor running_var, bool training, double, double, double dropout_p, c10::SymInt, c10::SymInt, const OptionalTensor&,
    OptionalTensor pooled, int64_t column_offset, const OptionalTensor& graph_ptr) {
  check_forward(input, residual, weight, bias, running_mean, running_var, training, dropout_p, pooled, column_offset, graph_ptr);
  return empty_results(input, residual);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> encoder_epilogue_forward(
    const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, const OptionalTensor& bias, OptionalTensor running_mean,
    OptionalTensor running_var, bool training, double momentum, double eps, double dropout_p, int64_t seed, int64_t offset,
    const OptionalTensor& drawn_seed, OptionalTensor pooled, int64_t column_offset, const OptionalTensor& graph_ptr) {
  check_forward(input, residual, weight, bias, running_mean, running_var, training, dropout_p, pooled, column_offset, graph_ptr);
  auto results = empty_results(input, residual);
  const Tensor rows = rows_contiguous(input);
  const OptionalTensor skip = has(residual) ? OptionalTensor(rows_contiguous(*residual)) : std::nullopt;
  molfuse_encoder_epilogue_args args{};
  args.struct_size = sizeof(args);
  args.input = view("input", rows);
  args.residual = view("residual", skip);
  args.sum = view("sum", optional_of(std::get<1>(results)));
  args.weight = view("weight", weight);
  args.bias = view("bias", bias);
  args.running_mean = view("running_mean", running_mean);
  args.running_var = view("running_var", running_var);
  args.training = training;
  args.momentum = momentum;
  args.epsilon = eps;
  args.dropout_p = dropout_p;
  args.philox = philox_of(seed, offset, drawn_seed);
  args.save_mean = view("save_mean", std::get<2>(results));
  args.save_rstd = view("save_rstd", std::get<3>(results));
  args.out = view("out", std::get<0>(results));
  if (has(pooled)) args.graph_ptr = view("graph_ptr", graph_ptr);
  args.pooled = view("pooled", pooled);
  args.column_offset = column_offset;
  const Execution execution(input);
  check_status(molfuse_encoder_epilogue_forward(&args, execution.get()), "encoder_epilogue");
  return results;
}

std::tuple<Tensor, Tensor, Tensor> empty_gradients(const Tensor& x, std::array<bool, 3> output_mask) {
  const auto columns = x.options().dtype(statistics_type(x.scalar_type()));
  return {output_mask[0] ? at::empty_symint(x.sym_sizes(), x.options()) : Tensor(),
          output_mask[1] ? at::empty_symint({x.sym_size(1)}, columns) : Tensor(),
          output_mask[2] ? at::empty_symint({x.sym_size(1)}, columns) : Tensor()};
}

std::tuple<Tensor, Tensor, Tensor> encoder_epilogue_backward_meta(const OptionalTensor&, const OptionalTensor&, int64_t, const OptionalTensor&,
                                                                  const Tensor& x, const OptionalTensor&, const OptionalTensor&, const Tensor&,
                                                                  const Tensor&, bool, double, c10::SymInt, c10::SymInt,
                                                                  const OptionalTensor&, std::array<bool, 3> output_mask) {
  return empty_gradients(x, output_mask);
}

std::tuple<Tensor, Tensor, Tensor> encoder_epilogue_backward(const OptionalTensor& grad_out, const OptionalTensor& grad_pooled,
                                                             int64_t column_offset, const OptionalTensor& graph_ptr, const Tensor& x,
                                                             const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& save_mean,
                                                             const Tensor& save_rstd, bool training, double dropout_p, int64_t seed,
                                                             int64_t offset, const OptionalTensor& drawn_seed,
                                                             std::array<bool, 3> output_mask) {
  auto gradients = empty_gradients(x, output_mask);
  const auto rows_of = [](const OptionalTensor& tensor) { return has(tensor) ? OptionalTensor(rows_contiguous(*tensor)) : std::nullopt; };
  const OptionalTensor features = rows_of(grad_out), slots = rows_of(grad_pooled);
  const Tensor rows = rows_contiguous(x);
  molfuse_encoder_epilogue_args args{};
  args.struct_size = sizeof(args);
  args.input = view("input", rows);
  args.weight = view("weight", weight);
  args.bias = view("bias", bias);
  args.training = training;
  args.dropout_p = dropout_p;
  args.philox = philox_of(seed, offset, drawn_seed);
  args.save_mean = view("save_mean", save_mean);
  args.save_rstd = view("save_rstd", save_rstd);
  args.grad_out = view("grad_out", features);
  args.grad_pooled = view("grad_pooled", slots);
  if (has(slots)) args.graph_ptr = view("graph_ptr", graph_ptr);
  args.column_offset = column_offset;
  args.grad_input = view("grad_input", optional_of(std::get<0>(gradients)));
  args.grad_weight = view("grad_weight", optional_of(std::get<1>(gradients)));
  args.grad_bias = view("grad_bias", optional_of(std::get<2>(gradients)));
  const Execution execution(x);
  check_status(molfuse_encoder_epilogue_backward(&args, execution.get()), "encoder_epilogue backward");
  return gradients;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> call_forward(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight,
                                                        const OptionalTensor& bias, const OptionalTensor& pooled, const EpilogueSettings& s) {
  static const auto op = find_operator<ForwardSignature>("molfuse::_encoder_epilogue_forward");
  at::AutoDispatchBelowADInplaceOrView guard;
  auto results = op.call(input, residual, weight, bias, s.running_mean, s.running_var, s.training, s.momentum, s.eps, s.dropout_p,
                         s.random.seed, s.random.offset, s.random.drawn_seed, pooled, s.column_offset, s.graph_ptr);
  if (s.training) {
    for (const OptionalTensor& running : {s.running_mean, s.running_var}) {
      if (has(running) && !running->is_inference()) torch::autograd::impl::bump_version(*running);
    }
  }
  return results;
}

}  // namespace

variable_list EncoderEpilogueFunction::forward(AutogradContext* ctx, const Tensor& input, const OptionalTensor& residual,
                                               const OptionalTensor& weight, const OptionalTensor& bias, OptionalTensor pooled,
                                               const EpilogueSettings& s) {
  auto [out, sum, save_mean, save_rstd] = call_forward(input, residual, weight, bias, pooled, s);
  ctx->save_for_backward({sum.defined() ? sum : input, value_or_undefined(weight), value_or_undefined(bias), save_mean, save_rstd,
                          value_or_undefined(s.graph_ptr), value_or_undefined(s.random.drawn_seed)});
  ctx->set_materialize_grads(false);
  auto& saved = ctx->saved_data;
  saved["residual"] = has(residual);
  saved["training"] = s.training;
  saved["dropout_p"] = s.dropout_p;
  saved["seed"] = s.random.seed;
  saved["offset"] = s.random.offset;
  if (!has(pooled)) return {out};
  const int64_t width = input.sym_size(1).guard_int(__FILE__, __LINE__);
  SlotHistory::of(*pooled, s.column_offset, s.column_offset + width).save(ctx);
  ctx->mark_dirty({*pooled});
  return {out, *pooled};
}

variable_list EncoderEpilogueFunction::backward(AutogradContext* ctx, const variable_list& grads) {
  variable_list gradients(6);
  const Tensor grad_pooled = grads.size() > 1 ? grads[1] : Tensor();
  if (!grads[0].defined() && !grad_pooled.defined()) return gradients;
  const variable_list saved = ctx->get_saved_variables();
  const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
  // Edges of the graph are counted over the tensors that are there.
  size_t edge = 0;
  const auto wants = [&](bool there) { return there && ctx->needs_input_grad(edge++); };
  const bool input = wants(true), residual = wants(ctx->saved_data["residual"].toBool());
  const bool weight_wanted = wants(weight.defined()), bias_wanted = wants(bias.defined()), before = wants(grads.size() > 1);
  const std::array<bool, 3> wanted = {input || residual, weight_wanted, bias_wanted};
  SlotHistory history;
  if (grads.size() > 1) history = SlotHistory::saved(ctx);
  if (wanted[0] || wanted[1] || wanted[2]) {
    static const auto op = find_operator<BackwardSignature>("molfuse::_encoder_epilogue_backward");
    auto& data = ctx->saved_data;
    Tensor grad_x, grad_weight, grad_bias;
    {
      at::AutoDispatchBelowADInplaceOrView guard;
      std::tie(grad_x, grad_weight, grad_bias) =
          op.call(optional_of(grads[0]), optional_of(grad_pooled), grads.size() > 1 ? history.begin() : 0, optional_of(saved[5]), x,
                  optional_of(weight), optional_of(bias), saved[3], saved[4], data["training"].toBool(), data["dropout_p"].toDouble(),
                  data["seed"].toSymInt(), data["offset"].toSymInt(), optional_of(saved[6]), wanted);
      // Sums are in the statistics' type.
      if (grad_weight.defined()) grad_weight = grad_weight.to(weight.scalar_type());
      if (grad_bias.defined()) grad_bias = grad_bias.to(bias.scalar_type());
    }
    variable_list own = {grad_x, grad_weight, grad_bias};
    variable_list read = {x};
    for (const Tensor& tensor : {grads[0], grad_pooled, weight, bias}) {
      if (tensor.defined()) read.push_back(tensor);
    }
    refuse_double_backward("encoder_epilogue", read, own);
    if (input) gradients[0] = own[0];
    if (residual) gradients[1] = own[0];
    gradients[2] = own[1];
    gradients[3] = own[2];
  }
  if (grad_pooled.defined() && before) gradients[4] = history.gradient_before(grad_pooled);
  return gradients;
}

namespace {

/// out, and pooled where it is given.
variable_list run(const char* name, const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight,
                  const OptionalTensor& bias, const OptionalTensor& pooled, const EpilogueSettings& settings) {
  check_forward(input, residual, weight, bias, settings.running_mean, settings.running_var, settings.training, settings.dropout_p, pooled,
                settings.column_offset, settings.graph_ptr);
  refuse_forward_mode(name, input, residual, weight, bias, pooled);
  if (c10::GradMode::is_enabled() && (input.requires_grad() || requires_grad(residual) || requires_grad(weight) || requires_grad(bias) ||
                                      requires_grad(pooled))) {
    if (has(pooled)) {
      // Autograd would refuse these itself, but only once everything is written.
      MOLFUSE_CHECK(!pooled->is_view(), "pooled: expected a tensor of its own, got a view, which may not be written in place by an operator "
                    "with a second output; use latent_concat_into");
      MOLFUSE_CHECK(!pooled->is_leaf() || !pooled->requires_grad(), "pooled: expected fresh memory, got a leaf that requires a gradient");
    }
    return EncoderEpilogueFunction::apply(input, residual, weight, bias, pooled, settings);
  }
  variable_list results = {std::get<0>(call_forward(input, residual, weight, bias, pooled, settings))};
  if (has(pooled)) {
    if (!pooled->is_inference()) torch::autograd::impl::bump_version(*pooled);
    results.push_back(*pooled);
  }
  return results;
}

Tensor encoder_epilogue(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, const OptionalTensor& bias,
                        OptionalTensor running_mean, OptionalTensor running_var, bool training, double momentum, double eps,
                        double dropout_p, std::optional<c10::SymInt> seed, c10::SymInt offset) {
  check_defined("input", input);
  const EpilogueSettings settings{std::move(running_mean), std::move(running_var), std::nullopt, training, momentum, eps, dropout_p,
                                  randomness_of(input, seed, offset, dropout_p > 0), 0};
  return run("encoder_epilogue", input, residual, weight, bias, std::nullopt, settings)[0];
}

std::tuple<Tensor, Tensor> encoder_epilogue_into(Tensor pooled, int64_t column_offset, const Tensor& graph_ptr, const Tensor& input,
                                                 const OptionalTensor& residual, const OptionalTensor& weight, const OptionalTensor& bias,
                                                 OptionalTensor running_mean, OptionalTensor running_var, bool training, double momentum,
                                                 double eps, double dropout_p, std::optional<c10::SymInt> seed, c10::SymInt offset) {
  check_defined("input", input);
  check_defined("pooled", pooled);
  check_defined("graph_ptr", graph_ptr);
  const EpilogueSettings settings{std::move(running_mean), std::move(running_var), graph_ptr, training, momentum, eps, dropout_p,
                                  randomness_of(input, seed, offset, dropout_p > 0), column_offset};
  const variable_list results = run("encoder_epilogue_into", input, residual, weight, bias, pooled, settings);
  return {results[0], results[1]};
}

using EpilogueSignature = decltype(encoder_epilogue);
using EpilogueIntoSignature = decltype(encoder_epilogue_into);

OptionalTensor cast(const OptionalTensor& tensor, at::ScalarType type) {
  return has(tensor) ? OptionalTensor(tensor->to(type)) : std::nullopt;
}

template <at::DeviceType device>
Tensor encoder_epilogue_autocast(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, const OptionalTensor& bias,
                                 OptionalTensor running_mean, OptionalTensor running_var, bool training, double momentum, double eps,
                                 double dropout_p, std::optional<c10::SymInt> seed, c10::SymInt offset) {
  const WithoutAutocast guard(device);
  const auto type = has(residual) ? at::promote_types(input.scalar_type(), residual->scalar_type()) : input.scalar_type();
  static const auto op = find_operator<EpilogueSignature>("molfuse::encoder_epilogue");
  return op.call(input.to(type), cast(residual, type), weight, bias, running_mean, running_var, training, momentum, eps, dropout_p, seed, offset);
}

template <at::DeviceType device>
std::tuple<Tensor, Tensor> encoder_epilogue_into_autocast(Tensor pooled, int64_t column_offset, const Tensor& graph_ptr, const Tensor& input,
                                                          const OptionalTensor& residual, const OptionalTensor& weight,
                                                          const OptionalTensor& bias, OptionalTensor running_mean, OptionalTensor running_var,
                                                          bool training, double momentum, double eps, double dropout_p,
                                                          std::optional<c10::SymInt> seed, c10::SymInt offset) {
  const WithoutAutocast guard(device);
  const auto type = pooled.scalar_type();
  static const auto op = find_operator<EpilogueIntoSignature>("molfuse::encoder_epilogue_into");
  return op.call(pooled, column_offset, graph_ptr, input.to(type), cast(residual, type), weight, bias, running_mean, running_var, training,
                 momentum, eps, dropout_p, seed, offset);
}

TORCH_LIBRARY_FRAGMENT(molfuse, m) {
  m.def(
      "encoder_epilogue(Tensor input, Tensor? residual, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, Tensor(b!)? running_var, "
      "bool training, float momentum=0.1, float eps=1e-05, float dropout_p=0.0, SymInt? seed=None, SymInt offset=0) -> Tensor",
      TORCH_FN(encoder_epilogue));
  m.def(
      "encoder_epilogue_into(Tensor(c!) pooled, int column_offset, Tensor graph_ptr, Tensor input, Tensor? residual, Tensor? weight, "
      "Tensor? bias, Tensor(a!)? running_mean, Tensor(b!)? running_var, bool training, float momentum=0.1, float eps=1e-05, "
      "float dropout_p=0.0, SymInt? seed=None, SymInt offset=0) -> (Tensor, Tensor(c!))",
      TORCH_FN(encoder_epilogue_into));
  m.def(
      "_encoder_epilogue_forward(Tensor input, Tensor? residual, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, "
      "Tensor(b!)? running_var, bool training, float momentum, float eps, float dropout_p, SymInt seed, SymInt offset, "
      "Tensor? drawn_seed, Tensor(c!)? pooled, int column_offset, Tensor? graph_ptr) -> (Tensor out, Tensor sum, Tensor save_mean, "
      "Tensor save_rstd)");
  m.def(
      "_encoder_epilogue_backward(Tensor? grad_out, Tensor? grad_pooled, int column_offset, Tensor? graph_ptr, Tensor x, Tensor? weight, "
      "Tensor? bias, Tensor save_mean, Tensor save_rstd, bool training, float dropout_p, SymInt seed, SymInt offset, "
      "Tensor? drawn_seed, bool[3] output_mask) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)");
}

void register_kernels(torch::Library& m) {
  m.impl("_encoder_epilogue_forward", TORCH_FN(encoder_epilogue_forward));
  m.impl("_encoder_epilogue_backward", TORCH_FN(encoder_epilogue_backward));
}
TORCH_LIBRARY_IMPL(molfuse, CPU, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, CUDA, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, Meta, m) {
  m.impl("_encoder_epilogue_forward", TORCH_FN(encoder_epilogue_forward_meta));
  m.impl("_encoder_epilogue_backward", TORCH_FN(encoder_epilogue_backward_meta));
}

template <at::DeviceType device>
void register_autocast(torch::Library& m) {
  m.impl("encoder_epilogue", TORCH_FN(encoder_epilogue_autocast<device>));
  m.impl("encoder_epilogue_into", TORCH_FN(encoder_epilogue_into_autocast<device>));
}
TORCH_LIBRARY_IMPL(molfuse, AutocastCPU, m) { register_autocast<at::kCPU>(m); }
TORCH_LIBRARY_IMPL(molfuse, AutocastCUDA, m) { register_autocast<at::kCUDA>(m); }

}  // namespace
}  // namespace molfuse::torch_ops

namespace molfuse::torch_api {

at::Tensor encoder_epilogue(const at::Tensor& input, const std::optional<at::Tensor>& residual, const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& running_mean,
                            const std::optional<at::Tensor>& running_var, bool training, double momentum, double eps, double dropout_p,
                            std::optional<int64_t> seed, int64_t offset) {
  static const auto op = torch_ops::find_operator<torch_ops::EpilogueSignature>("molfuse::encoder_epilogue");
  return op.call(input, residual, weight, bias, running_mean, running_var, training, momentum, eps, dropout_p, seed, offset);
}

std::vector<at::Tensor> encoder_epilogue_into(at::Tensor pooled, int64_t column_offset, const at::Tensor& graph_ptr, const at::Tensor& input,
                                              const std::optional<at::Tensor>& residual, const std::optional<at::Tensor>& weight,
                                              const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& running_mean,
                                              const std::optional<at::Tensor>& running_var, bool training, double momentum, double eps,
                                              double dropout_p, std::optional<int64_t> seed, int64_t offset) {
  static const auto op = torch_ops::find_operator<torch_ops::EpilogueIntoSignature>("molfuse::encoder_epilogue_into");
  auto [out, slots] = op.call(std::move(pooled), column_offset, graph_ptr, input, residual, weight, bias, running_mean, running_var, training,
                              momentum, eps, dropout_p, seed, offset);
  return {out, slots};
}

}  // namespace molfuse::torch_api

// SPDX-License-Identifier: Apache-2.0
// molfuse::latent_concat, latent_concat_into and latent_concat_pooled.
// Autocast: layers are cast to the widest type among them; nodes to the type of out.
#include "molfuse/latent_concat.h"

#include <algorithm>

#include "torch/slots.h"

namespace molfuse::torch_ops {
namespace {

// graph_ptr absent: the layers are pooled already, [B,C_l].
using ForwardSignature = Tensor(at::TensorList layers, const OptionalTensor& graph_ptr);
using IntoSignature = void(Tensor out, int64_t column_offset, const Tensor& nodes, const Tensor& graph_ptr);
using BackwardSignature = std::vector<Tensor>(const Tensor& grad_out, const OptionalTensor& graph_ptr, int64_t column_offset,
                                              c10::SymInt num_rows, c10::SymIntArrayRef widths, at::IntArrayRef wanted);

c10::SymInt check_layers(at::TensorList layers, const OptionalTensor& graph_ptr) {
  const char* name = has(graph_ptr) ? "layers" : "pooled";
  const char* expected = has(graph_ptr) ? "[V, C]" : "[B, C]";
  MOLFUSE_CHECK(!layers.empty(), name, ": expected at least one tensor, got none");
  c10::SymInt columns = 0;
  for (const Tensor& layer : layers) {
    check_dims(name, layer, 2, expected);
    check_float(name, layer);
    check_same_type(name, layer, "the first", layers[0]);
    check_same_device(name, layer, "the first", layers[0]);
    check_size(name, layer, 0, layers[0].sym_size(0), expected);
    columns += layer.sym_size(1);
  }
  return columns;
}

void check_graph_ptr(const Tensor& graph_ptr, const Tensor& other, const char* other_name) {
  check_dims("graph_ptr", graph_ptr, 1, "[B+1]");
  check_index("graph_ptr", graph_ptr);
  MOLFUSE_CHECK(graph_ptr.sym_size(0) >= 1, "graph_ptr: expected shape [B+1] with at least one entry, got ",
                graph_ptr.sym_sizes());
  check_same_device("graph_ptr", graph_ptr, other_name, other);
}

Tensor empty_out(at::TensorList layers, const OptionalTensor& graph_ptr) {
  const auto columns = check_layers(layers, graph_ptr);
  if (has(graph_ptr)) check_graph_ptr(*graph_ptr, layers[0], "layers");
  const auto rows = has(graph_ptr) ? graph_ptr->sym_size(0) - 1 : layers[0].sym_size(0);
  return at::empty_symint({rows, columns}, layers[0].options());
}

Tensor latent_concat_forward(at::TensorList layers, const OptionalTensor& graph_ptr) {
  Tensor out = empty_out(layers, graph_ptr);
  c10::SmallVector<molfuse_tensor, 16> views;
  views.reserve(layers.size());
  for (const Tensor& layer : layers) views.push_back(view("layers", layer));
  molfuse_latent_concat_args args{};
  args.struct_size = sizeof(args);
  args.num_layers = static_cast<int64_t>(views.size());
  args.layers = views.data();
  args.graph_ptr = view("graph_ptr", graph_ptr);
  args.out = view("out", out);
  const Execution execution(out);
  check_status(molfuse_latent_concat_forward(&args, execution.get()), "latent_concat");
  return out;
}

void check_into(const Tensor& out, int64_t column_offset, const Tensor& nodes, const Tensor& graph_ptr) {
  check_dims("nodes", nodes, 2, "[V, C]");
  check_float("nodes", nodes);
  check_dims("out", out, 2, "[B, W]");
  check_same_type("out", out, "nodes", nodes);
  check_same_device("out", out, "nodes", nodes);
  check_graph_ptr(graph_ptr, nodes, "nodes");
  check_size("out", out, 0, graph_ptr.sym_size(0) - 1, "[B, W]");
  MOLFUSE_CHECK(column_offset >= 0 && out.sym_size(1) >= nodes.sym_size(1) + column_offset,
                "column_offset: expected a slot of ", nodes.sym_size(1), " columns inside out ", out.sym_sizes(),
                ", got it at ", column_offset);
  check_no_overlap("out", out, "nodes", nodes);
}

void latent_concat_into_meta(Tensor out, int64_t column_offset, const Tensor& nodes, const Tensor& graph_ptr) {
  check_into(out, column_offset, nodes, graph_ptr);
}

void latent_concat_into_slot(Tensor out, int64_t column_offset, const Tensor& nodes, const Tensor& graph_ptr) {
  check_into(out, column_offset, nodes, graph_ptr);
  const molfuse_tensor nodes_view = view("nodes", nodes);
  molfuse_latent_concat_args args{};
  args.struct_size = sizeof(args);
  args.num_layers = 1;
  args.layers = &nodes_view;
  args.graph_ptr = view("graph_ptr", graph_ptr);
  args.out = view("out", out);
  args.column_offset = column_offset;
  const Execution execution(out);
  check_status(molfuse_latent_concat_forward(&args, execution.get()), "latent_concat_into");
}

std::vector<Tensor> latent_concat_backward_meta(const Tensor& grad_out, const OptionalTensor&, int64_t, c10::SymInt num_rows,
                                                c10::SymIntArrayRef widths, at::IntArrayRef wanted) {
  std::vector<Tensor> gradients;
  for (size_t l = 0; l < widths.size(); ++l) {
    gradients.push_back(wanted[l] ? at::empty_symint({num_rows, widths[l]}, grad_out.options()) : Tensor());
  }
  return gradients;
}

std::vector<Tensor> latent_concat_backward(const Tensor& grad_out, const OptionalTensor& graph_ptr, int64_t column_offset,
                                           int64_t num_rows, at::IntArrayRef widths, at::IntArrayRef wanted) {
  check_dims("grad_out", grad_out, 2, "[B, W]");
  check_float("grad_out", grad_out);
  MOLFUSE_CHECK(widths.size() == wanted.size(), "wanted: expected one entry per width");
  std::vector<Tensor> gradients = latent_concat_backward_meta(grad_out, graph_ptr, column_offset, num_rows,
                                                              c10::fromIntArrayRefSlow(widths), wanted);
  c10::SmallVector<molfuse_tensor, 16> layers(widths.size()), grad_layers(widths.size());
  for (size_t l = 0; l < widths.size(); ++l) {
    if (gradients[l].defined()) grad_layers[l] = view("grad_layers", gradients[l]);
    // Only the sizes of a layer matter to its gradient.
    layers[l].dtype = view("grad_out", grad_out).dtype;
    layers[l].ndim = 2;
    layers[l].size[0] = num_rows;
    layers[l].size[1] = layers[l].stride[0] = widths[l];
    layers[l].stride[1] = 1;
  }
  molfuse_latent_concat_args args{};
  args.struct_size = sizeof(args);
  args.num_layers = static_cast<int64_t>(widths.size());
  args.layers = layers.data();
  args.graph_ptr = view("graph_ptr", graph_ptr);
  args.column_offset = column_offset;
  args.grad_out = view("grad_out", grad_out);
  args.grad_layers = grad_layers.data();
  const Execution execution(grad_out);
  check_status(molfuse_latent_concat_backward(&args, execution.get()), "latent_concat backward");
  return gradients;
}

Tensor call_forward(at::TensorList layers, const OptionalTensor& graph_ptr) {
  static const auto op = find_operator<ForwardSignature>("molfuse::_latent_concat_forward");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(layers, graph_ptr);
}

std::vector<Tensor> call_backward(const Tensor& grad_out, const OptionalTensor& graph_ptr, int64_t column_offset,
                                  const c10::SymInt& num_rows, c10::SymIntArrayRef widths, at::IntArrayRef wanted) {
  static const auto op = find_operator<BackwardSignature>("molfuse::_latent_concat_backward");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(grad_out, graph_ptr, column_offset, num_rows, widths, wanted);
}

void call_into(const Tensor& out, int64_t column_offset, const Tensor& nodes, const Tensor& graph_ptr) {
  static const auto op = find_operator<IntoSignature>("molfuse::_latent_concat_into");
  at::AutoDispatchBelowADInplaceOrView guard;
  op.call(out, column_offset, nodes, graph_ptr);
}

/// Saves sizes, not features: the gradient of a mean needs no more.
class LatentConcatFunction : public torch::autograd::Function<LatentConcatFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, at::TensorList layers, const OptionalTensor* graph_ptr) {
    Tensor out = call_forward(layers, *graph_ptr);
    ctx->save_for_backward({value_or_undefined(*graph_ptr)});
    ctx->set_materialize_grads(false);
    std::vector<c10::SymInt> widths;
    for (const Tensor& layer : layers) widths.push_back(layer.sym_size(1));
    ctx->saved_data["num_rows"] = layers[0].sym_size(0);
    ctx->saved_data["widths"] = std::move(widths);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const std::vector<c10::SymInt> widths = ctx->saved_data["widths"].toSymIntVector();
    if (!grads[0].defined()) return variable_list(widths.size() + 1);
    std::vector<int64_t> wanted(widths.size());
    for (size_t l = 0; l < widths.size(); ++l) wanted[l] = ctx->needs_input_grad(l);
    variable_list gradients = call_backward(grads[0], optional_of(ctx->get_saved_variables()[0]), 0,
                                            ctx->saved_data["num_rows"].toSymInt(), widths, wanted);
    refuse_double_backward("latent_concat", {grads[0]}, gradients);
    gradients.emplace_back();
    return gradients;
  }
};

}  // namespace

Tensor LatentConcatIntoFunction::forward(AutogradContext* ctx, Tensor out, const Tensor& nodes, const Slot& slot) {
  // Columns are compared between calls, so that they are numbers; symbolic ones become so here.
  const int64_t width = nodes.sym_size(1).guard_int(__FILE__, __LINE__);
  const SlotHistory history = SlotHistory::of(out, slot.column_offset, slot.column_offset + width);
  call_into(out, slot.column_offset, nodes, slot.graph_ptr);
  ctx->mark_dirty({out});
  ctx->save_for_backward({slot.graph_ptr});
  ctx->set_materialize_grads(false);
  history.save(ctx);
  ctx->saved_data["num_rows"] = nodes.sym_size(0);
  return out;
}

variable_list LatentConcatIntoFunction::backward(AutogradContext* ctx, const variable_list& grads) {
  variable_list gradients(3);
  if (!grads[0].defined()) return gradients;
  const SlotHistory history = SlotHistory::saved(ctx);
  if (ctx->needs_input_grad(1)) {
    gradients[1] = call_backward(grads[0], ctx->get_saved_variables()[0], history.begin(), ctx->saved_data["num_rows"].toSymInt(),
                                 {c10::SymInt(history.width())}, {1})[0];
    variable_list own = {gradients[1]};
    refuse_double_backward("latent_concat_into", {grads[0]}, own);
  }
  if (ctx->needs_input_grad(0)) gradients[0] = history.gradient_before(grads[0]);
  return gradients;
}

namespace {

Tensor concat_any(at::TensorList layers, const OptionalTensor& graph_ptr) {
  check_layers(layers, graph_ptr);
  if (has(graph_ptr)) check_graph_ptr(*graph_ptr, layers[0], "layers");
  for (const Tensor& layer : layers) refuse_forward_mode("latent_concat", layer);
  if (c10::GradMode::is_enabled() &&
      std::any_of(layers.begin(), layers.end(), [](const Tensor& layer) { return layer.requires_grad(); })) {
    return LatentConcatFunction::apply(layers, &graph_ptr);
  }
  return call_forward(layers, graph_ptr);
}

Tensor latent_concat(at::TensorList layers, const Tensor& graph_ptr) {
  check_defined("graph_ptr", graph_ptr);
  return concat_any(layers, graph_ptr);
}

Tensor latent_concat_pooled(at::TensorList pooled) { return concat_any(pooled, std::nullopt); }

Tensor latent_concat_into(Tensor out, int64_t column_offset, const Tensor& nodes, const Tensor& graph_ptr) {
  check_into(out, column_offset, nodes, graph_ptr);
  refuse_forward_mode("latent_concat_into", out, nodes);
  if (c10::GradMode::is_enabled() && (nodes.requires_grad() || out.requires_grad())) {
    return LatentConcatIntoFunction::apply(out, nodes, Slot{column_offset, graph_ptr});
  }
  call_into(out, column_offset, nodes, graph_ptr);
  if (!out.is_inference()) torch::autograd::impl::bump_version(out);
  return out;
}

using LatentConcatSignature = decltype(latent_concat);
using LatentConcatPooledSignature = decltype(latent_concat_pooled);
using LatentConcatIntoSignature = decltype(latent_concat_into);

std::vector<Tensor> widest(at::TensorList layers) {
  std::vector<Tensor> result = layers.vec();
  if (layers.empty() || !layers[0].defined()) return result;
  at::ScalarType type = layers[0].scalar_type();
  for (const Tensor& layer : layers) {
    if (layer.defined()) type = at::promote_types(type, layer.scalar_type());
  }
  for (Tensor& layer : result) {
    if (layer.defined()) layer = layer.to(type);
  }
  return result;
}

template <at::DeviceType device>
Tensor latent_concat_autocast(at::TensorList layers, const Tensor& graph_ptr) {
  const WithoutAutocast guard(device);
  static const auto op = find_operator<LatentConcatSignature>("molfuse::latent_concat");
  return op.call(widest(layers), graph_ptr);
}

template <at::DeviceType device>
Tensor latent_concat_pooled_autocast(at::TensorList pooled) {
  const WithoutAutocast guard(device);
  static const auto op = find_operator<LatentConcatPooledSignature>("molfuse::latent_concat_pooled");
  return op.call(widest(pooled));
}

template <at::DeviceType device>
Tensor latent_concat_into_autocast(Tensor out, int64_t column_offset, const Tensor& nodes, const Tensor& graph_ptr) {
  const WithoutAutocast guard(device);
  static const auto op = find_operator<LatentConcatIntoSignature>("molfuse::latent_concat_into");
  return op.call(out, column_offset, nodes.to(out.scalar_type()), graph_ptr);
}

TORCH_LIBRARY_FRAGMENT(molfuse, m) {
  m.def("latent_concat(Tensor[] layers, Tensor graph_ptr) -> Tensor", TORCH_FN(latent_concat));
  m.def("latent_concat_pooled(Tensor[] pooled) -> Tensor", TORCH_FN(latent_concat_pooled));
  m.def("latent_concat_into(Tensor(a!) out, int column_offset, Tensor nodes, Tensor graph_ptr) -> Tensor(a!)",
        TORCH_FN(latent_concat_into));
  m.def("_latent_concat_forward(Tensor[] layers, Tensor? graph_ptr) -> Tensor");
  m.def("_latent_concat_into(Tensor(a!) out, int column_offset, Tensor nodes, Tensor graph_ptr) -> ()");
  m.def(
      "_latent_concat_backward(Tensor grad_out, Tensor? graph_ptr, int column_offset, SymInt num_rows, SymInt[] widths, "
      "int[] wanted) -> Tensor[]");
}

void register_kernels(torch::Library& m) {
  m.impl("_latent_concat_forward", TORCH_FN(latent_concat_forward));
  m.impl("_latent_concat_into", TORCH_FN(latent_concat_into_slot));
  m.impl("_latent_concat_backward", TORCH_FN(latent_concat_backward));
}
TORCH_LIBRARY_IMPL(molfuse, CPU, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, CUDA, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, Meta, m) {
  m.impl("_latent_concat_forward", TORCH_FN(empty_out));
  m.impl("_latent_concat_into", TORCH_FN(latent_concat_into_meta));
  m.impl("_latent_concat_backward", TORCH_FN(latent_concat_backward_meta));
}

template <at::DeviceType device>
void register_autocast(torch::Library& m) {
  m.impl("latent_concat", TORCH_FN(latent_concat_autocast<device>));
  m.impl("latent_concat_pooled", TORCH_FN(latent_concat_pooled_autocast<device>));
  m.impl("latent_concat_into", TORCH_FN(latent_concat_into_autocast<device>));
}
TORCH_LIBRARY_IMPL(molfuse, AutocastCPU, m) { register_autocast<at::kCPU>(m); }
TORCH_LIBRARY_IMPL(molfuse, AutocastCUDA, m) { register_autocast<at::kCUDA>(m); }

}  // namespace
}  // namespace molfuse::torch_ops

namespace molfuse::torch_api {

at::Tensor latent_concat(const std::vector<at::Tensor>& layers, const at::Tensor& graph_ptr) {
  static const auto op = torch_ops::find_operator<torch_ops::LatentConcatSignature>("molfuse::latent_concat");
  return op.call(layers, graph_ptr);
}

at::Tensor latent_concat_into(at::Tensor out, int64_t column_offset, const at::Tensor& nodes, const at::Tensor& graph_ptr) {
  static const auto op = torch_ops::find_operator<torch_ops::LatentConcatIntoSignature>("molfuse::latent_concat_into");
  return op.call(std::move(out), column_offset, nodes, graph_ptr);
}

at::Tensor latent_concat_pooled(const std::vector<at::Tensor>& pooled) {
  static const auto op = torch_ops::find_operator<torch_ops::LatentConcatPooledSignature>("molfuse::latent_concat_pooled");
  return op.call(pooled);
}

}  // namespace molfuse::torch_api

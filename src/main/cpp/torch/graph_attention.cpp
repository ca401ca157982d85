// SPDX-License-Identifier: Apache-2.0
// molfuse::graph_attention, graph_from_edges and graph_transpose.
// Autocast: query, key and value in the autocast type.
#include "molfuse/graph_attention.h"

#include <array>

#include "torch/common.h"

namespace molfuse::torch_ops {
namespace {

struct Graph {
  const Tensor& row_ptr;
  const Tensor& source;
  const Tensor& row_ptr_t;
  const Tensor& target;
  const Tensor& edge_id;
};

using GraphForwardSignature = std::tuple<Tensor, Tensor>(const Tensor& query, const Tensor& key, const Tensor& value,
                                                         const Tensor& row_ptr, const Tensor& source,
                                                         std::optional<double> scale, double dropout_p, c10::SymInt seed,
                                                         c10::SymInt offset, const OptionalTensor& drawn_seed);
using GraphGradients = std::tuple<Tensor, Tensor, Tensor>;
using GraphBackwardSignature = GraphGradients(const Tensor& grad_out, const Tensor& query, const Tensor& key,
                                              const Tensor& value, const Tensor& row_ptr, const Tensor& source,
                                              const Tensor& row_ptr_t, const Tensor& target, const Tensor& edge_id,
                                              const Tensor& out, const Tensor& lse, std::optional<double> scale,
                                              double dropout_p, c10::SymInt seed, c10::SymInt offset, const OptionalTensor& drawn_seed,
                                              std::array<bool, 3> output_mask);

void check_inputs(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& row_ptr, const Tensor& source,
                  double dropout_p) {
  check_dims("query", query, 3, "[V, H, C]");
  check_float("query", query);
  check_same_sizes("key", key, "query", query);
  check_same_sizes("value", value, "query", query);
  check_same_type("key", key, "query", query);
  check_same_type("value", value, "query", query);
  check_same_device("key", key, "query", query);
  check_same_device("value", value, "query", query);
  check_dims("row_ptr", row_ptr, 1, "[V+1]");
  check_index("row_ptr", row_ptr);
  check_size("row_ptr", row_ptr, 0, query.sym_size(0) + 1, "[V+1]");
  check_same_device("row_ptr", row_ptr, "query", query);
  check_dims("source", source, 1, "[E]");
  check_same_type("source", source, "row_ptr", row_ptr);
  check_same_device("source", source, "query", query);
  check_probability("dropout_p", dropout_p);
}

void check_transpose(const Graph& graph) {
  check_same_sizes("row_ptr_t", graph.row_ptr_t, "row_ptr", graph.row_ptr);
  check_same_type("row_ptr_t", graph.row_ptr_t, "row_ptr", graph.row_ptr);
  check_same_device("row_ptr_t", graph.row_ptr_t, "row_ptr", graph.row_ptr);
  check_same_sizes("target", graph.target, "source", graph.source);
  check_same_type("target", graph.target, "row_ptr", graph.row_ptr);
  check_same_device("target", graph.target, "row_ptr", graph.row_ptr);
  check_same_sizes("edge_id", graph.edge_id, "source", graph.source);
  check_same_type("edge_id", graph.edge_id, "row_ptr", graph.row_ptr);
  check_same_device("edge_id", graph.edge_id, "row_ptr", graph.row_ptr);
}

molfuse_graph_attention_args graph_args(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& row_ptr,
                                        const Tensor& source, std::optional<double> scale, double dropout_p, int64_t seed,
                                        int64_t offset, const OptionalTensor& drawn_seed) {
  molfuse_graph_attention_args args{};
  args.struct_size = sizeof(args);
  args.query = view("query", query);
  args.key = view("key", key);
  args.value = view("value", value);
  args.graph.row_ptr = view("row_ptr", row_ptr);
  args.graph.source = view("source", source);
  args.has_scale = scale.has_value() ? 1 : 0;
  args.scale = scale.value_or(0.0);
  args.dropout_p = dropout_p;
  args.philox = philox_of(seed, offset, drawn_seed);
  return args;
}

Tensor empty_lse(const Tensor& query) {
  return at::empty_symint({query.sym_size(0), query.sym_size(1)},
                          query.options().dtype(statistics_type(query.scalar_type())));
}

std::tuple<Tensor, Tensor> graph_attention_forward_meta(const Tensor& query, const Tensor& key, const Tensor& value,
                                                        const Tensor& row_ptr, const Tensor& source, std::optional<double>,
                                                        double dropout_p, c10::SymInt, c10::SymInt, const OptionalTensor&) {
  check_inputs(query, key, value, row_ptr, source, dropout_p);
  return {at::empty_like(rows_contiguous(query)), empty_lse(query)};
}

std::tuple<Tensor, Tensor> graph_attention_forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                                   const Tensor& row_ptr, const Tensor& source, std::optional<double> scale,
                                                   double dropout_p, int64_t seed, int64_t offset,
                                                   const OptionalTensor& drawn_seed) {
  check_inputs(query, key, value, row_ptr, source, dropout_p);
  const Tensor q = rows_contiguous(query), k = rows_contiguous(key), v = rows_contiguous(value);
  Tensor out = at::empty_like(q);
  Tensor lse = empty_lse(q);
  if (out.numel() == 0) return {out, lse};
  molfuse_graph_attention_args args = graph_args(q, k, v, row_ptr, source, scale, dropout_p, seed, offset, drawn_seed);
  args.out = view("out", out);
  args.lse = view("lse", lse);
  const Execution execution(q);
  check_status(molfuse_graph_attention_forward(&args, execution.get()), "graph_attention");
  return {out, lse};
}

GraphGradients graph_attention_backward_meta(const Tensor&, const Tensor& query, const Tensor& key, const Tensor& value,
                                             const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                             const Tensor&, const Tensor&, std::optional<double>, double, c10::SymInt, c10::SymInt,
                                             const OptionalTensor&, std::array<bool, 3> output_mask) {
  const auto like = [](const Tensor& input) { return at::empty_like(rows_contiguous(input)); };
  return {output_mask[0] ? like(query) : Tensor(), output_mask[1] ? like(key) : Tensor(),
          output_mask[2] ? like(value) : Tensor()};
}

GraphGradients graph_attention_backward(const Tensor& grad_out, const Tensor& query, const Tensor& key, const Tensor& value,
                                        const Tensor& row_ptr, const Tensor& source, const Tensor& row_ptr_t,
                                        const Tensor& target, const Tensor& edge_id, const Tensor& out, const Tensor& lse,
                                        std::optional<double> scale, double dropout_p, int64_t seed, int64_t offset,
                                        const OptionalTensor& drawn_seed, std::array<bool, 3> output_mask) {
  check_inputs(query, key, value, row_ptr, source, dropout_p);
  check_transpose({row_ptr, source, row_ptr_t, target, edge_id});
  check_same_sizes("grad_out", grad_out, "query", query);
  check_same_type("grad_out", grad_out, "query", query);
  check_same_device("grad_out", grad_out, "query", query);
  check_same_sizes("out", out, "query", query);
  check_defined("lse", lse);
  const Tensor q = rows_contiguous(query), k = rows_contiguous(key), v = rows_contiguous(value);
  const Tensor go = rows_contiguous(grad_out), o = rows_contiguous(out);
  Tensor grad_query = output_mask[0] ? at::empty_like(q) : Tensor();
  Tensor grad_key = output_mask[1] ? at::empty_like(k) : Tensor();
  Tensor grad_value = output_mask[2] ? at::empty_like(v) : Tensor();
  if (q.numel() == 0) return {grad_query, grad_key, grad_value};
  molfuse_graph_attention_args args = graph_args(q, k, v, row_ptr, source, scale, dropout_p, seed, offset, drawn_seed);
  args.graph.row_ptr_t = view("row_ptr_t", row_ptr_t);
  args.graph.target = view("target", target);
  args.graph.edge_id = view("edge_id", edge_id);
  args.out = view("out", o);
  args.lse = view("lse", lse);
  args.grad_out = view("grad_out", go);
  if (grad_query.defined()) args.grad_query = view("grad_query", grad_query);
  if (grad_key.defined()) args.grad_key = view("grad_key", grad_key);
  if (grad_value.defined()) args.grad_value = view("grad_value", grad_value);
  const Execution execution(q);
  check_status(molfuse_graph_attention_backward(&args, execution.get()), "graph_attention backward");
  return {grad_query, grad_key, grad_value};
}

struct GraphCall {
  Graph graph;
  std::optional<double> scale;
  double dropout_p;
  Randomness random;
};

std::tuple<Tensor, Tensor> call_forward(const Tensor& query, const Tensor& key, const Tensor& value, const GraphCall& call) {
  static const auto op = find_operator<GraphForwardSignature>("molfuse::_graph_attention_forward");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(query, key, value, call.graph.row_ptr, call.graph.source, call.scale, call.dropout_p, call.random.seed,
                 call.random.offset, call.random.drawn_seed);
}

class GraphAttentionFunction : public torch::autograd::Function<GraphAttentionFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& query, const Tensor& key, const Tensor& value,
                        const GraphCall& call) {
    auto [out, lse] = call_forward(query, key, value, call);
    ctx->save_for_backward({query, key, value, call.graph.row_ptr, call.graph.source, call.graph.row_ptr_t,
                            call.graph.target, call.graph.edge_id, out, lse, value_or_undefined(call.random.drawn_seed)});
    ctx->set_materialize_grads(false);
    auto& saved = ctx->saved_data;
    saved["scale"] = call.scale;
    saved["dropout_p"] = call.dropout_p;
    saved["seed"] = call.random.seed;
    saved["offset"] = call.random.offset;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list gradients(4);
    if (!grads[0].defined()) return gradients;
    const auto saved = ctx->get_saved_variables();
    auto& data = ctx->saved_data;
    static const auto op = find_operator<GraphBackwardSignature>("molfuse::_graph_attention_backward");
    {
      at::AutoDispatchBelowADInplaceOrView guard;
      std::tie(gradients[0], gradients[1], gradients[2]) = op.call(
          grads[0], saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], saved[6], saved[7], saved[8], saved[9],
          data["scale"].toOptional<double>(), data["dropout_p"].toDouble(), data["seed"].toSymInt(), data["offset"].toSymInt(),
          optional_of(saved[10]), {ctx->needs_input_grad(0), ctx->needs_input_grad(1), ctx->needs_input_grad(2)});
    }
    refuse_double_backward("graph_attention", {grads[0], saved[0], saved[1], saved[2]}, gradients);
    return gradients;
  }
};

Tensor graph_attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& row_ptr, const Tensor& source,
                       const Tensor& row_ptr_t, const Tensor& target, const Tensor& edge_id, std::optional<double> scale,
                       double dropout_p, std::optional<c10::SymInt> seed, c10::SymInt offset) {
  check_inputs(query, key, value, row_ptr, source, dropout_p);
  const GraphCall call{{row_ptr, source, row_ptr_t, target, edge_id}, scale, dropout_p,
                       randomness_of(query, seed, offset, dropout_p > 0)};
  check_transpose(call.graph);
  refuse_forward_mode("graph_attention", query, key, value);
  if (c10::GradMode::is_enabled() && (query.requires_grad() || key.requires_grad() || value.requires_grad())) {
    return GraphAttentionFunction::apply(query, key, value, call);
  }
  return std::get<0>(call_forward(query, key, value, call));
}

using GraphAttentionSignature = decltype(graph_attention);

Tensor graph_attention_autocast(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& row_ptr,
                                const Tensor& source, const Tensor& row_ptr_t, const Tensor& target, const Tensor& edge_id,
                                std::optional<double> scale, double dropout_p, std::optional<c10::SymInt> seed,
                                c10::SymInt offset) {
  const auto device = autocast_device(query);
  const WithoutAutocast guard(device);
  static const auto op = find_operator<GraphAttentionSignature>("molfuse::graph_attention");
  return op.call(autocast_lower(query, device), autocast_lower(key, device), autocast_lower(value, device), row_ptr, source,
                 row_ptr_t, target, edge_id, scale, dropout_p, seed, offset);
}

// ---- graphs ------------------------------------------------------------------------------------------------------------

using SixTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

void check_edges(const Tensor& edge_source, const Tensor& edge_target, const c10::SymInt& num_nodes) {
  check_dims("edge_source", edge_source, 1, "[E]");
  check_index("edge_source", edge_source);
  check_same_sizes("edge_target", edge_target, "edge_source", edge_source);
  check_same_type("edge_target", edge_target, "edge_source", edge_source);
  check_same_device("edge_target", edge_target, "edge_source", edge_source);
  MOLFUSE_CHECK(num_nodes >= 0, "num_nodes: expected at least 0, got ", num_nodes);
}

SixTensors graph_from_edges_meta(const Tensor& edge_source, const Tensor& edge_target, c10::SymInt num_nodes) {
  check_edges(edge_source, edge_target, num_nodes);
  const auto edges = [&] { return at::empty_symint({edge_source.sym_size(0)}, edge_source.options()); };
  const auto nodes = [&] { return at::empty_symint({num_nodes + 1}, edge_source.options()); };
  return {nodes(), edges(), nodes(), edges(), edges(), edges()};
}

SixTensors graph_from_edges(const Tensor& edge_source, const Tensor& edge_target, int64_t num_nodes) {
  check_edges(edge_source, edge_target, num_nodes);
  const auto options = edge_source.options();
  const int64_t num_edges = edge_source.size(0);
  Tensor row_ptr = at::empty({num_nodes + 1}, options), row_ptr_t = at::empty({num_nodes + 1}, options);
  Tensor source = at::empty({num_edges}, options), target = at::empty({num_edges}, options);
  Tensor edge_id = at::empty({num_edges}, options), permutation = at::empty({num_edges}, options);
  molfuse_graph graph{};
  graph.row_ptr = view("row_ptr", row_ptr);
  graph.source = view("source", source);
  graph.row_ptr_t = view("row_ptr_t", row_ptr_t);
  graph.target = view("target", target);
  graph.edge_id = view("edge_id", edge_id);
  const molfuse_tensor edge_source_view = view("edge_source", edge_source), edge_target_view = view("edge_target", edge_target);
  const molfuse_tensor permutation_view = view("permutation", permutation);
  const Execution execution(edge_source);
  check_status(molfuse_graph_from_edges(&edge_source_view, &edge_target_view, num_nodes, &graph, &permutation_view,
                                        execution.get()),
               "graph_from_edges");
  check_status(molfuse_graph_transpose(&graph, execution.get()), "graph_from_edges");
  return {row_ptr, source, row_ptr_t, target, edge_id, permutation};
}

void check_csr(const Tensor& row_ptr, const Tensor& source) {
  check_dims("row_ptr", row_ptr, 1, "[V+1]");
  check_index("row_ptr", row_ptr);
  MOLFUSE_CHECK(row_ptr.sym_size(0) >= 1, "row_ptr: expected shape [V+1] with at least one entry, got ", row_ptr.sym_sizes());
  check_dims("source", source, 1, "[E]");
  check_same_type("source", source, "row_ptr", row_ptr);
  check_same_device("source", source, "row_ptr", row_ptr);
}

GraphGradients graph_transpose_meta(const Tensor& row_ptr, const Tensor& source) {
  check_csr(row_ptr, source);
  return {at::empty_like(row_ptr), at::empty_like(source), at::empty_like(source)};
}

std::tuple<Tensor, Tensor, Tensor> graph_transpose(const Tensor& row_ptr, const Tensor& source) {
  check_csr(row_ptr, source);
  Tensor row_ptr_t = at::empty(row_ptr.sizes(), row_ptr.options());
  Tensor target = at::empty(source.sizes(), source.options()), edge_id = at::empty(source.sizes(), source.options());
  molfuse_graph graph{};
  graph.row_ptr = view("row_ptr", row_ptr);
  graph.source = view("source", source);
  graph.row_ptr_t = view("row_ptr_t", row_ptr_t);
  graph.target = view("target", target);
  graph.edge_id = view("edge_id", edge_id);
  const Execution execution(row_ptr);
  check_status(molfuse_graph_transpose(&graph, execution.get()), "graph_transpose");
  return {row_ptr_t, target, edge_id};
}

TORCH_LIBRARY_FRAGMENT(molfuse, m) {
  m.def(
      "graph_attention(Tensor query, Tensor key, Tensor value, Tensor row_ptr, Tensor source, Tensor row_ptr_t, Tensor target, "
      "Tensor edge_id, *, float? scale=None, float dropout_p=0.0, SymInt? seed=None, SymInt offset=0) -> Tensor",
      TORCH_FN(graph_attention));
  m.def(
      "graph_from_edges(Tensor edge_source, Tensor edge_target, SymInt num_nodes) -> (Tensor row_ptr, Tensor source, "
      "Tensor row_ptr_t, Tensor target, Tensor edge_id, Tensor permutation)");
  m.def("graph_transpose(Tensor row_ptr, Tensor source) -> (Tensor row_ptr_t, Tensor target, Tensor edge_id)");
  m.def(
      "_graph_attention_forward(Tensor query, Tensor key, Tensor value, Tensor row_ptr, Tensor source, float? scale, "
      "float dropout_p, SymInt seed, SymInt offset, Tensor? drawn_seed) -> (Tensor out, Tensor lse)");
  m.def(
      "_graph_attention_backward(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor row_ptr, Tensor source, "
      "Tensor row_ptr_t, Tensor target, Tensor edge_id, Tensor out, Tensor lse, float? scale, float dropout_p, SymInt seed, "
      "SymInt offset, Tensor? drawn_seed, bool[3] output_mask) -> (Tensor grad_query, Tensor grad_key, Tensor grad_value)");
}

void register_kernels(torch::Library& m) {
  m.impl("_graph_attention_forward", TORCH_FN(graph_attention_forward));
  m.impl("_graph_attention_backward", TORCH_FN(graph_attention_backward));
  m.impl("graph_from_edges", TORCH_FN(graph_from_edges));
  m.impl("graph_transpose", TORCH_FN(graph_transpose));
}
TORCH_LIBRARY_IMPL(molfuse, CPU, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, CUDA, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, Meta, m) {
  m.impl("_graph_attention_forward", TORCH_FN(graph_attention_forward_meta));
  m.impl("_graph_attention_backward", TORCH_FN(graph_attention_backward_meta));
  m.impl("graph_from_edges", TORCH_FN(graph_from_edges_meta));
  m.impl("graph_transpose", TORCH_FN(graph_transpose_meta));
}
TORCH_LIBRARY_IMPL(molfuse, AutocastCPU, m) { m.impl("graph_attention", TORCH_FN(graph_attention_autocast)); }
TORCH_LIBRARY_IMPL(molfuse, AutocastCUDA, m) { m.impl("graph_attention", TORCH_FN(graph_attention_autocast)); }

}  // namespace
}  // namespace molfuse::torch_ops

namespace molfuse::torch_api {

at::Tensor graph_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                           const at::Tensor& row_ptr, const at::Tensor& source, const at::Tensor& row_ptr_t,
                           const at::Tensor& target, const at::Tensor& edge_id, std::optional<double> scale,
                           double dropout_p, std::optional<int64_t> seed, int64_t offset) {
  static const auto op = torch_ops::find_operator<torch_ops::GraphAttentionSignature>("molfuse::graph_attention");
  return op.call(query, key, value, row_ptr, source, row_ptr_t, target, edge_id, scale, dropout_p, seed, offset);
}

std::vector<at::Tensor> graph_from_edges(const at::Tensor& edge_source, const at::Tensor& edge_target, int64_t num_nodes) {
  using Signature = torch_ops::SixTensors(const at::Tensor&, const at::Tensor&, c10::SymInt);
  static const auto op = torch_ops::find_operator<Signature>("molfuse::graph_from_edges");
  auto [row_ptr, source, row_ptr_t, target, edge_id, permutation] = op.call(edge_source, edge_target, num_nodes);
  return {row_ptr, source, row_ptr_t, target, edge_id, permutation};
}

std::vector<at::Tensor> graph_transpose(const at::Tensor& row_ptr, const at::Tensor& source) {
  static const auto op = torch_ops::find_operator<decltype(torch_ops::graph_transpose)>("molfuse::graph_transpose");
  auto [row_ptr_t, target, edge_id] = op.call(row_ptr, source);
  return {row_ptr_t, target, edge_id};
}

}  // namespace molfuse::torch_api

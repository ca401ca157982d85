// SPDX-License-Identifier: Apache-2.0
// Valid calls of every function of the C interface with a problem to solve.
#include <algorithm>
#include <cstring>

#include "fuzz/call.h"
#include "molfuse/attention.h"
#include "molfuse/encoder_epilogue.h"
#include "molfuse/graph_attention.h"
#include "molfuse/latent_concat.h"
#include "molfuse/reparameterize.h"
#include "molfuse/vae_loss.h"

namespace molfuse_fuzz {
namespace {

using Sizes = std::vector<int64_t>;
constexpr Role kInput = Role::input, kIndex = Role::index, kOutput = Role::output, kUpdated = Role::updated;

template <class Args>
Args& begin(Call& call, const char* function, molfuse_status (*run)(const Args*, const molfuse_execution*)) {
  auto args = std::make_shared<Args>();
  std::memset(static_cast<void*>(args.get()), 0, sizeof(Args));
  args->struct_size = sizeof(Args);
  call.function = function;
  call.args = args.get();
  call.args_bytes = sizeof(Args);
  call.keep = args;
  call.run = [run](const void* a, const molfuse_execution* execution) { return run(static_cast<const Args*>(a), execution); };
  return *args;
}

int32_t draw_type(Choices& c) { return c.of<int32_t>({MOLFUSE_F32, MOLFUSE_F64, MOLFUSE_F16, MOLFUSE_BF16}); }
int32_t wide(int32_t dtype) { return dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32; }
int32_t either(Choices& c, int32_t dtype) { return c.one_in(2) ? dtype : wide(dtype); }
int32_t draw_index_type(Choices& c) { return c.one_in(2) ? MOLFUSE_I32 : MOLFUSE_I64; }

/// Mostly small; now and then nothing, or more than a vector or a block.
int64_t draw_size(Choices& c, int64_t most = 70) {
  if (c.one_in(24)) return 0;
  if (c.one_in(6)) return c.between(1, most);
  return c.between(1, std::min<int64_t>(most, 9));
}

double draw_probability(Choices& c) { return c.one_in(3) ? c.of<double>({0.1, 0.5, 1e-12, 0.999}) : 0; }

/// Ascending from 0 to total in count + 1 entries.
std::function<int64_t(int64_t)> ascending(Choices& c, int64_t count, int64_t total) {
  std::vector<int64_t> cuts(static_cast<size_t>(count) + 1, 0);
  for (int64_t n = 1; n < count; ++n) cuts[static_cast<size_t>(n)] = c.between(0, total);
  cuts.back() = total;
  std::sort(cuts.begin(), cuts.end());
  return [cuts](int64_t n) { return cuts[static_cast<size_t>(n)]; };
}

/// Groups of `total` things: their number is 0 only if there are none.
int64_t draw_groups(Choices& c, int64_t total) { return total == 0 ? c.between(0, 3) : c.between(1, 6); }

// ---- attention

Call attention(Choices& c, bool backward) {
  Call call;
  auto& a = begin(call, backward ? "molfuse_attention_backward" : "molfuse_attention_forward", backward ? molfuse_attention_backward : molfuse_attention_forward);
  const int32_t T = draw_type(c), S = wide(T);
  const bool packed = c.one_in(3);
  const int64_t B = c.between(0, 3), H = c.between(1, 3), D = 8 * c.of<int64_t>({1, 2, 3, 4, 8, 12, 32});
  int64_t N = draw_size(c, 150), M = draw_size(c, 150);
  if (packed && B == 0) N = M = 0;
  const Sizes query = packed ? Sizes{N, H, D} : Sizes{B, H, N, D}, key = packed ? Sizes{M, H, D} : Sizes{B, H, M, D};
  const Sizes rows = packed ? Sizes{H, N} : Sizes{B, H, N};
  auto operand = [&](const char* name, molfuse_tensor& at, Role role, const Sizes& sizes) -> Slot& {
    Slot& slot = call.add(name, at, role, T, sizes);
    slot.dense = true;
    return slot;
  };
  operand("query", a.query, kInput, query).required = true;
  operand("key", a.key, kInput, key).required = true;
  operand("value", a.value, kInput, key).required = true;
  Sizes bias = {B, H, N, M};
  if (!packed && c.one_in(3)) {
    for (int64_t& size : bias) size = c.one_in(3) ? 1 : size;
    call.add("bias", a.bias, kInput, either(c, T), bias);
  }
  const int64_t distances = 2 * c.between(0, 20) + 1;
  if (c.one_in(3)) call.add("relative_bias", a.relative_bias, kInput, either(c, T), {H, distances});
  if (packed) {
    Slot& starts = call.add("cu_seqlens_q", a.cu_seqlens_q, kIndex, MOLFUSE_I32, {B + 1});
    starts.index = ascending(c, B, N);
    starts.dense = true;
    Slot& key_starts = call.add("cu_seqlens_k", a.cu_seqlens_k, kIndex, MOLFUSE_I32, {B + 1});
    key_starts.index = ascending(c, B, M);
    key_starts.required = key_starts.dense = true;
    a.max_seqlen_q = N;
    a.max_seqlen_k = M;
    call.number("max_seqlen_q", a.max_seqlen_q);
    call.number("max_seqlen_k", a.max_seqlen_k);
  } else if (c.one_in(3)) {
    const int64_t first = c.between(0, M), second = c.between(0, M);
    call.add("key_lengths", a.key_lengths, kIndex, draw_index_type(c), {B}).index = [=](int64_t n) { return n % 2 == 0 ? first : second; };
  }
  a.causal = c.one_in(3);
  a.has_scale = c.one_in(3);
  a.scale = 0.3;
  a.dropout_p = draw_probability(c);
  a.philox = {c.next(9), c.next(2) << 40};
  call.number("causal", a.causal);
  call.number("has_scale", a.has_scale);
  call.number("scale", a.scale);
  call.number("dropout_p", a.dropout_p);
  Slot& out = operand("out", a.out, backward ? kInput : kOutput, query);
  out.required = out.distinct = true;
  if (!backward) {
    if (c.one_in(2)) call.add("lse", a.lse, kOutput, S, rows);
    return call;
  }
  Slot& lse = call.add("lse", a.lse, kInput, S, rows);
  lse.required = lse.distinct = true;
  call.prepare = [&a] { return molfuse_attention_forward(&a, nullptr); };
  operand("grad_out", a.grad_out, kInput, query).required = true;
  if (!c.one_in(4)) operand("grad_query", a.grad_query, kOutput, query);
  if (!c.one_in(4)) operand("grad_key", a.grad_key, kOutput, key);
  if (!c.one_in(4)) operand("grad_value", a.grad_value, kOutput, key);
  const auto given = [&](const char* name) {
    return std::any_of(call.slots.begin(), call.slots.end(), [&](const Slot& slot) { return slot.name == name; });
  };
  if (given("bias") && !c.one_in(3)) call.add("grad_bias", a.grad_bias, kOutput, S, bias);
  if (given("relative_bias") && !c.one_in(3)) call.add("grad_relative_bias", a.grad_relative_bias, kOutput, S, {H, distances});
  return call;
}

Call decode(Choices& c) {
  Call call;
  auto& a = begin(call, "molfuse_attention_decode", molfuse_attention_decode);
  const int32_t T = draw_type(c);
  const int64_t B = c.between(0, 3), H = c.between(1, 3), D = 8 * c.of<int64_t>({1, 2, 4, 9, 32}), capacity = c.between(1, 90);
  auto row = [&](const char* name, molfuse_tensor& at, Role role) -> Slot& {
    Slot& slot = call.add(name, at, role, T, {B, H, D});
    slot.dense = slot.required = true;
    return slot;
  };
  const bool append = c.one_in(2);
  row("query", a.query, kInput);
  for (auto [name, at] : {std::pair<const char*, molfuse_tensor*>{"key_cache", &a.key_cache}, {"value_cache", &a.value_cache}}) {
    Slot& cache = call.add(name, *at, append ? kUpdated : kInput, T, {B, H, capacity, D});
    cache.dense = cache.required = true;
  }
  if (append) {
    row("key_new", a.key_new, kInput).required = false;
    row("value_new", a.value_new, kInput).required = false;
  }
  const int64_t first = c.between(0, capacity - append), second = c.between(0, capacity - append);
  Slot& lengths = call.add("lengths", a.lengths, kIndex, draw_index_type(c), {B});
  lengths.index = [=](int64_t n) { return n % 2 == 0 ? first : second; };
  lengths.required = true;
  if (c.one_in(3)) call.add("relative_bias", a.relative_bias, kInput, either(c, T), {H, 2 * c.between(0, 20) + 1});
  a.has_scale = c.one_in(3);
  a.scale = 0.3;
  call.number("has_scale", a.has_scale);
  call.number("scale", a.scale);
  row("out", a.out, kOutput);
  return call;
}

// ---- graphs

struct Edges {
  int64_t nodes;
  std::vector<int64_t> row_ptr, source, row_ptr_t, target, edge_id;
};

Edges draw_edges(Choices& c) {
  Edges g;
  g.nodes = draw_size(c);
  const int64_t count = g.nodes == 0 ? 0 : c.one_in(12) ? c.between(0, 1500) : c.between(0, 40);
  std::vector<std::pair<int64_t, int64_t>> edges;
  const bool hub = c.one_in(4);
  auto& noise = c.noise();
  for (int64_t e = 0; e < count; ++e) {
    const auto any = [&] { return static_cast<int64_t>(noise() % static_cast<uint64_t>(g.nodes)); };
    edges.push_back({hub && e % 4 != 0 ? 0 : any(), any()});
  }
  std::stable_sort(edges.begin(), edges.end(), [](auto& a, auto& b) { return a.first < b.first; });
  g.row_ptr.assign(static_cast<size_t>(g.nodes) + 1, 0);
  g.row_ptr_t = g.row_ptr;
  std::vector<int64_t> order;
  for (int64_t e = 0; e < count; ++e) {
    const auto [target, source] = edges[static_cast<size_t>(e)];
    ++g.row_ptr[static_cast<size_t>(target) + 1];
    ++g.row_ptr_t[static_cast<size_t>(source) + 1];
    g.source.push_back(source);
    order.push_back(e);
  }
  for (size_t v = 0; v < static_cast<size_t>(g.nodes); ++v) {
    g.row_ptr[v + 1] += g.row_ptr[v];
    g.row_ptr_t[v + 1] += g.row_ptr_t[v];
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return g.source[static_cast<size_t>(a)] < g.source[static_cast<size_t>(b)]; });
  g.edge_id = order;
  for (const int64_t e : order) g.target.push_back(edges[static_cast<size_t>(e)].first);
  return g;
}

void add_index(Call& call, const char* name, molfuse_tensor& at, Role role, int32_t dtype, const std::vector<int64_t>& values) {
  Slot& slot = call.add(name, at, role, dtype, {static_cast<int64_t>(values.size())});
  slot.required = true;
  slot.index = [values](int64_t n) { return values[static_cast<size_t>(n)]; };
}

Call graph_attention(Choices& c, bool backward) {
  Call call;
  auto& a = begin(call, backward ? "molfuse_graph_attention_backward" : "molfuse_graph_attention_forward",
                  backward ? molfuse_graph_attention_backward : molfuse_graph_attention_forward);
  const Edges g = draw_edges(c);
  const int32_t T = draw_type(c), I = draw_index_type(c);
  const Sizes rows = {g.nodes, c.between(1, 5), draw_size(c, 40) + 1};
  auto operand = [&](const char* name, molfuse_tensor& at, Role role, bool required) { call.add(name, at, role, T, rows).required = required; };
  operand("query", a.query, kInput, true);
  operand("key", a.key, kInput, true);
  operand("value", a.value, kInput, true);
  add_index(call, "row_ptr", a.graph.row_ptr, kIndex, I, g.row_ptr);
  add_index(call, "source", a.graph.source, kIndex, I, g.source);
  a.has_scale = c.one_in(3);
  a.scale = 0.3;
  a.dropout_p = draw_probability(c);
  a.philox = {c.next(9), c.next(2) << 40};
  call.number("has_scale", a.has_scale);
  call.number("scale", a.scale);
  call.number("dropout_p", a.dropout_p);
  if (!backward) {
    operand("out", a.out, kOutput, true);
    if (c.one_in(2)) call.add("lse", a.lse, kOutput, wide(T), {rows[0], rows[1]});
    return call;
  }
  call.add("lse", a.lse, kInput, wide(T), {rows[0], rows[1]}).required = true;
  operand("grad_out", a.grad_out, kInput, true);
  if (!c.one_in(4)) operand("grad_query", a.grad_query, kOutput, false);
  const bool key = !c.one_in(4), value = !c.one_in(4);
  if (key) operand("grad_key", a.grad_key, kOutput, false);
  if (value) operand("grad_value", a.grad_value, kOutput, false);
  if (key || value) {
    add_index(call, "row_ptr_t", a.graph.row_ptr_t, kIndex, I, g.row_ptr_t);
    add_index(call, "target", a.graph.target, kIndex, I, g.target);
    add_index(call, "edge_id", a.graph.edge_id, kIndex, I, g.edge_id);
    // Without the gradients that need them they may be anything.
    for (Slot& slot : call.slots) slot.required = slot.required && slot.name != "row_ptr_t" && slot.name != "target" && slot.name != "edge_id";
  }
  return call;
}

Call transpose(Choices& c) {
  Call call;
  auto graph = std::make_shared<molfuse_graph>();
  std::memset(static_cast<void*>(graph.get()), 0, sizeof *graph);
  call.keep = graph;
  call.function = "molfuse_graph_transpose";
  call.run = [graph](const void*, const molfuse_execution* execution) { return molfuse_graph_transpose(graph.get(), execution); };
  const Edges g = draw_edges(c);
  const int32_t I = draw_index_type(c);
  add_index(call, "row_ptr", graph->row_ptr, kIndex, I, g.row_ptr);
  add_index(call, "source", graph->source, kIndex, I, g.source);
  add_index(call, "row_ptr_t", graph->row_ptr_t, kOutput, I, g.row_ptr_t);
  add_index(call, "target", graph->target, kOutput, I, g.target);
  add_index(call, "edge_id", graph->edge_id, kOutput, I, g.edge_id);
  return call;
}

Call from_edges(Choices& c) {
  struct Problem {
    molfuse_tensor edge_source, edge_target, edge_id_in;
    molfuse_graph graph;
    int64_t nodes;
  };
  Call call;
  auto p = std::make_shared<Problem>();
  std::memset(static_cast<void*>(p.get()), 0, sizeof *p);
  call.keep = p;
  call.function = "molfuse_graph_from_edges";
  call.run = [p](const void*, const molfuse_execution* execution) {
    return molfuse_graph_from_edges(&p->edge_source, &p->edge_target, p->nodes, &p->graph, &p->edge_id_in, execution);
  };
  const Edges g = draw_edges(c);
  p->nodes = g.nodes;
  call.number("num_nodes", p->nodes);
  const int32_t I = draw_index_type(c);
  add_index(call, "edge_source", p->edge_source, kIndex, draw_index_type(c), g.source);
  add_index(call, "edge_target", p->edge_target, kIndex, draw_index_type(c), g.target);
  add_index(call, "row_ptr", p->graph.row_ptr, kOutput, I, g.row_ptr);
  add_index(call, "source", p->graph.source, kOutput, I, g.source);
  if (c.one_in(2)) {
    add_index(call, "edge_id_in", p->edge_id_in, kOutput, draw_index_type(c), g.edge_id);
    call.slots.back().required = false;
  }
  return call;
}

// ---- losses

template <class Args>
void add_loss(Call& call, Args& a, Choices& c, bool backward, int32_t T, int64_t B, int64_t L, int64_t K, bool gradients) {
  const int32_t S = wide(T), M = either(c, T);
  const int64_t latent = draw_size(c, 40);
  a.pad_index = c.of<int64_t>({-100, 0, K - 1});
  const int64_t pad = a.pad_index;
  auto& noise = c.noise();
  std::vector<int64_t> targets;
  for (int64_t n = 0; n < B * L; ++n) targets.push_back(noise() % 4 == 0 ? pad : static_cast<int64_t>(noise() % static_cast<uint64_t>(K)));
  Slot& slot = call.add("targets", a.targets, kIndex, MOLFUSE_I64, {B, L});
  slot.index = [targets](int64_t n) { return targets[static_cast<size_t>(n)]; };
  slot.required = true;
  const bool kl = c.one_in(2);
  if (kl) {
    call.add("mean", a.mean, kInput, M, {B, latent});
    call.add("log_var", a.log_var, kInput, M, {B, latent});
  }
  a.beta = 0.5;
  a.reduction = static_cast<int32_t>(c.next(3));
  const bool none = a.reduction == MOLFUSE_REDUCTION_NONE;
  call.number("beta", a.beta);
  call.number("reduction", a.reduction);
  call.number("pad_index", a.pad_index);
  if (!backward) {
    call.add("stats", a.stats, kOutput, S, {MOLFUSE_VAE_STATS}).required = true;
    if (c.one_in(2)) call.add("row_lse", a.row_lse, kOutput, S, {B, L});
    if (none || c.one_in(3)) call.add("nll", a.nll, kOutput, S, {B, L});
    if (none || c.one_in(3)) call.add("kl_sample", a.kl_sample, kOutput, S, {B});
    return;
  }
  Slot& lse = call.add("row_lse", a.row_lse, kInput, S, {B, L});
  lse.required = gradients;
  if (none) {
    if (!c.one_in(3)) call.add("grad_nll", a.grad_nll, kInput, S, {B, L});
    if (!c.one_in(3)) call.add("grad_kl_sample", a.grad_kl_sample, kInput, S, {B});
  } else if (!c.one_in(3)) {
    call.add("stats", a.stats, kInput, S, {MOLFUSE_VAE_STATS}).required = true;
    call.add("grad_stats", a.grad_stats, kInput, S, {MOLFUSE_VAE_STATS});
    // Without the upstream gradient nobody looks at them.
    call.slots[call.slots.size() - 2].required = false;
  }
  if (kl && !c.one_in(3)) call.add("grad_mean", a.grad_mean, kOutput, M, {B, latent});
  if (kl && !c.one_in(3)) call.add("grad_log_var", a.grad_log_var, kOutput, M, {B, latent});
}

Call vae_loss(Choices& c, bool backward) {
  Call call;
  auto& a = begin(call, backward ? "molfuse_vae_loss_backward" : "molfuse_vae_loss_forward", backward ? molfuse_vae_loss_backward : molfuse_vae_loss_forward);
  const int32_t T = draw_type(c);
  const int64_t B = draw_size(c, 12), L = draw_size(c, 40), K = std::max<int64_t>(1, draw_size(c, 300));
  a.class_second = c.one_in(3);
  call.number("class_second", a.class_second);
  const Sizes logits = a.class_second != 0 ? Sizes{B, K, L} : Sizes{B, L, K};
  Slot& scores = call.add("logits", a.logits, kInput, T, logits);
  scores.required = !backward;
  scores.sole = true;
  const bool gradient = c.one_in(2);
  add_loss(call, a, c, backward, T, B, L, K, gradient);
  if (gradient && (backward || a.reduction != MOLFUSE_REDUCTION_NONE)) {
    Slot& slot = call.add("grad_logits", a.grad_logits, kOutput, T, logits);
    if (backward) slot.may_share = "logits";
  }
  return call;
}

Call linear_vae_loss(Choices& c, bool backward) {
  Call call;
  auto& a = begin(call, backward ? "molfuse_linear_vae_loss_backward" : "molfuse_linear_vae_loss_forward",
                  backward ? molfuse_linear_vae_loss_backward : molfuse_linear_vae_loss_forward);
  const int32_t T = draw_type(c);
  const int64_t B = draw_size(c, 10), L = draw_size(c, 30), C = std::max<int64_t>(1, draw_size(c, 60)), K = std::max<int64_t>(1, draw_size(c, 300));
  call.add("hidden", a.hidden, kInput, T, {B, L, C}).required = true;
  Slot& weight = call.add("weight", a.weight, kInput, T, {K, C});
  weight.required = weight.sole = true;
  const bool bias = c.one_in(2), gradient = c.one_in(2);
  if (bias) call.add("weight_bias", a.weight_bias, kInput, T, {K});
  add_loss(call, a, c, backward, T, B, L, K, gradient);
  if (!gradient || (!backward && a.reduction == MOLFUSE_REDUCTION_NONE)) {
    for (Slot& slot : call.slots) slot.required = slot.required && (slot.name != "row_lse" || !backward);
    return call;
  }
  call.add("grad_hidden", a.grad_hidden, kOutput, T, {B, L, C});
  if (c.one_in(2)) call.add("grad_weight", a.grad_weight, kOutput, wide(T), {K, C});
  if (bias && c.one_in(2)) call.add("grad_weight_bias", a.grad_weight_bias, kOutput, wide(T), {K});
  // With one gradient dropped by the fuzzer there may be none that needs it.
  for (Slot& slot : call.slots) slot.required = slot.required && (slot.name != "row_lse" || !backward);
  return call;
}

Call scale(Choices& c) {
  Call call;
  auto& a = begin(call, "molfuse_vae_loss_scale", molfuse_vae_loss_scale);
  const int32_t T = draw_type(c), G = either(c, T);
  const int64_t count = draw_size(c, 3000);
  Slot& gradient = call.add("gradient", a.gradient, kInput, G, {count});
  gradient.dense = gradient.required = true;
  Slot& out = call.add("out", a.out, kOutput, G, {count});
  out.dense = out.required = true;
  out.may_share = "gradient";
  call.add("stats", a.stats, kInput, wide(T), {MOLFUSE_VAE_STATS}).required = true;
  call.add("grad_stats", a.grad_stats, kInput, wide(T), {MOLFUSE_VAE_STATS}).required = true;
  a.reduction = static_cast<int32_t>(c.next(2));
  a.input_dtype = T;
  call.number("reduction", a.reduction);
  call.number("input_dtype", a.input_dtype);
  return call;
}

// ---- node features

Call latent_concat(Choices& c, bool backward) {
  struct Problem {
    molfuse_latent_concat_args args;
    molfuse_tensor layers[4], grad_layers[4];
  };
  Call call;
  auto p = std::make_shared<Problem>();
  std::memset(static_cast<void*>(p.get()), 0, sizeof *p);
  auto& a = p->args;
  a.struct_size = sizeof a;
  a.layers = p->layers;
  if (backward) a.grad_layers = p->grad_layers;
  a.num_layers = c.between(1, 4);
  call.function = backward ? "molfuse_latent_concat_backward" : "molfuse_latent_concat_forward";
  call.args = &a;
  call.args_bytes = sizeof a;
  call.keep = p;
  call.run = [backward](const void* args, const molfuse_execution* execution) {
    const auto* const typed = static_cast<const molfuse_latent_concat_args*>(args);
    return backward ? molfuse_latent_concat_backward(typed, execution) : molfuse_latent_concat_forward(typed, execution);
  };
  const int32_t T = draw_type(c);
  const int64_t V = draw_size(c, 300), B = draw_groups(c, V);
  const bool pooled = c.one_in(4);
  int64_t width = 0;
  for (int64_t l = 0; l < a.num_layers; ++l) {
    const int64_t columns = draw_size(c, 300);
    width += columns;
    Slot& layer = call.add("layers", p->layers[l], kInput, T, {V, columns});
    layer.required = !backward;
    layer.sizes_only = backward && c.one_in(2);
    if (backward && !c.one_in(4)) call.add("grad_layers", p->grad_layers[l], kOutput, T, {V, columns});
  }
  if (!pooled) call.add("graph_ptr", a.graph_ptr, kIndex, draw_index_type(c), {B + 1}).index = ascending(c, B, V);
  a.column_offset = c.one_in(3) ? c.between(0, 5) : 0;
  call.number("column_offset", a.column_offset);
  const Sizes rows = {pooled ? V : B, width + a.column_offset + (c.one_in(3) ? 3 : 0)};
  if (backward) {
    call.add("grad_out", a.grad_out, kInput, T, rows).required = true;
  } else {
    call.add("out", a.out, kOutput, T, rows).required = true;
  }
  return call;
}

Call encoder_epilogue(Choices& c, bool backward) {
  Call call;
  auto& a = begin(call, backward ? "molfuse_encoder_epilogue_backward" : "molfuse_encoder_epilogue_forward",
                  backward ? molfuse_encoder_epilogue_backward : molfuse_encoder_epilogue_forward);
  const int32_t T = draw_type(c), S = wide(T);
  const int64_t V = draw_size(c, 100), C = draw_size(c, 150);
  a.training = V != 1 && c.one_in(2);
  a.momentum = 0.1;
  a.epsilon = 1e-5;
  a.dropout_p = draw_probability(c);
  a.philox = {c.next(9), c.next(9)};
  call.number("momentum", a.momentum);
  call.number("epsilon", a.epsilon);
  call.number("dropout_p", a.dropout_p);
  call.number("training", a.training);
  auto rows = [&](const char* name, molfuse_tensor& at, Role role, bool required) -> Slot& {
    Slot& slot = call.add(name, at, role, T, {V, C});
    slot.dense = true;
    slot.required = required;
    return slot;
  };
  auto line = [&](const char* name, molfuse_tensor& at, Role role, int32_t dtype, bool required) { call.add(name, at, role, dtype, {C}).required = required; };
  rows("input", a.input, kInput, true);
  if (c.one_in(2)) line("weight", a.weight, kInput, either(c, T), false);
  if (c.one_in(2)) line("bias", a.bias, kInput, either(c, T), false);
  const int64_t B = draw_groups(c, V), offset = c.one_in(3) ? c.between(0, 5) : 0;
  const bool pool = c.one_in(2);
  if (pool) {
    call.add("graph_ptr", a.graph_ptr, kIndex, draw_index_type(c), {B + 1}).index = ascending(c, B, V);
    a.column_offset = offset;
    call.number("column_offset", a.column_offset);
  }
  auto slot_of_row = [&](const char* name, molfuse_tensor& at, Role role) {
    Slot& slot = call.add(name, at, role, T, {B, C + offset + (c.one_in(3) ? 3 : 0)});
    slot.dense = true;
  };
  line("save_mean", a.save_mean, backward ? kInput : kOutput, S, true);
  line("save_rstd", a.save_rstd, backward ? kInput : kOutput, S, true);
  if (backward) {
    const bool from_out = !pool || c.one_in(2);
    if (from_out) rows("grad_out", a.grad_out, kInput, !pool);
    if (pool) slot_of_row("grad_pooled", a.grad_pooled, kInput);
    if (!c.one_in(4)) {
      Slot& slot = rows("grad_input", a.grad_input, kOutput, false);
      if (from_out) slot.may_share = "grad_out";
    }
    if (c.one_in(2)) line("grad_weight", a.grad_weight, kOutput, S, false);
    if (c.one_in(2)) line("grad_bias", a.grad_bias, kOutput, S, false);
    return call;
  }
  if (c.one_in(2)) {
    rows("residual", a.residual, kInput, false);
    rows("sum", a.sum, kOutput, false).may_share = c.one_in(2) ? "residual" : "input";
  }
  if (a.training == 0 || c.one_in(2)) {
    line("running_mean", a.running_mean, a.training != 0 ? kUpdated : kInput, S, a.training == 0);
    line("running_var", a.running_var, a.training != 0 ? kUpdated : kInput, S, a.training == 0);
    call.settle = [&a](Call& made) {
      for (const char* name : {"running_mean", "running_var"}) made.find(name)->role = a.training != 0 ? kUpdated : kInput;
    };
  }
  rows("out", a.out, kOutput, true);
  if (pool) slot_of_row("pooled", a.pooled, kOutput);
  return call;
}

Call reparameterize(Choices& c, bool backward) {
  Call call;
  auto& a = begin(call, backward ? "molfuse_reparameterize_backward" : "molfuse_reparameterize_forward",
                  backward ? molfuse_reparameterize_backward : molfuse_reparameterize_forward);
  const int32_t T = draw_type(c);
  const Sizes sizes = {draw_size(c), draw_size(c)};
  a.philox = {c.next(9), c.next(9)};
  call.add("mean", a.mean, kInput, T, sizes).required = true;
  call.add("log_var", a.log_var, kInput, T, sizes).required = true;
  if (!backward) {
    call.add("z", a.z, kOutput, T, sizes).required = true;
    return call;
  }
  call.add("grad_z", a.grad_z, kInput, T, sizes).required = true;
  if (!c.one_in(3)) call.add("grad_mean", a.grad_mean, kOutput, T, sizes);
  if (!c.one_in(3)) call.add("grad_log_var", a.grad_log_var, kOutput, T, sizes);
  return call;
}

}  // namespace

Call draw_call(Choices& c) {
  switch (c.next(18)) {
    case 0: return attention(c, false);
    case 1: return attention(c, true);
    case 2: return decode(c);
    case 3: return graph_attention(c, false);
    case 4: return graph_attention(c, true);
    case 5: return transpose(c);
    case 6: return from_edges(c);
    case 7: return vae_loss(c, false);
    case 8: return vae_loss(c, true);
    case 9: return linear_vae_loss(c, false);
    case 10: return linear_vae_loss(c, true);
    case 11: return scale(c);
    case 12: return latent_concat(c, false);
    case 13: return latent_concat(c, true);
    case 14: return encoder_epilogue(c, false);
    case 15: return encoder_epilogue(c, true);
    case 16: return reparameterize(c, false);
    default: return reparameterize(c, true);
  }
}

}  // namespace molfuse_fuzz

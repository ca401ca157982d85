// SPDX-License-Identifier: Apache-2.0
// molfuse::attention, attention_varlen and attention_decode.
// Autocast: query, key and value in the autocast type; bias and relative_bias stay as they are (the kernels read f32 biases
// beside f16 and bf16 queries, and their gradients are f32).
#include "molfuse/attention.h"

#include <array>
#include <limits>

#include "torch/common.h"

namespace molfuse::torch_ops {
namespace {

/// What both directions take besides query, key, value and the biases.
struct AttentionCall {
  OptionalTensor key_lengths;
  OptionalTensor cu_seqlens_q;
  OptionalTensor cu_seqlens_k;
  c10::SymInt max_seqlen_q = 0;
  c10::SymInt max_seqlen_k = 0;
  bool causal = false;
  std::optional<double> scale;
  double dropout_p = 0;
  Randomness random;
};

using AttentionForwardSignature = std::tuple<Tensor, Tensor>(
    const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& bias, const OptionalTensor& relative_bias,
    const OptionalTensor& key_lengths, const OptionalTensor& cu_seqlens_q, const OptionalTensor& cu_seqlens_k,
    c10::SymInt max_seqlen_q, c10::SymInt max_seqlen_k, bool causal, std::optional<double> scale, double dropout_p, c10::SymInt seed,
    c10::SymInt offset, const OptionalTensor& drawn_seed);

using AttentionGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using AttentionBackwardSignature = AttentionGradients(
    const Tensor& grad_out, const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& bias,
    const OptionalTensor& relative_bias, const OptionalTensor& key_lengths, const OptionalTensor& cu_seqlens_q,
    const OptionalTensor& cu_seqlens_k, c10::SymInt max_seqlen_q, c10::SymInt max_seqlen_k, const Tensor& out, const Tensor& lse,
    bool causal, std::optional<double> scale, double dropout_p, c10::SymInt seed, c10::SymInt offset, const OptionalTensor& drawn_seed,
    std::array<bool, 5> output_mask);

void check_relative_bias(const OptionalTensor& relative_bias, const Tensor& query, const c10::SymInt& heads) {
  if (!has(relative_bias)) return;
  check_dims("relative_bias", *relative_bias, 2, "[H, 2R+1]");
  check_size("relative_bias", *relative_bias, 0, heads, "[H, 2R+1]");
  MOLFUSE_CHECK(relative_bias->sym_size(1) % 2 == 1, "relative_bias: expected shape [H, 2R+1] with an odd second size, got ",
                relative_bias->sym_sizes());
  check_type_or_statistics("relative_bias", *relative_bias, query.scalar_type());
  check_same_device("relative_bias", *relative_bias, "query", query);
}

void check_bias(const Tensor& bias, const Tensor& query, const Tensor& key) {
  check_defined("bias", bias);
  const std::array<c10::SymInt, 4> full = {query.sym_size(0), query.sym_size(1), query.sym_size(2), key.sym_size(2)};
  bool fits = bias.dim() <= 4;
  for (int64_t d = 0; fits && d < bias.dim(); ++d) {
    const auto size = bias.sym_size(d);
    fits = size == 1 || size == full[4 - bias.dim() + d];
  }
  MOLFUSE_CHECK(fits, "bias: expected a shape broadcastable to [B, H, N, M] = [", full[0], ", ", full[1], ", ", full[2], ", ",
                full[3], "], got ", bias.sym_sizes());
  check_type_or_statistics("bias", bias, query.scalar_type());
  check_same_device("bias", bias, "query", query);
}

void check_cu_seqlens(const char* name, const OptionalTensor& cu_seqlens, const Tensor& query) {
  MOLFUSE_CHECK(has(cu_seqlens), name, ": expected int32 [B+1], got none");
  check_dims(name, *cu_seqlens, 1, "[B+1]");
  MOLFUSE_CHECK(cu_seqlens->scalar_type() == at::kInt, name, ": expected element type int32, got ", cu_seqlens->scalar_type());
  MOLFUSE_CHECK(cu_seqlens->sym_size(0) >= 1, name, ": expected shape [B+1] with at least one entry, got ", cu_seqlens->sym_sizes());
  check_same_device(name, *cu_seqlens, "query", query);
}

void check_attention(const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& bias,
                     const OptionalTensor& relative_bias, const AttentionCall& call) {
  const bool packed = has(call.cu_seqlens_q) || has(call.cu_seqlens_k);
  const int64_t dims = packed ? 3 : 4;
  check_dims("query", query, dims, packed ? "[Tq, H, D]" : "[B, H, N, D]");
  check_dims("key", key, dims, packed ? "[Tk, H, D]" : "[B, H, M, D]");
  check_float("query", query);
  check_same_type("key", key, "query", query);
  check_same_type("value", value, "query", query);
  check_same_sizes("value", value, "key", key);
  const auto head_size = query.sym_size(-1);
  MOLFUSE_CHECK(head_size >= 8 && head_size <= 256 && head_size % 8 == 0,
                "query: expected a last dimension D that is a multiple of 8 in 8..256, got ", query.sym_sizes());
  check_size("key", key, -1, head_size, packed ? "[Tk, H, D]" : "[B, H, M, D]");
  check_size("key", key, 1, query.sym_size(1), packed ? "[Tk, H, D]" : "[B, H, M, D]");
  check_same_device("key", key, "query", query);
  check_same_device("value", value, "query", query);
  check_relative_bias(relative_bias, query, query.sym_size(1));
  check_probability("dropout_p", call.dropout_p);
  if (packed) {
    MOLFUSE_CHECK(!has(bias), "bias: not taken with packed sequences (cu_seqlens)");
    MOLFUSE_CHECK(!has(call.key_lengths), "key_lengths: not taken with packed sequences (cu_seqlens)");
    check_cu_seqlens("cu_seqlens_q", call.cu_seqlens_q, query);
    check_cu_seqlens("cu_seqlens_k", call.cu_seqlens_k, query);
    check_same_sizes("cu_seqlens_k", *call.cu_seqlens_k, "cu_seqlens_q", *call.cu_seqlens_q);
    MOLFUSE_CHECK(call.max_seqlen_q >= 0, "max_seqlen_q: expected at least 0, got ", call.max_seqlen_q);
    MOLFUSE_CHECK(call.max_seqlen_k >= 0, "max_seqlen_k: expected at least 0, got ", call.max_seqlen_k);
    return;
  }
  check_size("key", key, 0, query.sym_size(0), "[B, H, M, D]");
  if (has(bias)) check_bias(*bias, query, key);
  if (has(call.key_lengths)) {
    check_dims("key_lengths", *call.key_lengths, 1, "[B]");
    check_size("key_lengths", *call.key_lengths, 0, query.sym_size(0), "[B]");
    check_index("key_lengths", *call.key_lengths);
    check_same_device("key_lengths", *call.key_lengths, "query", query);
  }
}

/// lse [B,H,N], or [H,Tq] for packed sequences.
Tensor empty_lse(const Tensor& query) {
  const auto options = query.options().dtype(statistics_type(query.scalar_type()));
  if (query.dim() == 3) return at::empty_symint({query.sym_size(1), query.sym_size(0)}, options);
  return at::empty_symint(query.sym_sizes().slice(0, 3), options);
}

molfuse_attention_args attention_args(const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& bias,
                                      const OptionalTensor& relative_bias, const AttentionCall& call) {
  molfuse_attention_args args{};
  args.struct_size = sizeof(args);
  args.query = view("query", query);
  args.key = view("key", key);
  args.value = view("value", value);
  args.bias = view("bias", bias, 4);
  args.relative_bias = view("relative_bias", relative_bias);
  args.key_lengths = view("key_lengths", call.key_lengths);
  args.cu_seqlens_q = view("cu_seqlens_q", call.cu_seqlens_q);
  args.cu_seqlens_k = view("cu_seqlens_k", call.cu_seqlens_k);
  args.max_seqlen_q = call.max_seqlen_q.expect_int();
  args.max_seqlen_k = call.max_seqlen_k.expect_int();
  args.causal = call.causal ? 1 : 0;
  args.has_scale = call.scale.has_value() ? 1 : 0;
  args.scale = call.scale.value_or(0.0);
  args.dropout_p = call.dropout_p;
  args.philox = philox_of(call.random.seed.expect_int(), call.random.offset.expect_int(), call.random.drawn_seed);
  return args;
}

std::tuple<Tensor, Tensor> attention_forward_meta(const Tensor& query, const Tensor& key, const Tensor& value,
                                                  const OptionalTensor& bias, const OptionalTensor& relative_bias,
                                                  const OptionalTensor& key_lengths, const OptionalTensor& cu_seqlens_q,
                                                  const OptionalTensor& cu_seqlens_k, c10::SymInt max_seqlen_q,
                                                  c10::SymInt max_seqlen_k, bool causal, std::optional<double> scale,
                                                  double dropout_p, c10::SymInt, c10::SymInt, const OptionalTensor&) {
  check_attention(query, key, value, bias, relative_bias,
                  {key_lengths, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, scale, dropout_p, {}});
  return {at::empty_like(rows_contiguous(query)), empty_lse(query)};
}

std::tuple<Tensor, Tensor> attention_forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                             const OptionalTensor& bias, const OptionalTensor& relative_bias,
                                             const OptionalTensor& key_lengths, const OptionalTensor& cu_seqlens_q,
                                             const OptionalTensor& cu_seqlens_k, int64_t max_seqlen_q, int64_t max_seqlen_k,
                                             bool causal, std::optional<double> scale, double dropout_p, int64_t seed,
                                             int64_t offset, const OptionalTensor& drawn_seed) {
  const AttentionCall call{key_lengths, cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
                           max_seqlen_k, causal,      scale,        dropout_p,   {seed, offset, drawn_seed}};
  check_attention(query, key, value, bias, relative_bias, call);
  const Tensor q = rows_contiguous(query), k = rows_contiguous(key), v = rows_contiguous(value);
  Tensor out = at::empty_like(q);
  Tensor lse = empty_lse(q);
  if (out.numel() == 0) return {out, lse};
  if (k.numel() == 0) {
    lse.fill_(-std::numeric_limits<double>::infinity());
    return {out.zero_(), lse};
  }
  molfuse_attention_args args = attention_args(q, k, v, bias, relative_bias, call);
  args.out = view("out", out);
  args.lse = view("lse", lse);
  const Execution execution(q);
  check_status(molfuse_attention_forward(&args, execution.get()), "attention");
  return {out, lse};
}

AttentionGradients attention_backward_meta(const Tensor&, const Tensor& query, const Tensor& key, const Tensor& value,
                                           const OptionalTensor& bias, const OptionalTensor& relative_bias,
                                           const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, c10::SymInt,
                                           c10::SymInt, const Tensor&, const Tensor&, bool, std::optional<double>, double, c10::SymInt,
                                           c10::SymInt, const OptionalTensor&, std::array<bool, 5> output_mask) {
  const auto statistics = query.options().dtype(statistics_type(query.scalar_type()));
  const auto like = [](const Tensor& input) { return at::empty_like(rows_contiguous(input)); };
  return {output_mask[0] ? like(query) : Tensor(), output_mask[1] ? like(key) : Tensor(),
          output_mask[2] ? like(value) : Tensor(),
          output_mask[3] && has(bias) ? at::empty_symint(bias->sym_sizes(), statistics) : Tensor(),
          output_mask[4] && has(relative_bias) ? at::empty_symint(relative_bias->sym_sizes(), statistics) : Tensor()};
}

AttentionGradients attention_backward(const Tensor& grad_out, const Tensor& query, const Tensor& key, const Tensor& value,
                                      const OptionalTensor& bias, const OptionalTensor& relative_bias,
                                      const OptionalTensor& key_lengths, const OptionalTensor& cu_seqlens_q,
                                      const OptionalTensor& cu_seqlens_k, int64_t max_seqlen_q, int64_t max_seqlen_k,
                                      const Tensor& out, const Tensor& lse, bool causal, std::optional<double> scale,
                                      double dropout_p, int64_t seed, int64_t offset, const OptionalTensor& drawn_seed,
                                      std::array<bool, 5> output_mask) {
  const AttentionCall call{key_lengths, cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
                           max_seqlen_k, causal,      scale,        dropout_p,   {seed, offset, drawn_seed}};
  check_attention(query, key, value, bias, relative_bias, call);
  check_same_sizes("grad_out", grad_out, "query", query);
  check_same_type("grad_out", grad_out, "query", query);
  check_same_device("grad_out", grad_out, "query", query);
  check_same_sizes("out", out, "query", query);
  check_defined("lse", lse);
  const Tensor q = rows_contiguous(query), k = rows_contiguous(key), v = rows_contiguous(value);
  const Tensor go = rows_contiguous(grad_out), o = rows_contiguous(out);
  const auto statistics = q.options().dtype(statistics_type(q.scalar_type()));
  Tensor grad_query = output_mask[0] ? at::empty_like(q) : Tensor();
  Tensor grad_key = output_mask[1] ? at::empty_like(k) : Tensor();
  Tensor grad_value = output_mask[2] ? at::empty_like(v) : Tensor();
  Tensor grad_bias = output_mask[3] && has(bias) ? at::empty(bias->sizes(), statistics) : Tensor();
  Tensor grad_relative_bias =
      output_mask[4] && has(relative_bias) ? at::empty(relative_bias->sizes(), statistics) : Tensor();
  if (q.numel() == 0 || k.numel() == 0) {
    for (Tensor* gradient : {&grad_query, &grad_key, &grad_value, &grad_bias, &grad_relative_bias}) {
      if (gradient->defined()) gradient->zero_();
    }
    return {grad_query, grad_key, grad_value, grad_bias, grad_relative_bias};
  }
  molfuse_attention_args args = attention_args(q, k, v, bias, relative_bias, call);
  args.out = view("out", o);
  args.lse = view("lse", lse);
  args.grad_out = view("grad_out", go);
  if (grad_query.defined()) args.grad_query = view("grad_query", grad_query);
  if (grad_key.defined()) args.grad_key = view("grad_key", grad_key);
  if (grad_value.defined()) args.grad_value = view("grad_value", grad_value);
  if (grad_bias.defined()) args.grad_bias = view("grad_bias", grad_bias, 4);
  if (grad_relative_bias.defined()) args.grad_relative_bias = view("grad_relative_bias", grad_relative_bias);
  const Execution execution(q);
  check_status(molfuse_attention_backward(&args, execution.get()), "attention backward");
  return {grad_query, grad_key, grad_value, grad_bias, grad_relative_bias};
}

std::tuple<Tensor, Tensor> call_forward(const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& bias,
                                        const OptionalTensor& relative_bias, const AttentionCall& call) {
  static const auto op = find_operator<AttentionForwardSignature>("molfuse::_attention_forward");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(query, key, value, bias, relative_bias, call.key_lengths, call.cu_seqlens_q, call.cu_seqlens_k,
                 call.max_seqlen_q, call.max_seqlen_k, call.causal, call.scale, call.dropout_p, call.random.seed, call.random.offset,
                 call.random.drawn_seed);
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& query, const Tensor& key, const Tensor& value,
                        const OptionalTensor& bias, const OptionalTensor& relative_bias, const AttentionCall& call) {
    auto [out, lse] = call_forward(query, key, value, bias, relative_bias, call);
    ctx->save_for_backward({query, key, value, out, lse, value_or_undefined(bias), value_or_undefined(relative_bias),
                            value_or_undefined(call.key_lengths), value_or_undefined(call.cu_seqlens_q),
                            value_or_undefined(call.cu_seqlens_k), value_or_undefined(call.random.drawn_seed)});
    ctx->set_materialize_grads(false);
    auto& saved = ctx->saved_data;
    saved["max_seqlen_q"] = call.max_seqlen_q;
    saved["max_seqlen_k"] = call.max_seqlen_k;
    saved["causal"] = call.causal;
    saved["seed"] = call.random.seed;
    saved["offset"] = call.random.offset;
    saved["scale"] = call.scale;
    saved["dropout_p"] = call.dropout_p;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    if (!grads[0].defined()) return variable_list(6);
    const auto saved = ctx->get_saved_variables();
    const OptionalTensor bias = optional_of(saved[5]), relative_bias = optional_of(saved[6]);
    auto& data = ctx->saved_data;
    // Absent optional inputs have no edge, so the positions after them move up.
    size_t edge = 3;
    const bool needs_bias = has(bias) && ctx->needs_input_grad(edge++);
    const bool needs_relative_bias = has(relative_bias) && ctx->needs_input_grad(edge);
    static const auto op = find_operator<AttentionBackwardSignature>("molfuse::_attention_backward");
    variable_list gradients(6);
    {
      at::AutoDispatchBelowADInplaceOrView guard;
      std::tie(gradients[0], gradients[1], gradients[2], gradients[3], gradients[4]) =
          op.call(grads[0], saved[0], saved[1], saved[2], bias, relative_bias, optional_of(saved[7]), optional_of(saved[8]),
                  optional_of(saved[9]), data["max_seqlen_q"].toSymInt(), data["max_seqlen_k"].toSymInt(), saved[3], saved[4],
                  data["causal"].toBool(), data["scale"].toOptional<double>(), data["dropout_p"].toDouble(), data["seed"].toSymInt(),
                  data["offset"].toSymInt(), optional_of(saved[10]),
                  {ctx->needs_input_grad(0), ctx->needs_input_grad(1), ctx->needs_input_grad(2), needs_bias,
                   needs_relative_bias});
      if (needs_bias) gradients[3] = gradients[3].to(bias->scalar_type());
      if (needs_relative_bias) gradients[4] = gradients[4].to(relative_bias->scalar_type());
    }
    refuse_double_backward("attention", {grads[0], saved[0], saved[1], saved[2], saved[5], saved[6]}, gradients);
    return gradients;
  }
};

Tensor attention_with_grad(const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& bias,
                           const OptionalTensor& relative_bias, const AttentionCall& call) {
  refuse_forward_mode("attention", query, key, value, bias, relative_bias);
  if (c10::GradMode::is_enabled() && (query.requires_grad() || key.requires_grad() || value.requires_grad() ||
                                      requires_grad(bias) || requires_grad(relative_bias))) {
    return AttentionFunction::apply(query, key, value, bias, relative_bias, call);
  }
  return std::get<0>(call_forward(query, key, value, bias, relative_bias, call));
}

Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& bias,
                 const OptionalTensor& relative_bias, const OptionalTensor& key_lengths, bool causal,
                 std::optional<double> scale, double dropout_p, std::optional<c10::SymInt> seed, c10::SymInt offset) {
  check_defined("query", query);
  check_probability("dropout_p", dropout_p);
  AttentionCall call;
  call.key_lengths = key_lengths;
  call.causal = causal;
  call.scale = scale;
  call.dropout_p = dropout_p;
  call.random = randomness_of(query, seed, offset, dropout_p > 0);
  check_attention(query, key, value, bias, relative_bias, call);
  return attention_with_grad(query, key, value, bias, relative_bias, call);
}

Tensor attention_varlen(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& cu_seqlens_q,
                        const Tensor& cu_seqlens_k, c10::SymInt max_seqlen_q, c10::SymInt max_seqlen_k,
                        const OptionalTensor& relative_bias, bool causal, std::optional<double> scale, double dropout_p,
                        std::optional<c10::SymInt> seed, c10::SymInt offset) {
  check_defined("query", query);
  check_probability("dropout_p", dropout_p);
  check_defined("cu_seqlens_q", cu_seqlens_q);
  check_defined("cu_seqlens_k", cu_seqlens_k);
  const AttentionCall call{std::nullopt, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
                           causal,       scale,        dropout_p,    randomness_of(query, seed, offset, dropout_p > 0)};
  check_attention(query, key, value, std::nullopt, relative_bias, call);
  return attention_with_grad(query, key, value, std::nullopt, relative_bias, call);
}

using AttentionSignature = decltype(attention);
using AttentionVarlenSignature = decltype(attention_varlen);

Tensor attention_autocast(const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& bias,
                          const OptionalTensor& relative_bias, const OptionalTensor& key_lengths, bool causal,
                          std::optional<double> scale, double dropout_p, std::optional<c10::SymInt> seed, c10::SymInt offset) {
  const auto device = autocast_device(query);
  const WithoutAutocast guard(device);
  static const auto op = find_operator<AttentionSignature>("molfuse::attention");
  return op.call(autocast_lower(query, device), autocast_lower(key, device), autocast_lower(value, device), bias, relative_bias,
                 key_lengths, causal, scale, dropout_p, seed, offset);
}

Tensor attention_varlen_autocast(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& cu_seqlens_q,
                                 const Tensor& cu_seqlens_k, c10::SymInt max_seqlen_q, c10::SymInt max_seqlen_k,
                                 const OptionalTensor& relative_bias, bool causal, std::optional<double> scale,
                                 double dropout_p, std::optional<c10::SymInt> seed, c10::SymInt offset) {
  const auto device = autocast_device(query);
  const WithoutAutocast guard(device);
  static const auto op = find_operator<AttentionVarlenSignature>("molfuse::attention_varlen");
  return op.call(autocast_lower(query, device), autocast_lower(key, device), autocast_lower(value, device), cu_seqlens_q,
                 cu_seqlens_k, max_seqlen_q, max_seqlen_k, relative_bias, causal, scale, dropout_p, seed, offset);
}

// ---- generation --------------------------------------------------------------------------------------------------------

void check_decode(const Tensor& query, const Tensor& key_cache, const Tensor& value_cache, const Tensor& lengths,
                  const OptionalTensor& key_new, const OptionalTensor& value_new, const OptionalTensor& relative_bias) {
  check_dims("query", query, 3, "[B, H, D]");
  check_float("query", query);
  const auto head_size = query.sym_size(2);
  MOLFUSE_CHECK(head_size >= 8 && head_size <= 256 && head_size % 8 == 0,
                "query: expected a last dimension D that is a multiple of 8 in 8..256, got ", query.sym_sizes());
  check_dims("key_cache", key_cache, 4, "[B, H, capacity, D]");
  check_size("key_cache", key_cache, 0, query.sym_size(0), "[B, H, capacity, D]");
  check_size("key_cache", key_cache, 1, query.sym_size(1), "[B, H, capacity, D]");
  check_size("key_cache", key_cache, 3, head_size, "[B, H, capacity, D]");
  check_same_type("key_cache", key_cache, "query", query);
  check_same_device("key_cache", key_cache, "query", query);
  check_same_sizes("value_cache", value_cache, "key_cache", key_cache);
  check_same_type("value_cache", value_cache, "query", query);
  check_same_device("value_cache", value_cache, "query", query);
  check_dims("lengths", lengths, 1, "[B]");
  check_size("lengths", lengths, 0, query.sym_size(0), "[B]");
  check_index("lengths", lengths);
  check_same_device("lengths", lengths, "query", query);
  MOLFUSE_CHECK(has(key_new) == has(value_new), "key_new and value_new: expected both or neither");
  if (has(key_new)) {
    check_same_sizes("key_new", *key_new, "query", query);
    check_same_type("key_new", *key_new, "query", query);
    check_same_device("key_new", *key_new, "query", query);
    check_same_sizes("value_new", *value_new, "query", query);
    check_same_type("value_new", *value_new, "query", query);
    check_same_device("value_new", *value_new, "query", query);
    // Only then the caches are written.
    check_no_overlap("value_cache", value_cache, "key_cache", key_cache);
    const auto check_input = [&](const char* name, const Tensor& tensor) {
      check_no_overlap("key_cache", key_cache, name, tensor);
      check_no_overlap("value_cache", value_cache, name, tensor);
    };
    check_input("query", query);
    check_input("key_new", *key_new);
    check_input("value_new", *value_new);
  }
  check_relative_bias(relative_bias, query, query.sym_size(1));
}

Tensor attention_decode_meta(const Tensor& query, Tensor key_cache, Tensor value_cache, const Tensor& lengths,
                             const OptionalTensor& key_new, const OptionalTensor& value_new,
                             const OptionalTensor& relative_bias, std::optional<double>) {
  check_decode(query, key_cache, value_cache, lengths, key_new, value_new, relative_bias);
  return at::empty_like(query);
}

Tensor attention_decode(const Tensor& query, Tensor key_cache, Tensor value_cache, const Tensor& lengths,
                        const OptionalTensor& key_new, const OptionalTensor& value_new, const OptionalTensor& relative_bias,
                        std::optional<double> scale) {
  check_decode(query, key_cache, value_cache, lengths, key_new, value_new, relative_bias);
  Tensor out = at::empty_like(query);
  if (out.numel() == 0) return out;
  molfuse_attention_decode_args args{};
  args.struct_size = sizeof(args);
  args.query = view("query", query);
  args.key_cache = view("key_cache", key_cache);
  args.value_cache = view("value_cache", value_cache);
  args.key_new = view("key_new", key_new);
  args.value_new = view("value_new", value_new);
  args.lengths = view("lengths", lengths);
  args.relative_bias = view("relative_bias", relative_bias);
  args.has_scale = scale.has_value() ? 1 : 0;
  args.scale = scale.value_or(0.0);
  args.out = view("out", out);
  const Execution execution(query);
  check_status(molfuse_attention_decode(&args, execution.get()), "attention_decode");
  return out;
}

using AttentionDecodeSignature = decltype(attention_decode);

/// Generation has no gradient; asking for one is a mistake worth an error rather than a silent constant.
Tensor attention_decode_autograd(const Tensor& query, Tensor key_cache, Tensor value_cache, const Tensor& lengths,
                                 const OptionalTensor& key_new, const OptionalTensor& value_new,
                                 const OptionalTensor& relative_bias, std::optional<double> scale) {
  MOLFUSE_CHECK(!c10::GradMode::is_enabled() || !(query.requires_grad() || key_cache.requires_grad() ||
                                                  value_cache.requires_grad() || requires_grad(key_new) ||
                                                  requires_grad(value_new) || requires_grad(relative_bias)),
                "attention_decode has no gradient: call it under no_grad, or detach its inputs");
  refuse_forward_mode("attention_decode", query, key_cache, value_cache, key_new, value_new, relative_bias);
  static const auto op = find_operator<AttentionDecodeSignature>("molfuse::attention_decode");
  Tensor out;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    out = op.call(query, key_cache, value_cache, lengths, key_new, value_new, relative_bias, scale);
  }
  if (has(key_new)) {
    for (const Tensor& cache : {key_cache, value_cache}) {
      // Inference tensors have no version: nothing can have saved them for a backward pass.
      if (!cache.is_inference()) torch::autograd::impl::bump_version(cache);
    }
  }
  return out;
}

/// The caches say which type generation runs in.
Tensor attention_decode_autocast(const Tensor& query, Tensor key_cache, Tensor value_cache, const Tensor& lengths,
                                 const OptionalTensor& key_new, const OptionalTensor& value_new,
                                 const OptionalTensor& relative_bias, std::optional<double> scale) {
  const WithoutAutocast guard(autocast_device(query));
  check_defined("key_cache", key_cache);
  const auto type = key_cache.scalar_type();
  const auto cast = [type](const OptionalTensor& tensor) { return has(tensor) ? OptionalTensor(tensor->to(type)) : tensor; };
  static const auto op = find_operator<AttentionDecodeSignature>("molfuse::attention_decode");
  return op.call(query.to(type), key_cache, value_cache, lengths, cast(key_new), cast(value_new), relative_bias, scale);
}

TORCH_LIBRARY_FRAGMENT(molfuse, m) {
  m.def(
      "attention(Tensor query, Tensor key, Tensor value, Tensor? bias=None, Tensor? relative_bias=None, "
      "Tensor? key_lengths=None, bool causal=False, float? scale=None, float dropout_p=0.0, SymInt? seed=None, SymInt offset=0) "
      "-> Tensor",
      TORCH_FN(attention));
  m.def(
      "attention_varlen(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens_q, Tensor cu_seqlens_k, SymInt max_seqlen_q, "
      "SymInt max_seqlen_k, Tensor? relative_bias=None, bool causal=False, float? scale=None, float dropout_p=0.0, "
      "SymInt? seed=None, SymInt offset=0) -> Tensor",
      TORCH_FN(attention_varlen));
  m.def(
      "attention_decode(Tensor query, Tensor(a!) key_cache, Tensor(b!) value_cache, Tensor lengths, Tensor? key_new=None, "
      "Tensor? value_new=None, Tensor? relative_bias=None, float? scale=None) -> Tensor");
  m.def(
      "_attention_forward(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? relative_bias, Tensor? key_lengths, "
      "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, SymInt max_seqlen_q, SymInt max_seqlen_k, bool causal, float? scale, "
      "float dropout_p, SymInt seed, SymInt offset, Tensor? drawn_seed) -> (Tensor out, Tensor lse)");
  m.def(
      "_attention_backward(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? relative_bias, "
      "Tensor? key_lengths, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, SymInt max_seqlen_q, SymInt max_seqlen_k, Tensor out, "
      "Tensor lse, bool causal, float? scale, float dropout_p, SymInt seed, SymInt offset, Tensor? drawn_seed, bool[5] output_mask) -> "
      "(Tensor grad_query, Tensor grad_key, Tensor grad_value, Tensor grad_bias, Tensor grad_relative_bias)");
}

void register_kernels(torch::Library& m) {
  m.impl("_attention_forward", TORCH_FN(attention_forward));
  m.impl("_attention_backward", TORCH_FN(attention_backward));
  m.impl("attention_decode", TORCH_FN(attention_decode));
}
TORCH_LIBRARY_IMPL(molfuse, CPU, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, CUDA, m) { register_kernels(m); }
TORCH_LIBRARY_IMPL(molfuse, Meta, m) {
  m.impl("_attention_forward", TORCH_FN(attention_forward_meta));
  m.impl("_attention_backward", TORCH_FN(attention_backward_meta));
  m.impl("attention_decode", TORCH_FN(attention_decode_meta));
}
TORCH_LIBRARY_IMPL(molfuse, Autograd, m) { m.impl("attention_decode", TORCH_FN(attention_decode_autograd)); }

void register_autocast(torch::Library& m) {
  m.impl("attention", TORCH_FN(attention_autocast));
  m.impl("attention_varlen", TORCH_FN(attention_varlen_autocast));
  m.impl("attention_decode", TORCH_FN(attention_decode_autocast));
}
TORCH_LIBRARY_IMPL(molfuse, AutocastCPU, m) { register_autocast(m); }
TORCH_LIBRARY_IMPL(molfuse, AutocastCUDA, m) { register_autocast(m); }

}  // namespace
}  // namespace molfuse::torch_ops

namespace molfuse::torch_api {

at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& relative_bias,
                     const std::optional<at::Tensor>& key_lengths, bool causal, std::optional<double> scale,
                     double dropout_p, std::optional<int64_t> seed, int64_t offset) {
  static const auto op = torch_ops::find_operator<torch_ops::AttentionSignature>("molfuse::attention");
  return op.call(query, key, value, bias, relative_bias, key_lengths, causal, scale, dropout_p, seed, offset);
}

at::Tensor attention_varlen(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
                            int64_t max_seqlen_k, const std::optional<at::Tensor>& relative_bias, bool causal,
                            std::optional<double> scale, double dropout_p, std::optional<int64_t> seed, int64_t offset) {
  static const auto op = torch_ops::find_operator<torch_ops::AttentionVarlenSignature>("molfuse::attention_varlen");
  return op.call(query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, relative_bias, causal, scale,
                 dropout_p, seed, offset);
}

at::Tensor attention_decode(const at::Tensor& query, at::Tensor key_cache, at::Tensor value_cache, const at::Tensor& lengths,
                            const std::optional<at::Tensor>& key_new, const std::optional<at::Tensor>& value_new,
                            const std::optional<at::Tensor>& relative_bias, std::optional<double> scale) {
  static const auto op = torch_ops::find_operator<torch_ops::AttentionDecodeSignature>("molfuse::attention_decode");
  return op.call(query, std::move(key_cache), std::move(value_cache), lengths, key_new, value_new, relative_bias, scale);
}

}  // namespace molfuse::torch_api

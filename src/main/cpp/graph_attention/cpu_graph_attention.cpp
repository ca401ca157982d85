// SPDX-License-Identifier: Apache-2.0
// Attention over edges on the CPU. A row is one head of one node. By target: scores of its in-edges a chunk at a time, softmax, then
// a weighted sum of the sources' rows held in registers. By source: weighted sums of the targets' rows. Rows are read where they
// lie, so that memory traffic is the operands themselves; per edge and head only two numbers are kept, and only in backward.
#include "graph_attention/kernels.h"
#include "runtime/simd.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

// Edges whose scores are handled together: enough to fill a vector for exp, few enough that their rows are still in cache for the
// weighted sum.
constexpr int64_t kChunk = 64;
// Vectors of a weighted sum held in registers: 8 of 16, leaving room for the weight and the loads in flight.
constexpr int kSumVectors = 8;

template <class A>
constexpr A infinity = static_cast<A>(__builtin_inff());

MOLFUSE_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class T>
MOLFUSE_INLINE T* row_of(const GraphOperand& operand, int64_t node, int64_t head) {
  return static_cast<T*>(operand.data) + node * operand.node + head * operand.head;
}

template <class T>
MOLFUSE_INLINE accumulate_t<T> dot(const T* a, const T* b, int64_t channels) {
  using A = accumulate_t<T>;
  vec<A> sum0{}, sum1{}, sum2{}, sum3{};
  int64_t c = 0;
  for (; c + 4 * width<A> <= channels; c += 4 * width<A>) {
    sum0 += load(a + c) * load(b + c);
    sum1 += load(a + c + width<A>) * load(b + c + width<A>);
    sum2 += load(a + c + 2 * width<A>) * load(b + c + 2 * width<A>);
    sum3 += load(a + c + 3 * width<A>) * load(b + c + 3 * width<A>);
  }
  for (; c + width<A> <= channels; c += width<A>) sum0 += load(a + c) * load(b + c);
  A tail = 0;
  for (; c < channels; ++c) tail += static_cast<A>(to_float(a[c])) * static_cast<A>(to_float(b[c]));
  return reduce_add<A>((sum0 + sum1) + (sum2 + sum3)) + tail;
}

/// A weighted sum of `count` rows of an operand at the channels of one head.
template <class T>
struct Rows {
  const T* base;
  int64_t stride;
  const int32_t* nodes;
  const accumulate_t<T>* weights;
  int64_t count;
};

template <class T, int VECTORS, class Out>
MOLFUSE_INLINE void combine_block(const Rows<T>& rows, int64_t c, const accumulate_t<T>* before, accumulate_t<T> before_factor,
                                  accumulate_t<T> factor, Out* out) {
  using A = accumulate_t<T>;
  vec<A> sum[VECTORS];
#pragma GCC unroll 8
  for (int v = 0; v < VECTORS; ++v) sum[v] = before == nullptr ? vec<A>{} : load(before + c + v * width<A>) * before_factor;
  for (int64_t e = 0; e < rows.count; ++e) {
    const T* const row = rows.base + rows.nodes[e] * rows.stride + c;
    const vec<A> weight = splat<A>(rows.weights[e]);
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) sum[v] += weight * load(row + v * width<A>);
  }
#pragma GCC unroll 8
  for (int v = 0; v < VECTORS; ++v) store(out + c + v * width<A>, sum[v] * factor);
}

/// out = (before * before_factor + sum over rows) * factor. before may be NULL (nothing), and may be out.
template <class T, class Out>
MOLFUSE_INLINE void combine(const Rows<T>& rows, int64_t channels, const accumulate_t<T>* before, accumulate_t<T> before_factor,
                            accumulate_t<T> factor, Out* out) {
  using A = accumulate_t<T>;
  int64_t c = 0;
  for (; c + kSumVectors * width<A> <= channels; c += kSumVectors * width<A>) {
    combine_block<T, kSumVectors>(rows, c, before, before_factor, factor, out);
  }
  if (c + 4 * width<A> <= channels) {
    combine_block<T, 4>(rows, c, before, before_factor, factor, out);
    c += 4 * width<A>;
  }
  for (; c + width<A> <= channels; c += width<A>) combine_block<T, 1>(rows, c, before, before_factor, factor, out);
  for (; c < channels; ++c) {
    A sum = before == nullptr ? A{0} : before[c] * before_factor;
    for (int64_t e = 0; e < rows.count; ++e) {
      sum += rows.weights[e] * static_cast<A>(to_float(rows.base[rows.nodes[e] * rows.stride + c]));
    }
    out[c] = FromFloat<Out>::of(sum * factor);
  }
}

template <class T, class Out>
MOLFUSE_INLINE void scale_row(const accumulate_t<T>* from, int64_t channels, accumulate_t<T> factor, Out* out) {
  combine<T, Out>(Rows<T>{nullptr, 0, nullptr, nullptr, 0}, channels, from, factor, 1, out);
}

/// keep[n] = 1 / (1 - dropout_p) or 0 for edges edge .. edge+count-1; writes up to the next multiple of the vector width.
template <class A>
void dropout_factors(const GraphProblem& p, int64_t edge, int64_t head, int64_t count, A* keep) {
  const A kept = static_cast<A>(p.keep_scale);
  uvec<float> lane;
  for (int n = 0; n < width<float>; ++n) lane[n] = static_cast<uint32_t>(n);
  for (int64_t e = 0; e < count; e += width<float>) {
    const PhiloxVectors words =
        philox(lane + static_cast<uint32_t>(edge + e), uvec<float>{}, uvec<float>{} + static_cast<uint32_t>(head / 4),
               uvec<float>{} + p.offset_low, static_cast<uint32_t>(p.philox_key), static_cast<uint32_t>(p.philox_key >> 32));
    for (int n = 0; n < width<float>; ++n) keep[e + n] = words.w[head % 4][n] >= p.threshold ? kept : A{0};
  }
}

/// score[n] = scale * q . k of the sources of edges edge .. edge+count-1, then `fill` up to the next multiple of the vector width.
template <class T>
MOLFUSE_INLINE void scores(const GraphProblem& p, const T* query, int64_t head, int64_t edge, int64_t count, accumulate_t<T> fill,
                           accumulate_t<T>* score) {
  using A = accumulate_t<T>;
  const T* const key = row_of<const T>(p.key, 0, head);
  const A scale = static_cast<A>(p.scale);
  int64_t e = 0;
  for (; e < count; ++e) score[e] = scale * dot<T>(query, key + p.source[edge + e] * p.key.node, p.channels);
  for (; e % width<A> != 0; ++e) score[e] = fill;
}

template <class A>
MOLFUSE_INLINE A exponential(A x) {
  return exp(splat<A>(x))[0];
}

/// The softmax of a row so far: sum of exp(score - maximum).
template <class A>
struct Softmax {
  A maximum, sum;
};

/// Attends to edges begin..end-1. The weighted sum of values, not yet divided by the softmax's sum, goes to `sum`; but if one chunk
/// is enough and out is given, the finished row goes straight to out.
template <class T>
MOLFUSE_INLINE Softmax<accumulate_t<T>> attend(const GraphProblem& p, int64_t node, int64_t head, int64_t begin, int64_t end,
                                               accumulate_t<T>* sum, T* out) {
  using A = accumulate_t<T>;
  const T* const query = row_of<const T>(p.query, node, head);
  alignas(64) A weight[kChunk];
  Softmax<A> state{-infinity<A>, 0};
  for (int64_t edge = begin; edge < end; edge += kChunk) {
    const int64_t count = smaller(end - edge, kChunk);
    scores<T>(p, query, head, edge, count, -infinity<A>, weight);
    vec<A> largest = load(weight);
    for (int64_t e = width<A>; e < count; e += width<A>) largest = max<A>(largest, load(weight + e));
    const A here = reduce_max<A>(largest);
    const A now = here > state.maximum || here != here ? here : state.maximum;
    // While every score seen is -inf, shifting by 0 instead keeps exp(-inf - shift) = 0 rather than NaN.
    const A shift = now == -infinity<A> ? A{0} : now;
    vec<A> added{};
    for (int64_t e = 0; e < count; e += width<A>) {
      const vec<A> w = exp(load(weight + e) - shift);
      added += w;
      store(weight + e, w);
    }
    const A factor = edge == begin || state.maximum == -infinity<A> ? A{0} : exponential<A>(state.maximum - shift);
    state.sum = state.sum * factor + reduce_add<A>(added);
    state.maximum = now;
    if (p.threshold != 0) {
      alignas(64) A keep[kChunk];
      dropout_factors<A>(p, edge, head, count, keep);
      for (int64_t e = 0; e < count; e += width<A>) store(weight + e, load(weight + e) * load(keep + e));
    }
    const Rows<T> rows{row_of<const T>(p.value, 0, head), p.value.node, p.source + edge, weight, count};
    if (out != nullptr && end - begin <= kChunk) {
      combine<T>(rows, p.channels, nullptr, A{0}, state.sum == 0 ? A{0} : A{1} / state.sum, out);
    } else {
      combine<T>(rows, p.channels, edge == begin ? nullptr : sum, factor, A{1}, sum);
    }
  }
  return state;
}

template <class T>
MOLFUSE_INLINE void put_log_sum(const GraphProblem& p, int64_t node, int64_t head, Softmax<accumulate_t<T>> state) {
  using A = accumulate_t<T>;
  if (p.lse == nullptr) return;
  static_cast<A*>(p.lse)[node * p.lse_node + head * p.lse_head] =
      state.sum == 0 ? -infinity<A> : state.maximum + static_cast<A>(__builtin_log(state.sum));
}

template <class T>
void forward(const GraphProblem& p, const GraphTask& task, void* scratch) {
  using A = accumulate_t<T>;
  A* const sum = static_cast<A*>(scratch);
  for (int64_t t = task.node_begin; t < task.node_end; ++t) {
    const int64_t begin = p.row_ptr[t], end = p.row_ptr[t + 1];
    if (end - begin > kHubEdges) continue;
    for (int64_t h = task.head_begin; h < task.head_end; ++h) {
      T* const out = row_of<T>(p.out, t, h);
      const Softmax<A> state = attend<T>(p, t, h, begin, end, sum, out);
      if (begin == end) {
        scale_row<T>(nullptr, p.channels, A{0}, out);
      } else if (end - begin > kChunk) {
        scale_row<T>(sum, p.channels, state.sum == 0 ? A{0} : A{1} / state.sum, out);
      }
      put_log_sum<T>(p, t, h, state);
    }
  }
}

template <class T>
void forward_part(const GraphProblem& p, const HubPart& part) {
  using A = accumulate_t<T>;
  const Softmax<A> state = attend<T>(p, part.node, part.head, part.edge_begin, part.edge_end, static_cast<A*>(part.sum), nullptr);
  static_cast<A*>(part.statistic)[0] = state.maximum;
  static_cast<A*>(part.statistic)[1] = state.sum;
}

template <class T>
void forward_merge(const GraphProblem& p, const HubPart* parts, int64_t count) {
  using A = accumulate_t<T>;
  A* const sum = static_cast<A*>(parts[0].sum);
  const A* const first = static_cast<const A*>(parts[0].statistic);
  Softmax<A> state{first[0], first[1]};
  for (int64_t n = 1; n < count; ++n) {
    const A* const next = static_cast<const A*>(parts[n].statistic);
    const A maximum = next[0] > state.maximum || next[0] != next[0] ? next[0] : state.maximum;
    const A shift = maximum == -infinity<A> ? A{0} : maximum;
    const A old_factor = exponential<A>(state.maximum - shift), factor = exponential<A>(next[0] - shift);
    const int32_t only = 0;
    combine<A>(Rows<A>{static_cast<const A*>(parts[n].sum), 0, &only, &factor, 1}, p.channels, sum, old_factor, A{1}, sum);
    state.sum = state.sum * old_factor + next[1] * factor;
    state.maximum = maximum;
  }
  scale_row<T>(sum, p.channels, state.sum == 0 ? A{0} : A{1} / state.sum, row_of<T>(p.out, parts[0].node, parts[0].head));
  put_log_sum<T>(p, parts[0].node, parts[0].head, state);
}

/// Sums over a target's edges of exp(score - lse), which is 1 but for the rounding of lse, and of that times the gradient of the weight.
template <class A>
struct RowSums {
  A weight, product;
};

/// For edges begin..end-1 of a target: weight = exp(score - lse), grad_score = weight * gradient of the weight. Their sums give
/// grad_out . out, so that out need not be read, and the exact normalisation: the rounding of lse alone would be an error of the
/// weights larger than all others.
template <class T>
MOLFUSE_INLINE RowSums<accumulate_t<T>> weights_and_products(const GraphProblem& p, int64_t node, int64_t head, int64_t begin, int64_t end) {
  using A = accumulate_t<T>;
  const T* const query = row_of<const T>(p.query, node, head);
  const T* const grad_out = row_of<const T>(p.grad_out, node, head);
  const T* const value = row_of<const T>(p.value, 0, head);
  A* const weight = static_cast<A*>(p.weight) + head * p.edges;
  A* const grad_score = static_cast<A*>(p.grad_score) + head * p.edges;
  const A log_sum = static_cast<const A*>(p.lse)[node * p.lse_node + head * p.lse_head];
  const A shift = log_sum == -infinity<A> ? infinity<A> : log_sum;  // a row that sees nothing has no weights
  alignas(64) A score[kChunk], grad_weight[kChunk], keep[kChunk];
  vec<A> total_weight{}, total_product{};
  for (int64_t edge = begin; edge < end; edge += kChunk) {
    const int64_t count = smaller(end - edge, kChunk);
    scores<T>(p, query, head, edge, count, -infinity<A>, score);
    int64_t e = 0;
    for (; e < count; ++e) grad_weight[e] = dot<T>(grad_out, value + p.source[edge + e] * p.value.node, p.channels);
    for (; e % width<A> != 0; ++e) grad_weight[e] = 0;
    if (p.threshold != 0) dropout_factors<A>(p, edge, head, count, keep);
    for (e = 0; e < count; e += width<A>) {
      const vec<A> w = exp(load(score + e) - shift);
      vec<A> product = w * load(grad_weight + e);
      if (p.threshold != 0) product *= load(keep + e);
      total_weight += w;
      total_product += product;
      if (e + width<A> <= count) {
        store(weight + edge + e, w);
        store(grad_score + edge + e, product);
      } else {
        store_partial(weight + edge + e, count - e, w);
        store_partial(grad_score + edge + e, count - e, product);
      }
    }
  }
  return {reduce_add<A>(total_weight), reduce_add<A>(total_product)};
}

/// Finishes weight and grad_score of edges begin..end-1 and, if `sum` is not NULL, adds up the query gradient there (or, if one
/// chunk is enough and out is given, straight into out).
template <class T>
MOLFUSE_INLINE void finish_target(const GraphProblem& p, int64_t head, int64_t begin, int64_t end, RowSums<accumulate_t<T>> sums,
                                  accumulate_t<T>* sum, T* out) {
  using A = accumulate_t<T>;
  A* const weight = static_cast<A*>(p.weight) + head * p.edges;
  A* const grad_score = static_cast<A*>(p.grad_score) + head * p.edges;
  const A scale = static_cast<A>(p.scale);
  const A normalise = sums.weight == 0 ? A{0} : A{1} / sums.weight;
  const A delta = sums.product * normalise;
  alignas(64) A keep[kChunk];
  for (int64_t edge = begin; edge < end; edge += kChunk) {
    const int64_t count = smaller(end - edge, kChunk);
    if (p.threshold != 0) dropout_factors<A>(p, edge, head, count, keep);
    for (int64_t e = 0; e < count; e += width<A>) {
      A* const w_at = weight + edge + e;
      A* const g_at = grad_score + edge + e;
      if (e + width<A> <= count) {
        const vec<A> w = load(w_at) * normalise;
        store(g_at, (load(g_at) * normalise - w * delta) * scale);
        store(w_at, p.threshold == 0 ? w : w * load(keep + e));
      } else {
        const vec<A> w = load_partial(w_at, count - e) * normalise;
        store_partial(g_at, count - e, (load_partial(g_at, count - e) * normalise - w * delta) * scale);
        store_partial(w_at, count - e, p.threshold == 0 ? w : w * load(keep + e));
      }
    }
    if (sum == nullptr) continue;
    const Rows<T> rows{row_of<const T>(p.key, 0, head), p.key.node, p.source + edge, grad_score + edge, count};
    if (out != nullptr && end - begin <= kChunk) {
      combine<T>(rows, p.channels, nullptr, A{0}, A{1}, out);
    } else {
      combine<T>(rows, p.channels, edge == begin ? nullptr : sum, A{1}, A{1}, sum);
    }
  }
}

template <class T>
void backward_targets(const GraphProblem& p, const GraphTask& task, void* scratch) {
  using A = accumulate_t<T>;
  A* const sum = p.grad_query.data == nullptr ? nullptr : static_cast<A*>(scratch);
  for (int64_t t = task.node_begin; t < task.node_end; ++t) {
    const int64_t begin = p.row_ptr[t], end = p.row_ptr[t + 1];
    if (end - begin > kHubEdges) continue;
    for (int64_t h = task.head_begin; h < task.head_end; ++h) {
      T* const out = sum == nullptr ? nullptr : row_of<T>(p.grad_query, t, h);
      const RowSums<A> sums = weights_and_products<T>(p, t, h, begin, end);
      finish_target<T>(p, h, begin, end, sums, sum, out);
      if (out == nullptr) continue;
      if (begin == end) {
        scale_row<T>(nullptr, p.channels, A{0}, out);
      } else if (end - begin > kChunk) {
        scale_row<T>(sum, p.channels, A{1}, out);
      }
    }
  }
}

template <class T>
void score_part(const GraphProblem& p, const HubPart& part) {
  using A = accumulate_t<T>;
  *static_cast<RowSums<A>*>(part.statistic) = weights_and_products<T>(p, part.node, part.head, part.edge_begin, part.edge_end);
}

template <class T>
void target_part(const GraphProblem& p, const HubPart& part, const HubPart* parts, int64_t count) {
  using A = accumulate_t<T>;
  RowSums<A> sums{0, 0};
  for (int64_t n = 0; n < count; ++n) {
    const RowSums<A>* const next = static_cast<const RowSums<A>*>(parts[n].statistic);
    sums.weight += next->weight;
    sums.product += next->product;
  }
  finish_target<T>(p, part.head, part.edge_begin, part.edge_end, sums, p.grad_query.data == nullptr ? nullptr : static_cast<A*>(part.sum),
                   nullptr);
}

/// Sums over by-source positions begin..end-1 for the key and value gradients of one row; either may be unwanted (NULL).
template <class T, class Out>
MOLFUSE_INLINE void source_sums(const GraphProblem& p, int64_t head, int64_t begin, int64_t end, accumulate_t<T>* sum_key,
                                accumulate_t<T>* sum_value, Out* grad_key, Out* grad_value) {
  using A = accumulate_t<T>;
  const A* const weight = static_cast<const A*>(p.weight) + head * p.edges;
  const A* const grad_score = static_cast<const A*>(p.grad_score) + head * p.edges;
  A factor[kChunk];
  for (int64_t at = begin; at < end; at += kChunk) {
    const int64_t count = smaller(end - at, kChunk);
    const bool first = at == begin, last = at + count == end;
    auto add = [&](const GraphOperand& operand, const A* numbers, A* sum, Out* out) __attribute__((always_inline)) {
      for (int64_t n = 0; n < count; ++n) factor[n] = numbers[p.edge_id[at + n]];
      const Rows<T> rows{row_of<const T>(operand, 0, head), operand.node, p.target + at, factor, count};
      if (last) {
        combine<T>(rows, p.channels, first ? nullptr : sum, A{1}, A{1}, out);
      } else {
        combine<T>(rows, p.channels, first ? nullptr : sum, A{1}, A{1}, sum);
      }
    };
    if (grad_key != nullptr) add(p.query, grad_score, sum_key, grad_key);
    if (grad_value != nullptr) add(p.grad_out, weight, sum_value, grad_value);
  }
}

template <class T>
void backward_sources(const GraphProblem& p, const GraphTask& task, void* scratch) {
  using A = accumulate_t<T>;
  A* const sum_key = static_cast<A*>(scratch);
  A* const sum_value = sum_key + p.channels;
  for (int64_t s = task.node_begin; s < task.node_end; ++s) {
    const int64_t begin = p.row_ptr_t[s], end = p.row_ptr_t[s + 1];
    if (end - begin > kHubEdges) continue;
    for (int64_t h = task.head_begin; h < task.head_end; ++h) {
      T* const grad_key = p.grad_key.data == nullptr ? nullptr : row_of<T>(p.grad_key, s, h);
      T* const grad_value = p.grad_value.data == nullptr ? nullptr : row_of<T>(p.grad_value, s, h);
      if (begin == end) {
        if (grad_key != nullptr) scale_row<T>(nullptr, p.channels, A{0}, grad_key);
        if (grad_value != nullptr) scale_row<T>(nullptr, p.channels, A{0}, grad_value);
      } else {
        source_sums<T>(p, h, begin, end, sum_key, sum_value, grad_key, grad_value);
      }
    }
  }
}

template <class T>
void source_part(const GraphProblem& p, const HubPart& part) {
  using A = accumulate_t<T>;
  A* const key = p.grad_key.data == nullptr ? nullptr : static_cast<A*>(part.sum);
  A* const value = p.grad_value.data == nullptr ? nullptr : static_cast<A*>(part.second_sum);
  source_sums<T>(p, part.head, part.edge_begin, part.edge_end, key, value, key, value);
}

template <class T>
void add_parts(const GraphProblem& p, const GraphOperand& to, const HubPart* parts, int64_t count, bool second) {
  using A = accumulate_t<T>;
  A* const sum = static_cast<A*>(second ? parts[0].second_sum : parts[0].sum);
  const int32_t only = 0;
  const A one = 1;
  for (int64_t n = 1; n < count; ++n) {
    const A* const next = static_cast<const A*>(second ? parts[n].second_sum : parts[n].sum);
    combine<A>(Rows<A>{next, 0, &only, &one, 1}, p.channels, sum, one, one, sum);
  }
  scale_row<T>(sum, p.channels, one, row_of<T>(to, parts[0].node, parts[0].head));
}

template <class T>
constexpr GraphKernels kKernels = {forward<T>,    forward_part<T>, forward_merge<T>,    backward_targets<T>, score_part<T>,
                                   target_part<T>, backward_sources<T>, source_part<T>, add_parts<T>};

}  // namespace

const GraphKernelTable graph_kernels = {{kKernels<float>, kKernels<double>, kKernels<f16>, kKernels<bf16>}};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

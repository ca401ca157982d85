// SPDX-License-Identifier: Apache-2.0
// Attention over so few keys that a row of scores fits in one vector, such as the four-field attention of a tabular model. Packing
// operands for the tiled kernel would cost several times the arithmetic here; instead rows are read where they lie, dot products are
// summed across lanes by a butterfly, and one vector holds the scores of one or more rows.
#pragma once

#include "attention/cpu_common.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

constexpr int64_t kTinyRows = 16;

template <class T>
MOLFUSE_INLINE bool tiny_applies(const AttentionProblem& p, const Sequence& s, const AttentionTask& task) {
  using A = accumulate_t<T>;
  return s.keys >= 1 && s.keys <= width<A> && s.queries <= kTinyRows && p.dim % width<A> == 0 && task.query_begin == 0 &&
         task.query_end >= s.queries && task.key_begin == 0 && task.key_end >= s.keys &&
         task.bias_gradient == BiasGradient::none && task.grad_relative == nullptr;
}

/// Lane l of the result is the sum of all lanes of v[l].
template <class A, int STEP>
MOLFUSE_INLINE void sum_lanes_stage(vec<A> (&v)[width<A>]) {
  if constexpr (STEP < width<A>) {
    ivec<A> first, second;
    for (int l = 0; l < width<A>; ++l) {
      first[l] = (l & STEP) ? width<A> + l - STEP : l;
      second[l] = (l & STEP) ? width<A> + l : l + STEP;
    }
#pragma GCC unroll 16
    for (int n = 0; n < width<A>; n += 2 * STEP) {
      v[n] = __builtin_shuffle(v[n], v[n + STEP], first) + __builtin_shuffle(v[n], v[n + STEP], second);
    }
    sum_lanes_stage<A, STEP * 2>(v);
  }
}

/// Combines each lane with the others of its group of GROUP lanes; every lane gets the result.
template <class A, int GROUP, int STEP, class Combine>
MOLFUSE_INLINE vec<A> combine_group(vec<A> v, Combine combine) {
  if constexpr (STEP < GROUP) {
    ivec<A> other;
    for (int l = 0; l < width<A>; ++l) other[l] = l ^ STEP;
    return combine_group<A, GROUP, STEP * 2>(combine(v, __builtin_shuffle(v, other)), combine);
  } else {
    return v;
  }
}

template <class A, int GROUP>
MOLFUSE_INLINE vec<A> group_sum(vec<A> v) {
  return combine_group<A, GROUP, 1>(v, [](vec<A> a, vec<A> b) __attribute__((always_inline)) { return a + b; });
}
template <class A, int GROUP>
MOLFUSE_INLINE vec<A> group_max(vec<A> v) {
  return combine_group<A, GROUP, 1>(v, [](vec<A> a, vec<A> b) __attribute__((always_inline)) { return a > b ? a : b; });
}

/// Products of GROUP-padded rows: lane l is left[first_row + l / GROUP] . right[l % GROUP], 0 where there is no such pair.
template <class T, int GROUP>
MOLFUSE_INLINE vec<accumulate_t<T>> row_products(const T* left, int64_t left_stride, const T* right, int64_t right_stride, int64_t first_row,
                                                 int64_t rows, int64_t keys, int64_t dim) {
  using A = accumulate_t<T>;
  vec<A> sum[width<A>];
#pragma GCC unroll 16
  for (int l = 0; l < width<A>; ++l) {
    sum[l] = vec<A>{};
    const int64_t row = first_row + l / GROUP, column = l % GROUP;
    if (row < rows && column < keys) {
      const T* const a = left + row * left_stride;
      const T* const b = right + column * right_stride;
      for (int64_t d = 0; d < dim; d += width<A>) sum[l] += load(a + d) * load(b + d);
    }
  }
  sum_lanes_stage<A, 1>(sum);
  return sum[0];
}

/// The call's data seen from one task, and what the lanes of score vector number n stand for.
template <class T, int GROUP>
struct TinyScores {
  using A = accumulate_t<T>;
  static constexpr int kRowsPerVector = width<A> / GROUP;
  const AttentionProblem& p;
  const Sequence& s;
  int64_t b, h;

  MOLFUSE_INLINE ivec<A> visible(int64_t first_row) const {
    using Int = typename VecTypes<A>::Int;
    ivec<A> column, row;
    for (int l = 0; l < width<A>; ++l) {
      column[l] = l % GROUP;
      row[l] = l / GROUP;
    }
    ivec<A> inside = column < static_cast<Int>(s.key_limit);
    if (p.causal) inside &= column <= row + static_cast<Int>(first_row + s.keys - s.queries);
    return inside;
  }

  /// bias + relative_bias of the lanes, 0 outside the score matrix.
  vec<A> added(int64_t first_row) const {
    vec<A> sum{};
    for (int l = 0; l < width<A>; ++l) {
      const int64_t i = first_row + l / GROUP, j = l % GROUP;
      if (i >= s.queries || j >= s.keys) continue;
      A value;
      if (p.bias != nullptr) {
        convert_row<T>(p.bias, p.bias_dtype, b * p.bias_batch + h * p.bias_head + i * p.bias_row + j * p.bias_column, 0, 1, &value);
        sum[l] += value;
      }
      if (p.relative != nullptr) {
        int64_t distance = j - i - (s.keys - s.queries);
        distance = distance < -p.radius ? -p.radius : (distance > p.radius ? p.radius : distance);
        convert_row<T>(p.relative, p.relative_dtype, h * p.relative_head + (distance + p.radius) * p.relative_column, 0, 1, &value);
        sum[l] += value;
      }
    }
    return sum;
  }

  vec<A> keep(int64_t first_row) const {
    vec<A> factor{};
    A row[4 * width<float>];
    for (int r = 0; r < kRowsPerVector; ++r) {
      dropout_row(p, b, h, first_row + r, 0, GROUP, row);
      for (int j = 0; j < GROUP; ++j) factor[r * GROUP + j] = row[j];
    }
    return factor;
  }
};

/// to[i] = factor_i * sum over j of weights[i * row_step + j * column_step] * from[j], rows of dim elements.
template <class T>
MOLFUSE_INLINE void weighted_rows(const accumulate_t<T>* weights, int64_t row_step, int64_t column_step, const T* from, int64_t from_stride,
                                  int64_t terms, T* to, int64_t to_stride, int64_t rows, int64_t dim, accumulate_t<T> factor) {
  using A = accumulate_t<T>;
  for (int64_t d = 0; d < dim; d += width<A>) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
      const A* const w = weights + i * row_step;
      vec<A> s0{}, s1{}, s2{}, s3{};
      for (int64_t j = 0; j < terms; ++j) {
        const vec<A> value = load(from + j * from_stride + d);
        const A* const column = w + j * column_step;
        s0 += column[0] * value;
        s1 += column[row_step] * value;
        s2 += column[2 * row_step] * value;
        s3 += column[3 * row_step] * value;
      }
      T* const at = to + i * to_stride + d;
      store(at, s0 * factor);
      store(at + to_stride, s1 * factor);
      store(at + 2 * to_stride, s2 * factor);
      store(at + 3 * to_stride, s3 * factor);
    }
    for (; i < rows; ++i) {
      vec<A> sum{};
      for (int64_t j = 0; j < terms; ++j) sum += weights[i * row_step + j * column_step] * load(from + j * from_stride + d);
      store(to + i * to_stride + d, sum * factor);
    }
  }
}

template <class T>
MOLFUSE_INLINE void zero_rows(T* to, int64_t stride, int64_t begin, int64_t end, int64_t dim) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t d = 0; d < dim; d += width<accumulate_t<T>>) store(to + i * stride + d, vec<accumulate_t<T>>{});
  }
}

/// Queries that see nothing: the first ones, or all.
MOLFUSE_INLINE int64_t blind_queries(const AttentionProblem& p, const Sequence& s) {
  if (s.key_limit == 0) return s.queries;
  return p.causal && s.queries > s.keys ? s.queries - s.keys : 0;
}

// What is invisible may hold anything: products with its weight of zero are left out, as 0 * NaN is not 0.
template <class T, int GROUP>
void tiny_forward_group(const AttentionProblem& p, const Sequence& s, const AttentionTask& task) {
  using A = accumulate_t<T>;
  using Scores = TinyScores<T, GROUP>;
  const Scores scores{p, s, task.batch, task.head};
  const int64_t b = task.batch, h = task.head, n = s.queries, m = s.keys;
  const T* const query = row_of<const T>(p.query, b, h, s.query_row);
  const T* const key = row_of<const T>(p.key, b, h, s.key_row);
  A weights[(kTinyRows + width<A>) * GROUP];
  for (int64_t i = 0; i < n; i += Scores::kRowsPerVector) {
    vec<A> score = row_products<T, GROUP>(query, p.query.row, key, p.key.row, i, n, m, p.dim) * static_cast<A>(p.scale);
    if (p.bias != nullptr || p.relative != nullptr) score += scores.added(i);
    const ivec<A> visible = scores.visible(i);
    score = visible ? score : splat<A>(-infinity<A>);
    const vec<A> largest = group_max<A, GROUP>(score);
    const vec<A> shift = largest == -infinity<A> ? vec<A>{} : largest;
    const vec<A> weight = exp_softmax(score - shift);
    const vec<A> sum = group_sum<A, GROUP>(weight);
    vec<A> share = weight / (sum == A{0} ? splat<A>(A{1}) : sum);
    if (p.threshold != 0) share *= scores.keep(i);
    store(weights + i * GROUP, share);
    if (p.lse != nullptr) {
      A* const lse = static_cast<A*>(p.lse) + b * p.lse_batch + h * p.lse_head + s.query_row * p.lse_row;
      for (int r = 0; r < Scores::kRowsPerVector && i + r < n; ++r) {
        const A total = sum[r * GROUP];
        lse[(i + r) * p.lse_row] = total == 0 ? -infinity<A> : largest[r * GROUP] + logarithm(total);
      }
    }
  }
  T* const out = row_of<T>(p.out, b, h, s.query_row);
  weighted_rows<T>(weights, GROUP, 1, row_of<const T>(p.value, b, h, s.key_row), p.value.row, s.key_limit, out, p.out.row, n, p.dim, A{1});
  zero_rows(out, p.out.row, 0, blind_queries(p, s), p.dim);
}

template <class T, int GROUP>
void tiny_backward_group(const AttentionProblem& p, const Sequence& s, const AttentionTask& task) {
  using A = accumulate_t<T>;
  using Scores = TinyScores<T, GROUP>;
  const Scores scores{p, s, task.batch, task.head};
  const int64_t b = task.batch, h = task.head, n = s.queries, m = s.keys;
  const T* const query = row_of<const T>(p.query, b, h, s.query_row);
  const T* const key = row_of<const T>(p.key, b, h, s.key_row);
  const T* const value = row_of<const T>(p.value, b, h, s.key_row);
  const T* const grad_out = row_of<const T>(p.grad_out, b, h, s.query_row);
  A weights[(kTinyRows + width<A>) * GROUP], gradients[(kTinyRows + width<A>) * GROUP];
  for (int64_t i = 0; i < n; i += Scores::kRowsPerVector) {
    vec<A> score = row_products<T, GROUP>(query, p.query.row, key, p.key.row, i, n, m, p.dim) * static_cast<A>(p.scale);
    if (p.bias != nullptr || p.relative != nullptr) score += scores.added(i);
    vec<A> shift = splat<A>(infinity<A>);
    const A* const lse = static_cast<const A*>(p.lse) + b * p.lse_batch + h * p.lse_head + s.query_row * p.lse_row;
    for (int r = 0; r < Scores::kRowsPerVector && i + r < n; ++r) {
      const A row_lse = lse[(i + r) * p.lse_row];
      for (int j = 0; j < GROUP; ++j) shift[r * GROUP + j] = row_lse == -infinity<A> ? infinity<A> : row_lse;
    }
    const ivec<A> visible = scores.visible(i);
    vec<A> weight = visible ? exp_softmax(score - shift) : vec<A>{};
    // The rounding of lse spoils the sum of one; see score_gradients.
    const vec<A> sum = group_sum<A, GROUP>(weight);
    weight /= sum == A{0} ? splat<A>(A{1}) : sum;
    vec<A> gradient = row_products<T, GROUP>(grad_out, p.grad_out.row, value, p.value.row, i, n, m, p.dim);
    vec<A> kept = weight;
    if (p.threshold != 0) {
      const vec<A> keep = scores.keep(i);
      kept *= keep;
      gradient *= keep;
    }
    gradient = visible ? gradient : vec<A>{};
    store(weights + i * GROUP, kept);
    store(gradients + i * GROUP, weight * (gradient - group_sum<A, GROUP>(weight * gradient)));
  }
  const A scale = static_cast<A>(p.scale);
  const int64_t blind = blind_queries(p, s);
  if (task.query_gradient) {
    T* const to = row_of<T>(p.grad_query, b, h, s.query_row);
    weighted_rows<T>(gradients, GROUP, 1, key, p.key.row, s.key_limit, to, p.grad_query.row, n, p.dim, scale);
    zero_rows(to, p.grad_query.row, 0, blind, p.dim);
  }
  auto from_queries = [&](const A* factors, const T* from, int64_t from_row, const AttentionOperand& gradient, A factor) {
    T* const to = row_of<T>(gradient, b, h, s.key_row);
    weighted_rows<T>(factors + blind * GROUP, 1, GROUP, from + blind * from_row, from_row, n - blind, to, gradient.row, s.key_limit, p.dim, factor);
    zero_rows(to, gradient.row, s.key_limit, m, p.dim);
  };
  if (task.key_value_gradient && p.grad_key.data != nullptr) from_queries(gradients, query, p.query.row, p.grad_key, scale);
  if (task.key_value_gradient && p.grad_value.data != nullptr) from_queries(weights, grad_out, p.grad_out.row, p.grad_value, A{1});
}

/// The widest group a vector of A has room for, halved while the keys fit in half.
#define MOLFUSE_TINY(name)                                                                     \
  template <class T>                                                                           \
  MOLFUSE_INLINE void name(const AttentionProblem& p, const Sequence& s, const AttentionTask& task) { \
    using A = accumulate_t<T>;                                                                 \
    constexpr int kWidth = width<A>;                                                           \
    if (kWidth > 4 && s.keys <= 4) return name##_group<T, (kWidth > 4 ? 4 : kWidth)>(p, s, task); \
    if (kWidth > 8 && s.keys <= 8) return name##_group<T, (kWidth > 8 ? 8 : kWidth)>(p, s, task); \
    name##_group<T, kWidth>(p, s, task);                                                       \
  }
MOLFUSE_TINY(tiny_forward)
MOLFUSE_TINY(tiny_backward)
#undef MOLFUSE_TINY

}  // namespace
}  // namespace MOLFUSE_ISA
}  // namespace molfuse

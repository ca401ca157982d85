// SPDX-License-Identifier: Apache-2.0
// Attention on the CPU: one task is one head of one sequence (or a range of its queries), computed by tiles of scores that stay in
// cache. Products run on f32 (f64) copies of the operand blocks, whatever the stored type.
#include "attention/cpu_tiny.h"
#include "runtime/gemm.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

/// s += bias + relative over the count visible columns; returns the largest.
template <class A>
MOLFUSE_INLINE A bias_and_maximum(A* s, int64_t count, const A* bias, const A* relative) {
  vec<A> largest = splat<A>(-infinity<A>);
  int64_t j = 0;
  for (; j + width<A> <= count; j += width<A>) {
    vec<A> v = load(s + j);
    if (bias != nullptr) v += load(bias + j);
    if (relative != nullptr) v += load(relative + j);
    if (bias != nullptr || relative != nullptr) store(s + j, v);
    largest = max<A>(largest, v);
  }
  if (j < count) {
    vec<A> v = load(s + j);  // the tile's rows are padded, a caller's need not be
    if (bias != nullptr) v += load_partial(bias + j, count - j);
    if (relative != nullptr) v += load_partial(relative + j, count - j);
    store(s + j, v);
    largest = max<A>(largest, lanes_below<A>(count - j) ? v : splat<A>(-infinity<A>));
  }
  return reduce_max<A>(largest);
}

/// s = exp(s - shift) over count columns and 0 up to padded (both at most the tile's); returns the sum.
template <class A>
MOLFUSE_INLINE A exponentials(A* s, int64_t count, int64_t padded, A shift) {
  vec<A> total{};
  int64_t j = 0;
  for (; j + width<A> <= count; j += width<A>) {
    const vec<A> e = exp_softmax(load(s + j) - shift);
    total += e;
    store(s + j, e);
  }
  if (j < count) {
    const vec<A> e = lanes_below<A>(count - j) ? exp_softmax(load(s + j) - shift) : vec<A>{};
    total += e;
    store(s + j, e);
    j += width<A>;
  }
  for (; j < padded; j += width<A>) store(s + j, vec<A>{});
  return reduce_add<A>(total);
}

template <class A>
MOLFUSE_INLINE void scale_row(A* row, int64_t count, A factor) {
  for (int64_t d = 0; d < count; d += width<A>) store(row + d, load(row + d) * factor);
}

template <class A>
MOLFUSE_INLINE void multiply_row(A* row, const A* factor, int64_t count) {
  for (int64_t j = 0; j < count; j += width<A>) store(row + j, load(row + j) * load(factor + j));
}

template <class T>
void forward(const AttentionProblem& p, const AttentionTask& task, void* scratch) {
  using A = accumulate_t<T>;
  const Sequence s = sequence_of(p, task.batch);
  if (tiny_applies<T>(p, s, task)) return tiny_forward<T>(p, s, task);
  const int64_t begin = task.query_begin, end = task.query_end < s.queries ? task.query_end : s.queries;
  if (begin >= end) return;
  const int64_t rows = end - begin;
  const AttentionLayout layout = attention_layout(p, p.queries < kQueryRange ? p.queries : kQueryRange, false);
  A* const memory = static_cast<A*>(scratch);
  A* const query = memory + layout.query;
  A* const key = memory + layout.key_transposed;
  A* const value = memory + layout.value;
  A* const scores = memory + layout.scores;
  A* const out = memory + layout.out;
  A* const maximum = memory + layout.maximum;
  A* const sum = memory + layout.sum;
  const int64_t d = round_up(p.dim, width<A>);
  const int64_t b = task.batch, h = task.head;

  pack_rows<T>(row_of<const T>(p.query, b, h, s.query_row + begin), p.query.row, rows, p.dim, static_cast<A>(p.scale), query,
               layout.query_ld, d);
  if (p.relative != nullptr) spread_relative<T>(p, s, h, memory + layout.relative);
  for (int64_t i = 0; i < rows; ++i) {
    maximum[i] = -infinity<A>;
    sum[i] = 0;
  }
  const int64_t seen = visible_keys(p, s, end - 1);  // by the last row, which sees most
  if (seen == 0) {
    for (int64_t n = 0; n < rows * layout.query_ld; ++n) out[n] = 0;
  }
  for (int64_t j0 = 0; j0 < seen; j0 += kKeyBlock) {
    const int64_t keys = seen - j0 < kKeyBlock ? seen - j0 : kKeyBlock;
    pack_transposed<T>(row_of<const T>(p.key, b, h, s.key_row + j0), p.key.row, keys, p.dim, key, layout.key_ld);
    pack_rows<T>(row_of<const T>(p.value, b, h, s.key_row + j0), p.value.row, keys, p.dim, A{1}, value, layout.query_ld, d);
    for (int64_t i0 = 0; i0 < rows; i0 += kQueryBlock) {
      const int64_t block = rows - i0 < kQueryBlock ? rows - i0 : kQueryBlock;
      int64_t columns = visible_keys(p, s, begin + i0 + block - 1) - j0;
      A* const block_out = out + i0 * layout.query_ld;
      if (columns <= 0) {
        // Rows that see nothing of the first key block see nothing of the later ones.
        if (j0 == 0) {
          for (int64_t n = 0; n < block * layout.query_ld; ++n) block_out[n] = 0;
        }
        continue;
      }
      columns = columns < keys ? columns : keys;
      const int64_t padded = round_up(columns, width<A>);
      gemm<A, false>(block, padded, p.dim, query + i0 * layout.query_ld, layout.query_ld, 1, key, layout.key_ld, scores, layout.key_ld);
      for (int64_t r = 0; r < block; ++r) {
        const int64_t i = begin + i0 + r;
        A* const row = scores + r * layout.key_ld;
        int64_t count = visible_keys(p, s, i) - j0;
        count = count < 0 ? 0 : (count < columns ? count : columns);
        const A* const bias = bias_row<T>(p, b, h, i, j0, count, memory + layout.row);
        const A* const relative = p.relative == nullptr ? nullptr : memory + layout.relative + (j0 - i + s.queries - 1);
        const A largest = bias_and_maximum(row, count, bias, relative);
        const A before = maximum[i0 + r];
        const A now = largest > before || largest != largest ? largest : before;
        // While every score seen is -inf, shifting by 0 instead keeps exp(-inf - shift) = 0 rather than NaN.
        const A shift = now == -infinity<A> ? A{0} : now;
        const A added = exponentials(row, count, padded, shift);
        if (j0 == 0) {
          sum[i0 + r] = added;
        } else if (now != before) {
          const A factor = before == -infinity<A> ? A{0} : exp_softmax(splat<A>(before - now))[0];
          sum[i0 + r] = sum[i0 + r] * factor + added;
          scale_row(block_out + r * layout.query_ld, d, factor);
        } else {
          sum[i0 + r] += added;
        }
        maximum[i0 + r] = now;
        if (p.threshold != 0 && count > 0) {
          dropout_row(p, b, h, i, j0, count, memory + layout.keep);
          multiply_row(row, memory + layout.keep, round_up(count, width<A>));
        }
      }
      if (j0 == 0) {
        gemm<A, false>(block, d, columns, scores, layout.key_ld, 1, value, layout.query_ld, block_out, layout.query_ld);
      } else {
        gemm<A, true>(block, d, columns, scores, layout.key_ld, 1, value, layout.query_ld, block_out, layout.query_ld);
      }
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    const A total = sum[i];
    A* const row = out + i * layout.query_ld;
    // The products of such a row's zero weights need not be zero: values that other rows of its block see may be infinite.
    for (int64_t n = 0; total == 0 && n < d; ++n) row[n] = 0;
    const A factor = total == 0 ? A{0} : A{1} / total;
    unpack_rows<T>(row, layout.query_ld, 1, p.dim, factor, row_of<T>(p.out, b, h, s.query_row + begin + i), 0);
    if (p.lse != nullptr) {
      A* const lse = static_cast<A*>(p.lse) + b * p.lse_batch + h * p.lse_head + (s.query_row + begin + i) * p.lse_row;
      *lse = total == 0 ? -infinity<A> : maximum[i] + logarithm(total);
    }
  }
}

/// Adds (or writes) a row of score gradients to the bias gradient; columns count..block_columns-1 are invisible.
template <class A>
void put_bias_gradient(const AttentionProblem& p, BiasGradient mode, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t count,
                       int64_t block_columns, const A* ds) {
  A* to = static_cast<A*>(p.grad_bias) + b * p.grad_bias_batch + h * p.grad_bias_head + i * p.grad_bias_row + j0 * p.grad_bias_column;
  const int64_t stride = p.grad_bias_column;
  if (mode == BiasGradient::write) {
    int64_t j = 0;
    if (stride == 1) {
      for (; j + width<A> <= count; j += width<A>) store(to + j, load(ds + j));
    }
    for (; j < count; ++j) to[j * stride] = ds[j];
    for (; j < block_columns; ++j) to[j * stride] = 0;
  } else if (stride == 0) {
    vec<A> total{};
    for (int64_t j = 0; j < count; j += width<A>) total += load(ds + j);  // zero beyond count
    *to += reduce_add<A>(total);
  } else {
    int64_t j = 0;
    if (stride == 1) {
      for (; j + width<A> <= count; j += width<A>) store(to + j, load(to + j) + load(ds + j));
    }
    for (; j < count; ++j) to[j * stride] += ds[j];
  }
}

/// One row of a tile: turns scores into the weights that entered the output (row) and the gradients of the weights into those of the
/// scores (grad_row). delta is sum_j weight_j * gradient_j over the whole row. With NULL the tile holds the whole row; then, at the price
/// of a second look at it, the sum is taken here, where it cancels better than the one over the output, and the weights are made to add
/// up to one, which the rounding of shift (a log-sum-exp) spoils.
template <class A>
MOLFUSE_INLINE void score_gradients(A* row, A* grad_row, int64_t count, int64_t padded, A shift, const A* bias, const A* relative,
                                    const A* keep, A* grad_relative, const A* delta) {
  vec<A> total{}, mass{};
  auto weigh = [&](int64_t j, int64_t lanes) __attribute__((always_inline)) {
    const bool whole = lanes == width<A>;
    vec<A> score = load(row + j) - shift;
    if (bias != nullptr) score += whole ? load(bias + j) : load_partial(bias + j, lanes);
    if (relative != nullptr) score += whole ? load(relative + j) : load_partial(relative + j, lanes);
    vec<A> weight = exp_softmax(score), gradient = load(grad_row + j);
    if (!whole) {
      const ivec<A> inside = lanes_below<A>(lanes);
      weight = inside ? weight : vec<A>{};
      gradient = inside ? gradient : vec<A>{};
    }
    if (keep != nullptr) gradient *= load(keep + j);
    if (delta == nullptr) {
      mass += weight;
      total += weight * gradient;
      store(grad_row + j, gradient);
    } else {
      store(grad_row + j, weight * (gradient - *delta));
    }
    store(row + j, weight);
  };
  int64_t j = 0;
  for (; j + width<A> <= count; j += width<A>) weigh(j, width<A>);
  if (j < count) {
    weigh(j, count - j);
    j += width<A>;
  }
  if (delta == nullptr) {
    const A whole = reduce_add<A>(mass);
    const A share = whole == 0 ? A{0} : A{1} / whole, mean = reduce_add<A>(total) * share;
    for (int64_t n = 0; n < j; n += width<A>) {
      const vec<A> weight = load(row + n) * share;
      store(row + n, weight);
      store(grad_row + n, weight * (load(grad_row + n) - mean));
    }
  }
  if (keep != nullptr) multiply_row(row, keep, j);
  if (grad_relative != nullptr) {
    int64_t n = 0;
    for (; n + width<A> <= count; n += width<A>) store(grad_relative + n, load(grad_relative + n) + load(grad_row + n));
    for (; n < count; ++n) grad_relative[n] += grad_row[n];
  }
  for (; j < padded; j += width<A>) {
    store(row + j, vec<A>{});
    store(grad_row + j, vec<A>{});
  }
}

template <class T>
void backward(const AttentionProblem& p, const AttentionTask& task, void* scratch) {
  using A = accumulate_t<T>;
  const Sequence s = sequence_of(p, task.batch);
  if (tiny_applies<T>(p, s, task)) return tiny_backward<T>(p, s, task);
  const int64_t begin = task.query_begin, end = task.query_end < s.queries ? task.query_end : s.queries;
  const int64_t key_begin = task.key_begin, key_end = task.key_end < s.keys ? task.key_end : s.keys;
  const int64_t rows = end > begin ? end - begin : 0;
  const AttentionLayout layout = attention_layout(p, p.queries, true);
  A* const memory = static_cast<A*>(scratch);
  A* const query = memory + layout.query;
  A* const key_transposed = memory + layout.key_transposed;
  A* const key = memory + layout.value;
  A* const value_transposed = memory + layout.value_transposed;
  A* const scores = memory + layout.scores;
  A* const grad_scores = memory + layout.grad_scores;
  A* const grad_out = memory + layout.grad_out;
  A* const grad_query = memory + layout.out;
  A* const grad_key = memory + layout.grad_key;
  A* const grad_value = memory + layout.grad_value;
  A* const delta = memory + layout.delta;
  A* const log_sum = memory + layout.log_sum;
  A* const spread = memory + layout.relative;
  A* const grad_spread = memory + layout.grad_relative;
  const int64_t ld = layout.query_ld, lds = layout.key_ld;
  const int64_t d = round_up(p.dim, width<A>);
  const int64_t b = task.batch, h = task.head;
  const A scale = static_cast<A>(p.scale);

  if (p.relative != nullptr) spread_relative<T>(p, s, h, spread);
  if (task.grad_relative != nullptr) {
    for (int64_t t = 0; t < s.queries + s.keys; ++t) grad_spread[t] = 0;
  }
  const int64_t seen = rows > 0 ? visible_keys(p, s, end - 1) : 0;
  const bool one_block = key_begin == 0 && seen <= (key_end < kKeyBlock ? key_end : kKeyBlock);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t at = s.query_row + begin + i;
    const T* const o = row_of<const T>(p.out, b, h, at);
    const T* const g = row_of<const T>(p.grad_out, b, h, at);
    if (!one_block) {
      vec<A> total{};
      int64_t n = 0;
      for (; n + width<A> <= p.dim; n += width<A>) total += load(o + n) * load(g + n);
      if (n < p.dim) total += load_partial(o + n, p.dim - n) * load_partial(g + n, p.dim - n);
      delta[i] = reduce_add<A>(total);
    }
    const A lse = static_cast<const A*>(p.lse)[b * p.lse_batch + h * p.lse_head + at * p.lse_row];
    log_sum[i] = lse == -infinity<A> ? infinity<A> : lse;  // a row that sees nothing: exp(score - inf) = 0
  }

  bool query_written = false;
  for (int64_t j0 = key_begin; j0 < key_end; j0 += kKeyBlock) {
    const int64_t keys = key_end - j0 < kKeyBlock ? key_end - j0 : kKeyBlock;
    const bool block_seen = seen > j0;
    if (block_seen) {
      const T* const k = row_of<const T>(p.key, b, h, s.key_row + j0);
      pack_transposed<T>(k, p.key.row, keys, p.dim, key_transposed, lds);
      pack_rows<T>(k, p.key.row, keys, p.dim, A{1}, key, ld, d);
      pack_transposed<T>(row_of<const T>(p.value, b, h, s.key_row + j0), p.value.row, keys, p.dim, value_transposed, lds);
    }
    bool key_started = false;
    for (int64_t i0 = 0; i0 < rows; i0 += kQueryBlock) {
      const int64_t block = rows - i0 < kQueryBlock ? rows - i0 : kQueryBlock;
      int64_t columns = visible_keys(p, s, begin + i0 + block - 1) - j0;
      columns = columns < 0 ? 0 : (columns < keys ? columns : keys);
      if (columns == 0) {
        if (task.bias_gradient == BiasGradient::write) {
          for (int64_t r = 0; r < block; ++r) {
            put_bias_gradient<A>(p, BiasGradient::write, b, h, begin + i0 + r, j0, 0, keys, grad_scores);
          }
        }
        if (j0 == key_begin && task.query_gradient) {
          for (int64_t n = 0; n < block * ld; ++n) grad_query[i0 * ld + n] = 0;
        }
        continue;
      }
      const int64_t padded = round_up(columns, width<A>);
      const int64_t at = s.query_row + begin + i0;
      pack_rows<T>(row_of<const T>(p.query, b, h, at), p.query.row, block, p.dim, scale, query, ld, d);
      pack_rows<T>(row_of<const T>(p.grad_out, b, h, at), p.grad_out.row, block, p.dim, A{1}, grad_out, ld, d);
      for (int64_t r = 0; r < block; ++r) {
        if (log_sum[i0 + r] != infinity<A>) continue;
        for (int64_t n = 0; n < d; ++n) query[r * ld + n] = grad_out[r * ld + n] = 0;  // contributes nothing even if it is not finite
      }
      gemm<A, false>(block, padded, p.dim, query, ld, 1, key_transposed, lds, scores, lds);
      gemm<A, false>(block, padded, p.dim, grad_out, ld, 1, value_transposed, lds, grad_scores, lds);
      for (int64_t r = 0; r < block; ++r) {
        const int64_t i = begin + i0 + r;
        A* const row = scores + r * lds;
        A* const grad_row = grad_scores + r * lds;
        int64_t count = visible_keys(p, s, i) - j0;
        count = count < 0 ? 0 : (count < columns ? count : columns);
        const A* const bias = bias_row<T>(p, b, h, i, j0, count, memory + layout.row);
        const A* const relative = p.relative == nullptr ? nullptr : spread + (j0 - i + s.queries - 1);
        const A* keep = nullptr;
        if (p.threshold != 0 && count > 0) {
          dropout_row(p, b, h, i, j0, count, memory + layout.keep);
          keep = memory + layout.keep;
        }
        A* const grad_relative = task.grad_relative == nullptr ? nullptr : grad_spread + (j0 - i + s.queries - 1);
        score_gradients(row, grad_row, count, padded, log_sum[i0 + r], bias, relative, keep, grad_relative,
                        one_block ? nullptr : delta + i0 + r);
        if (task.bias_gradient != BiasGradient::none) {
          put_bias_gradient<A>(p, task.bias_gradient, b, h, i, j0, count, keys, grad_row);
        }
      }
      if (task.key_value_gradient) {
        if (!key_started && columns == keys) {
          gemm<A, false>(columns, d, block, scores, 1, lds, grad_out, ld, grad_value, ld);
          gemm<A, false>(columns, d, block, grad_scores, 1, lds, query, ld, grad_key, ld);
        } else {
          if (!key_started) {
            for (int64_t n = 0; n < keys * ld; ++n) grad_key[n] = grad_value[n] = 0;
          }
          gemm<A, true>(columns, d, block, scores, 1, lds, grad_out, ld, grad_value, ld);
          gemm<A, true>(columns, d, block, grad_scores, 1, lds, query, ld, grad_key, ld);
        }
        key_started = true;
      }
      if (task.query_gradient) {
        A* const target = grad_query + i0 * ld;
        if (j0 == key_begin) {
          gemm<A, false>(block, d, columns, grad_scores, lds, 1, key, ld, target, ld);
        } else {
          gemm<A, true>(block, d, columns, grad_scores, lds, 1, key, ld, target, ld);
        }
      }
    }
    query_written = true;
    if (task.key_value_gradient) {
      if (!key_started) {
        for (int64_t n = 0; n < keys * ld; ++n) grad_key[n] = grad_value[n] = 0;
      }
      if (p.grad_key.data != nullptr) {
        unpack_rows<T>(grad_key, ld, keys, p.dim, A{1}, row_of<T>(p.grad_key, b, h, s.key_row + j0), p.grad_key.row);
      }
      if (p.grad_value.data != nullptr) {
        unpack_rows<T>(grad_value, ld, keys, p.dim, A{1}, row_of<T>(p.grad_value, b, h, s.key_row + j0), p.grad_value.row);
      }
    }
  }
  if (task.query_gradient && rows > 0) {
    if (!query_written) {
      for (int64_t n = 0; n < rows * ld; ++n) grad_query[n] = 0;  // a sequence without keys
    }
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t n = 0; log_sum[i] == infinity<A> && n < d; ++n) grad_query[i * ld + n] = 0;
    }
    unpack_rows<T>(grad_query, ld, rows, p.dim, scale, row_of<T>(p.grad_query, b, h, s.query_row + begin), p.grad_query.row);
  }
  if (task.grad_relative != nullptr) {
    A* const folded = static_cast<A*>(task.grad_relative);
    for (int64_t n = 0; n <= 2 * p.radius; ++n) folded[n] = 0;
    const int64_t shift = s.keys - s.queries;
    for (int64_t t = 0; t < s.queries + s.keys - 1; ++t) {
      int64_t distance = t - (s.queries - 1) - shift;
      distance = distance < -p.radius ? -p.radius : (distance > p.radius ? p.radius : distance);
      folded[distance + p.radius] += grad_spread[t];
    }
  }
}

template <class T>
MOLFUSE_INLINE accumulate_t<T> dot(const accumulate_t<T>* query, const T* key, int64_t dim) {
  using A = accumulate_t<T>;
  vec<A> total{};
  int64_t n = 0;
  for (; n + width<A> <= dim; n += width<A>) total += load(query + n) * load(key + n);
  if (n < dim) total += load(query + n) * load_partial(key + n, dim - n);
  return reduce_add<A>(total);
}

/// One query per head against key_lengths[b] rows: bandwidth bound, so keys and values are read once, where they lie.
template <class T>
void decode(const AttentionProblem& p, const AttentionTask& task, void* scratch) {
  using A = accumulate_t<T>;
  const AttentionLayout layout = attention_layout(p, 1, false);
  A* const memory = static_cast<A*>(scratch);
  A* const query = memory + layout.query;
  A* const scores = memory + layout.scores;
  A* const out = memory + layout.out;
  const int64_t d = round_up(p.dim, width<A>);
  const int64_t b = task.batch, h = task.head;
  const int64_t length = sequence_of(p, b).key_limit;
  pack_rows<T>(row_of<const T>(p.query, b, h, 0), 0, 1, p.dim, static_cast<A>(p.scale), query, layout.query_ld, d);
  for (int64_t n = 0; n < d; ++n) out[n] = 0;
  A largest = -infinity<A>, sum = 0;
  for (int64_t j0 = 0; j0 < length; j0 += kKeyBlock) {
    const int64_t keys = length - j0 < kKeyBlock ? length - j0 : kKeyBlock;
    for (int64_t j = 0; j < keys; ++j) {
      A score = dot<T>(query, row_of<const T>(p.key, b, h, j0 + j), p.dim);
      if (p.relative != nullptr) {
        int64_t distance = j0 + j - (length - 1);
        distance = distance < -p.radius ? -p.radius : distance;
        A bias;
        convert_row<T>(p.relative, p.relative_dtype, h * p.relative_head + (distance + p.radius) * p.relative_column, 0, 1, &bias);
        score += bias;
      }
      scores[j] = score;
    }
    const A block_largest = bias_and_maximum<A>(scores, keys, nullptr, nullptr);
    const A now = block_largest > largest || block_largest != block_largest ? block_largest : largest;
    const A shift = now == -infinity<A> ? A{0} : now;
    const A factor = largest == -infinity<A> ? A{0} : exp_softmax(splat<A>(largest - shift))[0];
    sum = sum * factor + exponentials(scores, keys, round_up(keys, width<A>), shift);
    scale_row(out, d, factor);
    largest = now;
    for (int64_t j = 0; j < keys; ++j) {
      const T* const value = row_of<const T>(p.value, b, h, j0 + j);
      int64_t n = 0;
      for (; n + width<A> <= p.dim; n += width<A>) store(out + n, load(out + n) + scores[j] * load(value + n));
      if (n < p.dim) store(out + n, load(out + n) + scores[j] * load_partial(value + n, p.dim - n));
    }
  }
  unpack_rows<T>(out, layout.query_ld, 1, p.dim, sum == 0 ? A{0} : A{1} / sum, row_of<T>(p.out, b, h, 0), 0);
}

void forward_any(const AttentionProblem& p, const AttentionTask& task, void* scratch) {
  with_type(p.dtype, [&](auto tag) { forward<typename decltype(tag)::type>(p, task, scratch); });
}
void backward_any(const AttentionProblem& p, const AttentionTask& task, void* scratch) {
  with_type(p.dtype, [&](auto tag) { backward<typename decltype(tag)::type>(p, task, scratch); });
}
void decode_any(const AttentionProblem& p, const AttentionTask& task, void* scratch) {
  with_type(p.dtype, [&](auto tag) { decode<typename decltype(tag)::type>(p, task, scratch); });
}

}  // namespace

const AttentionKernels attention_kernels{forward_any, backward_any, decode_any};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

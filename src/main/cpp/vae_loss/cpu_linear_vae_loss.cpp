// SPDX-License-Identifier: Apache-2.0
// The loss of hidden . weight^T + bias. Logits exist as tiles of classes x a block of rows: with rows along the vectors the weights
// are used as they lie, and the softmax of a row is a sum down a column.
#include "vae_loss/cpu_rows.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

// Parts of the products: kDepth terms of a panel of the second operand stay in a first-level cache, with kClasses x kDepth of the
// first one in a second-level cache.
constexpr int64_t kDepth = 256;
constexpr int64_t kClasses = 96;

/// C = (or += with add) A . B as runtime/gemm.h, for any depth and number of rows.
template <class A>
void multiply(bool add, int64_t rows, int64_t columns, int64_t depth, const A* a, int64_t row_stride, int64_t column_stride,
              const A* b, int64_t ldb, A* c, int64_t ldc) {
  for (int64_t p = 0; p < depth; p += kDepth) {
    const int64_t part = depth - p < kDepth ? depth - p : kDepth;
    for (int64_t i = 0; i < rows; i += kClasses) {
      const int64_t count = rows - i < kClasses ? rows - i : kClasses;
      const A* from = a + i * row_stride + p * column_stride;
      if (add || p > 0) {
        gemm<A, true>(count, columns, part, from, row_stride, column_stride, b + p * ldb, ldb, c + i * ldc, ldc);
      } else {
        gemm<A, false>(count, columns, part, from, row_stride, column_stride, b + p * ldb, ldb, c + i * ldc, ldc);
      }
    }
  }
}

/// A row of any stride in the accumulator type, padded with 0.
template <class T>
void pack_row(const T* from, int64_t stride, int64_t count, accumulate_t<T>* to, int64_t padded) {
  using A = accumulate_t<T>;
  int64_t n = 0;
  if (stride == 1) {
    for (; n + width<A> <= count; n += width<A>) store(to + n, load(from + n));
  }
  for (; n < count; ++n) to[n] = static_cast<A>(to_float(from[n * stride]));
  for (; n < padded; ++n) to[n] = 0;
}

template <class T>
void unpack_row(const accumulate_t<T>* from, int64_t count, T* to, int64_t stride) {
  using A = accumulate_t<T>;
  int64_t n = 0;
  if (stride == 1) {
    for (; n + width<A> <= count; n += width<A>) store(to + n, load(from + n));
  }
  for (; n < count; ++n) to[n * stride] = FromFloat<T>::of(from[n]);
}

/// One block of rows. Lanes beyond the last row are computed like rows of zeros and have scale 0.
template <class T>
struct Block {
  using A = accumulate_t<T>;
  using Int = typename VecTypes<A>::Int;
  const LinearLossProblem& p;
  int64_t begin, count, columns;
  A *hidden, *transposed, *logits, *grad_hidden;
  int64_t batch[kLinearBlock], token[kLinearBlock], target[kLinearBlock];
  alignas(64) A shift[kLinearBlock];
  alignas(64) A total[kLinearBlock];
  alignas(64) A target_logit[kLinearBlock];
  alignas(64) A scale[kLinearBlock];
  alignas(64) Int best[kLinearBlock];  // class of the maximum, the lowest of several

  Block(const LinearLossProblem& problem, void* scratch) : p(problem) {
    const LinearLossLayout layout = linear_loss_layout(p);
    A* memory = static_cast<A*>(scratch);
    hidden = memory + layout.hidden;
    transposed = memory + layout.hidden_transposed;
    logits = memory + layout.logits;
    grad_hidden = memory + layout.grad_hidden;
  }

  void load_rows(int64_t first, int64_t last) {
    begin = first;
    count = last - first;
    columns = round_up(count, width<A>);
    for (int64_t i = 0; i < columns; ++i) {
      shift[i] = -infinity<A>;
      total[i] = target_logit[i] = scale[i] = 0;
      best[i] = 0;
    }
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = batch[i] = p.rows[first + i] / p.length, t = token[i] = p.rows[first + i] % p.length;
      target[i] = p.targets.at(b, t);
      scale[i] = p.grad_nll.data != nullptr ? *token_at<A>(p.grad_nll, b, t) : static_cast<A>(p.row_scale);
      const T* from = static_cast<const T*>(p.hidden) + b * p.hidden_batch + t * p.hidden_token;
      pack_row(from, p.hidden_channel, p.channels, hidden + i * p.weight_ld, p.weight_ld);
    }
    pack_transposed(hidden, p.weight_ld, count, p.channels, transposed, p.row_ld);
  }

  void make_logits(int64_t k0, int64_t classes) {
    const A* bias = static_cast<const A*>(p.bias);
    for (int64_t k = 0; bias != nullptr && k < classes; ++k) {
      for (int64_t i = 0; i < columns; i += width<A>) store(logits + k * p.row_ld + i, splat<A>(bias[k0 + k]));
    }
    multiply(bias != nullptr, classes, columns, p.channels, static_cast<const A*>(p.weight) + k0 * p.weight_ld, p.weight_ld, 1,
             transposed, p.row_ld, logits, p.row_ld);
  }

  /// Online softmax over another tile; kStore: its terms replace the logits.
  template <bool kStore>
  void add_tile(int64_t k0, int64_t classes) {
    for (int64_t i = 0; i < count; ++i) {
      if (target[i] >= k0 && target[i] < k0 + classes) target_logit[i] = logits[(target[i] - k0) * p.row_ld + i];
    }
    for (int64_t at = 0; at < columns; at += width<A>) {
      A* column = logits + at;
      const vec<A> old = load(shift + at);
      vec<A> largest = old;
      ivec<A> index;
      __builtin_memcpy(&index, best + at, sizeof index);
      for (int64_t k = 0; k < classes; ++k) {
        const vec<A> v = load(column + k * p.row_ld);
        const ivec<A> higher = v > largest;
        index = higher ? ivec<A>{} + static_cast<Int>(k0 + k) : index;
        largest = higher ? v : largest;
      }
      const vec<A> safe = largest == -infinity<A> ? vec<A>{} : largest;
      vec<A> sum = old == largest ? load(total + at) : load(total + at) * exp_softmax(old - safe);
      for (int64_t k = 0; k < classes; ++k) {
        const vec<A> e = exp_softmax(load(column + k * p.row_ld) - safe);
        if (kStore) store(column + k * p.row_ld, e);
        sum += e;
      }
      __builtin_memcpy(best + at, &index, sizeof index);
      store(shift + at, largest);
      store(total + at, sum);
    }
  }

  /// Logits become exp(logit - shift).
  void exponentiate(int64_t classes) {
    for (int64_t at = 0; at < columns; at += width<A>) {
      const vec<A> s = load(shift + at);
      for (int64_t k = 0; k < classes; ++k) {
        A* x = logits + k * p.row_ld + at;
        store(x, exp_softmax(load(x) - s));
      }
    }
  }

  /// Terms become gradients of the logits: (term / total - [class is target]) * scale; 0 in the lanes beyond the rows.
  void make_gradients(int64_t k0, int64_t classes) {
    alignas(64) A factor[kLinearBlock];
    for (int64_t at = 0; at < columns; at += width<A>) store(factor + at, load(scale + at) / load(total + at));
    for (int64_t i = count; i < columns; ++i) factor[i] = 0;
    for (int64_t k = 0; k < classes; ++k) {
      for (int64_t at = 0; at < columns; at += width<A>) {
        A* x = logits + k * p.row_ld + at;
        store(x, load(x) * load(factor + at));
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      if (target[i] >= k0 && target[i] < k0 + classes) logits[(target[i] - k0) * p.row_ld + i] -= scale[i];
    }
  }

  /// gradient: of class 0.
  void add_weight_gradient(const WeightGradient& gradient, int64_t k0, int64_t classes) {
    if (gradient.weight != nullptr) {
      multiply(!gradient.first, classes, round_up(p.channels, width<A>), count, logits, p.row_ld, 1, hidden, p.weight_ld,
               static_cast<A*>(gradient.weight) + k0 * p.weight_ld, p.weight_ld);
    }
    for (int64_t k = 0; gradient.bias != nullptr && k < classes; ++k) {
      vec<A> sum{};
      for (int64_t at = 0; at < columns; at += width<A>) sum += load(logits + k * p.row_ld + at);
      A& to = static_cast<A*>(gradient.bias)[k0 + k];
      to = (gradient.first ? A{0} : to) + reduce_add<A>(sum);
    }
  }

  void add_hidden_gradient(int64_t k0, int64_t classes) {
    multiply(k0 > 0, count, round_up(p.channels, width<A>), classes, logits, 1, p.row_ld,
             static_cast<const A*>(p.weight) + k0 * p.weight_ld, p.weight_ld, grad_hidden, p.weight_ld);
  }

  void write_losses(TokenSums* sums) {
    double nll_sum = 0;
    int64_t correct = 0;
    for (int64_t at = 0; at < columns; at += width<A>) {
      alignas(64) A lse[width<A>];
      alignas(64) A nll[width<A>];
      const vec<A> logarithm = log(load(total + at)), s = load(shift + at);
      store(lse, s + logarithm);
      store(nll, logarithm + (s - load(target_logit + at)));
      for (int64_t i = at; i < count && i < at + width<A>; ++i) {
        nll_sum += static_cast<double>(nll[i - at]);
        correct += total[i] > A{0} && best[i] == static_cast<Int>(target[i]);
        if (p.row_lse.data != nullptr) *token_at<A>(p.row_lse, batch[i], token[i]) = lse[i - at];
        if (p.nll.data != nullptr) *token_at<A>(p.nll, batch[i], token[i]) = nll[i - at];
        if (p.shift != nullptr) {
          static_cast<A*>(p.shift)[begin + i] = shift[i];
          static_cast<A*>(p.inverse)[begin + i] = A{1} / total[i];
        }
      }
    }
    sums->nll = nll_sum;
    sums->correct = correct;
  }

  /// shift and total as the losses' pass left them. Lanes beyond count get terms of exactly 0.
  void recall_softmax() {
    for (int64_t i = 0; i < columns; ++i) {
      shift[i] = infinity<A>;
      total[i] = 1;
    }
    for (int64_t i = 0; i < count; ++i) {
      if (p.backward) {
        shift[i] = *token_at<A>(p.row_lse, batch[i], token[i]);
      } else {
        shift[i] = static_cast<const A*>(p.shift)[begin + i];
        total[i] = A{1} / static_cast<const A*>(p.inverse)[begin + i];
      }
    }
  }
};

template <class T>
void rows(const LinearLossProblem& p, int64_t begin, int64_t end, const WeightGradient& gradient, void* scratch, TokenSums* sums) {
  Block<T> block(p, scratch);
  block.load_rows(begin, end);
  const bool want_weight = gradient.weight != nullptr || gradient.bias != nullptr;
  const bool single = p.classes <= p.tile, want_gradient = want_weight || p.grad_hidden != nullptr;
  if (single) {
    block.make_logits(0, p.classes);
    block.template add_tile<true>(0, p.classes);
  } else if (p.backward) {
    block.recall_softmax();
  } else {
    for (int64_t k = 0; k < p.classes; k += p.tile) {
      const int64_t classes = p.classes - k < p.tile ? p.classes - k : p.tile;
      block.make_logits(k, classes);
      block.template add_tile<false>(k, classes);
    }
  }
  if (!p.backward) block.write_losses(sums);
  for (int64_t k = 0; want_gradient && k < p.classes; k += p.tile) {
    const int64_t classes = p.classes - k < p.tile ? p.classes - k : p.tile;
    if (!single) {
      block.make_logits(k, classes);
      block.exponentiate(classes);
    }
    block.make_gradients(k, classes);
    if (want_weight) block.add_weight_gradient(gradient, k, classes);
    if (p.grad_hidden != nullptr) block.add_hidden_gradient(k, classes);
  }
  for (int64_t i = 0; p.grad_hidden != nullptr && i < block.count; ++i) {
    T* to = static_cast<T*>(p.grad_hidden) + block.batch[i] * p.grad_batch + block.token[i] * p.grad_token;
    unpack_row(block.grad_hidden + i * p.weight_ld, p.channels, to, p.grad_channel);
  }
}

template <class T>
void classes(const LinearLossProblem& p, int64_t begin, int64_t end, const WeightGradient& gradient, void* scratch) {
  Block<T> block(p, scratch);
  WeightGradient part = gradient;
  for (int64_t row = 0; row < p.row_count; row += p.block) {
    block.load_rows(row, p.row_count - row < p.block ? p.row_count : row + p.block);
    block.recall_softmax();
    block.make_logits(begin, end - begin);
    block.exponentiate(end - begin);
    block.make_gradients(begin, end - begin);
    block.add_weight_gradient(part, begin, end - begin);
    part.first = false;
  }
}

template <class T>
void pack_weight(const void* from, int64_t row, int64_t column, int64_t channels, int64_t begin, int64_t end, void* to, int64_t ld) {
  for (int64_t k = begin; k < end; ++k) {
    pack_row(static_cast<const T*>(from) + k * row, column, channels, static_cast<accumulate_t<T>*>(to) + k * ld, ld);
  }
}

void pack_any(int32_t dtype, const void* from, int64_t row, int64_t column, int64_t channels, int64_t begin, int64_t end, void* to, int64_t ld) {
  with_type(dtype, [&](auto tag) { pack_weight<typename decltype(tag)::type>(from, row, column, channels, begin, end, to, ld); });
}
void rows_any(const LinearLossProblem& p, int64_t begin, int64_t end, const WeightGradient& gradient, void* scratch, TokenSums* sums) {
  with_type(p.dtype, [&](auto tag) { rows<typename decltype(tag)::type>(p, begin, end, gradient, scratch, sums); });
}
void classes_any(const LinearLossProblem& p, int64_t begin, int64_t end, const WeightGradient& gradient, void* scratch) {
  with_type(p.dtype, [&](auto tag) { classes<typename decltype(tag)::type>(p, begin, end, gradient, scratch); });
}

}  // namespace

const LinearLossKernels linear_loss_kernels = {pack_any, rows_any, classes_any};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

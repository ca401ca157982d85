// SPDX-License-Identifier: Apache-2.0
// The loss of given logits by rows: one token's classes after the other, contiguous or not.
#include "vae_loss/cpu_rows.h"
#include "vae_loss/cpu_tiles.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

// Rows of at most so many classes are taken a vector's width of rows at a time: their lane sums are combined across rows, and the
// stages of different rows overlap. A group of 16 rows stays in a first-level cache.
constexpr int64_t kGroupClasses = 512;
constexpr int64_t kRowBuffer = kGroupClasses * width<float> > kRowChunk ? kGroupClasses * width<float> : kRowChunk;

/// The unmasked tokens of a task.
struct Rows {
  int64_t count = 0;
  int64_t batch[kTaskTokens], token[kTaskTokens], target[kTaskTokens];
};

/// Lists the unmasked tokens among begin..end-1 of the [B,T] grid; calls padding(b, t) for the others.
template <class Padding>
MOLFUSE_INLINE void list_rows(const VaeLossProblem& p, int64_t begin, int64_t end, Rows& rows, Padding&& padding) {
  int64_t b = begin / p.length, t = begin % p.length, count = 0;
  for (int64_t n = begin; n < end; ++n) {
    const int64_t target = p.targets.at(b, t);
    rows.batch[count] = b;
    rows.token[count] = t;
    rows.target[count] = target;
    if (target != p.targets.pad) {
      ++count;
    } else {
      padding(b, t);
    }
    if (++t == p.length) {
      t = 0;
      ++b;
    }
  }
  rows.count = count;
}

template <class T>
MOLFUSE_INLINE const T* logits_row(const VaeLossProblem& p, const Rows& rows, int64_t n) {
  return static_cast<const T*>(p.logits) + rows.batch[n] * p.logits_batch + rows.token[n] * p.logits_token;
}

/// Positions of the vectors that cover a row: VECTORS of them if that is not 0 (loops of known length, which are a fifth faster at a
/// vocabulary of 40), else as many as the row needs. The last one
/// overlaps its predecessor; `counted` are its new lanes.
template <class A, int VECTORS>
struct RowCover {
  int64_t last, full;
  ivec<A> counted;
  explicit RowCover(int64_t classes) : last(classes - width<A>), full((classes - 1) / width<A>) {
    const int64_t repeated = (full + 1) * width<A> - classes;
    counted = lane_numbers<A>() >= static_cast<typename VecTypes<A>::Int>(repeated);
  }
  template <class Function>
  MOLFUSE_INLINE void rest(Function&& function) const {
    if constexpr (VECTORS != 0) {
#pragma GCC unroll 8
      for (int j = 0; j < VECTORS - 1; ++j) function(int64_t{j} * width<A>);
    } else {
      for (int64_t j = 0; j < full; ++j) function(j * width<A>);
    }
  }
};

template <class T>
MOLFUSE_INLINE T* gradient_row(const VaeLossProblem& p, int64_t b, int64_t t) {
  return static_cast<T*>(p.grad_logits) + b * p.grad_batch + t * p.grad_token;
}

template <class T>
MOLFUSE_INLINE void zero_gradient_row(const VaeLossProblem& p, int64_t b, int64_t t) {
  T* out = gradient_row<T>(p, b, t);
  if (p.grad_class == 1) {
    __builtin_memset(static_cast<void*>(out), 0, static_cast<size_t>(p.classes) * sizeof(T));
  } else {
    for (int64_t j = 0; j < p.classes; ++j) out[j * p.grad_class] = FromFloat<T>::of(accumulate_t<T>{0});
  }
}

template <class T>
MOLFUSE_INLINE void write_row(T* out, int64_t stride, int64_t count, const accumulate_t<T>* values, accumulate_t<T> factor) {
  using A = accumulate_t<T>;
  if (stride == 1 && count >= width<A>) {
    each_vector<A>(count, [&](int64_t j, int64_t) __attribute__((always_inline)) { store(out + j, load(values + j) * factor); });
  } else {
    for (int64_t j = 0; j < count; ++j) out[j * stride] = FromFloat<T>::of(values[j] * factor);
  }
}

/// One row of the gradient out of the row's terms, exp(x - shift), and one over their sum.
template <class T, int VECTORS>
MOLFUSE_INLINE void write_gradient(const VaeLossProblem& p, const RowCover<accumulate_t<T>, VECTORS>& cover, T* out, const accumulate_t<T>* terms,
                                   accumulate_t<T> inverse, accumulate_t<T> scale, int64_t target) {
  using A = accumulate_t<T>;
  const A factor = inverse * scale;
  if (p.grad_class == 1) {
    cover.rest([&](int64_t j) __attribute__((always_inline)) { store(out + j, load(terms + j) * factor); });
    store(out + cover.last, load(terms + cover.last) * factor);
  } else {
    write_row(out, p.grad_class, p.classes, terms, factor);
  }
  out[target * p.grad_class] = FromFloat<T>::of((terms[target] * inverse - A{1}) * scale);
}

/// Softmax of the rows first..first+width-1, the last row standing in for missing ones. e: room for the terms of a gradient.
template <class T, int VECTORS, bool GRADIENT>
MOLFUSE_INLINE void forward_group(const VaeLossProblem& p, const Rows& rows, int64_t first, TokenBlock<accumulate_t<T>>& block,
                                  accumulate_t<T>* e) {
  using A = accumulate_t<T>;
  const RowCover<A, VECTORS> cover(p.classes);
  const int64_t ld = (cover.full + 1) * width<A>;
  const T* x[width<A>];
  vec<A> lanes[width<A>];
  for (int r = 0; r < width<A>; ++r) {
    const T* row = x[r] = logits_row<T>(p, rows, first + r < rows.count ? first + r : rows.count - 1);
    vec<A> largest = load(row + cover.last);
    cover.rest([&](int64_t j) __attribute__((always_inline)) { largest = maximum(largest, load(row + j)); });
    lanes[r] = largest;
  }
  store(block.shift + first, maximum_rows<A>(lanes));
  for (int r = 0; r < width<A>; ++r) {
    const T* row = x[r];
    const A shift = block.shift[first + r];
    A* const terms = e + r * ld;
    const vec<A> last = exp_softmax(load(row + cover.last) - shift);
    vec<A> total = cover.counted ? last : vec<A>{};
    cover.rest([&](int64_t j) __attribute__((always_inline)) {
      const vec<A> v = exp_softmax(load(row + j) - shift);
      if constexpr (GRADIENT) store(terms + j, v);
      total += v;
    });
    if constexpr (GRADIENT) store(terms + cover.last, last);
    lanes[r] = total;
  }
  const vec<A> total = add_rows<A>(lanes);
  store(block.total + first, total);
  if constexpr (GRADIENT) {
    alignas(64) A inverse[width<A>];
    store(inverse, A{1} / total);
    for (int r = 0; r < width<A> && first + r < rows.count; ++r) {
      write_gradient<T, VECTORS>(p, cover, gradient_row<T>(p, rows.batch[first + r], rows.token[first + r]), e + r * ld, inverse[r],
                                 static_cast<A>(p.row_scale), rows.target[first + r]);
    }
  }
}

/// Calls function(Constant<VECTORS>{}) with the number of vectors of a row, or 0.
template <class A, class Function>
MOLFUSE_INLINE void with_vectors(int64_t classes, Function&& function) {
  switch ((classes + width<A> - 1) / width<A>) {
    case 2: function(Constant<2>{}); break;
    case 3: function(Constant<3>{}); break;
    case 4: function(Constant<4>{}); break;
    case 5: function(Constant<5>{}); break;
    case 6: function(Constant<6>{}); break;
    default: function(Constant<0>{}); break;
  }
}

/// The gradient of one row of any length and stride, chunk by chunk; its terms are computed again.
template <class T>
MOLFUSE_INLINE void write_long_gradient(const VaeLossProblem& p, const T* x, T* out, int64_t target, accumulate_t<T> shift,
                                        accumulate_t<T> inverse, accumulate_t<T> scale, accumulate_t<T>* e) {
  using A = accumulate_t<T>;
  for (int64_t k = 0; k < p.classes; k += kRowChunk) {
    const int64_t count = p.classes - k < kRowChunk ? p.classes - k : kRowChunk;
    row_exponentials<A, true>(row_values(x + k * p.logits_class, p.logits_class, count, e), count, shift, e);
    const A at_target = target >= k && target < k + count ? e[target - k] : A{0};
    write_row(out + k * p.grad_class, p.grad_class, count, e, inverse * scale);
    if (target >= k && target < k + count) out[target * p.grad_class] = FromFloat<T>::of((at_target * inverse - A{1}) * scale);
  }
}

/// Softmax of one row of any length and stride.
template <class T>
MOLFUSE_INLINE void forward_row(const VaeLossProblem& p, const Rows& rows, int64_t n, TokenBlock<accumulate_t<T>>& block,
                                accumulate_t<T>* buffer) {
  using A = accumulate_t<T>;
  const T* row = logits_row<T>(p, rows, n);
  A shift = -infinity<A>, total = 0;
  for (int64_t k = 0; k < p.classes; k += kRowChunk) {
    const int64_t count = p.classes - k < kRowChunk ? p.classes - k : kRowChunk;
    const A* x = row_values(row + k * p.logits_class, p.logits_class, count, buffer);
    const A largest = row_maximum(x, count);
    if (!(largest <= shift)) {
      // An all -inf beginning has total 0 to rescale, and -inf - -inf would be NaN.
      if (total != A{0}) total *= exp_scalar(shift - largest);
      shift = largest;
    }
    if (shift != -infinity<A>) total += row_exponentials<A, false>(x, count, shift, nullptr);
  }
  block.shift[n] = shift;
  block.total[n] = total;
  if (p.grad_logits != nullptr) {
    const A scale = static_cast<A>(p.row_scale);
    write_long_gradient<T>(p, row, gradient_row<T>(p, rows.batch[n], rows.token[n]), rows.target[n], shift, A{1} / total, scale, buffer);
  }
}

template <class T>
void forward_rows(const VaeLossProblem& p, int64_t begin, int64_t end, TokenSums* sums) {
  using A = accumulate_t<T>;
  Rows rows;
  TokenBlock<A> block;
  alignas(64) A buffer[kRowBuffer];
  list_rows(p, begin, end, rows, [&](int64_t b, int64_t t) __attribute__((always_inline)) {
    if (p.row_lse.data != nullptr) *token_at<A>(p.row_lse, b, t) = 0;
    if (p.nll.data != nullptr) *token_at<A>(p.nll, b, t) = 0;
    if (p.grad_logits != nullptr) zero_gradient_row<T>(p, b, t);
  });
  if (p.logits_class == 1 && p.classes >= width<A> && p.classes <= kGroupClasses) {
    with_vectors<A>(p.classes, [&](auto vectors) {
      constexpr int kVectors = decltype(vectors)::value;
      if (p.grad_logits != nullptr) {
        for (int64_t n = 0; n < rows.count; n += width<A>) forward_group<T, kVectors, true>(p, rows, n, block, buffer);
      } else {
        for (int64_t n = 0; n < rows.count; n += width<A>) forward_group<T, kVectors, false>(p, rows, n, block, buffer);
      }
    });
  } else {
    for (int64_t n = 0; n < rows.count; ++n) forward_row<T>(p, rows, n, block, buffer);
  }
  int64_t correct = 0;
  for (int64_t n = 0; n < rows.count; ++n) {
    const T* row = logits_row<T>(p, rows, n);
    const A logit = static_cast<A>(to_float(row[rows.target[n] * p.logits_class]));
    block.target[n] = logit;
    // The classes before the target are looked at only where it is a maximum: a tie goes to the lowest class.
    if (logit == block.shift[n] && block.total[n] > A{0}) correct += !row_contains(row, p.logits_class, rows.target[n], logit);
  }
  sums->nll = block.finish(rows.count);
  sums->correct = correct;
  for (int64_t n = 0; n < rows.count; ++n) {
    if (p.row_lse.data != nullptr) *token_at<A>(p.row_lse, rows.batch[n], rows.token[n]) = block.lse[n];
    if (p.nll.data != nullptr) *token_at<A>(p.nll, rows.batch[n], rows.token[n]) = block.nll[n];
  }
}

template <class T>
struct BackwardRow {
  T* out;
  accumulate_t<T> shift, scale;
};

template <class T>
MOLFUSE_INLINE BackwardRow<T> backward_row_of(const VaeLossProblem& p, const Rows& rows, int64_t n) {
  using A = accumulate_t<T>;
  const int64_t b = rows.batch[n], t = rows.token[n];
  return {gradient_row<T>(p, b, t), *token_at<A>(p.row_lse, b, t),
          p.grad_nll.data != nullptr ? *token_at<A>(p.grad_nll, b, t) : static_cast<A>(p.row_scale)};
}

template <class T, int VECTORS>
MOLFUSE_INLINE void backward_group(const VaeLossProblem& p, const Rows& rows, int64_t first, accumulate_t<T>* e) {
  using A = accumulate_t<T>;
  const RowCover<A, VECTORS> cover(p.classes);
  const int count = rows.count - first < width<A> ? static_cast<int>(rows.count - first) : width<A>;
  const int64_t ld = (cover.full + 1) * width<A>;
  BackwardRow<T> row[width<A>];
  vec<A> lanes[width<A>];
  for (int r = 0; r < width<A>; ++r) lanes[r] = splat<A>(A{1});
  for (int r = 0; r < count; ++r) {
    row[r] = backward_row_of<T>(p, rows, first + r);
    const T* x = logits_row<T>(p, rows, first + r);
    A* terms = e + r * ld;
    const A shift = row[r].shift;
    const vec<A> last = exp_softmax(load(x + cover.last) - shift);
    vec<A> total = cover.counted ? last : vec<A>{};
    cover.rest([&](int64_t j) __attribute__((always_inline)) {
      const vec<A> v = exp_softmax(load(x + j) - shift);
      store(terms + j, v);
      total += v;
    });
    store(terms + cover.last, last);
    lanes[r] = total;
  }
  alignas(64) A inverse[width<A>];
  store(inverse, A{1} / add_rows<A>(lanes));
  for (int r = 0; r < count; ++r) {
    write_gradient<T, VECTORS>(p, cover, row[r].out, e + r * ld, inverse[r], row[r].scale, rows.target[first + r]);
  }
}

template <class T>
MOLFUSE_INLINE void backward_row(const VaeLossProblem& p, const Rows& rows, int64_t n, accumulate_t<T>* e) {
  using A = accumulate_t<T>;
  const BackwardRow<T> row = backward_row_of<T>(p, rows, n);
  const T* x = logits_row<T>(p, rows, n);
  const int64_t target = rows.target[n], stride = p.logits_class;
  A total = 0;
  for (int64_t k = 0; k < p.classes; k += kRowChunk) {
    const int64_t count = p.classes - k < kRowChunk ? p.classes - k : kRowChunk;
    total += row_exponentials<A, true>(row_values(x + k * stride, stride, count, e), count, row.shift, e);
  }
  const A inverse = A{1} / total;
  if (p.classes > kRowChunk) return write_long_gradient<T>(p, x, row.out, target, row.shift, inverse, row.scale, e);
  const A at_target = e[target];
  write_row(row.out, p.grad_class, p.classes, e, inverse * row.scale);
  row.out[target * p.grad_class] = FromFloat<T>::of((at_target * inverse - A{1}) * row.scale);
}

// Both ways divide the probabilities by their sum, which is one but for the rounding of the stored log-sum-exp: for logits in the
// hundreds that is an error of 1e-5.
template <class T>
void backward_rows(const VaeLossProblem& p, int64_t begin, int64_t end) {
  using A = accumulate_t<T>;
  Rows rows;
  alignas(64) A terms[kRowBuffer];
  list_rows(p, begin, end, rows, [&](int64_t b, int64_t t) __attribute__((always_inline)) {
    zero_gradient_row<T>(p, b, t);
  });
  if (p.logits_class == 1 && p.classes >= width<A> && p.classes <= kGroupClasses) {
    with_vectors<A>(p.classes, [&](auto vectors) {
      for (int64_t n = 0; n < rows.count; n += width<A>) backward_group<T, decltype(vectors)::value>(p, rows, n, terms);
    });
  } else {
    for (int64_t n = 0; n < rows.count; ++n) backward_row<T>(p, rows, n, terms);
  }
}

void forward_rows_any(const VaeLossProblem& p, int64_t begin, int64_t end, TokenSums* sums) {
  with_type(p.dtype, [&](auto tag) { forward_rows<typename decltype(tag)::type>(p, begin, end, sums); });
}
void backward_rows_any(const VaeLossProblem& p, int64_t begin, int64_t end) {
  with_type(p.dtype, [&](auto tag) { backward_rows<typename decltype(tag)::type>(p, begin, end); });
}
void forward_tile_any(const VaeLossProblem& p, int64_t b, int64_t begin, int64_t end, TokenSums* sums) {
  with_type(p.dtype, [&](auto tag) { forward_tile<typename decltype(tag)::type>(p, b, begin, end, sums); });
}
void backward_tile_any(const VaeLossProblem& p, int64_t b, int64_t begin, int64_t end, void* scratch) {
  with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    backward_tile<T>(p, b, begin, end, static_cast<accumulate_t<T>*>(scratch));
  });
}

void scale_any(int32_t dtype, const void* from, void* to, int64_t count, double factor) {
  with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = accumulate_t<T>;
    const T* const x = static_cast<const T*>(from);
    T* const y = static_cast<T*>(to);
    const A by = static_cast<A>(factor);
    for (int64_t n = 0; n < count; n += width<A>) {
      const int64_t left = count - n;
      write_lanes(y + n, 1, left, read_lanes(x + n, 1, left) * by);
    }
  });
}

}  // namespace

const VaeLossKernels vae_loss_kernels = {forward_rows_any, backward_rows_any, forward_tile_any, backward_tile_any, scale_any};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

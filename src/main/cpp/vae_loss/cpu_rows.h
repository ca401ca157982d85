// SPDX-License-Identifier: Apache-2.0
// Softmax sweeps over one row and over columns of a tile, for the cpu_*.cpp files of this folder.
#pragma once

#include "runtime/gemm.h"
#include "runtime/simd_math.h"
#include "vae_loss/kernels.h"

namespace molfuse {
namespace MOLFUSE_ISA {

template <class A>
MOLFUSE_INLINE A* token_at(const TokenValues& values, int64_t b, int64_t t) {
  return static_cast<A*>(values.data) + b * values.batch + t * values.token;
}

template <class A>
MOLFUSE_INLINE A exp_scalar(A x) { return exp_softmax(splat<A>(x))[0]; }

/// Calls function(position, uncounted) for vectors that cover 0..count-1, count >= width: the last one overlaps its predecessor when
/// count is no multiple of width, and its first `uncounted` lanes have then been seen.
template <class A, class Function>
MOLFUSE_INLINE void each_vector(int64_t count, Function&& function) {
  int64_t j = 0;
  for (; j + width<A> <= count; j += width<A>) function(j, 0);
  if (j < count) function(count - width<A>, width<A> - (count - j));
}

/// Elements 0..count-1 of a row as A: where they lie if they can be read there, else converted into buffer.
template <class T>
MOLFUSE_INLINE const accumulate_t<T>* row_values(const T* row, int64_t stride, int64_t count, accumulate_t<T>* buffer) {
  using A = accumulate_t<T>;
  if (stride != 1 || count < width<A>) {
    if (stride == 1 && sizeof(T) == sizeof(A)) return reinterpret_cast<const A*>(row);
    for (int64_t j = 0; j < count; ++j) buffer[j] = static_cast<A>(to_float(row[j * stride]));
    return buffer;
  }
  if (sizeof(T) == sizeof(A)) return reinterpret_cast<const A*>(row);
  each_vector<A>(count, [&](int64_t j, int64_t) __attribute__((always_inline)) { store(buffer + j, load(row + j)); });
  return buffer;
}

/// Lane r of the result: the combination of all lanes of rows[r]. A butterfly over the rows, instead of one tree for each.
template <class A, int STEP, class Combine>
MOLFUSE_INLINE vec<A> combine_rows(vec<A>* rows, Combine&& combine) {
  if constexpr (STEP == width<A>) {
    return rows[0];
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < width<A> / STEP; r += 2) {
      exchange<A, STEP>(rows[r], rows[r + 1]);
      rows[r / 2] = combine(rows[r], rows[r + 1]);
    }
    return combine_rows<A, 2 * STEP>(rows, combine);
  }
}
template <class A>
MOLFUSE_INLINE vec<A> add_rows(vec<A>* rows) {
  return combine_rows<A, 1>(rows, [](vec<A> a, vec<A> b) __attribute__((always_inline)) { return a + b; });
}
template <class A>
MOLFUSE_INLINE vec<A> maximum_rows(vec<A>* rows) {
  return combine_rows<A, 1>(rows, [](vec<A> a, vec<A> b) __attribute__((always_inline)) { return maximum(a, b); });
}

/// The largest of x over count >= width elements, lane by lane.
template <class A>
MOLFUSE_INLINE vec<A> lane_maximum(const A* x, int64_t count) {
  vec<A> largest = load(x + count - width<A>);
  for (int64_t j = 0; j + width<A> <= count; j += width<A>) largest = maximum(largest, load(x + j));
  return largest;
}

/// Sum of exp(x - shift) over count >= width elements, lane by lane; with kStore also writes the terms to e (which may be x).
template <class A, bool kStore>
MOLFUSE_INLINE vec<A> lane_exponentials(const A* x, int64_t count, A shift, A* e) {
  // The last vector overlaps: read before e is written, and only its last lanes are new.
  const int64_t rest = count % width<A>;
  vec<A> total{};
  vec<A> last{};
  if (rest != 0) {
    last = exp_softmax(load(x + count - width<A>) - shift);
    total = lane_numbers<A>() >= static_cast<typename VecTypes<A>::Int>(width<A> - rest) ? last : total;
  }
  for (int64_t j = 0; j + width<A> <= count; j += width<A>) {
    const vec<A> v = exp_softmax(load(x + j) - shift);
    if (kStore) store(e + j, v);
    total += v;
  }
  if (kStore && rest != 0) store(e + count - width<A>, last);
  return total;
}

template <class A>
MOLFUSE_INLINE A row_maximum(const A* x, int64_t count) {
  return reduce_max<A>(count < width<A> ? load_partial(x, count, -infinity<A>) : lane_maximum(x, count));
}
template <class A, bool kStore>
MOLFUSE_INLINE A row_exponentials(const A* x, int64_t count, A shift, A* e) {
  if (count >= width<A>) return reduce_add<A>(lane_exponentials<A, kStore>(x, count, shift, e));
  const vec<A> v = exp_softmax(load_partial(x, count, -infinity<A>) - shift);
  if (kStore) store_partial(e, count, v);
  return reduce_add<A>(v);
}

/// Whether one of the first `count` elements equals value.
template <class T>
MOLFUSE_INLINE bool row_contains(const T* row, int64_t stride, int64_t count, accumulate_t<T> value) {
  using A = accumulate_t<T>;
  int64_t j = 0;
  if (stride == 1) {
    ivec<A> found{};
    for (; j + width<A> <= count; j += width<A>) found |= load(row + j) == value;
    typename VecTypes<A>::Int any = 0;
    for (int n = 0; n < width<A>; ++n) any |= found[n];
    if (any != 0) return true;
  }
  for (; j < count; ++j) {
    if (static_cast<A>(to_float(row[j * stride])) == value) return true;
  }
  return false;
}

/// Softmax and target logit of up to kTaskTokens tokens, and the loss values that finish makes of them.
template <class A>
struct TokenBlock {
  // Groups of rows are written as whole vectors.
  static constexpr int64_t kLength = kTaskTokens + width<A>;
  alignas(64) A shift[kLength];
  alignas(64) A total[kLength];
  alignas(64) A target[kLength];
  alignas(64) A lse[kLength];
  alignas(64) A nll[kLength];

  /// Sum of nll over entries 0..count-1.
  MOLFUSE_INLINE double finish(int64_t count) {
    for (int64_t n = 0; n < count; n += width<A>) {
      const vec<A> logarithm = log(load(total + n)), s = load(shift + n);
      store(lse + n, s + logarithm);
      store(nll + n, logarithm + (s - load(target + n)));
    }
    double part[4] = {0, 0, 0, 0};
    int64_t n = 0;
    for (; n + 4 <= count; n += 4) {
      for (int q = 0; q < 4; ++q) part[q] += static_cast<double>(nll[n + q]);
    }
    for (; n < count; ++n) part[0] += static_cast<double>(nll[n]);
    return (part[0] + part[1]) + (part[2] + part[3]);
  }
};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

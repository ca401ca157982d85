// SPDX-License-Identifier: Apache-2.0
// Small matrix products on packed scratch tiles, for cpu_*.cpp files: the inner loops of attention and of the fused linear loss.
#pragma once

#include "runtime/simd.h"

namespace molfuse {
namespace MOLFUSE_ISA {

// Register blocking: kMaxRows x kPanelVectors accumulators, kPanelVectors of B and one broadcast of A. 12 + 2 + 1 of the 16
// vector registers of AVX2; 24 + 2 + 1 of the 32 of AVX-512. Fewer would leave the two FMA pipes waiting on their latency.
constexpr int kPanelVectors = 2;
#if defined(__AVX512F__)
constexpr int kMaxRows = 12;
#else
constexpr int kMaxRows = 6;
#endif

/// C[ROWS x VECTORS*width] = or += A . B over depth; element (i,p) of A is a[i*row_stride + p*column_stride].
template <class A, int ROWS, int VECTORS, bool kAdd>
MOLFUSE_INLINE void gemm_block(const A* a, int64_t row_stride, int64_t column_stride, const A* b, int64_t ldb, A* c, int64_t ldc,
                               int64_t depth) {
  vec<A> sum[ROWS][VECTORS];
#pragma GCC unroll 12
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) sum[i][v] = kAdd ? load(c + i * ldc + v * width<A>) : vec<A>{};
  }
  for (int64_t p = 0; p < depth; ++p) {
    vec<A> column[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) column[v] = load(b + v * width<A>);
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; ++i) {
      const vec<A> value = splat<A>(a[i * row_stride]);
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) sum[i][v] += value * column[v];
    }
    a += column_stride;
    b += ldb;
  }
#pragma GCC unroll 12
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) store(c + i * ldc + v * width<A>, sum[i][v]);
  }
}

template <int N>
struct Constant {
  static constexpr int value = N;
};

template <class A, int VECTORS, bool kAdd>
inline void gemm_panel(int64_t rows, int64_t depth, const A* a, int64_t row_stride, int64_t column_stride, const A* b, int64_t ldb,
                       A* c, int64_t ldc) {
  int64_t i = 0;
  auto blocks = [&](auto tag) __attribute__((always_inline)) {
    constexpr int kRows = decltype(tag)::value;
    for (; i + kRows <= rows; i += kRows) {
      gemm_block<A, kRows, VECTORS, kAdd>(a + i * row_stride, row_stride, column_stride, b, ldb, c + i * ldc, ldc, depth);
    }
  };
  blocks(Constant<kMaxRows>{});
  if (kMaxRows > 8) blocks(Constant<8>{});
  blocks(Constant<4>{});
  blocks(Constant<2>{});
  blocks(Constant<1>{});
}

/// C[rows x columns] = (or += if kAdd) A[rows x depth] . B[depth x columns]. columns is a multiple of width; B and C are row-major.
template <class A, bool kAdd>
inline void gemm(int64_t rows, int64_t columns, int64_t depth, const A* a, int64_t row_stride, int64_t column_stride, const A* b,
                 int64_t ldb, A* c, int64_t ldc) {
  int64_t j = 0;
  for (; j + kPanelVectors * width<A> <= columns; j += kPanelVectors * width<A>) {
    gemm_panel<A, kPanelVectors, kAdd>(rows, depth, a, row_stride, column_stride, b + j, ldb, c + j, ldc);
  }
  if (j < columns) gemm_panel<A, 1, kAdd>(rows, depth, a, row_stride, column_stride, b + j, ldb, c + j, ldc);
}

constexpr int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// destination[r*ld + d] = factor * source[r*source_stride + d], d padded with zeros up to `padded`.
template <class T>
inline void pack_rows(const T* source, int64_t source_stride, int64_t rows, int64_t columns, accumulate_t<T> factor,
                      accumulate_t<T>* destination, int64_t ld, int64_t padded) {
  using A = accumulate_t<T>;
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = source + r * source_stride;
    A* to = destination + r * ld;
    int64_t d = 0;
    for (; d + width<A> <= columns; d += width<A>) store(to + d, load(from + d) * factor);
    if (d < padded) store(to + d, load_partial(from + d, columns - d) * factor);
  }
}

/// source[r*ld + d] * factor stored as T, d < columns.
template <class T>
inline void unpack_rows(const accumulate_t<T>* source, int64_t ld, int64_t rows, int64_t columns, accumulate_t<T> factor,
                        T* destination, int64_t destination_stride) {
  using A = accumulate_t<T>;
  for (int64_t r = 0; r < rows; ++r) {
    const A* from = source + r * ld;
    T* to = destination + r * destination_stride;
    int64_t d = 0;
    for (; d + width<A> <= columns; d += width<A>) store(to + d, load(from + d) * factor);
    if (d < columns) store_partial(to + d, columns - d, load(from + d) * factor);
  }
}

// One stage of the butterfly that transposes width x width: exchanges the off-diagonal STEP-sized blocks of a pair of rows.
template <class A, int STEP>
MOLFUSE_INLINE void exchange(vec<A>& upper, vec<A>& lower) {
  ivec<A> take_upper, take_lower;
  for (int l = 0; l < width<A>; ++l) {
    take_upper[l] = (l & STEP) ? width<A> + l - STEP : l;
    take_lower[l] = (l & STEP) ? width<A> + l : l + STEP;
  }
  const vec<A> u = __builtin_shuffle(upper, lower, take_upper);
  lower = __builtin_shuffle(upper, lower, take_lower);
  upper = u;
}

template <class A, int STEP>
MOLFUSE_INLINE void transpose_stage(vec<A> (&row)[width<A>]) {
  if constexpr (STEP < width<A>) {
#pragma GCC unroll 16
    for (int i = 0; i < width<A>; ++i) {
      if ((i & STEP) == 0) exchange<A, STEP>(row[i], row[i + STEP]);
    }
    transpose_stage<A, STEP * 2>(row);
  }
}

/// destination[d*ld + r] = source[r*source_stride + d]; r padded with zeros up to a multiple of width (ld at least that).
template <class T>
inline void pack_transposed(const T* source, int64_t source_stride, int64_t rows, int64_t columns, accumulate_t<T>* destination,
                            int64_t ld) {
  using A = accumulate_t<T>;
  for (int64_t r = 0; r < rows; r += width<A>) {
    const int64_t filled = rows - r < width<A> ? rows - r : width<A>;
    for (int64_t d = 0; d < columns; d += width<A>) {
      vec<A> row[width<A>];
      const int64_t count = columns - d < width<A> ? columns - d : width<A>;
      if (filled == width<A> && count == width<A>) {
#pragma GCC unroll 16
        for (int i = 0; i < width<A>; ++i) row[i] = load(source + (r + i) * source_stride + d);
      } else {
        for (int i = 0; i < width<A>; ++i) {
          row[i] = i >= filled ? vec<A>{}
                   : count == width<A> ? load(source + (r + i) * source_stride + d)
                                       : load_partial(source + (r + i) * source_stride + d, count);
        }
      }
      transpose_stage<A, 1>(row);
      if (count == width<A>) {
#pragma GCC unroll 16
        for (int i = 0; i < width<A>; ++i) store(destination + (d + i) * ld + r, row[i]);
      } else {
        for (int i = 0; i < count; ++i) store(destination + (d + i) * ld + r, row[i]);
      }
    }
  }
}

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

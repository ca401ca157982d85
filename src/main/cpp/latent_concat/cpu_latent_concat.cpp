// SPDX-License-Identifier: Apache-2.0
// Means over the rows of a graph, and their gradient. Memory-bound: rows are read (written) in long runs, each once.
#include "latent_concat/kernels.h"
#include "runtime/simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

// Rows added at once: enough to make the traffic of the accumulators small against that of the rows, few enough that rows whose
// distance is a power of two do not push each other out of an 8-way first-level cache.
constexpr int kRowsAtOnce = 4;

/// sum[c] = (add ? sum[c] : 0) + ROWS rows; the last time, out[c] = that / divisor instead.
template <class T, int ROWS>
MOLFUSE_INLINE void add_rows(const T* rows, int64_t stride, int64_t columns, bool add, accumulate_t<T>* sum, T* out,
                             accumulate_t<T> divisor) {
  using A = accumulate_t<T>;
  int64_t c = 0;
  for (; c + width<A> <= columns; c += width<A>) {
    vec<A> v = load(rows + c);
    if constexpr (ROWS == 2) v += load(rows + stride + c);
    if constexpr (ROWS == 3) v += load(rows + stride + c) + load(rows + 2 * stride + c);
    if constexpr (ROWS == 4) v = (v + load(rows + stride + c)) + (load(rows + 2 * stride + c) + load(rows + 3 * stride + c));
    if (add) v += load(sum + c);
    if (out == nullptr) {
      store(sum + c, v);
    } else {
      store(out + c, v / divisor);
    }
  }
  for (; c < columns; ++c) {
    A v = add ? sum[c] : A{0};
    for (int r = 0; r < ROWS; ++r) v += static_cast<A>(to_float(rows[r * stride + c]));
    if (out == nullptr) {
      sum[c] = v;
    } else {
      out[c] = FromFloat<T>::of(v / divisor);
    }
  }
}

template <class T>
void mean_apart(const PoolBlock& block, accumulate_t<T>* sum) {
  using A = accumulate_t<T>;
  for (int64_t c = 0; c < block.columns; ++c) sum[c] = 0;
  for (int64_t r = 0; r < block.rows; ++r) {
    const T* const row = static_cast<const T*>(block.nodes) + r * block.node_stride;
    for (int64_t c = 0; c < block.columns; ++c) sum[c] += static_cast<A>(to_float(row[c * block.column_stride]));
  }
  const A divisor = block.rows == 0 ? A{1} : static_cast<A>(block.rows);
  T* const out = static_cast<T*>(block.pooled);
  for (int64_t c = 0; c < block.columns; ++c) out[c * block.pooled_column_stride] = FromFloat<T>::of(sum[c] / divisor);
}

template <class T>
void mean(const PoolBlock& block, void* scratch) {
  using A = accumulate_t<T>;
  A* const sum = static_cast<A*>(scratch);
  if (block.rows == 0 || block.column_stride != 1 || block.pooled_column_stride != 1) return mean_apart<T>(block, sum);
  const T* rows = static_cast<const T*>(block.nodes);
  const A divisor = static_cast<A>(block.rows);
  for (int64_t left = block.rows; left > 0;) {
    const bool add = left != block.rows;
    T* const out = left <= kRowsAtOnce ? static_cast<T*>(block.pooled) : nullptr;
    if (left >= 4) {
      add_rows<T, 4>(rows, block.node_stride, block.columns, add, sum, out, divisor);
    } else if (left == 3) {
      add_rows<T, 3>(rows, block.node_stride, block.columns, add, sum, out, divisor);
    } else if (left == 2) {
      add_rows<T, 2>(rows, block.node_stride, block.columns, add, sum, out, divisor);
    } else {
      add_rows<T, 1>(rows, block.node_stride, block.columns, add, sum, out, divisor);
    }
    rows += kRowsAtOnce * block.node_stride;
    left -= kRowsAtOnce;
  }
}

#if defined(__AVX__) && MOLFUSE_VECTOR_BYTES >= 32
constexpr int64_t kStreamBytes = 32;
MOLFUSE_INLINE void stream_vector(char* to, const char* from) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
MOLFUSE_INLINE void stream_fence() { _mm_sfence(); }
#elif defined(__SSE2__)
constexpr int64_t kStreamBytes = 16;
MOLFUSE_INLINE void stream_vector(char* to, const char* from) {
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
MOLFUSE_INLINE void stream_fence() { _mm_sfence(); }
#else
constexpr int64_t kStreamBytes = 16;
MOLFUSE_INLINE void stream_vector(char* to, const char* from) { __builtin_memcpy(to, from, 16); }
MOLFUSE_INLINE void stream_fence() {}
#endif

MOLFUSE_INLINE void stream_bytes(char* to, const char* from, int64_t bytes) {
  int64_t n = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(to) & 63);
  n = n < bytes ? n : bytes;
  __builtin_memcpy(to, from, static_cast<size_t>(n));
  for (; n + 64 <= bytes; n += 64) {
    for (int64_t part = 0; part < 64; part += kStreamBytes) stream_vector(to + n + part, from + n + part);
  }
  __builtin_memcpy(to + n, from + n, static_cast<size_t>(bytes - n));
}

template <class T>
void spread(const PoolBlock& block, void* scratch, bool stream) {
  using A = accumulate_t<T>;
  if (block.rows == 0) return;
  const A divisor = static_cast<A>(block.rows);
  T* const row = static_cast<T*>(scratch);
  const T* const from = static_cast<const T*>(block.pooled);
  int64_t c = 0;
  if (block.pooled_column_stride == 1) {
    for (; c + width<A> <= block.columns; c += width<A>) store(row + c, load(from + c) / divisor);
  }
  for (; c < block.columns; ++c) row[c] = FromFloat<T>::of(static_cast<A>(to_float(from[c * block.pooled_column_stride])) / divisor);
  for (int64_t r = 0; r < block.rows; ++r) {
    T* const to = static_cast<T*>(block.nodes) + r * block.node_stride;
    if (block.column_stride != 1) {
      for (c = 0; c < block.columns; ++c) to[c * block.column_stride] = row[c];
    } else if (stream) {
      stream_bytes(reinterpret_cast<char*>(to), reinterpret_cast<const char*>(row), block.columns * static_cast<int64_t>(sizeof(T)));
    } else {
      __builtin_memcpy(to, row, static_cast<size_t>(block.columns) * sizeof(T));
    }
  }
  if (stream) stream_fence();
}

}  // namespace

const LatentConcatTable latent_concat_kernels = {
    {{mean<float>, spread<float>}, {mean<double>, spread<double>}, {mean<f16>, spread<f16>}, {mean<bf16>, spread<bf16>}}};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// Reading a call's operands, biases, visibility and dropout on the CPU; for cpu_*.cpp files.
#pragma once

#include "attention/kernels.h"
#include "runtime/simd_math.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

MOLFUSE_INLINE float logarithm(float x) { return __builtin_logf(x); }
MOLFUSE_INLINE double logarithm(double x) { return __builtin_log(x); }

/// Where a sequence's rows begin, how many there are, and what they may see.
struct Sequence {
  int64_t queries, keys;           // N, M
  int64_t query_row, key_row;      // first row in the packed form
  int64_t key_limit;               // min(M, key_lengths[b])
};

Sequence sequence_of(const AttentionProblem& p, int64_t b) {
  Sequence s{p.queries, p.keys, 0, 0, p.keys};
  if (p.cu_q != nullptr) {
    s.query_row = p.cu_q[b];
    s.queries = p.cu_q[b + 1] - s.query_row;
    s.key_row = p.cu_k[b];
    s.key_limit = s.keys = p.cu_k[b + 1] - s.key_row;
  } else if (p.key_lengths.data != nullptr) {
    const int64_t at = b * p.key_lengths.stride[0];
    s.key_limit = p.key_lengths.dtype == MOLFUSE_I32 ? static_cast<const int32_t*>(p.key_lengths.data)[at]
                                                     : static_cast<const int64_t*>(p.key_lengths.data)[at];
  }
  return s;
}

/// Keys visible to query i: 0 .. result-1.
MOLFUSE_INLINE int64_t visible_keys(const AttentionProblem& p, const Sequence& s, int64_t i) {
  int64_t limit = s.key_limit;
  if (p.causal) {
    const int64_t causal = i + s.keys - s.queries + 1;
    limit = causal < limit ? causal : limit;
  }
  return limit < 0 ? 0 : limit;
}

template <class T>
MOLFUSE_INLINE T* row_of(const AttentionOperand& operand, int64_t b, int64_t h, int64_t row) {
  return static_cast<T*>(operand.data) + b * operand.batch + h * operand.head + row * operand.row;
}

template <class T>
MOLFUSE_INLINE void convert_row(const void* source, int32_t dtype, int64_t at, int64_t stride, int64_t count, accumulate_t<T>* to) {
  using A = accumulate_t<T>;
  const bool wide = dtype == (sizeof(A) == 8 ? MOLFUSE_F64 : MOLFUSE_F32);
  for (int64_t n = 0; n < count; ++n) {
    to[n] = wide ? static_cast<const A*>(source)[at + n * stride] : static_cast<A>(to_float(static_cast<const T*>(source)[at + n * stride]));
  }
}

/// bias[b,h,i,j0..j0+count): in place if it can be read as it lies, else converted into buffer. NULL without a bias.
template <class T>
MOLFUSE_INLINE const accumulate_t<T>* bias_row(const AttentionProblem& p, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t count,
                                               accumulate_t<T>* buffer) {
  using A = accumulate_t<T>;
  if (p.bias == nullptr) return nullptr;
  const int64_t at = b * p.bias_batch + h * p.bias_head + i * p.bias_row + j0 * p.bias_column;
  const bool wide = p.bias_dtype == (sizeof(A) == 8 ? MOLFUSE_F64 : MOLFUSE_F32);
  if (wide && p.bias_column == 1) return static_cast<const A*>(p.bias) + at;
  if (!wide && p.bias_column == 1) {
    const T* from = static_cast<const T*>(p.bias) + at;
    int64_t n = 0;
    for (; n + width<A> <= count; n += width<A>) store(buffer + n, load(from + n));
    if (n < count) store(buffer + n, load_partial(from + n, count - n));
  } else {
    convert_row<T>(p.bias, p.bias_dtype, at, p.bias_column, count, buffer);
  }
  return buffer;
}

/// Spreads relative_bias[h] over all distances j - i of the sequence, so that a row of biases is a contiguous slice:
/// spread[j - i + N - 1] with j in 0..M-1, i in 0..N-1.
template <class T>
void spread_relative(const AttentionProblem& p, const Sequence& s, int64_t h, accumulate_t<T>* spread) {
  const int64_t shift = s.keys - s.queries;
  for (int64_t t = 0; t < s.queries + s.keys - 1; ++t) {
    int64_t distance = t - (s.queries - 1) - shift;
    distance = distance < -p.radius ? -p.radius : (distance > p.radius ? p.radius : distance);
    convert_row<T>(p.relative, p.relative_dtype, h * p.relative_head + (distance + p.radius) * p.relative_column, 0, 1, spread + t);
  }
}

template <class A>
MOLFUSE_INLINE ivec<A> lanes_below(int64_t count) {
  ivec<A> lane;
  for (int n = 0; n < width<A>; ++n) lane[n] = n;
  return lane < static_cast<typename VecTypes<A>::Int>(count);
}

/// keep[j - j0] = 1 / (1 - dropout_p) or 0 for the columns j0 .. j0+count-1 (rounded up) of row i; j0 is a multiple of 4.
template <class A>
void dropout_row(const AttentionProblem& p, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t count, A* keep) {
  const A kept = static_cast<A>(1.0 / (1.0 - p.dropout_p));
  uvec<float> lane;
  for (int n = 0; n < width<float>; ++n) lane[n] = static_cast<uint32_t>(n);
  const uvec<float> c1 = uvec<float>{} + static_cast<uint32_t>(i);
  const uvec<float> c2 = uvec<float>{} + static_cast<uint32_t>(b * p.heads + h);
  const uvec<float> c3 = uvec<float>{} + p.offset_low;
  for (int64_t j = 0; j < count; j += 4 * width<float>) {
    const PhiloxVectors words = philox(lane + static_cast<uint32_t>((j0 + j) / 4), c1, c2, c3, static_cast<uint32_t>(p.philox_key),
                                       static_cast<uint32_t>(p.philox_key >> 32));
    for (int n = 0; n < width<float>; ++n) {
      for (int r = 0; r < 4; ++r) keep[j + 4 * n + r] = words.w[r][n] >= p.threshold ? kept : A{0};
    }
  }
}

}  // namespace
}  // namespace MOLFUSE_ISA
}  // namespace molfuse

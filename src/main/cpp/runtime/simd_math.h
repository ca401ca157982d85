// SPDX-License-Identifier: Apache-2.0
// Vector functions beyond those of simd.h, for cpu_*.cpp files: exp of a softmax, log, and sine and cosine of a turn.
#pragma once

#include "runtime/simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace molfuse {
namespace MOLFUSE_ISA {

// a > b ? a : b is what the maximum instructions compute, NaN included, but GCC does not make one of it for vectors.
MOLFUSE_INLINE vec<float> maximum(vec<float> a, vec<float> b) {
#if defined(__AVX512F__) && MOLFUSE_VECTOR_BYTES == 64
  return bit_copy<vec<float>>(_mm512_maskz_max_ps(0xFFFF, bit_copy<__m512>(a), bit_copy<__m512>(b)));
#elif defined(__AVX__) && MOLFUSE_VECTOR_BYTES == 32
  return bit_copy<vec<float>>(_mm256_max_ps(bit_copy<__m256>(a), bit_copy<__m256>(b)));
#elif defined(__x86_64__) && MOLFUSE_VECTOR_BYTES == 16
  return bit_copy<vec<float>>(_mm_max_ps(bit_copy<__m128>(a), bit_copy<__m128>(b)));
#else
  return a > b ? a : b;
#endif
}
MOLFUSE_INLINE vec<double> maximum(vec<double> a, vec<double> b) { return a > b ? a : b; }

template <class A>
MOLFUSE_INLINE ivec<A> lane_numbers() {
  ivec<A> lane;
  for (int n = 0; n < width<A>; ++n) lane[n] = n;
  return lane;
}

// exp for arguments at most 0 (but for rounding), where only the absolute error matters. 2^n for n = -127 comes out as 0, which
// makes the result 0 below -88 without a comparison. Relative error below 2 ulp near 0, growing with |x| / 2^25.
MOLFUSE_INLINE vec<float> exp_softmax(vec<float> x) {
  const vec<float> clamped = maximum(splat<float>(-88.03f), x);
  const float magic = 12582912.0f + 127.0f;  // 1.5 * 2^23: adding it rounds to an integer and leaves that, biased, in the low bits
  const vec<float> shifted = clamped * 1.44269504088896341f + magic;
  const vec<float> f = clamped * 1.44269504088896341f - (shifted - magic);
  // Minimax polynomial of 2^f on [-1/2,1/2], relative error 2e-9.
  vec<float> p = splat<float>(1.534581199e-04f);
  p = p * f + 1.339993122e-03f;
  p = p * f + 9.618488957e-03f;
  p = p * f + 5.550328777e-02f;
  p = p * f + 2.402264689e-01f;
  p = p * f + 6.931472057e-01f;
  p = p * f + 1.0f;
  return p * bit_copy<vec<float>>(bit_copy<uvec<float>>(shifted) << 23);
}
MOLFUSE_INLINE vec<double> exp_softmax(vec<double> x) { return exp(x); }

// ---- log: x = 2^e * m with m in [1/sqrt 2, sqrt 2), log m = 2 atanh(s) with s = (m-1)/(m+1), by the series of atanh. Relative
// error below 3 ulp. log 0 = -inf, log inf = inf, NaN for negative numbers and NaN; subnormal numbers are taken for 0.

/// e * ln 2 + log(1 + f) for |f| <= sqrt 2 - 1 (as -0.2929..0.4143).
MOLFUSE_INLINE vec<float> log_parts(vec<float> e, vec<float> f) {
  const vec<float> s = f / (f + 2.0f), z = s * s;
  vec<float> p = splat<float>(2.0f / 11.0f);
  p = p * z + 2.0f / 9.0f;
  p = p * z + 2.0f / 7.0f;
  p = p * z + 2.0f / 5.0f;
  p = p * z + 2.0f / 3.0f;
  // log(1+f) = f - s*f + s*z*p, as 2s = f - s*f: exact in its first term, which leads near 1.
  const vec<float> tail = s * (z * p - f) + e * 1.42860677e-6f;
  return e * 0.693145752f + (f + tail);
}
MOLFUSE_INLINE vec<double> log_parts(vec<double> e, vec<double> f) {
  const vec<double> s = f / (f + 2.0), z = s * s;
  vec<double> p = splat<double>(2.0 / 23.0);
  p = p * z + 2.0 / 21.0;
  p = p * z + 2.0 / 19.0;
  p = p * z + 2.0 / 17.0;
  p = p * z + 2.0 / 15.0;
  p = p * z + 2.0 / 13.0;
  p = p * z + 2.0 / 11.0;
  p = p * z + 2.0 / 9.0;
  p = p * z + 2.0 / 7.0;
  p = p * z + 2.0 / 5.0;
  p = p * z + 2.0 / 3.0;
  const vec<double> tail = s * (z * p - f) + e * 1.90821492927058770002e-10;
  return e * 6.93147180369123816490e-01 + (f + tail);
}

template <class A>
struct MantissaExponent {
  vec<A> mantissa, exponent;
};

/// x = mantissa * 2^exponent with mantissa in [1/sqrt 2, sqrt 2), for normal positive x.
MOLFUSE_INLINE MantissaExponent<float> split(vec<float> x) {
  const uvec<float> bits = bit_copy<uvec<float>>(x) - 0x3F3504F3u;  // the bits of sqrt(1/2)
  const ivec<float> e = bit_copy<ivec<float>>(bits) >> 23;
  const uvec<float> m = (bits & 0x007FFFFFu) + 0x3F3504F3u;
  return {bit_copy<vec<float>>(m), __builtin_convertvector(e, vec<float>)};
}
MOLFUSE_INLINE MantissaExponent<double> split(vec<double> x) {
  const uvec<double> bits = bit_copy<uvec<double>>(x) - 0x3FE6A09E667F3BCDull;
  const uvec<double> m = (bits & 0x000FFFFFFFFFFFFFull) + 0x3FE6A09E667F3BCDull;
  // A small signed integer to double: 1.5 * 2^52 plus it, taken apart again. (There is no 64-bit arithmetic shift before AVX-512.)
  const double magic = 6755399441055744.0;
  const uvec<double> biased = ((bits + (uint64_t{2048} << 52)) >> 52) + (bit_copy<uint64_t>(magic) - 2048);
  return {bit_copy<vec<double>>(m), bit_copy<vec<double>>(biased) - magic};
}

template <class V, class A>
MOLFUSE_INLINE V log_any(V x, A smallest, A inf, A nan) {
  const auto parts = split(x);
  V result = log_parts(parts.exponent, parts.mantissa - A{1});
  result = x < smallest ? V{} - inf : result;
  result = x < A{0} ? V{} + nan : result;
  return x < inf ? result : x;  // inf and NaN
}
MOLFUSE_INLINE vec<float> log(vec<float> x) { return log_any(x, 1.17549435e-38f, __builtin_inff(), __builtin_nanf("")); }
MOLFUSE_INLINE vec<double> log(vec<double> x) { return log_any(x, 2.2250738585072014e-308, __builtin_inf(), __builtin_nan("")); }

// ---- sine and cosine of x + error radians, |x| <= pi/4 and |error| a rounding of x (Taylor; relative error below 1 ulp of x + error)

template <class A>
struct SinCos {
  vec<A> sine, cosine;
};

MOLFUSE_INLINE SinCos<float> sincos_octant(vec<float> x, vec<float> error) {
  const vec<float> z = x * x;
  vec<float> s = splat<float>(1.0f / 362880.0f);
  s = s * z - 1.0f / 5040.0f;
  s = s * z + 1.0f / 120.0f;
  s = s * z - 1.0f / 6.0f;
  vec<float> c = splat<float>(-1.0f / 3628800.0f);
  c = c * z + 1.0f / 40320.0f;
  c = c * z - 1.0f / 720.0f;
  c = c * z + 1.0f / 24.0f;
  c = c * z - 0.5f;
  return {x + (x * (z * s) + error), (c * z - x * error) + 1.0f};
}
MOLFUSE_INLINE SinCos<double> sincos_octant(vec<double> x, vec<double> error) {
  const vec<double> z = x * x;
  vec<double> s = splat<double>(-1.0 / 1307674368000.0);
  s = s * z + 1.0 / 6227020800.0;
  s = s * z - 1.0 / 39916800.0;
  s = s * z + 1.0 / 362880.0;
  s = s * z - 1.0 / 5040.0;
  s = s * z + 1.0 / 120.0;
  s = s * z - 1.0 / 6.0;
  vec<double> c = splat<double>(1.0 / 20922789888000.0);
  c = c * z - 1.0 / 87178291200.0;
  c = c * z + 1.0 / 479001600.0;
  c = c * z - 1.0 / 3628800.0;
  c = c * z + 1.0 / 40320.0;
  c = c * z - 1.0 / 720.0;
  c = c * z + 1.0 / 24.0;
  c = c * z - 0.5;
  return {x + (x * (z * s) + error), (c * z - x * error) + 1.0};
}

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// Vectors of f32 and f64 for cpu_*.cpp files, over the vector extensions that GCC and Clang share. A file that includes this is
// compiled once per instruction set; everything here lives in that copy's own namespace, so that no symbol of one copy can
// stand in for another's. (libstdc++'s <experimental/simd> was weighed: its mathematical functions are scalar loops, its width
// cannot be forced for tests, and Clang lacks it.)
#pragma once

#include <cstdint>
#include <cstring>

#include "molfuse/runtime.h"
#include "runtime/dtype.h"
#include "runtime/philox.h"

#if defined(__F16C__)
#include <immintrin.h>  // for the 16-bit conversions and Philox only; the zero-masked AVX-512 forms avoid GCC's false uninitialised warning
#endif

#ifndef MOLFUSE_ISA
#error "this file is for cpu_*.cpp, compiled per instruction set"
#endif

#define MOLFUSE_INLINE inline __attribute__((always_inline))

namespace molfuse {
namespace MOLFUSE_ISA {

constexpr int kVectorBytes = MOLFUSE_VECTOR_BYTES;

template <class A>
struct VecTypes;
template <>
struct VecTypes<float> {
  typedef float V __attribute__((vector_size(kVectorBytes)));
  typedef float U __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t I __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t N __attribute__((vector_size(kVectorBytes)));
  using Int = int32_t;
  using Unsigned = uint32_t;
};
template <>
struct VecTypes<double> {
  typedef double V __attribute__((vector_size(kVectorBytes)));
  typedef double U __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t I __attribute__((vector_size(kVectorBytes)));
  typedef uint64_t N __attribute__((vector_size(kVectorBytes)));
  using Int = int64_t;
  using Unsigned = uint64_t;
};

/// A vector of A (float or double). Arithmetic and comparison by operators; a comparison gives ivec<A> of 0 and -1; c ? a : b selects.
template <class A>
using vec = typename VecTypes<A>::V;
template <class A>
using ivec = typename VecTypes<A>::I;
template <class A>
using uvec = typename VecTypes<A>::N;
template <class A>
constexpr int width = kVectorBytes / static_cast<int>(sizeof(A));

template <class A>
constexpr A infinity = static_cast<A>(__builtin_inff());

/// Calls function(Tag<T>{}) with the C++ type of a checked floating-point dtype.
template <class Function>
MOLFUSE_INLINE void with_type(int32_t dtype, Function&& function) {
  switch (dtype) {
    case MOLFUSE_F64: function(Tag<double>{}); break;
    case MOLFUSE_F16: function(Tag<f16>{}); break;
    case MOLFUSE_BF16: function(Tag<bf16>{}); break;
    default: function(Tag<float>{}); break;
  }
}

template <class A>
MOLFUSE_INLINE vec<A> splat(A value) {
  return value - vec<A>{};  // folded to a broadcast: x - 0 is x for every x, while 0 + x is not for -0.0
}

template <class To, class From>
MOLFUSE_INLINE To bit_copy(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// ---- scalar conversion of stored elements

MOLFUSE_INLINE float to_float(bf16 value) { return bit_copy<float>(static_cast<uint32_t>(value.bits) << 16); }
MOLFUSE_INLINE float to_float(float value) { return value; }
MOLFUSE_INLINE double to_float(double value) { return value; }
MOLFUSE_INLINE float to_float(f16 value) {
#if defined(__F16C__)
  return _cvtsh_ss(value.bits);
#else
  const uint32_t magnitude = value.bits & 0x7FFFu;
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  if (magnitude >= 0x7C00u) return bit_copy<float>(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);
  // Scaling by a power of two re-biases the exponent and is exact for subnormals too.
  return bit_copy<float>(bit_copy<uint32_t>(bit_copy<float>(magnitude << 13) * 5.192296858534828e33f) | sign);
#endif
}

template <class T>
struct FromFloat;
template <>
struct FromFloat<float> {
  static MOLFUSE_INLINE float of(float value) { return value; }
};
template <>
struct FromFloat<double> {
  static MOLFUSE_INLINE double of(double value) { return value; }
};
template <>
struct FromFloat<bf16> {
  static MOLFUSE_INLINE bf16 of(float value) {
    const uint32_t bits = bit_copy<uint32_t>(value);
    if (value != value) return bf16{static_cast<uint16_t>(bits >> 16 | 0x40u)};
    return bf16{static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
  }
};
template <>
struct FromFloat<f16> {
  static MOLFUSE_INLINE f16 of(float value) {
#if defined(__F16C__)
    return f16{static_cast<uint16_t>(_cvtss_sh(value, 0))};
#else
    const uint32_t bits = bit_copy<uint32_t>(value);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    uint32_t result;
    if (magnitude > 0x7F800000u) {
      result = 0x7E00u | (magnitude >> 13 & 0x3FFu);
    } else if (magnitude >= 0x477FF000u) {
      result = 0x7C00u;  // rounds to infinity
    } else if (magnitude < 0x38800000u) {
      // Subnormal: adding 0.5 in f32 puts the value's f16 bits at the low end, rounded to nearest even by the addition.
      result = bit_copy<uint32_t>(bit_copy<float>(magnitude) + 0.5f) - 0x3F000000u;
    } else {
      result = (magnitude + 0xFFFu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
    }
    return f16{static_cast<uint16_t>(sign | result)};
#endif
  }
};

// ---- vector load and store, any alignment

MOLFUSE_INLINE vec<float> load(const float* p) { return *reinterpret_cast<const VecTypes<float>::U*>(p); }
MOLFUSE_INLINE vec<double> load(const double* p) { return *reinterpret_cast<const VecTypes<double>::U*>(p); }
MOLFUSE_INLINE void store(float* p, vec<float> v) { *reinterpret_cast<VecTypes<float>::U*>(p) = v; }
MOLFUSE_INLINE void store(double* p, vec<double> v) { *reinterpret_cast<VecTypes<double>::U*>(p) = v; }

typedef uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));
typedef uint16_t HalfBitsU __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));

MOLFUSE_INLINE vec<float> load(const bf16* p) {
  // GCC splits the general conversion into halves and joins them again: five instructions instead of two.
#if defined(__AVX512F__) && MOLFUSE_VECTOR_BYTES == 64
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return bit_copy<vec<float>>(bit_copy<uvec<float>>(_mm512_maskz_cvtepu16_epi32(0xFFFF, raw)) << 16);
#elif defined(__AVX2__) && MOLFUSE_VECTOR_BYTES >= 32
  uvec<float> bits;
  for (int part = 0; part < kVectorBytes / 32; ++part) {
    const __m256i eight = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * part)));
    __builtin_memcpy(reinterpret_cast<char*>(&bits) + 32 * part, &eight, 32);
  }
  return bit_copy<vec<float>>(bits << 16);
#else
  const HalfBits raw = *reinterpret_cast<const HalfBitsU*>(p);
  return bit_copy<vec<float>>(__builtin_convertvector(raw, uvec<float>) << 16);
#endif
}
MOLFUSE_INLINE void store(bf16* p, vec<float> v) {
  const uvec<float> bits = bit_copy<uvec<float>>(v);
  const uvec<float> rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  const uvec<float> quiet = bits >> 16 | 0x40u;
  *reinterpret_cast<HalfBitsU*>(p) = __builtin_convertvector(v != v ? quiet : rounded, HalfBits);
}

MOLFUSE_INLINE vec<float> load(const f16* p) {
#if defined(__AVX512F__) && MOLFUSE_VECTOR_BYTES == 64
  return bit_copy<vec<float>>(_mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__) && MOLFUSE_VECTOR_BYTES >= 32
  vec<float> v;
  for (int part = 0; part < kVectorBytes / 32; ++part) {
    const __m256 eight = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * part)));
    __builtin_memcpy(reinterpret_cast<char*>(&v) + 32 * part, &eight, 32);
  }
  return v;
#else
  vec<float> v;
  for (int n = 0; n < width<float>; ++n) v[n] = to_float(p[n]);
  return v;
#endif
}
MOLFUSE_INLINE void store(f16* p, vec<float> v) {
#if defined(__AVX512F__) && MOLFUSE_VECTOR_BYTES == 64
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(0xFFFF, bit_copy<__m512>(v), 0));
#elif defined(__F16C__) && MOLFUSE_VECTOR_BYTES >= 32
  for (int part = 0; part < kVectorBytes / 32; ++part) {
    __m256 eight;
    __builtin_memcpy(&eight, reinterpret_cast<const char*>(&v) + 32 * part, 32);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8 * part), _mm256_cvtps_ph(eight, 0));
  }
#else
  for (int n = 0; n < width<float>; ++n) p[n] = FromFloat<f16>::of(v[n]);
#endif
}

/// The first count < width elements; the rest of the vector is fill. Reads and writes nothing past count.
template <class T>
MOLFUSE_INLINE vec<accumulate_t<T>> load_partial(const T* p, int64_t count, accumulate_t<T> fill = 0) {
  vec<accumulate_t<T>> v = splat<accumulate_t<T>>(fill);
  for (int64_t n = 0; n < count; ++n) v[n] = to_float(p[n]);
  return v;
}
template <class T>
MOLFUSE_INLINE void store_partial(T* p, int64_t count, vec<accumulate_t<T>> v) {
  for (int64_t n = 0; n < count; ++n) p[n] = FromFloat<T>::of(v[n]);
}

// ---- reductions over lanes

template <class A>
MOLFUSE_INLINE A reduce_add(vec<A> v) {
  A part[width<A>];
  __builtin_memcpy(part, &v, sizeof v);
  for (int half = width<A> / 2; half > 0; half /= 2) {
    for (int n = 0; n < half; ++n) part[n] += part[n + half];
  }
  return part[0];
}
template <class A>
MOLFUSE_INLINE A reduce_max(vec<A> v) {
  A part[width<A>];
  __builtin_memcpy(part, &v, sizeof v);
  for (int half = width<A> / 2; half > 0; half /= 2) {
    for (int n = 0; n < half; ++n) part[n] = part[n + half] > part[n] ? part[n + half] : part[n];
  }
  return part[0];
}

/// At most a vector of the elements n < count of a row with any stride; missing lanes are 0.
template <class T>
MOLFUSE_INLINE vec<accumulate_t<T>> read_lanes(const T* row, int64_t stride, int64_t count) {
  using A = accumulate_t<T>;
  if (stride == 1) return count >= width<A> ? load(row) : load_partial(row, count);
  vec<A> v{};
  for (int64_t n = 0; n < count && n < width<A>; ++n) v[n] = to_float(row[n * stride]);
  return v;
}
template <class T>
MOLFUSE_INLINE void write_lanes(T* row, int64_t stride, int64_t count, vec<accumulate_t<T>> v) {
  using A = accumulate_t<T>;
  if (stride == 1 && count >= width<A>) {
    store(row, v);
    return;
  }
  for (int64_t n = 0; n < count && n < width<A>; ++n) row[n * stride] = FromFloat<T>::of(v[n]);
}

template <class A>
MOLFUSE_INLINE vec<A> max(vec<A> a, vec<A> b) { return a > b ? a : b; }

// ---- Philox, one counter a lane

typedef uint64_t WideWords __attribute__((vector_size(kVectorBytes)));

// Products of the even 32-bit lanes. GCC has no way to say so without the intrinsic: a 64-bit product costs three of these.
MOLFUSE_INLINE WideWords multiply_even(WideWords a, uint32_t b) {
  const WideWords factor = WideWords{} + b;
#if defined(__AVX512F__) && MOLFUSE_VECTOR_BYTES == 64
  return bit_copy<WideWords>(_mm512_maskz_mul_epu32(0xFF, bit_copy<__m512i>(a), bit_copy<__m512i>(factor)));
#elif defined(__AVX2__) && MOLFUSE_VECTOR_BYTES == 32
  return bit_copy<WideWords>(_mm256_mul_epu32(bit_copy<__m256i>(a), bit_copy<__m256i>(factor)));
#else
  return (a & 0xFFFFFFFFu) * factor;
#endif
}

struct PhiloxVectors {
  uvec<float> w[4];
};

MOLFUSE_INLINE PhiloxVectors philox(uvec<float> c0, uvec<float> c1, uvec<float> c2, uvec<float> c3, uint32_t k0, uint32_t k1) {
  auto multiply = [](uvec<float> x, uint32_t m, uvec<float>& high, uvec<float>& low) __attribute__((always_inline)) {
    const WideWords wide = bit_copy<WideWords>(x);
    const WideWords even = multiply_even(wide, m), odd = multiply_even(wide >> 32, m);
    low = bit_copy<uvec<float>>((even & 0xFFFFFFFFu) | odd << 32);
    high = bit_copy<uvec<float>>(even >> 32 | (odd & 0xFFFFFFFF00000000u));
  };
  for (int round = 0; round < 10; ++round) {
    uvec<float> high0, low0, high1, low1;
    multiply(c0, kPhiloxM0, high0, low0);
    multiply(c2, kPhiloxM1, high1, low1);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  return PhiloxVectors{{c0, c1, c2, c3}};
}

// ---- exp: argument reduction by ln 2 in two parts, then a polynomial: in f32 the minimax one of degree 6 (relative error 2e-9 before
// rounding), in f64 the Taylor series. Relative error below 2 ulp. exp(-inf) = 0, exp(inf) = inf, NaN stays NaN; results within a
// factor of two of the smallest normal number and below are 0.

MOLFUSE_INLINE vec<float> exp_polynomial(vec<float> r) {
  vec<float> p = splat<float>(0.0013836846f);
  p = p * r + 0.0083748158f;
  p = p * r + 0.0416682256f;
  p = p * r + 0.166664202f;
  p = p * r + 0.499999921f;
  p = p * r + 1.0f;
  return p * r + 1.0f;
}

MOLFUSE_INLINE vec<float> exp(vec<float> x) {
  const float low = -86.6f, high = 88.72283f;
  const vec<float> clamped = x < low ? splat<float>(low) : (x > high ? splat<float>(high) : x);
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer and leaves that integer in the low bits
  const vec<float> shifted = clamped * 1.44269504088896341f + magic;
  const vec<float> n = shifted - magic;
  const vec<float> p = exp_polynomial((clamped - n * 0.693359375f) + n * 2.12194440e-4f);
  // Halving before the last doubling keeps the exponent in range for results near the largest float.
  const uvec<float> exponent = (bit_copy<uvec<float>>(shifted) - bit_copy<uint32_t>(magic)) << 23;
  vec<float> result = bit_copy<vec<float>>(bit_copy<uvec<float>>(p * 0.5f) + exponent) * 2.0f;
  result = x < low ? splat<float>(0.0f) : result;
  result = x > high ? splat<float>(__builtin_inff()) : result;
  return x != x ? x : result;
}

MOLFUSE_INLINE vec<double> exp(vec<double> x) {
  const double low = -707.5, high = 709.78271289338397;
  const vec<double> clamped = x < low ? splat<double>(low) : (x > high ? splat<double>(high) : x);
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  const vec<double> shifted = clamped * 1.4426950408889634074 + magic;
  const vec<double> n = shifted - magic;
  const vec<double> r = (clamped - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  vec<double> p = splat<double>(1.0 / 6227020800.0);
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const uvec<double> exponent = (bit_copy<uvec<double>>(shifted) - bit_copy<uint64_t>(magic)) << 52;
  vec<double> result = bit_copy<vec<double>>(bit_copy<uvec<double>>(p * 0.5) + exponent) * 2.0;
  result = x < low ? splat<double>(0.0) : result;
  result = x > high ? splat<double>(__builtin_inf()) : result;
  return x != x ? x : result;
}

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

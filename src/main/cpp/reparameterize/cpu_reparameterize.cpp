// SPDX-License-Identifier: Apache-2.0
// Normal numbers by Philox and Box-Muller in batches that stay in cache, and what is made of them.
#include "reparameterize/kernels.h"
#include "runtime/log_var.h"
#include "runtime/simd_math.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

constexpr int64_t kBatch = 512;  // elements at a time
constexpr int64_t kGroups = kBatch / 4;

struct Words {
  alignas(64) uint32_t w[4][kGroups];
};

/// The words of kGroups groups of four elements; first is a multiple of kGroups.
void draw(const molfuse_philox& philox_state, int64_t first, Words& words) {
  const uint32_t low = static_cast<uint32_t>(first), high = static_cast<uint32_t>(static_cast<uint64_t>(first) >> 32);
  const uvec<float> lane = bit_copy<uvec<float>>(lane_numbers<float>());
  const uvec<float> c1 = uvec<float>{} + high, c2 = uvec<float>{} + static_cast<uint32_t>(philox_state.offset),
                    c3 = uvec<float>{} + static_cast<uint32_t>(philox_state.offset >> 32);
  for (int64_t g = 0; g < kGroups; g += width<float>) {
    const PhiloxVectors drawn = philox(lane + (low + static_cast<uint32_t>(g)), c1, c2, c3, static_cast<uint32_t>(philox_state.seed),
                                       static_cast<uint32_t>(philox_state.seed >> 32));
    for (int j = 0; j < 4; ++j) __builtin_memcpy(words.w[j] + g, &drawn.w[j], sizeof drawn.w[j]);
  }
}

// A word below 2^32 as a floating-point number, by way of its halves: there is no unsigned conversion before AVX-512.
MOLFUSE_INLINE vec<float> to_real(uvec<float> w) {
  const vec<float> upper = __builtin_convertvector(bit_copy<ivec<float>>(w >> 16), vec<float>);
  const vec<float> lower = __builtin_convertvector(bit_copy<ivec<float>>(w & 0xFFFFu), vec<float>);
  return upper * 65536.0f + lower;
}
MOLFUSE_INLINE vec<double> to_real(uvec<double> w) {
  const double magic = 4503599627370496.0;  // 2^52: its low bits are the integer
  return bit_copy<vec<double>>(w | bit_copy<uint64_t>(magic)) - magic;
}

template <class A>
MOLFUSE_INLINE uvec<A> load_words(const uint32_t* words) {
  typedef uint32_t Narrow __attribute__((vector_size(width<A> * 4)));
  Narrow narrow;
  __builtin_memcpy(&narrow, words, sizeof narrow);
  return __builtin_convertvector(narrow, uvec<A>);
}

/// sqrt of x >= 0.
MOLFUSE_INLINE vec<float> root(vec<float> x) {
  for (int n = 0; n < width<float>; ++n) x[n] = __builtin_sqrtf(x[n]);
  return x;
}
MOLFUSE_INLINE vec<double> root(vec<double> x) {
  for (int n = 0; n < width<double>; ++n) x[n] = __builtin_sqrt(x[n]);
  return x;
}

/// -2 ln((w + 1/2) 2^-32). Near u = 1 the logarithm needs u - 1, which f32 cannot have from u: there it comes from ~w.
template <class A>
MOLFUSE_INLINE vec<A> minus_two_log(uvec<A> w) {
  const A unit = static_cast<A>(2.3283064365386962890625e-10);  // 2^-32
  const vec<A> u = (to_real(w) + static_cast<A>(0.5)) * unit;
  const vec<A> below_one = (to_real(w ^ 0xFFFFFFFFu) + static_cast<A>(0.5)) * unit;
  const MantissaExponent<A> parts = split(u);
  const ivec<A> near_one = u > static_cast<A>(0.70710678);
  const vec<A> f = near_one ? vec<A>{} - below_one : parts.mantissa - A{1};
  const vec<A> e = near_one ? vec<A>{} : parts.exponent;
  return log_parts(e, f) * A{-2};
}

template <class A>
struct Angle {
  vec<A> value, error;
};
/// 2 pi 2^-32 (w - 2^29 + 1/2) for a word below 2^30, with what its rounding leaves over: in f32 that would be the largest error of all.
MOLFUSE_INLINE Angle<float> angle_of(uvec<float> w) {
  // The product of the high 12 bits of both factors is exact.
  const float unit = 1.46291808e-09f, unit_upper = 0x1.9220000000000p-30f, unit_lower = -4.1485346e-15f;
  const ivec<float> steps = bit_copy<ivec<float>>(w) - (1 << 29);
  const ivec<float> coarse = (steps + (1 << 16)) & ~((1 << 17) - 1);
  const vec<float> upper = __builtin_convertvector(coarse, vec<float>);
  const vec<float> lower = __builtin_convertvector(steps - coarse, vec<float>) + 0.5f;
  const vec<float> leading = upper * unit_upper, rest = upper * unit_lower + lower * unit;
  const vec<float> value = leading + rest;
  return {value, rest - (value - leading)};
}
MOLFUSE_INLINE Angle<double> angle_of(uvec<double> w) {
  return {((to_real(w) - 536870912.0) + 0.5) * 1.4629180792671596e-09, vec<double>{}};
}

/// Sine and cosine of 2 pi (w + 1/2) 2^-32: the nearest quarter turn from the high bits, the rest exactly from the low ones.
template <class A>
MOLFUSE_INLINE SinCos<A> sincos_turn(uvec<A> w) {
  using Unsigned = typename VecTypes<A>::Unsigned;
  const uvec<A> shifted = w + Unsigned{1u << 29};
  const uvec<A> quarter = shifted >> 30;  // 0..4, of which the low two bits count
  const Angle<A> angle = angle_of(shifted & Unsigned{0x3FFFFFFFu});
  const SinCos<A> octant = sincos_octant(angle.value, angle.error);
  const ivec<A> swap = (quarter & Unsigned{1}) != Unsigned{0};
  const vec<A> s = swap ? octant.cosine : octant.sine, c = swap ? octant.sine : octant.cosine;
  const ivec<A> sine_negative = (quarter & Unsigned{2}) != Unsigned{0};
  const ivec<A> cosine_negative = ((quarter + Unsigned{1}) & Unsigned{2}) != Unsigned{0};
  return {sine_negative ? -s : s, cosine_negative ? -c : c};
}

/// kBatch normal numbers from element 4 * first on.
template <class A>
void normals(const molfuse_philox& philox_state, int64_t first, A* eps) {
  Words words;
  draw(philox_state, first, words);
  alignas(64) A part[4][kGroups];
  for (int64_t g = 0; g < kGroups; g += width<A>) {
    for (int pair = 0; pair < 2; ++pair) {
      const vec<A> radius = root(minus_two_log<A>(load_words<A>(words.w[2 * pair] + g)));
      const SinCos<A> turn = sincos_turn<A>(load_words<A>(words.w[2 * pair + 1] + g));
      store(part[2 * pair] + g, radius * turn.cosine);
      store(part[2 * pair + 1] + g, radius * turn.sine);
    }
  }
  for (int64_t g = 0; g < kGroups; ++g) {
    for (int j = 0; j < 4; ++j) eps[4 * g + j] = part[j][g];
  }
}

template <class T>
MOLFUSE_INLINE T* element(const LatentOperand& operand, int64_t b, int64_t l) {
  return static_cast<T*>(operand.data) + b * operand.row + l * operand.column;
}

template <class A>
struct Clamped {
  vec<A> half_exp;  // exp(clamp(log_var) / 2)
  ivec<A> outside;
};
template <class A>
MOLFUSE_INLINE Clamped<A> standard_deviation(vec<A> log_var) {
  const A low = static_cast<A>(kLogVarLowest), high = static_cast<A>(kLogVarHighest);
  const ivec<A> below = log_var < low, above = log_var > high;
  const vec<A> clamped = below ? splat<A>(low) : (above ? splat<A>(high) : log_var);
  return {exp(clamped * static_cast<A>(0.5)), below | above};
}

/// Calls function(count, b, l, eps) for runs of at most a vector of elements of one row.
template <class A, class Function>
MOLFUSE_INLINE void each_run(const ReparameterizeProblem& p, int64_t begin, int64_t end, Function&& function) {
  alignas(64) A eps[kBatch + width<A>];
  int64_t b = begin / p.dim, l = begin % p.dim;
  for (int64_t n = begin; n < end; n += kBatch) {
    normals<A>(p.philox, n / 4, eps);
    const int64_t stop = end - n < kBatch ? end - n : kBatch;
    for (int64_t i = 0; i < stop;) {
      int64_t count = p.dim - l < width<A> ? p.dim - l : width<A>;
      if (stop - i < count) count = stop - i;
      function(count, b, l, load(eps + i));
      i += count;
      l += count;
      if (l == p.dim) {
        l = 0;
        ++b;
      }
    }
  }
}

template <class T>
MOLFUSE_INLINE vec<accumulate_t<T>> read(const LatentOperand& operand, int64_t b, int64_t l, int64_t count) {
  return read_lanes(element<const T>(operand, b, l), operand.column, count);
}
template <class T>
MOLFUSE_INLINE void write(const LatentOperand& operand, int64_t b, int64_t l, int64_t count, vec<accumulate_t<T>> v) {
  write_lanes(element<T>(operand, b, l), operand.column, count, v);
}

template <class T>
void forward(const ReparameterizeProblem& p, int64_t begin, int64_t end) {
  using A = accumulate_t<T>;
  each_run<A>(p, begin, end, [&](int64_t count, int64_t b, int64_t l, vec<A> eps) __attribute__((always_inline)) {
    const Clamped<A> deviation = standard_deviation<A>(read<T>(p.log_var, b, l, count));
    write<T>(p.z, b, l, count, read<T>(p.mean, b, l, count) + deviation.half_exp * eps);
  });
}

template <class T>
void backward(const ReparameterizeProblem& p, int64_t begin, int64_t end) {
  using A = accumulate_t<T>;
  each_run<A>(p, begin, end, [&](int64_t count, int64_t b, int64_t l, vec<A> eps) __attribute__((always_inline)) {
    const vec<A> grad = read<T>(p.grad_z, b, l, count);
    if (p.grad_mean.data != nullptr) write<T>(p.grad_mean, b, l, count, grad);
    if (p.grad_log_var.data != nullptr) {
      const Clamped<A> deviation = standard_deviation<A>(read<T>(p.log_var, b, l, count));
      const vec<A> inside = grad * eps * deviation.half_exp * static_cast<A>(0.5);
      write<T>(p.grad_log_var, b, l, count, deviation.outside ? vec<A>{} : inside);
    }
  });
}

void forward_any(const ReparameterizeProblem& p, int64_t begin, int64_t end) {
  with_type(p.dtype, [&](auto tag) { forward<typename decltype(tag)::type>(p, begin, end); });
}
void backward_any(const ReparameterizeProblem& p, int64_t begin, int64_t end) {
  with_type(p.dtype, [&](auto tag) { backward<typename decltype(tag)::type>(p, begin, end); });
}

}  // namespace

const ReparameterizeKernels reparameterize_kernels = {forward_any, backward_any};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// The simulated device's side of runtime/device.h; see there for what each function promises.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "simt/simt.h"

#define MOLFUSE_DEVICE inline
#define MOLFUSE_KERNEL(threads, blocks) inline void
#define MOLFUSE_UNROLL
#define MOLFUSE_UNROLL_BY(count)
#define MOLFUSE_GRID_CONSTANT

namespace molfuse {
namespace device {

constexpr int kWarp = simt::kWarp;
constexpr uint32_t kFullMask = simt::kFullMask;

inline int thread_index() { return simt::thread_index(); }
inline int block_threads() { return simt::block_threads(); }
inline int block_x() { return simt::block_index().x; }
inline int block_y() { return simt::block_index().y; }
inline int block_z() { return simt::block_index().z; }
inline int fresh(int x) { return x; }
inline int grid_x() { return simt::grid_size().x; }
inline int grid_y() { return simt::grid_size().y; }
inline unsigned char* shared_memory() { return static_cast<unsigned char*>(simt::shared_memory()); }

inline void sync_block() { simt::barrier(0, simt::block_threads()); }
inline void sync_warp() {
  const int none = 0;
  simt::warp_operation("sync_warp", kFullMask, &none, nullptr, [](simt::Lanes&, uint32_t) {});
}
inline void sync_named(int id, int threads) { simt::barrier(id, threads); }

template <class T>
struct ShuffleIn {
  T value;
  int from;
};
template <class T>
T shuffle_from(const char* name, T value, int from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  const ShuffleIn<T> in{value, from};
  T out;
  simt::warp_operation(name, kFullMask, &in, &out, [](simt::Lanes& lanes, uint32_t) {
    for (int n = 0; n < kWarp; ++n) {
      const int source = static_cast<const ShuffleIn<T>*>(lanes.in[n])->from;
      *static_cast<T*>(lanes.out[n]) = static_cast<const ShuffleIn<T>*>(lanes.in[source])->value;
    }
  });
  return out;
}
template <class T>
T shuffle(T value, int lane, int width = kWarp) {
  const int own = simt::thread_index() % kWarp;
  // As the instruction does: the source is taken modulo the width.
  return shuffle_from("shuffle", value, own / width * width + (lane & (width - 1)));
}
template <class T>
T shuffle_xor(T value, int mask) {
  return shuffle_from("shuffle_xor", value, (simt::thread_index() % kWarp) ^ (mask & (kWarp - 1)));
}
inline uint32_t ballot(bool predicate) {
  uint32_t out;
  simt::warp_operation("ballot", kFullMask, &predicate, &out, [](simt::Lanes& lanes, uint32_t) {
    uint32_t bits = 0;
    for (int n = 0; n < kWarp; ++n) bits |= static_cast<uint32_t>(*static_cast<const bool*>(lanes.in[n])) << n;
    for (int n = 0; n < kWarp; ++n) *static_cast<uint32_t*>(lanes.out[n]) = bits;
  });
  return out;
}

template <class V>
V load(const V* at) {
  simt::maybe_yield();
  simt::check_access(at, sizeof(V), sizeof(V), "load");
  V value;
  std::memcpy(static_cast<void*>(&value), at, sizeof(V));
  return value;
}
template <class V>
void store(V* at, const V& value) {
  simt::maybe_yield();
  simt::check_access(at, sizeof(V), sizeof(V), "store");
  std::memcpy(static_cast<void*>(at), &value, sizeof(V));
}
template <class V>
V load_once(const V* at) { return load(at); }
template <class V>
void store_once(V* at, const V& value) { store(at, value); }

template <class T, class Change>
T atomic_change(T* at, Change change) {
  simt::maybe_yield();
  simt::check_access(at, sizeof(T), sizeof(T), "atomic operation");
  const T before = *at;
  *at = change(before);
  return before;
}
inline int atomic_add(int* at, int value) { return atomic_change(at, [=](int v) { return v + value; }); }

inline float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float to_float(float value) { return value; }
inline float to_float(bf16 value) { return float_from_bits(static_cast<uint32_t>(value.bits) << 16); }
inline float to_float(f16 value) {
  const int exponent = value.bits >> 10 & 31, mantissa = value.bits & 1023;
  float magnitude;
  if (exponent == 31) {
    magnitude = mantissa != 0 ? std::nanf("") : INFINITY;
  } else {
    magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24) : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  }
  return (value.bits & 0x8000) != 0 ? -magnitude : magnitude;
}

template <class T>
T from_float(float value);
template <>
inline float from_float<float>(float value) { return value; }
template <>
inline bf16 from_float<bf16>(float value) {
  const uint32_t bits = bits_of(value);
  if (value != value) return {0x7FFF};  // as the device's conversion
  return {static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
}
template <>
inline f16 from_float<f16>(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (value != value) return {0x7FFF};
  if (magnitude == 0) return {sign};
  if (magnitude >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7C00)};
  int exponent;
  std::frexp(magnitude, &exponent);  // magnitude = f * 2^exponent, 0.5 <= f < 1
  const int shift = exponent < -13 ? -24 : exponent - 11;  // of the last bit kept
  const float scaled = std::nearbyint(std::ldexp(magnitude, -shift));  // to even
  const auto units = static_cast<uint32_t>(scaled);
  // A carry out of the mantissa goes into the exponent by itself.
  return {static_cast<uint16_t>(sign | (shift == -24 ? units : (static_cast<uint32_t>(shift + 24) << 10) + units))};
}

inline void copy_async(void* shared, const void* from, bool valid = true) { simt::copy_async(shared, from, 16, valid ? 16 : 0); }
inline void commit_copies() { simt::commit_copies(); }
template <int PENDING>
void wait_copies() { simt::wait_copies(PENDING); }

struct MultiplyIn {
  float d[4];
  uint32_t a[4], b[2];
};
/// Calls D[i][j] += sum over k of A[i][k] B[k][j] on whole matrices gathered from the lanes' fragments.
template <int DEPTH, class ElementA, class ElementB>
void multiply_fragments(simt::Lanes& lanes, ElementA a_of, ElementB b_of) {
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int n = 0; n < 4; ++n) {
      const int row = lane / 4 + (n < 2 ? 0 : 8), column = 2 * (lane % 4) + n % 2;
      // The sum of the products is exact in double; a device adds them with less care.
      double sum = static_cast<double>(static_cast<const MultiplyIn*>(lanes.in[lane])->d[n]);
      for (int k = 0; k < DEPTH; ++k) sum += static_cast<double>(a_of(lanes, row, k)) * static_cast<double>(b_of(lanes, k, column));
      static_cast<float*>(lanes.out[lane])[n] = static_cast<float>(sum);
    }
  }
}
template <class T>
float half_of(uint32_t word, int which) { return to_float(T{static_cast<uint16_t>(word >> (16 * which))}); }

template <class T>
void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MultiplyIn in;
  std::memcpy(in.d, d, sizeof d);
  std::memcpy(in.a, a, sizeof a);
  std::memcpy(in.b, b, sizeof b);
  simt::warp_operation("multiply_add", kFullMask, &in, d, [](simt::Lanes& lanes, uint32_t) {
    multiply_fragments<16>(
        lanes,
        [](simt::Lanes& l, int row, int k) {
          const int lane = row % 8 * 4 + k % 8 / 2, word = row / 8 + 2 * (k / 8);
          return half_of<T>(static_cast<const MultiplyIn*>(l.in[lane])->a[word], k % 2);
        },
        [](simt::Lanes& l, int k, int column) {
          return half_of<T>(static_cast<const MultiplyIn*>(l.in[column * 4 + k % 8 / 2])->b[k / 8], k % 2);
        });
  });
}
inline void multiply_add_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MultiplyIn in;
  std::memcpy(in.d, d, sizeof d);
  std::memcpy(in.a, a, sizeof a);
  std::memcpy(in.b, b, sizeof b);
  simt::warp_operation("multiply_add_tf32", kFullMask, &in, d, [](simt::Lanes& lanes, uint32_t) {
    // The low 13 bits of an operand are not looked at.
    multiply_fragments<8>(
        lanes,
        [](simt::Lanes& l, int row, int k) {
          return float_from_bits(static_cast<const MultiplyIn*>(l.in[row % 8 * 4 + k % 4])->a[row / 8 + 2 * (k / 4)] & 0xFFFFE000u);
        },
        [](simt::Lanes& l, int k, int column) {
          return float_from_bits(static_cast<const MultiplyIn*>(l.in[column * 4 + k % 4])->b[k / 4] & 0xFFFFE000u);
        });
  });
}
inline uint32_t to_tf32(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7F800000u) == 0x7F800000u) return bits & ((bits & 0x007FFFFFu) != 0 ? 0xFFFFFFFFu : 0xFF800000u);
  return (bits + 0x1000u) & 0xFFFFE000u;
}

struct MatrixRow {
  const void* row;
  uint32_t r[4];
};
template <bool TRANSPOSED>
void load_matrices_as(const char* name, uint32_t (&r)[4], const void* row) {
  simt::check_shared(row, 16, 16, name);
  const MatrixRow in{row, {}};
  simt::warp_operation(name, kFullMask, &in, r, [](simt::Lanes& lanes, uint32_t) {
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int m = 0; m < 4; ++m) {
        uint16_t element[2];
        for (int n = 0; n < 2; ++n) {
          const int line = TRANSPOSED ? 2 * (lane % 4) + n : lane / 4, column = TRANSPOSED ? lane / 4 : 2 * (lane % 4) + n;
          std::memcpy(&element[n], static_cast<const char*>(static_cast<const MatrixRow*>(lanes.in[8 * m + line])->row) + 2 * column, 2);
        }
        static_cast<uint32_t*>(lanes.out[lane])[m] = element[0] | static_cast<uint32_t>(element[1]) << 16;
      }
    }
  });
}
inline void load_matrices(uint32_t (&r)[4], const void* row) { load_matrices_as<false>("load_matrices", r, row); }
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) { load_matrices_as<true>("load_matrices_transposed", r, row); }
inline void store_matrices(void* row, const uint32_t (&r)[4]) {
  simt::check_shared(row, 16, 16, "store_matrices");
  MatrixRow in{row, {r[0], r[1], r[2], r[3]}};
  simt::warp_operation("store_matrices", kFullMask, &in, nullptr, [](simt::Lanes& lanes, uint32_t) {
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int m = 0; m < 4; ++m) {
        char* to = static_cast<char*>(const_cast<void*>(static_cast<const MatrixRow*>(lanes.in[8 * m + lane / 4])->row));
        std::memcpy(to + 4 * (lane % 4), &static_cast<const MatrixRow*>(lanes.in[lane])->r[m], 4);
      }
    }
  });
}

inline float exp(float x) { return std::exp(x); }
inline float exp2_fast(float x) {
  const float value = std::exp2(x);
  return std::fabs(value) < std::numeric_limits<float>::min() ? 0.0f : value;
}
inline float larger(float a, float b) { return std::fmax(a, b); }
inline float log(float x) { return std::log(x); }
inline float log_one_plus(float x) { return std::log1p(x); }
inline float square_root(float x) { return std::sqrt(x); }
inline void sincos_pi(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(std::sin(3.14159265358979323846 * static_cast<double>(x)));
  *cosine = static_cast<float>(std::cos(3.14159265358979323846 * static_cast<double>(x)));
}
inline float fused_multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
inline uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  uint32_t result = 0;
  for (int n = 0; n < 4; ++n) result |= static_cast<uint32_t>(both >> (8 * (selector >> (4 * n) & 7u)) & 0xFFu) << (8 * n);
  return result;
}
inline bool is_nan(float a) { return a != a; }
MOLFUSE_DEVICE float infinity() { return __builtin_huge_valf(); }
MOLFUSE_DEVICE float quiet_nan() { return __builtin_nanf(""); }

}  // namespace device
}  // namespace molfuse

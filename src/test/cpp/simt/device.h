// SPDX-License-Identifier: Apache-2.0
// The simulated device's side of runtime/device.h; see there for what each function promises.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "simt/simt.h"

#define MOLFUSE_DEVICE inline
#define MOLFUSE_KERNEL(threads, blocks) inline void
#define MOLFUSE_UNROLL
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
inline int grid_x() { return simt::grid_size().x; }
inline int grid_y() { return simt::grid_size().y; }
inline unsigned char* shared_memory() { return static_cast<unsigned char*>(simt::shared_memory()); }

inline void sync_block() { simt::barrier(0, simt::block_threads()); }
inline void sync_warp() {
  const int none = 0;
  simt::warp_operation("sync_warp", kFullMask, &none, nullptr, [](simt::Lanes&, uint32_t) {});
}
inline void sync_named(int id, int threads) { simt::barrier(id, threads); }
inline void fence_device() {}

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
inline uint32_t atomic_or(uint32_t* at, uint32_t value) { return atomic_change(at, [=](uint32_t v) { return v | value; }); }
inline unsigned long long atomic_min(unsigned long long* at, unsigned long long value) {
  return atomic_change(at, [=](unsigned long long v) { return v < value ? v : value; });
}

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

inline float exp(float x) { return std::exp(x); }
inline float log(float x) { return std::log(x); }
inline float log_one_plus(float x) { return std::log1p(x); }
inline float exp2_approximate(float x) {
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.0f : y;
}
inline float square_root(float x) { return std::sqrt(x); }
inline float inverse_square_root(float x) { return 1.0f / std::sqrt(x); }
inline void sincos_pi(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(std::sin(3.14159265358979323846 * static_cast<double>(x)));
  *cosine = static_cast<float>(std::cos(3.14159265358979323846 * static_cast<double>(x)));
}
inline float fused_multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
inline float maximum(float a, float b) { return std::fmax(a, b); }
inline float absolute(float a) { return std::fabs(a); }
inline bool is_nan(float a) { return a != a; }
MOLFUSE_DEVICE float infinity() { return __builtin_huge_valf(); }
MOLFUSE_DEVICE float quiet_nan() { return __builtin_nanf(""); }

}  // namespace device
}  // namespace molfuse

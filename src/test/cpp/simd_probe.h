// SPDX-License-Identifier: Apache-2.0
// Lets tests call the inline functions of runtime/simd.h as compiled for each instruction set: cpu_simd_probe.cpp is compiled like
// the kernels, once for each.
#pragma once

#include <cstdint>

namespace molfuse {

/// Each function runs over n elements by whole vectors and one partial one.
struct SimdProbe {
  int vector_bytes;
  void (*load_f16)(const uint16_t* from, float* to, int64_t n);
  void (*load_bf16)(const uint16_t* from, float* to, int64_t n);
  void (*store_f16)(const float* from, uint16_t* to, int64_t n);
  void (*store_bf16)(const float* from, uint16_t* to, int64_t n);
  void (*exp_f32)(const float* from, float* to, int64_t n);
  void (*exp_f64)(const double* from, double* to, int64_t n);
  /// to[v] = sum (maximum) of the v-th vector; n is a multiple of the vector's elements.
  void (*add_f32)(const float* from, float* to, int64_t n);
  void (*add_f64)(const double* from, double* to, int64_t n);
  void (*max_f32)(const float* from, float* to, int64_t n);
  void (*max_f64)(const double* from, double* to, int64_t n);
  /// words[4*i..] of counter (first + i, 1, 2, 3) for one vector of counters.
  void (*philox)(uint32_t first, uint32_t k0, uint32_t k1, uint32_t* words);
};

namespace baseline { extern const SimdProbe simd_probe; }
#if defined(__x86_64__)
namespace avx2 { extern const SimdProbe simd_probe; }
namespace avx512 { extern const SimdProbe simd_probe; }
#endif

}  // namespace molfuse

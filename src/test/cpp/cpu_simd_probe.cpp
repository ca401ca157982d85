// SPDX-License-Identifier: Apache-2.0
#include "simd_probe.h"

#include "runtime/simd.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

template <class T>
void load_all(const uint16_t* from, float* to, int64_t n) {
  const T* const p = reinterpret_cast<const T*>(from);
  int64_t i = 0;
  for (; i + width<float> <= n; i += width<float>) store(to + i, load(p + i));
  if (i < n) store_partial(to + i, n - i, load_partial(p + i, n - i));
}

template <class T>
void store_all(const float* from, uint16_t* to, int64_t n) {
  T* const p = reinterpret_cast<T*>(to);
  int64_t i = 0;
  for (; i + width<float> <= n; i += width<float>) store(p + i, load(from + i));
  if (i < n) store_partial(p + i, n - i, load_partial(from + i, n - i));
}

template <class A>
void exp_all(const A* from, A* to, int64_t n) {
  int64_t i = 0;
  for (; i + width<A> <= n; i += width<A>) store(to + i, exp(load(from + i)));
  if (i < n) store_partial(to + i, n - i, exp(load_partial(from + i, n - i)));
}

template <class A>
void add_all(const A* from, A* to, int64_t n) {
  for (int64_t i = 0; i < n; i += width<A>) *to++ = reduce_add<A>(load(from + i));
}

template <class A>
void max_all(const A* from, A* to, int64_t n) {
  for (int64_t i = 0; i < n; i += width<A>) *to++ = reduce_max<A>(load(from + i));
}

void philox_words(uint32_t first, uint32_t k0, uint32_t k1, uint32_t* words) {
  uvec<float> lane;
  for (int n = 0; n < width<float>; ++n) lane[n] = first + static_cast<uint32_t>(n);
  const PhiloxVectors vectors = philox(lane, uvec<float>{} + 1u, uvec<float>{} + 2u, uvec<float>{} + 3u, k0, k1);
  for (int n = 0; n < width<float>; ++n) {
    for (int r = 0; r < 4; ++r) words[4 * n + r] = vectors.w[r][n];
  }
}

}  // namespace

const SimdProbe simd_probe = {kVectorBytes,   load_all<f16>,   load_all<bf16>,  store_all<f16>,  store_all<bf16>,  exp_all<float>,
                              exp_all<double>, add_all<float>, add_all<double>, max_all<float>, max_all<double>, philox_words};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse

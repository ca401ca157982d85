// SPDX-License-Identifier: Apache-2.0
// Storage types of the 16-bit formats and the types they are accumulated in.
#pragma once

#include <cstdint>

namespace molfuse {

struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};

template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <class T>
struct Accumulate<const T> : Accumulate<T> {};
/// Type of accumulators and statistics of stored values of type T.
template <class T>
using accumulate_t = typename Accumulate<T>::type;

template <class T>
struct Tag {
  using type = T;
};

}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// Storage types of the 16-bit formats and dispatch from a run-time element type to a C++ type.
#pragma once

#include <cstdint>

#include "runtime/check.h"

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

/// Calls function(Tag<T>{}) with the C++ type of dtype.
template <class Function>
decltype(auto) dispatch_float(int32_t dtype, Function&& function) {
  switch (dtype) {
    case MOLFUSE_F32: return function(Tag<float>{});
    case MOLFUSE_F64: return function(Tag<double>{});
    case MOLFUSE_F16: return function(Tag<f16>{});
    case MOLFUSE_BF16: return function(Tag<bf16>{});
    default: invalid("unknown element type %d", dtype);
  }
}

}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// For kernels: tiles of matrices in shared memory, and products of them on tensor cores. f32 runs on tensor cores too: each value is split
// into two tf32 parts, and three of the four products of parts are added, which leaves an error of f32's own size. With `tf32`, where the
// caller allows it, only the product of the large parts is made. The flag is the same for a whole launch: a branch that costs next to
// nothing, where kernels of its own would be a third more code.
#pragma once

#include "runtime/device.h"

namespace molfuse {
namespace device {

/// Rows of DIM elements in shared memory. The 16-byte chunks of a row are permuted so that a chunk of eight neighbouring rows, which is
/// what load_matrices and copies take at once, lies in different banks.
template <class T, int DIM>
struct Tile {
  static constexpr int kChunk = 16 / static_cast<int>(sizeof(T));
  static constexpr int kChunks = DIM / kChunk;
  static constexpr int kRowBytes = DIM * static_cast<int>(sizeof(T));
  static MOLFUSE_DEVICE int offset(int row, int chunk) {
    const int turn = kRowBytes % 128 == 0 ? row & 7 : kRowBytes % 64 == 0 ? row >> 1 & 3 : row >> 2 & 1;
    return row * kRowBytes + ((chunk ^ turn) << 4);
  }
  /// Of one element.
  static MOLFUSE_DEVICE int place(int row, int column) {
    return offset(row, column / kChunk) + column % kChunk * static_cast<int>(sizeof(T));
  }
};

/// A fragment of the left operand: 16 rows of 32 bytes, so a depth of 16 for 16-bit types and of 8 for f32.
template <class T>
struct Left {
  static constexpr int kDepth = 16;
  uint32_t part[4];
};
template <>
struct Left<float> {
  static constexpr int kDepth = 8;
  uint32_t part[4], rest[4];
};
template <class T>
MOLFUSE_DEVICE Left<T> left_of(const uint32_t (&bits)[4], [[maybe_unused]] bool tf32) {
  Left<T> a;
  MOLFUSE_UNROLL
  for (int n = 0; n < 4; ++n) {
    if constexpr (sizeof(T) == 4) {
      const float value = float_from_bits(bits[n]);
      a.part[n] = to_tf32(value);
      a.rest[n] = tf32 ? 0u : to_tf32(value - float_from_bits(a.part[n]));
    } else {
      a.part[n] = bits[n];
    }
  }
  return a;
}
/// d += a b, with the right operand's fragment in b0 and b1. The small products of f32 go to `small`, which may be d itself.
template <class T>
MOLFUSE_DEVICE void multiply(float (&d)[4], [[maybe_unused]] float (&small)[4], const Left<T>& a, uint32_t b0, uint32_t b1,
                             [[maybe_unused]] bool tf32) {
  if constexpr (sizeof(T) == 4) {
    const float v0 = float_from_bits(b0), v1 = float_from_bits(b1);
    const uint32_t part[2] = {to_tf32(v0), to_tf32(v1)};
    if (!tf32) {
      const uint32_t rest[2] = {to_tf32(v0 - float_from_bits(part[0])), to_tf32(v1 - float_from_bits(part[1]))};
      multiply_add_tf32(small, a.rest, part);
      multiply_add_tf32(small, a.part, rest);
    }
    multiply_add_tf32(d, a.part, part);
  } else {
    multiply_add<T>(d, a.part, {b0, b1});
  }
}

/// 16 rows of a tile from row `row` on, at depth `depth`.
template <class T, int DIM>
MOLFUSE_DEVICE Left<T> left_rows(const unsigned char* tile, int row, int depth, bool tf32) {
  const int lane = lane_index();
  uint32_t bits[4];
  load_matrices(bits, tile + Tile<T, DIM>::offset(row + (lane & 15), depth / Tile<T, DIM>::kChunk + (lane >> 4)));
  return left_of<T>(bits, tf32);
}
/// The same of a tile's transpose: 16 columns from column `column` on, at depths (rows) from `depth` on.
template <class T, int DIM>
MOLFUSE_DEVICE Left<T> left_columns(const unsigned char* tile, int column, int depth, bool tf32) {
  using Rows = Tile<T, DIM>;
  const int lane = lane_index();
  uint32_t bits[4];
  if constexpr (sizeof(T) == 4) {
    const int g = lane / 4, t = lane % 4;
    MOLFUSE_UNROLL
    for (int n = 0; n < 4; ++n) bits[n] = load(reinterpret_cast<const uint32_t*>(tile + Rows::place(depth + t + n / 2 * 4, column + g + n % 2 * 8)));
  } else {
    load_matrices_transposed(bits, tile + Rows::offset(depth + (lane & 7) + (lane >> 4 << 3), column / Rows::kChunk + (lane >> 3 & 1)));
  }
  return left_of<T>(bits, tf32);
}

/// acc += 16 rows of one tile, from row `row` on, times 8 * TILES rows of another, from `right_row` on: products of rows.
template <class T, int DIM, int TILES>
MOLFUSE_DEVICE void multiply_rows(float (&acc)[TILES][4], const unsigned char* left, int row, const unsigned char* right, int right_row,
                                  bool tf32) {
  using Rows = Tile<T, DIM>;
  const int lane = lane_index();
  if constexpr (TILES == 1) {
    // Four matrices at a time, too: two steps of the depth.
    MOLFUSE_UNROLL_BY(2)
    for (int k = 0; k < Rows::kRowBytes / 32; k += 2) {
      uint32_t b[4];
      load_matrices(b, right + Rows::offset(right_row + (lane & 7), 2 * k + (lane >> 3)));
      multiply<T>(acc[0], acc[0], left_rows<T, DIM>(left, row, k * Left<T>::kDepth, tf32), b[0], b[1], tf32);
      multiply<T>(acc[0], acc[0], left_rows<T, DIM>(left, row, (k + 1) * Left<T>::kDepth, tf32), b[2], b[3], tf32);
    }
  } else {
    // Not all at once: the code of a long row would not fit the instruction cache.
    MOLFUSE_UNROLL_BY(4)
    for (int k = 0; k < Rows::kRowBytes / 32; ++k) {
      const Left<T> a = left_rows<T, DIM>(left, row, k * Left<T>::kDepth, tf32);
      MOLFUSE_UNROLL
      for (int n = 0; n < TILES; n += 2) {
        uint32_t b[4];
        load_matrices(b, right + Rows::offset(right_row + 8 * n + (lane & 7) + (lane >> 4 << 3), 2 * k + (lane >> 3 & 1)));
        multiply<T>(acc[n], acc[n], a, b[0], b[1], tf32);
        multiply<T>(acc[n + 1], acc[n + 1], a, b[2], b[3], tf32);
      }
    }
  }
}

/// acc += a fragment at depth `depth` times rows depth .. depth + kDepth - 1 of a tile, of which 8 * TILES columns from `column` on.
template <class T, int DIM, int TILES>
MOLFUSE_DEVICE void multiply_columns(float (&acc)[TILES][4], const Left<T>& a, const unsigned char* right, int depth, int column, bool tf32) {
  using Rows = Tile<T, DIM>;
  const int lane = lane_index(), g = lane / 4, t = lane % 4;
  MOLFUSE_UNROLL
  for (int n = 0; n < TILES; n += 2) {
    uint32_t b[4];
    if constexpr (sizeof(T) == 4) {
      MOLFUSE_UNROLL
      for (int m = 0; m < 4; ++m) b[m] = load(reinterpret_cast<const uint32_t*>(right + Rows::place(depth + t + m % 2 * 4, column + 8 * (n + m / 2) + g)));
    } else {
      load_matrices_transposed(b, right + Rows::offset(depth + (lane & 15), column / Rows::kChunk + n + (lane >> 4)));
    }
    multiply<T>(acc[n], acc[n], a, b[0], b[1], tf32);
    multiply<T>(acc[n + 1], acc[n + 1], a, b[2], b[3], tf32);
  }
}

/// Puts two neighbouring elements of a row into a tile; column is even.
template <class T, int DIM>
MOLFUSE_DEVICE void put_pair(unsigned char* tile, int row, int column, float first, float second) {
  unsigned char* at = tile + Tile<T, DIM>::place(row, column);
  if constexpr (sizeof(T) == 2) {
    store(reinterpret_cast<uint32_t*>(at), pack<T>(first, second));
  } else {
    store(reinterpret_cast<Vector<float, 2>*>(at), Vector<float, 2>{{first, second}});
  }
}

}  // namespace device
}  // namespace molfuse

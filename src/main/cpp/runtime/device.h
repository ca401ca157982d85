// SPDX-License-Identifier: Apache-2.0
// Everything that kernels ask of the device, in one place with two meanings: compiled by nvcc it is the GPU's own instructions; with
// MOLFUSE_SIMT it is the simulated device of the tests (src/test/cpp/simt), on which the same kernel sources run without a GPU. Kernels
// (files *.cuh) use nothing of CUDA but through this header.
#pragma once

#include <cstdint>

#include "runtime/dtype.h"
#include "runtime/philox.h"

#if defined(MOLFUSE_SIMT)
#include "simt/device.h"
#elif defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define MOLFUSE_DEVICE __device__ __forceinline__
/// A kernel for at most `threads` threads a block, compiled so that `blocks` blocks fit on a multiprocessor.
#define MOLFUSE_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define MOLFUSE_UNROLL _Pragma("unroll")
#define MOLFUSE_PRAGMA(text) _Pragma(#text)
#define MOLFUSE_UNROLL_BY(count) MOLFUSE_PRAGMA(unroll count)
#define MOLFUSE_GRID_CONSTANT __grid_constant__

namespace molfuse {
namespace device {

constexpr int kWarp = 32;
constexpr uint32_t kFullMask = 0xFFFFFFFFu;

// ---- position

MOLFUSE_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
MOLFUSE_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
MOLFUSE_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
MOLFUSE_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
MOLFUSE_DEVICE int block_z() { return static_cast<int>(blockIdx.z); }
/// x, as a number of which nothing is known: what is computed from it is computed there, and not kept in registers over a loop.
MOLFUSE_DEVICE int fresh(int x) {
  asm volatile("" : "+r"(x));
  return x;
}
MOLFUSE_DEVICE int grid_x() { return static_cast<int>(gridDim.x); }
MOLFUSE_DEVICE int grid_y() { return static_cast<int>(gridDim.y); }

/// The block's dynamic shared memory.
MOLFUSE_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char molfuse_shared[];
  return molfuse_shared;
}

// ---- order

MOLFUSE_DEVICE void sync_block() { __syncthreads(); }
MOLFUSE_DEVICE void sync_warp() { __syncwarp(); }
/// Barrier id (1..15) of `threads` threads, a multiple of 32.
MOLFUSE_DEVICE void sync_named(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// ---- warp: every lane takes part. T has 4 or 8 bytes.

/// Groups of `width` lanes (a power of two): lane is counted within the caller's group.
template <class T>
MOLFUSE_DEVICE T shuffle(T value, int lane, int width = kWarp) { return __shfl_sync(kFullMask, value, lane, width); }
template <class T>
MOLFUSE_DEVICE T shuffle_xor(T value, int mask) { return __shfl_xor_sync(kFullMask, value, mask); }
/// The lanes for which the predicate holds.
MOLFUSE_DEVICE uint32_t ballot(bool predicate) { return __ballot_sync(kFullMask, predicate); }

// ---- memory. V is a type of 1, 2, 4, 8 or 16 bytes, aligned to its size.

template <class V>
MOLFUSE_DEVICE V load(const V* at) { return *at; }
template <class V>
MOLFUSE_DEVICE void store(V* at, const V& value) { *at = value; }

/// Global memory that nobody reads twice: past the first-level cache.
template <class V>
MOLFUSE_DEVICE V load_once(const V* at) {
  V value;
  if constexpr (sizeof(V) == 16) {
    uint32_t* w = reinterpret_cast<uint32_t*>(&value);
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3]) : "l"(at));
  } else if constexpr (sizeof(V) == 8) {
    uint32_t* w = reinterpret_cast<uint32_t*>(&value);
    asm volatile("ld.global.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(w[0]), "=r"(w[1]) : "l"(at));
  } else {
    value = *at;
  }
  return value;
}
/// Global memory that is not read again soon.
template <class V>
MOLFUSE_DEVICE void store_once(V* at, const V& value) {
  if constexpr (sizeof(V) == 16) {
    __stcs(reinterpret_cast<uint4*>(at), *reinterpret_cast<const uint4*>(&value));
  } else if constexpr (sizeof(V) == 8) {
    __stcs(reinterpret_cast<uint2*>(at), *reinterpret_cast<const uint2*>(&value));
  } else {
    *at = value;
  }
}

/// Returns the value before.
MOLFUSE_DEVICE int atomic_add(int* at, int value) { return atomicAdd(at, value); }

// ---- asynchronous copies from global to shared memory, 16 bytes a thread

/// Copies 16 bytes, or writes 16 zero bytes if not valid (then `from` is not read).
MOLFUSE_DEVICE void copy_async(void* shared, const void* from, bool valid = true) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
/// Ends a group of this thread's copies.
MOLFUSE_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most PENDING of this thread's groups are unfinished. What they wrote is visible to this thread; to others after a barrier.
template <int PENDING>
MOLFUSE_DEVICE void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// ---- tensor cores. Fragments as in the PTX manual, for mma.m16n8k16 and m16n8k8; with g = lane / 4 and t = lane % 4:
//   16-bit A [16,16]: a[0] row g, columns 2t, 2t+1; a[1] row g+8; a[2], a[3] the same rows, columns 2t+8, 2t+9
//   16-bit B [16,8]:  b[0] rows 2t, 2t+1 of column g; b[1] rows 2t+8, 2t+9
//   tf32 A [16,8]:    a[0] row g, column t; a[1] row g+8; a[2], a[3] the same rows, column t+4
//   tf32 B [8,8]:     b[0] row t, column g; b[1] row t+4
//   D [16,8]:         d[0], d[1] row g, columns 2t, 2t+1; d[2], d[3] row g+8

/// d += a b
template <class T>
MOLFUSE_DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
MOLFUSE_DEVICE void multiply_add<f16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
MOLFUSE_DEVICE void multiply_add<bf16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// The same for f32 rounded to tf32: m16n8k8.
MOLFUSE_DEVICE void multiply_add_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// The bits of an f32 rounded to tf32 (to nearest, ties away from zero).
MOLFUSE_DEVICE uint32_t to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

/// Loads four 8x8 matrices of 16-bit elements from shared memory. Lane 8m + r gives the address of row r of matrix m (16 bytes, aligned);
/// r[m] gets columns 2t and 2t+1 of row g of matrix m; transposed: rows 2t and 2t+1 of column g.
MOLFUSE_DEVICE void load_matrices(uint32_t (&r)[4], const void* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
MOLFUSE_DEVICE void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
/// The reverse of load_matrices. Before compute capability 9.0 by plain stores.
MOLFUSE_DEVICE void store_matrices(void* row, const uint32_t (&r)[4]) {
#if __CUDA_ARCH__ >= 900
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
#else
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  MOLFUSE_UNROLL
  for (int m = 0; m < 4; ++m) {
    const auto base = __shfl_sync(kFullMask, reinterpret_cast<unsigned long long>(row), 8 * m + lane / 4);
    reinterpret_cast<uint32_t*>(base)[lane % 4] = r[m];
  }
  __syncwarp();
#endif
}

// ---- 16-bit types

MOLFUSE_DEVICE float to_float(float value) { return value; }
MOLFUSE_DEVICE float to_float(f16 value) { return __half2float(__ushort_as_half(value.bits)); }
MOLFUSE_DEVICE float to_float(bf16 value) { return __bfloat162float(__ushort_as_bfloat16(value.bits)); }

template <class T>
MOLFUSE_DEVICE T from_float(float value);
template <>
MOLFUSE_DEVICE float from_float<float>(float value) { return value; }
template <>
MOLFUSE_DEVICE f16 from_float<f16>(float value) { return {__half_as_ushort(__float2half_rn(value))}; }
template <>
MOLFUSE_DEVICE bf16 from_float<bf16>(float value) { return {__bfloat16_as_ushort(__float2bfloat16_rn(value))}; }

// ---- arithmetic

/// Within two units in the last place over all of f32.
MOLFUSE_DEVICE float exp(float x) { return ::expf(x); }
/// 2^x within two units in the last place; 0 where that is no normal number. One instruction of the special function unit.
MOLFUSE_DEVICE float exp2_fast(float x) {
  float value;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
  return value;
}
/// The larger number; where one is NaN, the other.
MOLFUSE_DEVICE float larger(float a, float b) { return ::fmaxf(a, b); }
MOLFUSE_DEVICE float log(float x) { return ::logf(x); }
MOLFUSE_DEVICE float log_one_plus(float x) { return ::log1pf(x); }
MOLFUSE_DEVICE float square_root(float x) { return ::sqrtf(x); }
/// sin(pi * x) and cos(pi * x).
MOLFUSE_DEVICE void sincos_pi(float x, float* sine, float* cosine) { ::sincospif(x, sine, cosine); }
MOLFUSE_DEVICE float fused_multiply_add(float a, float b, float c) { return ::fmaf(a, b, c); }
MOLFUSE_DEVICE bool is_nan(float a) { return a != a; }
MOLFUSE_DEVICE float float_from_bits(uint32_t bits) { return __uint_as_float(bits); }
MOLFUSE_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
/// Byte n of the result is that byte of `low` (0..3) or `high` (4..7) which hexadecimal digit n of the selector, 0..7, names.
MOLFUSE_DEVICE uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) { return __byte_perm(low, high, selector); }
MOLFUSE_DEVICE float infinity() { return __builtin_huge_valf(); }
MOLFUSE_DEVICE float quiet_nan() { return __builtin_nanf(""); }

}  // namespace device
}  // namespace molfuse

#else
#error "kernels are compiled by nvcc, or with MOLFUSE_SIMT for the simulated device"
#endif

namespace molfuse {
namespace device {

/// Two neighbours of a 16-bit type in one word, the first in its low half.
template <class T>
MOLFUSE_DEVICE uint32_t pack(float first, float second) {
  return static_cast<uint32_t>(from_float<T>(first).bits) | static_cast<uint32_t>(from_float<T>(second).bits) << 16;
}

/// N neighbours of type T in one access.
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  T item[N];
};

MOLFUSE_DEVICE int lane_index() { return thread_index() % kWarp; }
MOLFUSE_DEVICE int warp_index() { return thread_index() / kWarp; }

/// Sum over groups of WIDTH neighbouring lanes; every lane gets it. The order of additions is that of a butterfly, whatever the timing.
template <int WIDTH = kWarp>
MOLFUSE_DEVICE float group_sum(float value) {
  MOLFUSE_UNROLL
  for (int step = WIDTH / 2; step > 0; step /= 2) value += shuffle_xor(value, step);
  return value;
}
/// Largest over groups of WIDTH lanes; NaN if one of them is.
template <int WIDTH = kWarp>
MOLFUSE_DEVICE float group_maximum(float value) {
  MOLFUSE_UNROLL
  for (int step = WIDTH / 2; step > 0; step /= 2) {
    const float other = shuffle_xor(value, step);
    value = other > value || is_nan(other) ? other : value;
  }
  return value;
}

}  // namespace device
}  // namespace molfuse

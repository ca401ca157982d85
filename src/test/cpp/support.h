// SPDX-License-Identifier: Apache-2.0
// Shared by the native tests: strided tensors of any element type with poisoned memory around and between their elements.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "molfuse/runtime.h"
#if defined(MOLFUSE_SIMT)
#include "simt/simt.h"
#elif defined(MOLFUSE_TEST_GPU)
#include "gpu/memory.h"
#endif

// The tests of a family are compiled three times: against libmolfuse on the CPU; with MOLFUSE_SIMT against a library whose CUDA kernels run
// on the simulated device; and with MOLFUSE_TEST_GPU against libmolfuse on a GPU. On a device, calls name it, and f64, which kernels do not
// have, is left out. On the simulated one, scheduling seeds take the place of vector levels.
namespace molfuse_test {

#if defined(MOLFUSE_SIMT) || defined(MOLFUSE_TEST_GPU)
constexpr bool kOnDevice = true;
#else
constexpr bool kOnDevice = false;
#endif
#if defined(MOLFUSE_SIMT)
constexpr bool kSlow = true;  ///< the simulated device: fewer and smaller cases
#else
constexpr bool kSlow = false;
#endif
#if defined(MOLFUSE_SANITIZE)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

#if defined(MOLFUSE_TEST_GPU)
using Bytes = std::vector<unsigned char, gpu::Allocator<unsigned char>>;
inline void begin_call() { gpu::begin_call(); }
inline void finish_calls() { gpu::finish_calls(); }
inline void* stream_here() { return gpu::stream(); }
#else
using Bytes = std::vector<unsigned char>;
inline void begin_call() {}
inline void finish_calls() {}
inline void* stream_here() { return nullptr; }
#endif

/// Where the tests' calls run. A call is given its address, by which the tests know that there may be work to wait for before they look;
/// hence no copy as a plain molfuse_execution.
struct Execution : private molfuse_execution {
  explicit Execution(int threads = 0) {
    std::memset(static_cast<void*>(this), 0, sizeof *this);
    struct_size = sizeof(molfuse_execution);
    if (kOnDevice) device_type = MOLFUSE_CUDA;
    stream = stream_here();
    num_threads = threads;
  }
  using molfuse_execution::allow_tf32;
  using molfuse_execution::deterministic;
  using molfuse_execution::device_index;
  using molfuse_execution::num_threads;
  const molfuse_execution* operator&() const {
    begin_call();
    return this;
  }
};
inline Execution execution_here(int threads = 0) { return Execution(threads); }
inline const molfuse_execution* here() {
  static const Execution execution;
  return &execution;
}

// ---- 16-bit conversions written independently of the library's

inline double decode_f16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  double value;
  if (exponent == 31) {
    value = mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  } else if (exponent == 0) {
    value = std::ldexp(mantissa, -24);
  } else {
    value = std::ldexp(1024 + mantissa, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

inline double decode_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

/// The 16-bit number nearest to value (ties to even mantissa), by search over the ordered non-negative bit patterns.
template <double (*DECODE)(uint16_t)>
uint16_t encode_16(double value, uint16_t infinity) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return static_cast<uint16_t>(infinity | 1 << 6);
  const double magnitude = std::fabs(value);
  int low = 0, high = infinity;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (DECODE(static_cast<uint16_t>(middle)) <= magnitude ? low : high) = middle;
  }
  const double below = DECODE(static_cast<uint16_t>(low));
  double above = DECODE(static_cast<uint16_t>(high));
  if (high == infinity) above = below + (below - DECODE(static_cast<uint16_t>(low - 1)));  // overflow threshold: one more step
  const double down = magnitude - below, up = above - magnitude;
  const int chosen = down < up ? low : up < down ? high : (low % 2 == 0 ? low : high);
  return static_cast<uint16_t>(sign | chosen);
}

inline double decode(int32_t dtype, const void* at) {
  switch (dtype) {
    case MOLFUSE_F64: { double v; std::memcpy(&v, at, 8); return v; }
    case MOLFUSE_F32: { float v; std::memcpy(&v, at, 4); return v; }
    case MOLFUSE_F16: { uint16_t v; std::memcpy(&v, at, 2); return decode_f16(v); }
    case MOLFUSE_BF16: { uint16_t v; std::memcpy(&v, at, 2); return decode_bf16(v); }
    case MOLFUSE_I32: { int32_t v; std::memcpy(&v, at, 4); return v; }
    default: { int64_t v; std::memcpy(&v, at, 8); return static_cast<double>(v); }
  }
}

inline void encode(int32_t dtype, double value, void* at) {
  switch (dtype) {
    case MOLFUSE_F64: std::memcpy(at, &value, 8); break;
    case MOLFUSE_F32: { const float v = static_cast<float>(value); std::memcpy(at, &v, 4); break; }
    case MOLFUSE_F16: { const uint16_t v = encode_16<decode_f16>(value, 0x7C00); std::memcpy(at, &v, 2); break; }
    case MOLFUSE_BF16: { const uint16_t v = encode_16<decode_bf16>(value, 0x7F80); std::memcpy(at, &v, 2); break; }
    case MOLFUSE_I32: { const int32_t v = static_cast<int32_t>(value); std::memcpy(at, &v, 4); break; }
    default: { const int64_t v = static_cast<int64_t>(value); std::memcpy(at, &v, 8); break; }
  }
}

/// value as it is after being stored as dtype.
inline double round_to(int32_t dtype, double value) {
  if (dtype == MOLFUSE_F64) return value;
  if (dtype == MOLFUSE_F32) return static_cast<double>(static_cast<float>(value));
  char at[8];
  encode(dtype, value, at);
  return decode(dtype, at);
}

using Random = std::mt19937_64;

inline double normal(Random& random) { return std::normal_distribution<double>()(random); }
inline int64_t between(Random& random, int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); }

#if defined(MOLFUSE_SIMT)
/// Makes a tensor's memory known to the simulated device. A copy knows nothing of it: it has memory of its own.
class KnownMemory {
 public:
  KnownMemory() = default;
  KnownMemory(const KnownMemory&) {}
  KnownMemory(KnownMemory&&) = default;
  KnownMemory& operator=(const KnownMemory&) {
    memory_.reset();
    return *this;
  }
  KnownMemory& operator=(KnownMemory&&) = default;
  void set(const Bytes& bytes) {
    memory_.reset();
    if (!bytes.empty()) memory_ = std::make_unique<simt::Memory>(bytes.data(), bytes.size());
  }

 private:
  std::unique_ptr<simt::Memory> memory_;
};
#else
struct KnownMemory {
  void set(const Bytes&) {}
};
#endif

/**
 * A tensor with its own memory. Memory that belongs to no element holds a poison pattern (NaN in every float type), which unharmed()
 * checks, and the block is exactly as long as needed plus guards, so that AddressSanitizer sees overruns of the heap block.
 */
class TestTensor {
 public:
  TestTensor() = default;

  /// order: dimension order in memory, outermost first (empty: row-major); gap: extra elements after each innermost run; outer_gap: after
  /// each run of the dimension around it; lead: before the first element.
  TestTensor(int32_t dtype, std::vector<int64_t> sizes, std::vector<int> order = {}, int64_t gap = 0, int64_t outer_gap = 0, int64_t lead = 0)
      : dtype_(dtype), sizes_(std::move(sizes)), strides_(sizes_.size()), lead_(lead) {
    if (order.empty()) {
      order.resize(sizes_.size());
      std::iota(order.begin(), order.end(), 0);
    }
    int64_t step = 1;
    for (size_t n = order.size(); n-- > 0;) {
      strides_[static_cast<size_t>(order[n])] = step;
      step *= std::max<int64_t>(1, sizes_[static_cast<size_t>(order[n])]);
      if (n + 1 == order.size()) step += gap;
      if (n + 2 == order.size()) step += outer_gap;
    }
    memory_.assign(static_cast<size_t>(lead_ + step) * element(), kPoison);
  }

  static TestTensor random(Random& random, int32_t dtype, std::vector<int64_t> sizes, std::vector<int> order = {}, int64_t gap = 0,
                           double scale = 1) {
    TestTensor t(dtype, std::move(sizes), std::move(order), gap);
    t.fill([&](int64_t) { return scale * normal(random); });
    return t;
  }

  static TestTensor of(int32_t dtype, std::vector<int64_t> sizes, const std::vector<double>& values) {
    TestTensor t(dtype, std::move(sizes));
    t.fill([&](int64_t n) { return values[static_cast<size_t>(n)]; });
    return t;
  }

  molfuse_tensor view() {
    molfuse_tensor v;
    std::memset(&v, 0, sizeof v);
    v.data = memory_.empty() ? nullptr : memory_.data() + static_cast<size_t>(lead_) * element();
    known_.set(memory_);
    v.dtype = dtype_;
    v.ndim = static_cast<int32_t>(sizes_.size());
    for (size_t d = 0; d < sizes_.size(); ++d) {
      v.size[d] = sizes_[d];
      v.stride[d] = strides_[d];
    }
    return v;
  }

  int64_t count() const {
    if (memory_.empty()) return 0;  // never given a shape
    int64_t n = 1;
    for (const int64_t size : sizes_) n *= size;
    return n;
  }
  const std::vector<int64_t>& sizes() const { return sizes_; }
  int32_t dtype() const { return dtype_; }

  /// Position in memory, in elements, of the n-th element in row-major order.
  int64_t position(int64_t n) const {
    int64_t at = lead_;
    for (size_t d = sizes_.size(); d-- > 0;) {
      at += n % sizes_[d] * strides_[d];
      n /= sizes_[d];
    }
    return at;
  }
  double get(int64_t n) const {
    finish_calls();
    return decode(dtype_, memory_.data() + static_cast<size_t>(position(n)) * element());
  }
  void set(int64_t n, double value) {
    finish_calls();
    encode(dtype_, value, memory_.data() + static_cast<size_t>(position(n)) * element());
  }
  double operator[](int64_t n) const { return get(n); }
  void fill(const std::function<double(int64_t)>& value) {
    for (int64_t n = 0; n < count(); ++n) set(n, value(n));
  }
  std::vector<double> values() const {
    std::vector<double> v(static_cast<size_t>(count()));
    for (int64_t n = 0; n < count(); ++n) v[static_cast<size_t>(n)] = get(n);
    return v;
  }
  std::vector<unsigned char> bytes() const {
    finish_calls();
    return {memory_.begin(), memory_.end()};
  }

  /// True if no byte outside the elements was written.
  bool unharmed() const {
    finish_calls();
    std::vector<bool> used(memory_.size(), false);
    for (int64_t n = 0; n < count(); ++n) {
      const size_t at = static_cast<size_t>(position(n)) * element();
      for (size_t b = 0; b < element(); ++b) used[at + b] = true;
    }
    for (size_t b = 0; b < memory_.size(); ++b) {
      if (!used[b] && memory_[b] != kPoison) return false;
    }
    return true;
  }

 private:
  static constexpr unsigned char kPoison = 0xFF;  // NaN in all four float types, -1 in the integers
  size_t element() const { return molfuse_dtype_size(dtype_); }
  int32_t dtype_ = MOLFUSE_F32;
  std::vector<int64_t> sizes_, strides_;
  int64_t lead_ = 0;
  Bytes memory_;
  KnownMemory known_;
};

template <class Args>
Args zeroed() {
  Args args;
  std::memset(static_cast<void*>(&args), 0, sizeof args);
  args.struct_size = sizeof args;
  return args;
}

/// max |a - b|; NaN on one side only, or different infinities, count as infinite.
inline double max_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (size_t n = 0; n < a.size(); ++n) {
    if (a[n] == b[n] || (std::isnan(a[n]) && std::isnan(b[n]))) continue;
    const double difference = std::fabs(a[n] - b[n]);
    worst = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(worst, difference);
  }
  return worst;
}

/// The acceptance rule: at most twice the error of an unfused computation in the same type, plus a little.
inline ::testing::AssertionResult accepted(const std::vector<double>& result, const std::vector<double>& eager,
                                           const std::vector<double>& reference, double atol) {
  const double error = max_difference(result, reference), allowed = 2 * max_difference(eager, reference) + atol;
  if (error <= allowed) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "error " << error << " exceeds " << allowed;
}

/// Small absolute tolerance of a type, for values around one.
inline double small_atol(int32_t dtype) {
  switch (dtype) {
    case MOLFUSE_F64: return 1e-12;
    case MOLFUSE_F32: return 2e-6;
    case MOLFUSE_F16: return 1e-3;
    default: return 8e-3;
  }
}

/// The order in which the simulated device takes its threads; nothing elsewhere.
inline void schedule_by([[maybe_unused]] uint64_t seed) {
#if defined(MOLFUSE_SIMT)
  simt::settings().seed = seed;
#endif
}

/// Runs body at each CPU level this machine has (a build with emulation counts 64-byte vectors in), then restores the best; on the simulated
/// device with several scheduling seeds; on a GPU once.
inline void at_each_level(const std::function<void(const std::string&)>& body) {
#if defined(MOLFUSE_SIMT)
  const uint64_t seeds = kSanitized ? 2 : 3;  // the sanitizers follow every change of stack, which takes six times as long
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    simt::settings().seed = seed;
    SCOPED_TRACE("scheduling seed " + std::to_string(seed));
    body("simulated");
  }
  return;
#elif defined(MOLFUSE_TEST_GPU)
  body("gpu");
  return;
#endif
  for (const char* level : {"baseline", "avx2", "avx512"}) {
    if (molfuse_set_cpu_level(level) != MOLFUSE_OK) continue;
    SCOPED_TRACE(level);
    body(level);
  }
  ASSERT_EQ(molfuse_set_cpu_level("auto"), MOLFUSE_OK);
}

/// Expects a failure whose message holds every one of the given parts.
inline void expect_status(molfuse_status status, molfuse_status expected, std::initializer_list<const char*> parts) {
  EXPECT_EQ(status, expected);
  for (const char* part : parts) EXPECT_NE(std::string(molfuse_last_error()).find(part), std::string::npos) << molfuse_last_error();
}
inline void expect_invalid(molfuse_status status, std::initializer_list<const char*> parts) {
  expect_status(status, MOLFUSE_INVALID_ARGUMENT, parts);
}

#if defined(MOLFUSE_SIMT) || defined(MOLFUSE_TEST_GPU)
constexpr int32_t kFloatTypes[] = {MOLFUSE_F32, MOLFUSE_F16, MOLFUSE_BF16};
#else
constexpr int32_t kFloatTypes[] = {MOLFUSE_F32, MOLFUSE_F64, MOLFUSE_F16, MOLFUSE_BF16};
#endif

/// For tests of what only the CPU has: f64, numbers of threads, values read before the call.
#define MOLFUSE_CPU_ONLY() \
  if (kOnDevice) GTEST_SKIP() << "for the CPU"

}  // namespace molfuse_test

// SPDX-License-Identifier: Apache-2.0
#include "molfuse/runtime.h"

#include <omp.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/backend_setting.h"
#include "runtime/check.h"
#include "runtime/cpu_level.h"
#include "runtime/cudnn_library.h"
#include "runtime/device_call.h"

#ifndef MOLFUSE_VERSION
#error "the build defines MOLFUSE_VERSION"
#endif

namespace molfuse {
namespace {

constexpr const char* kNoKernels = "this build has no CUDA kernels";

#if defined(__x86_64__)
// __builtin_cpu_supports does not know f16c in every compiler.
bool has_f16c() noexcept {
  unsigned a, b, c = 0, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

/// Checks every extension that cmake/isa.cmake compiles a level for.
CpuLevel best_level() noexcept {
#if defined(__x86_64__)
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && has_f16c();
#ifdef MOLFUSE_EMULATE_AVX512
  // Test builds: the 64-byte code is compiled for AVX2, so that its logic runs on machines without AVX-512.
  if (avx2) return CpuLevel::avx512;
#endif
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return CpuLevel::avx512;
  }
  if (avx2) return CpuLevel::avx2;
#endif
  return CpuLevel::baseline;
}

const char* level_name(CpuLevel level) noexcept {
  switch (level) {
    case CpuLevel::avx512: return "avx512";
    case CpuLevel::avx2: return "avx2";
    default: return "baseline";
  }
}

bool parse_level(const char* text, CpuLevel* level) noexcept {
  if (std::strcmp(text, "auto") == 0) {
    *level = best_level();
    return true;
  }
  for (const CpuLevel candidate : {CpuLevel::baseline, CpuLevel::avx2, CpuLevel::avx512}) {
    if (std::strcmp(text, level_name(candidate)) == 0) {
      *level = candidate;
      return true;
    }
  }
  return false;
}

int initial_level() noexcept {
  const CpuLevel best = best_level();
  CpuLevel wanted = best;
  const char* text = std::getenv("MOLFUSE_CPU_LEVEL");
  // An unusable wish in the environment is not worth failing every program for: capabilities show what is in use.
  if (text == nullptr || !parse_level(text, &wanted) || wanted > best) return static_cast<int>(best);
  return static_cast<int>(wanted);
}

std::atomic<int>& level_setting() noexcept {
  static std::atomic<int> level{initial_level()};
  return level;
}

}  // namespace

CpuLevel cpu_level() noexcept { return static_cast<CpuLevel>(level_setting().load(std::memory_order_relaxed)); }

}  // namespace molfuse

using namespace molfuse;

extern "C" {

const char* molfuse_version(void) { return MOLFUSE_VERSION; }

const char* molfuse_dtype_name(int32_t dtype) {
  switch (dtype) {
    case MOLFUSE_F32: return "f32";
    case MOLFUSE_F64: return "f64";
    case MOLFUSE_F16: return "f16";
    case MOLFUSE_BF16: return "bf16";
    case MOLFUSE_I32: return "int32";
    case MOLFUSE_I64: return "int64";
    default: return "unknown";
  }
}

size_t molfuse_dtype_size(int32_t dtype) {
  switch (dtype) {
    case MOLFUSE_F16:
    case MOLFUSE_BF16: return 2;
    case MOLFUSE_F32:
    case MOLFUSE_I32: return 4;
    case MOLFUSE_F64:
    case MOLFUSE_I64: return 8;
    default: return 0;
  }
}

molfuse_status molfuse_get_capabilities(molfuse_capabilities* out) {
  return guard([&] {
    molfuse_capabilities filled = read_args(out, "molfuse_get_capabilities", "out");
    const size_t size = filled.struct_size;
    std::snprintf(filled.cpu_vector_level, sizeof filled.cpu_vector_level, "%s", level_name(cpu_level()));
    std::snprintf(filled.cpu_vector_best, sizeof filled.cpu_vector_best, "%s", level_name(best_level()));
    filled.cpu_threads = omp_in_parallel() ? 1 : omp_get_max_threads();
#if defined(MOLFUSE_WITH_CUDA)
    const char* reason = "";
    filled.cuda_compiled = 1;
    filled.cuda_usable = device_usable(&reason) ? 1 : 0;
    std::snprintf(filled.cuda_reason, sizeof filled.cuda_reason, "%s", reason);
#else
    filled.cuda_compiled = 0;
    filled.cuda_usable = 0;
    std::snprintf(filled.cuda_reason, sizeof filled.cuda_reason, "%s", kNoKernels);
#endif
    const CudnnLibrary cudnn = cudnn_library();
    filled.cudnn_version = cudnn.version;
    filled.cudnn_usable = cudnn.usable && filled.cuda_usable != 0;
    std::snprintf(filled.cudnn_reason, sizeof filled.cudnn_reason, "%s",
                  cudnn.usable && filled.cuda_usable == 0 ? "there is no CUDA device to use it on" : cudnn.reason.c_str());
    std::snprintf(filled.attention_backend, sizeof filled.attention_backend, "%s", backend_name(attention_backend()));
    std::memcpy(out, &filled, size);
  });
}

molfuse_status molfuse_get_device_info(int32_t device, molfuse_device_info* out) {
  return guard([&] {
    molfuse_device_info filled = read_args(out, "molfuse_get_device_info", "out");
    const size_t size = filled.struct_size;
#if defined(MOLFUSE_WITH_CUDA)
    const DeviceDescription found = describe_device(device < 0 ? INT32_MAX : device);
#else
    DeviceDescription found;
    found.reason = kNoKernels;
#endif
    if (device < 0 || (found.count > 0 && device >= found.count)) {
      invalid("molfuse_get_device_info: device is %d, there are %d devices", device, found.count);
    }
    filled.device_count = found.count;
    filled.usable = found.reason.empty();
    filled.compute_major = found.info.major;
    filled.compute_minor = found.info.minor;
    filled.multiprocessors = found.info.multiprocessors;
    filled.driver_version = found.driver_version;
    filled.runtime_version = found.runtime_version;
    filled.shared_memory_per_block = static_cast<int64_t>(found.info.shared_per_block);
    filled.total_memory = static_cast<int64_t>(found.info.total_memory);
    std::snprintf(filled.name, sizeof filled.name, "%s", found.info.name);
    std::snprintf(filled.reason, sizeof filled.reason, "%s", found.reason.c_str());
    std::memcpy(out, &filled, size);
  });
}

molfuse_status molfuse_set_cpu_level(const char* level) {
  return guard([&] {
    CpuLevel wanted;
    if (level == nullptr || !parse_level(level, &wanted)) {
      invalid("level: expected baseline, avx2, avx512 or auto, got %s", level == nullptr ? "NULL" : level);
    }
    if (wanted > best_level()) unsupported("level: this machine's best is %s, asked for %s", level_name(best_level()), level);
    level_setting().store(static_cast<int>(wanted), std::memory_order_relaxed);
  });
}

}  // extern "C"

// SPDX-License-Identifier: Apache-2.0
// Run-time choice among the copies of a kernel table compiled for each instruction set.
#pragma once

namespace molfuse {

enum class CpuLevel { baseline = 0, avx2 = 1, avx512 = 2 };

/// The level in use: the best the machine has unless the caller or MOLFUSE_CPU_LEVEL chose a lower one.
CpuLevel cpu_level() noexcept;

}  // namespace molfuse

/// Declares the copies of a table `const Type name` that a cpu_*.cpp file defines inside namespace molfuse::MOLFUSE_ISA.
/// Use inside namespace molfuse.
#if defined(__x86_64__)
#define MOLFUSE_DECLARE_CPU_TABLE(Type, name)   \
  namespace baseline { extern const Type name; } \
  namespace avx2 { extern const Type name; }     \
  namespace avx512 { extern const Type name; }   \
  inline const Type& select_##name() {           \
    switch (cpu_level()) {                       \
      case CpuLevel::avx512: return avx512::name; \
      case CpuLevel::avx2: return avx2::name;    \
      default: return baseline::name;            \
    }                                            \
  }
#else
#define MOLFUSE_DECLARE_CPU_TABLE(Type, name)   \
  namespace baseline { extern const Type name; } \
  inline const Type& select_##name() { return baseline::name; }
#endif

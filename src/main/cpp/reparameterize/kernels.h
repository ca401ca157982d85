// SPDX-License-Identifier: Apache-2.0
// What reparameterize.cpp (checks, tasks) and cpu_reparameterize.cpp (arithmetic, once per instruction set) share.
#pragma once

#include <cstdint>

#include "molfuse/reparameterize.h"
#include "runtime/cpu_level.h"

namespace molfuse {

/// A [B,L] operand; data NULL: not wanted.
struct LatentOperand {
  void* data;
  int64_t row, column;
};

struct ReparameterizeProblem {
  int32_t dtype;
  int64_t dim;    ///< L
  int64_t count;  ///< B * L
  LatentOperand mean, log_var, z, grad_z, grad_mean, grad_log_var;
  molfuse_philox philox;
};

/// Elements of a task, in row-major order. A multiple of the four elements of a counter and, as a power of two, one within which
/// the counter's low word cannot wrap.
constexpr int64_t kReparameterizeTask = 4096;

struct ReparameterizeKernels {
  /// Elements begin..end-1; begin is a multiple of kReparameterizeTask.
  void (*forward)(const ReparameterizeProblem&, int64_t begin, int64_t end);
  void (*backward)(const ReparameterizeProblem&, int64_t begin, int64_t end);
};

MOLFUSE_DECLARE_CPU_TABLE(ReparameterizeKernels, reparameterize_kernels)

class DeviceCall;
/// backward if there is a grad_z
void reparameterize_device(const ReparameterizeProblem&, DeviceCall&);

}  // namespace molfuse

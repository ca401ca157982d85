// SPDX-License-Identifier: Apache-2.0
// What latent_concat.cpp (checks, tasks) and cpu_latent_concat.cpp (arithmetic, once per instruction set) share.
#pragma once

#include <cstdint>
#include <vector>

#include "molfuse/latent_concat.h"
#include "runtime/cpu_level.h"

namespace molfuse {

struct LatentConcatLayer {
  molfuse_tensor tensor;  ///< features, or their gradient; without data: skipped
  int64_t first_column;   ///< in the concatenated row
};

/// A checked call.
struct LatentConcatProblem {
  int32_t dtype;
  int64_t element;  ///< bytes
  bool pooled;      ///< layers are [B,C] already
  int64_t graphs, nodes;
  molfuse_tensor graph_ptr, concatenated;
  std::vector<LatentConcatLayer> layers;
};

/// Columns of a block at most: its accumulators, 8 KB in f32, stay in a first-level cache, and rows are still read in long runs.
constexpr int64_t kPoolColumns = 2048;

/// One graph's rows of a block of columns of one layer, and their mean's place. Strides in elements.
struct PoolBlock {
  void* nodes;
  int64_t node_stride, column_stride, rows;
  void* pooled;
  int64_t pooled_column_stride;
  int64_t columns;
};

struct LatentConcatKernels {
  /// pooled = mean over rows; 0 if there are none. scratch of both: kPoolColumns accumulators.
  void (*mean)(const PoolBlock&, void* scratch);
  /// Each row = pooled / rows. stream: write past the caches, for outputs too large to stay there.
  void (*spread)(const PoolBlock&, void* scratch, bool stream);
};

struct LatentConcatTable {
  LatentConcatKernels of[4];  ///< by molfuse_dtype
};

MOLFUSE_DECLARE_CPU_TABLE(LatentConcatTable, latent_concat_kernels)

class DeviceCall;
void latent_concat_forward_device(const LatentConcatProblem&, DeviceCall&);
void latent_concat_backward_device(const LatentConcatProblem&, DeviceCall&);

}  // namespace molfuse

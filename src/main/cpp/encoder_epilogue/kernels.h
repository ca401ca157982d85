// SPDX-License-Identifier: Apache-2.0
// What encoder_epilogue.cpp (checks, tasks), cpu_encoder_epilogue.cpp (arithmetic, once per instruction set) and
// cuda_encoder_epilogue.cu share.
#pragma once

#include <cstdint>

#include "molfuse/encoder_epilogue.h"
#include "runtime/cpu_level.h"
#include "runtime/philox.h"

namespace molfuse {

/// Rows of columns that lie side by side. data NULL: absent.
struct EpilogueRows {
  void* data;
  int64_t row;  ///< distance of rows in elements
};

/// A value per column, of type T or S. data NULL: absent.
struct EpilogueColumns {
  void* data;
  int64_t step;
  int32_t dtype;
};

/// A checked call.
struct EpilogueProblem {
  int32_t dtype;
  int64_t nodes, columns, graphs;
  EpilogueRows input, residual, sum, out, pooled;  ///< pooled, grad_pooled: at column_offset already
  EpilogueColumns weight, bias, running_mean, running_var, save_mean, save_rstd;
  bool training;
  double momentum, epsilon;
  uint32_t threshold;  ///< 0: no dropout
  double keep_scale;
  molfuse_philox philox;
  molfuse_tensor graph_ptr;
  // backward
  EpilogueRows grad_out, grad_pooled, grad_input;
  EpilogueColumns grad_weight, grad_bias;
};

/// A run of rows, all of one graph where that matters, and a range of their columns. Arrays by column begin at column_begin.
struct EpilogueBlock {
  int64_t row_begin, row_end, column_begin, column_end;
  const void* mean;   ///< of the accumulator's type, like all arrays here
  const void* scale;  ///< rstd * weight
  const void* shift;  ///< bias
  const void* rstd;
  void* pooled;                      ///< forward: sums of the rows, added to; NULL: not wanted
  const void* grad_pooled;           ///< backward: of this graph, divided by its number of nodes; NULL: none
  const void *sum_bias, *sum_weight; ///< backward in training: means over the rows of the gradient, and of it times the normalised x
  void* scratch;                     ///< epilogue_scratch() bytes
};

/// Bytes of scratch that a block of so many columns needs: random halves for one row, with room for whole vectors of counters.
MOLFUSE_HOST_DEVICE int64_t epilogue_scratch(int64_t columns) { return 2 * (columns + 8 + 8 * 64); }

struct EncoderEpilogueKernels {
  /// to[n] = factor * element n of count; to is of the accumulator's type.
  void (*load_columns)(const EpilogueColumns&, int64_t count, double factor, void* to);
  /// The reverse.
  void (*store_columns)(const EpilogueColumns&, int64_t count, double factor, const void* from);
  /// x = input + residual, if there is one; then mean[c] and m2[c] of the block's rows: their mean, and the sum of squared distances
  /// from it.
  void (*statistics)(const EpilogueProblem&, const EpilogueBlock&, void* mean, void* m2);
  /// out, and the sums for the pooling.
  void (*apply)(const EpilogueProblem&, const EpilogueBlock&);
  /// Adds the block's rows to sum_bias[c] and sum_weight[c].
  void (*gradient_sums)(const EpilogueProblem&, const EpilogueBlock&, void* sum_bias, void* sum_weight);
  /// grad_input.
  void (*gradient)(const EpilogueProblem&, const EpilogueBlock&);
};

struct EncoderEpilogueTable {
  EncoderEpilogueKernels of[4];  ///< by molfuse_dtype
};

MOLFUSE_DECLARE_CPU_TABLE(EncoderEpilogueTable, encoder_epilogue_kernels)

class DeviceCall;
void encoder_epilogue_forward_device(const EpilogueProblem&, DeviceCall&);
void encoder_epilogue_backward_device(const EpilogueProblem&, DeviceCall&);

}  // namespace molfuse

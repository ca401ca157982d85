/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file encoder_epilogue.h
 * What follows the attention of a graph transformer layer, in as few passes over the node features as batch statistics allow: the skip
 * connection, batch normalisation (Ioffe & Szegedy 2015), ReLU, dropout, and mean pooling over each graph into a slot of a wider row.
 *
 *   x[v,c]   = input[v,c] + residual[v,c], rounded to T
 *   y[v,c]   = (x - mean[c]) * rstd[c] * weight[c] + bias[c],   rstd = 1 / sqrt(variance + epsilon)
 *   out[v,c] = dropout(max(y, 0))
 *   pooled[b, column_offset + c] = mean over nodes v in graph_ptr[b] .. graph_ptr[b+1]-1 of out[v,c] before it is rounded;  0 without nodes
 *
 * training: mean and variance (of the population) are those of x's columns, and running = (1 - momentum) * running + momentum * statistic,
 * there with the variance of the sample (divided by V - 1); otherwise mean and variance are the running ones.
 *
 * Dropout: the element n = v * C + c is kept iff half h = n % 8 of the words of Philox with counter (low n/8, high n/8, low offset, high
 * offset) and key seed is >= threshold = round(dropout_p * 2^16), at least 1 and at most 65535; halves are counted from the low one of
 * word 0. Kept values are multiplied by 2^16 / (2^16 - threshold), so that the expectation is exact.
 * A dropped element is 0 whatever it was, NaN included.
 *
 * Forward reads x twice in training (once for the statistics), once otherwise, and writes out once; backward reads x and grad_out twice
 * (once otherwise) and writes grad_input once. Neither a mask nor the normalised values are stored.
 */
#ifndef MOLFUSE_ENCODER_EPILOGUE_H
#define MOLFUSE_ENCODER_EPILOGUE_H

#include "molfuse/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * T: f16, bf16, f32 or f64, one for all. S: f64 if T is f64, else f32. Columns of features, of pooled and of their gradients lie side by
 * side in memory (stride 1); rows may be apart. Vectors over the columns may have any stride.
 */
typedef struct molfuse_encoder_epilogue_args {
  size_t struct_size; /**< sizeof of the struct, set by the caller */
  molfuse_tensor input;        /**< T [V,C]; backward: x, which is sum if there was a residual */
  molfuse_tensor residual;     /**< optional, T [V,C]; not used by backward */
  molfuse_tensor sum;          /**< T [V,C], written by forward: x. Required with residual, and may be the memory of either; else unused */
  molfuse_tensor weight;       /**< optional, T or S [C]; absent: 1 */
  molfuse_tensor bias;         /**< optional, T or S [C]; absent: 0 */
  molfuse_tensor running_mean; /**< S [C]; optional in training, where it is updated */
  molfuse_tensor running_var;  /**< S [C], with running_mean */
  int32_t training;            /**< non-zero: the batch's own statistics; V >= 2, or 0 */
  double momentum;             /**< 0..1 */
  double epsilon;              /**< >= 0 */
  double dropout_p;            /**< in [0,1) */
  molfuse_philox philox;       /**< used if dropout_p > 0 */
  molfuse_tensor save_mean;    /**< S [C], written by forward, read by backward */
  molfuse_tensor save_rstd;    /**< S [C] likewise */
  molfuse_tensor out;          /**< T [V,C] */
  molfuse_tensor graph_ptr;    /**< int32 or int64 [B+1], ascending from 0 to V; absent: nothing is pooled */
  molfuse_tensor pooled;       /**< T [B,W], with graph_ptr: columns column_offset .. column_offset + C - 1 are written, no other */
  int64_t column_offset;       /**< first column of the slot in pooled and grad_pooled */
  /* backward */
  molfuse_tensor grad_out;     /**< optional, T [V,C] */
  molfuse_tensor grad_pooled;  /**< optional, T [B,W], with graph_ptr. Of it and grad_out at least one */
  molfuse_tensor grad_input;   /**< optional, T [V,C]: the gradient of input and of residual; may be grad_out's memory */
  molfuse_tensor grad_weight;  /**< optional, S [C] */
  molfuse_tensor grad_bias;    /**< optional, S [C] */
} molfuse_encoder_epilogue_args;

/** Writes out, save_mean and save_rstd, sum with a residual, pooled with graph_ptr, and in training the running statistics if given. */
MOLFUSE_API molfuse_status molfuse_encoder_epilogue_forward(const molfuse_encoder_epilogue_args* args,
                                                            const molfuse_execution* execution);

/** Writes the gradients asked for, from the arguments of forward and what it saved. training as in forward. */
MOLFUSE_API molfuse_status molfuse_encoder_epilogue_backward(const molfuse_encoder_epilogue_args* args,
                                                             const molfuse_execution* execution);

#ifdef __cplusplus
}
#endif
#endif

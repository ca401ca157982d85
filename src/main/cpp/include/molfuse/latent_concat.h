/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file latent_concat.h
 * Mean-pools the node features of several layers over each graph of a batch, straight into one concatenated row per graph.
 *
 *   out[b, l*C + c] = mean over nodes v in graph_ptr[b] .. graph_ptr[b+1]-1 of layers[l][v, c];  an empty graph gives 0.
 *
 * Any strides; results do not depend on the number of threads. No scratch but a few KB for each thread.
 */
#ifndef MOLFUSE_LATENT_CONCAT_H
#define MOLFUSE_LATENT_CONCAT_H

#include "molfuse/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/** T: f16, bf16, f32 or f64, one for all. Widths C_l may differ; out's width is their sum. */
typedef struct molfuse_latent_concat_args {
  size_t struct_size; /**< sizeof of the struct, set by the caller */
  int64_t num_layers;            /**< at least 1 */
  const molfuse_tensor* layers;  /**< num_layers x T [V,C_l]; pooled form: T [B,C_l] */
  molfuse_tensor graph_ptr;      /**< int32 or int64 [B+1], ascending from 0 to V; absent: the layers are pooled already */
  molfuse_tensor out;            /**< T [B, sum of C_l] */
  int64_t column_offset;         /**< first column of out (or grad_out) to use; 0 but for the "into" form */
  /* backward: grad_out in, grad_layers out; layers only gives sizes then and may have NULL data */
  molfuse_tensor grad_out;       /**< T [B, columns] */
  const molfuse_tensor* grad_layers; /**< num_layers x T like layers; entries with NULL data are skipped */
} molfuse_latent_concat_args;

/**
 * Writes columns column_offset .. column_offset + sum(C_l) - 1 of out and no other: with num_layers = 1 it pools one layer into
 * its slot as soon as the layer is computed. out must be at least that wide.
 */
MOLFUSE_API molfuse_status molfuse_latent_concat_forward(const molfuse_latent_concat_args* args,
                                                         const molfuse_execution* execution);

/** Writes the gradient of every layer asked for: each node of a graph gets grad_out of its graph over the graph's number of nodes. */
MOLFUSE_API molfuse_status molfuse_latent_concat_backward(const molfuse_latent_concat_args* args,
                                                          const molfuse_execution* execution);

#ifdef __cplusplus
}
#endif
#endif

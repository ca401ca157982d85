/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file graph_attention.h
 * Attention over the edges of a batch of graphs: the graph transformer layer of Shi et al. 2020 ("Masked Label
 * Prediction"), equations 3-4, without edge features.
 *
 *   out[t,h] = sum over edges e = (s -> t) of dropout(softmax_e(scale * q[t,h] . k[s,h])) * v[s,h],   scale = 1/sqrt(C)
 *
 * A node without in-edges gives out = 0 and lse = -inf. Parallel edges count separately. No [E,H,C] tensor is stored.
 * Dropout: keep (edge e, head h) iff word (h % 4) of Philox with counter (low e, high e, h / 4, low word of offset) and key
 * seed + (high word of offset) is >= floor(dropout_p * 2^32), or 1 if that is 0 though dropout_p is not; e is the position in the
 * by-target order. Kept weights are divided by 1 - dropout_p.
 *
 * Any strides; channels that lie side by side (last stride 1) are read in place, others are packed into scratch first.
 * Results do not depend on the number of threads. Backward needs scratch for two numbers of type S for each edge and head.
 */
#ifndef MOLFUSE_GRAPH_ATTENTION_H
#define MOLFUSE_GRAPH_ATTENTION_H

#include "molfuse/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A graph over V nodes and E directed edges as compressed sparse rows by target, and its transpose. int32 or int64, one type
 * for all five. In by-target order edge e runs from source[e] to the row holding e. In by-source order position p runs to
 * target[p] and is edge edge_id[p] of the by-target order. Every function checks the ranges of all it reads, and backward also that the
 * transpose is of this graph. At most 2^31 - 2 nodes and edges. On a device the entries of each array lie side by side.
 */
typedef struct molfuse_graph {
  molfuse_tensor row_ptr;    /**< [V+1], ascending from 0 to E */
  molfuse_tensor source;     /**< [E], each in 0..V-1 */
  molfuse_tensor row_ptr_t;  /**< [V+1], by source; this and the next two: needed for grad_key and grad_value only */
  molfuse_tensor target;     /**< [E] */
  molfuse_tensor edge_id;    /**< [E] */
} molfuse_graph;

/** T: f16, bf16, f32 or f64, one for all of query .. grad_value. S: f64 if T is f64, else f32. */
typedef struct molfuse_graph_attention_args {
  size_t struct_size; /**< sizeof of the struct, set by the caller */
  molfuse_tensor query;   /**< T [V,H,C] */
  molfuse_tensor key;     /**< T [V,H,C] */
  molfuse_tensor value;   /**< T [V,H,C] */
  molfuse_graph graph;    /**< by target; backward with grad_key or grad_value also its transpose */
  int32_t has_scale;      /**< 0: 1/sqrt(C) */
  double scale;           /**< used if has_scale */
  double dropout_p;       /**< in [0,1) */
  molfuse_philox philox;  /**< used if dropout_p > 0 */
  molfuse_tensor out;     /**< T [V,H,C]; not read by backward, need not be kept for it */
  molfuse_tensor lse;     /**< S [V,H]; optional in forward, required in backward */
  /* backward only */
  molfuse_tensor grad_out;   /**< T [V,H,C] */
  molfuse_tensor grad_query; /**< T [V,H,C], each of the three optional */
  molfuse_tensor grad_key;   /**< T [V,H,C] */
  molfuse_tensor grad_value; /**< T [V,H,C] */
} molfuse_graph_attention_args;

/** Writes out and, if given, lse. */
MOLFUSE_API molfuse_status molfuse_graph_attention_forward(const molfuse_graph_attention_args* args,
                                                           const molfuse_execution* execution);

/** Writes the gradients asked for; needs lse of forward and the same dropout arguments. */
MOLFUSE_API molfuse_status molfuse_graph_attention_backward(const molfuse_graph_attention_args* args,
                                                            const molfuse_execution* execution);

/** Fills row_ptr_t, target and edge_id from row_ptr and source (a stable counting sort); checks both for range. */
MOLFUSE_API molfuse_status molfuse_graph_transpose(const molfuse_graph* graph, const molfuse_execution* execution);

/**
 * Builds row_ptr [V+1], source [E] and, if edge_id_in has data, the permutation edge_id_in[E] (position in the input of each
 * by-target edge) from an edge list of int32 or int64 sources [E] and targets [E] in any order. Stable.
 */
MOLFUSE_API molfuse_status molfuse_graph_from_edges(const molfuse_tensor* edge_source, const molfuse_tensor* edge_target,
                                                    int64_t num_nodes, const molfuse_graph* graph,
                                                    const molfuse_tensor* edge_id_in, const molfuse_execution* execution);

#ifdef __cplusplus
}
#endif
#endif

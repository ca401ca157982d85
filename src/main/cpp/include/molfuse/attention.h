/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attention.h
 * Fused scaled dot-product attention with learned biases, forward and backward.
 *
 *   score[b,h,i,j] = scale * q_i . k_j + bias[b,h,i,j] + relative_bias[h, clamp(j - i - (M-N), -R, R) + R]
 *   visible(b,i,j) = j < key_lengths[b]  and  (not causal or j <= i + M - N)
 *   out            = dropout(softmax over visible j of score) . value
 *
 * after Vaswani et al. 2017 (attention), Dao et al. 2022 (online softmax and recomputation from lse), Raffel et al. 2020
 * and Shaw et al. 2018 (relative positions). Nothing of size N x M is allocated in either direction by this library's kernels; cuDNN,
 * which molfuse_set_attention_backend can choose on a device, allocates that in backward.
 * A row that sees no key gives out = 0, lse = -inf and adds nothing to any gradient.
 *
 * Dropout: keep element (b,h,i,j) iff word (j % 4) of Philox with counter (j / 4, i, b * H + h, low word of offset) and key
 * seed + (high word of offset) is >= floor(dropout_p * 2^32), or 1 if that is 0 though dropout_p is not; kept weights are divided by
 * 1 - dropout_p.
 */
#ifndef MOLFUSE_ATTENTION_H
#define MOLFUSE_ATTENTION_H

#include "molfuse/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Inputs and outputs of attention in both directions. T stands for f16, bf16, f32 or f64: one for query, key, value, out
 * and their gradients. S is f64 if T is f64, else f32.
 *
 * The batch form has [B,H,N,D] views (permute [B,N,H,D] memory by strides; no copy is needed). The packed form (varlen) is
 * chosen by cu_seqlens_q: query is then [Tq,H,D], key and value [Tk,H,D], sequence b being rows cu_seqlens[b] up to
 * cu_seqlens[b+1]; N and M are then each sequence's own lengths.
 */
typedef struct molfuse_attention_args {
  size_t struct_size; /**< sizeof of the struct, set by the caller */
  molfuse_tensor query;         /**< T [B,H,N,D] | [Tq,H,D]; D a multiple of 8 in 8..256 */
  molfuse_tensor key;           /**< T [B,H,M,D] | [Tk,H,D] */
  molfuse_tensor value;         /**< T [B,H,M,D] | [Tk,H,D] */
  molfuse_tensor bias;          /**< optional, T or S, [B|1,H|1,N|1,M|1]; batch form only */
  molfuse_tensor relative_bias; /**< optional, T or S, [H,2R+1] */
  molfuse_tensor key_lengths;   /**< optional, int32 or int64 [B], each in 0..M; batch form only */
  molfuse_tensor cu_seqlens_q;  /**< int32 [B+1], ascending from 0 to Tq: selects the packed form */
  molfuse_tensor cu_seqlens_k;  /**< int32 [B+1], ascending from 0 to Tk; required in the packed form */
  int64_t max_seqlen_q;         /**< packed form: at least the longest sequence's length */
  int64_t max_seqlen_k;         /**< the same of key and value */
  int32_t causal;               /**< non-zero: j <= i + M - N */
  int32_t has_scale;            /**< 0: scale = 1/sqrt(D) */
  double scale;                 /**< used if has_scale */
  double dropout_p;             /**< in [0,1) */
  molfuse_philox philox;        /**< used if dropout_p > 0 */
  molfuse_tensor out;           /**< T [B,H,N,D] | [Tq,H,D]; written by forward, read by backward */
  molfuse_tensor lse;           /**< S [B,H,N] | [H,Tq]; natural log-sum-exp of the scores; optional in forward */
  /* backward only */
  molfuse_tensor grad_out;      /**< T, like out */
  molfuse_tensor grad_query;    /**< T, like query */
  molfuse_tensor grad_key;      /**< T, like key */
  molfuse_tensor grad_value;    /**< T, like value */
  molfuse_tensor grad_bias;     /**< optional, S, bias's sizes; summed over the dimensions bias is broadcast in */
  molfuse_tensor grad_relative_bias; /**< optional, S [H,2R+1] */
} molfuse_attention_args;

/** Writes out and, if given, lse. */
MOLFUSE_API molfuse_status molfuse_attention_forward(const molfuse_attention_args* args, const molfuse_execution* execution);

/** Writes grad_query, grad_key and grad_value (each optional) and the bias gradients asked for; needs out, lse, grad_out. */
MOLFUSE_API molfuse_status molfuse_attention_backward(const molfuse_attention_args* args, const molfuse_execution* execution);

/**
 * One new position against a growing cache, without gradient, for generation.
 * With key_new given, first appends key_new and value_new at position lengths[b] of the caches; the query then sees
 * lengths[b] + 1 positions, else lengths[b]. lengths itself is not changed.
 */
typedef struct molfuse_attention_decode_args {
  size_t struct_size; /**< sizeof of the struct, set by the caller */
  molfuse_tensor query;         /**< T [B,H,D] */
  molfuse_tensor key_cache;     /**< T [B,H,capacity,D] (any strides) */
  molfuse_tensor value_cache;   /**< T [B,H,capacity,D] */
  molfuse_tensor key_new;       /**< optional, T [B,H,D] */
  molfuse_tensor value_new;     /**< T [B,H,D], with key_new */
  molfuse_tensor lengths;       /**< int32 or int64 [B]: positions valid before this call */
  molfuse_tensor relative_bias; /**< optional, T or S [H,2R+1]; the query stands at the last visible position */
  int32_t has_scale;            /**< 0: scale = 1/sqrt(D) */
  double scale;                 /**< used if has_scale */
  molfuse_tensor out;           /**< T [B,H,D] */
} molfuse_attention_decode_args;

/** Writes out and, with key_new, the new rows of the caches; these must not overlap each other or an input then. */
MOLFUSE_API molfuse_status molfuse_attention_decode(const molfuse_attention_decode_args* args,
                                                    const molfuse_execution* execution);

#ifdef __cplusplus
}
#endif
#endif

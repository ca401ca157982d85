/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file vae_loss.h
 * The masked loss of a variational autoencoder over token sequences (Kingma & Welling 2014), from logits or, with the
 * vocabulary projection fused in, from the hidden states.
 *
 *   nll[b,t] = -log softmax(logits[b,t,:])[targets[b,t]]           mask = targets != pad_index
 *   recon    = sum(mask * nll) / (sum(mask) + 1e-8)
 *   kl       = mean over B*L of -1/2 (1 + lv - mean^2 - exp(lv)),  lv = clamp(log_var, -20, 10)
 *   total    = recon + beta * kl;   perplexity = exp(sum(mask * nll) / (sum(mask) + 1e-8))
 *   correct  = count of masked positions whose argmax is the target
 *
 * The gradient through the clamp is 0 where log_var lies outside -20..10. An argmax tie goes to the lowest class; a
 * position whose logits are all -inf has none.
 */
#ifndef MOLFUSE_VAE_LOSS_H
#define MOLFUSE_VAE_LOSS_H

#include "molfuse/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What becomes of the losses of tokens and samples. */
typedef enum molfuse_reduction {
  MOLFUSE_REDUCTION_MEAN = 0, /**< as above */
  MOLFUSE_REDUCTION_SUM = 1,  /**< recon = sum(mask*nll), kl = sum of the per-element terms */
  MOLFUSE_REDUCTION_NONE = 2  /**< nll [B,T] and per-sample kl [B] (sum over L) only; no total */
} molfuse_reduction;

/** Index of each value in stats. */
typedef enum molfuse_vae_stat {
  MOLFUSE_VAE_TOTAL = 0,
  MOLFUSE_VAE_RECON = 1,
  MOLFUSE_VAE_KL = 2,
  MOLFUSE_VAE_PERPLEXITY = 3,
  MOLFUSE_VAE_TOKEN_COUNT = 4,
  MOLFUSE_VAE_CORRECT = 5,
  MOLFUSE_VAE_STATS = 6
} molfuse_vae_stat;

/** T: f16, bf16, f32 or f64. S: f64 if T is f64, else f32. mean and log_var may be S or T, both the same. */
typedef struct molfuse_vae_loss_args {
  size_t struct_size; /**< sizeof of the struct, set by the caller */
  molfuse_tensor logits;   /**< T [B,T,K], or [B,K,T] with class_second; backward reads them for grad_logits only */
  int32_t class_second;    /**< non-zero: logits and grad_logits are [B,K,T], read in place */
  molfuse_tensor targets;  /**< int64 [B,T]: 0..K-1 or pad_index, else MOLFUSE_INVALID_ARGUMENT naming position and value */
  int64_t pad_index;       /**< may lie outside 0..K-1, such as -100 */
  molfuse_tensor mean;     /**< optional together with log_var (then kl = 0); [B,L] */
  molfuse_tensor log_var;  /**< [B,L], like mean */
  double beta;             /**< factor of kl in total */
  int32_t reduction;       /**< a molfuse_reduction */
  /* forward outputs */
  molfuse_tensor stats;    /**< S [6] in the order of molfuse_vae_stat; for NONE only counts are written, the rest 0 */
  molfuse_tensor row_lse;  /**< optional S [B,T]: log-sum-exp of each row, which backward needs; 0 at padding */
  molfuse_tensor nll;      /**< NONE: S [B,T], 0 at padding; else optional */
  molfuse_tensor kl_sample;/**< NONE: S [B] */
  /* backward inputs: row_lse and stats as forward wrote them, and the gradients of its outputs, absent meaning 0 */
  molfuse_tensor grad_stats;     /**< S [6]; entries TOTAL, RECON, KL, PERPLEXITY count (mean and sum) */
  molfuse_tensor grad_nll;       /**< NONE: S [B,T] */
  molfuse_tensor grad_kl_sample; /**< NONE: S [B] */
  /* backward outputs, each optional */
  /** T, shape of logits; of backward it may be the logits' own memory with the same strides. Of forward, too (see below). */
  molfuse_tensor grad_logits;
  molfuse_tensor grad_mean;      /**< dtype and shape of mean */
  molfuse_tensor grad_log_var;   /**< dtype and shape of log_var */
} molfuse_vae_loss_args;

/**
 * forward, when given grad_logits (mean and sum), also writes the gradient of recon with an upstream gradient of one, while the row it
 * needs is in cache: backward then has only to scale it, which the caller does. If T is f16, it is the gradient of sum(mask*nll) for MEAN
 * too, and the caller divides by stats[MOLFUSE_VAE_TOKEN_COUNT]+1e-8, in S and together with the upstream gradient: divided at once, the
 * gradients of many tokens would be too small for f16. For NONE call backward, which knows grad_nll.
 */
MOLFUSE_API molfuse_status molfuse_vae_loss_forward(const molfuse_vae_loss_args* args, const molfuse_execution* execution);
/** Writes the gradients asked for; needs stats and, for grad_logits, row_lse of forward. */
MOLFUSE_API molfuse_status molfuse_vae_loss_backward(const molfuse_vae_loss_args* args, const molfuse_execution* execution);

/** A gradient that forward of either loss wrote (mean and sum), and what backward makes of it. */
typedef struct molfuse_vae_loss_scale_args {
  size_t struct_size; /**< sizeof of the struct, set by the caller */
  molfuse_tensor gradient;   /**< f16, bf16, f32 or f64 [n], contiguous: what forward wrote, as one line */
  molfuse_tensor out;        /**< like gradient; may be its memory */
  molfuse_tensor stats;      /**< S [6], of forward */
  molfuse_tensor grad_stats; /**< S [6]: the upstream gradients */
  int32_t reduction;         /**< MOLFUSE_REDUCTION_MEAN or _SUM, as in forward */
  int32_t input_dtype;       /**< of logits or hidden: forward's gradients of a mean are of the sum if it is f16 */
} molfuse_vae_loss_scale_args;

/**
 * out = gradient times the upstream gradient of recon's sum, through total, recon and perplexity. The factor is read where the gradient
 * is: no wait for a device. Where it is 1 (total.backward()) and out is gradient's memory, nothing is read or written.
 */
MOLFUSE_API molfuse_status molfuse_vae_loss_scale(const molfuse_vae_loss_scale_args* args, const molfuse_execution* execution);

/**
 * The same loss of logits = hidden . weight^T + weight_bias, where logits exist only as tiles in cache.
 * forward, when given the grad_* outputs, computes in the same pass the gradients of recon-sum (that is of sum(mask*nll)
 * scaled by 1/(sum(mask)+1e-8) for MEAN, by 1 for SUM) with an upstream gradient of one; backward then only needs
 * scaling by the caller. If T is f16, they are the gradients of sum(mask*nll) for MEAN too, and the caller divides by
 * stats[MOLFUSE_VAE_TOKEN_COUNT]+1e-8, in S and together with the upstream gradient: divided at once, those of many tokens
 * would be too small for f16. As sums they fit: a token's row of grad_hidden is at most twice the largest weight, and the
 * gradients summed over tokens are S. For NONE call backward with grad_nll, which recomputes the tiles.
 *
 * On a device: up to 1024 channels (512 in f32) where a block may have 163 KB of shared memory or more, half of that where it has 99 KB;
 * products are of T with f32 sums, f32 in three products of tf32 parts, and the gradient of the logits is rounded to T for them.
 */
typedef struct molfuse_linear_vae_loss_args {
  size_t struct_size; /**< sizeof of the struct, set by the caller */
  molfuse_tensor hidden;      /**< T [B,T,C] */
  molfuse_tensor weight;      /**< T [K,C] */
  molfuse_tensor weight_bias; /**< optional T [K] */
  molfuse_tensor targets;     /**< int64 [B,T] */
  int64_t pad_index;          /**< this and what follows up to grad_kl_sample: as in molfuse_vae_loss_args */
  molfuse_tensor mean;        /**< optional together with log_var, [B,L] */
  molfuse_tensor log_var;     /**< [B,L], like mean */
  double beta;                /**< factor of kl in total */
  int32_t reduction;          /**< a molfuse_reduction */
  /* forward outputs */
  molfuse_tensor stats;       /**< S [6] in the order of molfuse_vae_stat */
  molfuse_tensor row_lse;     /**< optional S [B,T]; backward needs it */
  molfuse_tensor nll;         /**< NONE: S [B,T]; else optional */
  molfuse_tensor kl_sample;   /**< NONE: S [B] */
  /* backward inputs */
  molfuse_tensor grad_stats;     /**< S [6] (mean and sum) */
  molfuse_tensor grad_nll;       /**< NONE: S [B,T] */
  molfuse_tensor grad_kl_sample; /**< NONE: S [B] */
  /* gradient outputs, each optional, of forward (see above) and backward */
  molfuse_tensor grad_hidden;      /**< T [B,T,C] */
  molfuse_tensor grad_weight;      /**< S [K,C] */
  molfuse_tensor grad_weight_bias; /**< S [K] */
  molfuse_tensor grad_mean;        /**< backward only */
  molfuse_tensor grad_log_var;     /**< backward only */
} molfuse_linear_vae_loss_args;

/** Writes stats and what else is given of the outputs; gradients as told above. */
MOLFUSE_API molfuse_status molfuse_linear_vae_loss_forward(const molfuse_linear_vae_loss_args* args,
                                                           const molfuse_execution* execution);

/** Writes the gradients asked for, by making the tiles of logits again; needs stats and row_lse of forward. */
MOLFUSE_API molfuse_status molfuse_linear_vae_loss_backward(const molfuse_linear_vae_loss_args* args,
                                                            const molfuse_execution* execution);

#ifdef __cplusplus
}
#endif
#endif

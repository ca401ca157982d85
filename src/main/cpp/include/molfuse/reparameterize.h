/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file reparameterize.h
 * Sampling of a diagonal Gaussian with the reparameterisation of Kingma & Welling 2014.
 *
 *   z = mean + exp(clamp(log_var, -20, 10) / 2) * eps,  eps ~ N(0,1)
 *
 * eps of element n (row-major position in [B,L]) comes from Philox with counter (low n/4, high n/4, low offset, high offset)
 * and key seed: words (w0,w1) give by Box-Muller elements 0 and 1 of the group of four, (w2,w3) elements 2 and 3:
 * u = (w + 0.5) * 2^-32; first = sqrt(-2 ln u0) cos(2 pi u1), second = sqrt(-2 ln u0) sin(2 pi u1). eps is made again in backward, never
 * stored. The gradient through the clamp is 0 where log_var lies outside -20..10.
 */
#ifndef MOLFUSE_REPARAMETERIZE_H
#define MOLFUSE_REPARAMETERIZE_H

#include "molfuse/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/** All of one type: f16, bf16, f32 or f64. */
typedef struct molfuse_reparameterize_args {
  size_t struct_size; /**< sizeof of the struct, set by the caller */
  molfuse_tensor mean;     /**< [B,L] */
  molfuse_tensor log_var;  /**< [B,L] */
  molfuse_philox philox;   /**< what eps is made from */
  molfuse_tensor z;        /**< [B,L], forward output */
  /* backward */
  molfuse_tensor grad_z;       /**< [B,L] */
  molfuse_tensor grad_mean;    /**< [B,L]; this and the next optional */
  molfuse_tensor grad_log_var; /**< [B,L] */
} molfuse_reparameterize_args;

/** Writes z. */
MOLFUSE_API molfuse_status molfuse_reparameterize_forward(const molfuse_reparameterize_args* args,
                                                          const molfuse_execution* execution);

/** Writes the gradients asked for, with the eps of forward's philox. mean's values do not matter to it. */
MOLFUSE_API molfuse_status molfuse_reparameterize_backward(const molfuse_reparameterize_args* args,
                                                           const molfuse_execution* execution);

#ifdef __cplusplus
}
#endif
#endif

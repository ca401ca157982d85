// SPDX-License-Identifier: Apache-2.0
// What linear_vae_loss.cpp (checks) and cuda_linear_vae_loss.cu (kernels) share.
#pragma once

#include "runtime/device_call.h"
#include "vae_loss/loss.h"

namespace molfuse {

/// A checked call; the targets' values are seen by the kernels only.
struct LinearDeviceProblem {
  int64_t channels, classes;
  molfuse_tensor hidden, weight, weight_bias;
  TokenTargets targets;
  TokenValues row_lse, nll;
  molfuse_tensor grad_hidden, grad_weight, grad_weight_bias;  ///< data NULL: not wanted
};

/// Gradients that are wanted are written for an upstream gradient of one; see molfuse/vae_loss.h.
void linear_vae_loss_forward_device(const LinearDeviceProblem&, const LossArgs&, DeviceCall&);
void linear_vae_loss_backward_device(const LinearDeviceProblem&, const LossArgs&, DeviceCall&);

}  // namespace molfuse

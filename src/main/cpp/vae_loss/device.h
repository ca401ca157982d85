// SPDX-License-Identifier: Apache-2.0
// What vae_loss.cpp (checks) and cuda_vae_loss.cu (kernels) share.
#pragma once

#include "runtime/device_call.h"
#include "vae_loss/loss.h"

namespace molfuse {

/// grad_logits of the problem, if not NULL, is written for an upstream gradient of one; see molfuse/vae_loss.h.
void vae_loss_forward_device(const VaeLossProblem&, const LossArgs&, DeviceCall&);
void vae_loss_backward_device(const VaeLossProblem&, const LossArgs&, DeviceCall&);
/// A checked call.
void vae_loss_scale_device(const molfuse_vae_loss_scale_args&, DeviceCall&);

}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// Which backend computes attention on a device.
#pragma once

#include <cstdint>
#include <string>

#include "attention/kernels.h"
#include "runtime/backend_setting.h"

namespace molfuse {

/// What the table tells apart beside sizes: masks and biases. Padding is none of its kinds (see backend.cpp).
enum class AttentionKind { plain, causal, bias, causal_bias };

/// A row of attention_backends.inc: problems that it holds for, bounds included, and which backend was faster there.
struct BackendRow {
  int capability;  ///< 90 for 9.0
  int32_t dtype;
  int64_t dim;
  bool backward;
  AttentionKind kind;
  int64_t queries_from, queries_to, keys_from, keys_to, heads_from, heads_to;  ///< heads: B * H
  AttentionBackend backend;
};

/// The first row that holds for the problem decides; without one, the library's own kernels.
AttentionBackend measured_backend(const BackendRow* rows, int64_t count, const AttentionProblem& problem, bool backward, int capability);

/// Why cuDNN cannot be given the problem; empty if it can. libcudnn may still have no plan for it.
std::string cudnn_refusal(const AttentionProblem& problem, bool backward, int major);

/// Attention on a device by the backend that the setting and the table choose.
void attention_forward_on_device(const AttentionProblem&, DeviceCall&);
void attention_backward_on_device(const AttentionProblem&, DeviceCall&);

}  // namespace molfuse

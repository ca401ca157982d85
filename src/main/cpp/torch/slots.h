// SPDX-License-Identifier: Apache-2.0
// Writing a tensor in place column range by column range (slots), by several operators, each with its gradient.
#pragma once

#include "torch/common.h"

namespace molfuse::torch_ops {

/// A writer's columns of a tensor.
struct Slot {
  int64_t column_offset;
  const Tensor& graph_ptr;
};

/**
 * Which slots of a tensor were written since it was fresh memory. The gradient of a writer with respect to the tensor as it was before is
 * the whole gradient with the slot's columns zeroed: a copy of it for every slot, which would cost more than the pooling. It is left out
 * where nobody can see it: the tensor started as memory without a gradient and only slots that do not overlap were written since, so each
 * earlier writer reads its own columns only. (A hook on the tensor between two writers sees the later slots' gradients, too.)
 */
struct SlotHistory {
  std::vector<int64_t> written;  ///< begin and end of every slot, the newest last
  bool disjoint = true;

  /// That of `out`, as its last writer left it, with a further slot.
  static SlotHistory of(const Tensor& out, int64_t begin, int64_t end);
  void save(AutogradContext* ctx) const;
  static SlotHistory saved(AutogradContext* ctx);
  int64_t begin() const { return written[written.size() - 2]; }
  int64_t width() const { return written.back() - begin(); }
  /// The gradient of what the tensor was before the newest slot was written.
  Tensor gradient_before(const Tensor& gradient) const;
};

/// latent_concat.cpp
class LatentConcatIntoFunction : public torch::autograd::Function<LatentConcatIntoFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, Tensor out, const Tensor& nodes, const Slot& slot);
  static variable_list backward(AutogradContext* ctx, const variable_list& grads);
};

struct EpilogueSettings;
/// encoder_epilogue.cpp. Outputs: the features, and `pooled` where it is given.
class EncoderEpilogueFunction : public torch::autograd::Function<EncoderEpilogueFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight,
                               const OptionalTensor& bias, OptionalTensor pooled, const EpilogueSettings& settings);
  static variable_list backward(AutogradContext* ctx, const variable_list& grads);
};

}  // namespace molfuse::torch_ops

// SPDX-License-Identifier: Apache-2.0
#include "torch/slots.h"

namespace molfuse::torch_ops {
namespace {

/// The saved values of a tensor's last writer, if that is `Writer` and the tensor its output number `output`.
template <class Writer>
const decltype(AutogradContext::saved_data)* saved_by(const Tensor& tensor, uint32_t output) {
  const auto* node = dynamic_cast<const torch::autograd::CppNode<Writer>*>(tensor.grad_fn().get());
  return node != nullptr && tensor.output_nr() == output ? &node->ctx_.saved_data : nullptr;
}

}  // namespace

SlotHistory SlotHistory::of(const Tensor& out, int64_t begin, int64_t end) {
  SlotHistory history;
  if (out.requires_grad()) {
    const auto* saved = saved_by<LatentConcatIntoFunction>(out, 0);
    if (saved == nullptr) saved = saved_by<EncoderEpilogueFunction>(out, 1);
    history.disjoint = saved != nullptr && saved->at("disjoint").toBool();
    if (history.disjoint) history.written = saved->at("written").toIntVector();
    for (size_t s = 0; s + 1 < history.written.size(); s += 2) {
      history.disjoint = history.disjoint && (end <= history.written[s] || begin >= history.written[s + 1]);
    }
  }
  history.written.insert(history.written.end(), {begin, end});
  return history;
}

void SlotHistory::save(AutogradContext* ctx) const {
  ctx->saved_data["disjoint"] = disjoint;
  ctx->saved_data["written"] = written;
}

SlotHistory SlotHistory::saved(AutogradContext* ctx) {
  SlotHistory history;
  history.disjoint = ctx->saved_data["disjoint"].toBool();
  history.written = ctx->saved_data["written"].toIntVector();
  return history;
}

Tensor SlotHistory::gradient_before(const Tensor& gradient) const {
  if (disjoint) return gradient;
  Tensor before = gradient.clone();
  before.narrow(1, begin(), width()).zero_();
  return before;
}

}  // namespace molfuse::torch_ops

// SPDX-License-Identifier: Apache-2.0
// Gradient checkpointing (Chen et al. 2016) for callers that cannot write an autograd function themselves: a node of the graph that
// keeps a segment's inputs and has its gradients computed by a callback.
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <mutex>
#include <utility>

#include "torch/common.h"

namespace molfuse::torch_ops {
namespace {

using torch_api::recompute_callback;

/// Segments that no graph refers to any more. The caller collects them when it pleases: a graph may go in any thread and at any
/// time, where calling back would be a risk.
class Released {
 public:
  void add(int64_t segment) {
    const std::lock_guard<std::mutex> lock(mutex_);
    segments_.push_back(segment);
  }

  std::vector<int64_t> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(segments_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<int64_t> segments_;
};

Released& released() {
  // Never destroyed: graphs may outlive the statics of this library.
  static Released* const instance = new Released;
  return *instance;
}

class RecomputeNode : public torch::autograd::Node {
 public:
  RecomputeNode(const std::vector<Tensor>& inputs, size_t outputs, int64_t segment, recompute_callback recompute)
      : torch::autograd::Node(torch::autograd::collect_next_edges(inputs)),
        outputs_(outputs),
        segment_(segment),
        recompute_(recompute) {
    inputs_.reserve(inputs.size());
    for (const Tensor& input : inputs) {
      // As a saved variable it notices when its values were overwritten before backward.
      inputs_.emplace_back(input, /*is_output=*/false);
      wants_gradient_.push_back(input.requires_grad());
    }
  }

  ~RecomputeNode() override { release(); }

  /// Gives output number index of the segment a history.
  void connect(Tensor& output, size_t index) {
    torch::autograd::set_history(output, shared_from_this());
    differentiable_.push_back(index);
  }

  std::string name() const override { return "MolfuseCheckpointBackward"; }

  variable_list apply(variable_list&& grad_outputs) override {
    TORCH_CHECK_NOT_IMPLEMENTED(!c10::GradMode::is_enabled(), "molfuse: unsupported: double backward through a checkpointed segment");
    TORCH_CHECK_NOT_IMPLEMENTED(torch::autograd::Engine::get_default_engine().is_checkpoint_valid(),
                                "molfuse: unsupported: gradients of chosen inputs through a checkpointed segment, which adds to the "
                                "gradients of all parameters it uses; call backward without inputs");
    std::vector<Tensor> inputs;
    {
      const std::lock_guard<std::mutex> lock(saved_mutex_);
      MOLFUSE_CHECK(!released_, "backward: the graph of a checkpointed segment was released by an earlier backward; "
                                "specify retain_graph to go through it twice");
      for (size_t i = 0; i < inputs_.size(); ++i) {
        const Tensor input = inputs_[i].unpack();
        inputs.push_back(input.defined() ? input.detach() : input);
        if (wants_gradient_[i]) inputs.back().set_requires_grad(true);
      }
    }
    // libtorch counts the outputs that have a history; the callback counts all.
    variable_list all_grad_outputs(outputs_);
    for (size_t i = 0; i < differentiable_.size(); ++i) all_grad_outputs[differentiable_[i]] = grad_outputs[i];
    variable_list grad_inputs(inputs.size());
    {
      const at::AutoGradMode with_gradients(true);
      recompute_(segment_, inputs, all_grad_outputs, grad_inputs);
    }
    TORCH_CHECK(grad_inputs.size() == inputs.size(), "molfuse: internal error: ", grad_inputs.size(), " gradients of ", inputs.size(),
                " inputs of a checkpointed segment");
    return grad_inputs;
  }

  void release_variables() override {
    {
      const std::lock_guard<std::mutex> lock(saved_mutex_);
      inputs_.clear();
    }
    release();
  }

 private:
  void release() {
    {
      const std::lock_guard<std::mutex> lock(saved_mutex_);
      if (released_) return;
      released_ = true;
    }
    released().add(segment_);
  }

  std::mutex saved_mutex_;
  std::vector<torch::autograd::SavedVariable> inputs_;
  std::vector<bool> wants_gradient_;
  std::vector<size_t> differentiable_;
  size_t outputs_;
  int64_t segment_;
  recompute_callback recompute_;
  bool released_ = false;
};

}  // namespace
}  // namespace molfuse::torch_ops

namespace molfuse::torch_api {

std::vector<at::Tensor> checkpoint_outputs(const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& outputs,
                                           int64_t segment, recompute_callback recompute) {
  MOLFUSE_CHECK(recompute != nullptr, "recompute: expected a function, got null");
  for (const at::Tensor& output : outputs) torch_ops::check_defined("outputs", output);
  // Even without an input that requires a gradient: the segment may use parameters that do.
  const std::shared_ptr<torch_ops::RecomputeNode> node(new torch_ops::RecomputeNode(inputs, outputs.size(), segment, recompute),
                                                       torch::autograd::deleteNode);
  std::vector<at::Tensor> connected;
  connected.reserve(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    // An output may be an input, or a view of one: the handle is a new one, its version counter is not.
    connected.push_back(outputs[i].detach());
    if (at::isFloatingType(outputs[i].scalar_type())) node->connect(connected.back(), i);
  }
  return connected;
}

std::vector<int64_t> released_segments() { return torch_ops::released().take(); }

}  // namespace molfuse::torch_api

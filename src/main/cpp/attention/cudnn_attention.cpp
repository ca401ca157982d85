// SPDX-License-Identifier: Apache-2.0
#include "attention/cudnn_attention.h"

#if defined(MOLFUSE_WITH_CUDA)
#include "attention/cudnn_plan.h"
#include "runtime/device_call.h"

namespace molfuse {
namespace {

// Of all shapes of a process: a training run with lengths padded to multiples of 8 or so has a few dozen in each direction. A plan holds a
// loaded kernel, some 100 KB.
constexpr size_t kMostPlans = 256;

PlanCache<CudnnPlanKey, CudnnPlan>& plans() {
  // Never destroyed: at the process's end the driver may be gone before its kernels are given back.
  static auto* cache = new PlanCache<CudnnPlanKey, CudnnPlan>(kMostPlans);
  return *cache;
}

/// Strides; those of a dimension of one element, which may be anything, as if the tensor were dense.
void set_strides(const AttentionProblem& p, const AttentionOperand& operand, int64_t rows, int64_t (&to)[3]) {
  to[2] = rows == 1 ? p.dim : operand.row;
  to[1] = p.heads == 1 ? rows * to[2] : operand.head;
  to[0] = p.batch == 1 ? p.heads * to[1] : operand.batch;
}

CudnnPlanKey key_of(const AttentionProblem& p, bool backward, const DeviceInfo& device) {
  CudnnPlanKey key;
  std::memset(static_cast<void*>(&key), 0, sizeof key);
  key.device = device.index;
  key.major = device.major;
  key.minor = device.minor;
  key.multiprocessors = device.multiprocessors;
  key.backward = backward;
  key.dtype = p.dtype;
  key.batch = p.batch;
  key.heads = p.heads;
  key.queries = p.queries;
  key.keys = p.keys;
  key.dim = p.dim;
  key.stats = !backward && p.lse != nullptr;
  key.padded = p.key_lengths.data != nullptr;
  // A single query at the end sees everything.
  if (p.causal && p.queries > 1) key.mask = p.queries == p.keys ? CudnnMask::causal : CudnnMask::causal_bottom_right;
  key.scale = p.scale;
  set_strides(p, p.query, p.queries, key.query);
  set_strides(p, p.key, p.keys, key.key);
  set_strides(p, p.value, p.keys, key.value);
  set_strides(p, p.out, p.queries, key.out);
  if (backward) {
    set_strides(p, p.grad_out, p.queries, key.grad_out);
    set_strides(p, p.grad_query, p.queries, key.grad_query);
    set_strides(p, p.grad_key, p.keys, key.grad_key);
    set_strides(p, p.grad_value, p.keys, key.grad_value);
  }
  if (p.bias != nullptr) {
    key.bias = 1;
    key.bias_dtype = p.bias_dtype;
    for (int d = 0; d < 4; ++d) key.bias_size[d] = p.bias_size[d];
    key.bias_stride[3] = 1;
    key.bias_stride[2] = p.queries == 1 ? p.keys : p.bias_row;
    key.bias_stride[1] = p.bias_size[1] == 1 ? p.queries * key.bias_stride[2] : p.bias_head;
    key.bias_stride[0] = p.bias_size[0] == 1 ? p.bias_size[1] * key.bias_stride[1] : p.bias_batch;
  }
  return key;
}

}  // namespace

PlanCounts cudnn_plan_counts() { return plans().counts(); }

bool run_cudnn_attention(const AttentionProblem& p, bool backward, size_t workspace_limit, DeviceCall& call, std::string& reason) {
  const CudnnPlanKey key = key_of(p, backward, call.device());
  PlanCache<CudnnPlanKey, CudnnPlan>::Entry entry;
  call.external([&] {
    entry = plans().get(key, [](const CudnnPlanKey& wanted, std::string& why) { return make_cudnn_plan(wanted, why); });
  });
  if (entry.plan == nullptr) {
    reason = entry.reason;
    return false;
  }
  const size_t bytes = entry.plan->workspace();
  if (bytes > workspace_limit) {
    reason = "its workspace is " + std::to_string(bytes) + " bytes";
    return false;
  }
  void* memory[kCudnnTensors] = {};
  memory[kCudnnQuery] = p.query.data;
  memory[kCudnnKey] = p.key.data;
  memory[kCudnnValue] = p.value.data;
  memory[kCudnnOut] = p.out.data;
  memory[kCudnnLse] = p.lse;
  memory[kCudnnBias] = const_cast<void*>(p.bias);
  memory[kCudnnGradOut] = p.grad_out.data;
  memory[kCudnnGradQuery] = p.grad_query.data;
  memory[kCudnnGradKey] = p.grad_key.data;
  memory[kCudnnGradValue] = p.grad_value.data;
  int32_t* lengths = nullptr;
  if (key.padded != 0) {
    lengths = call.scratch<int32_t>(3 * p.batch);
    prepare_lengths(p, lengths, call);
    memory[kCudnnQueryLengths] = lengths;
    memory[kCudnnKeyLengths] = lengths + p.batch;
  }
  char* const workspace = call.scratch<char>(static_cast<int64_t>(bytes));
  call.external([&] { entry.plan->execute(call.stream(), memory, workspace); });
  if (key.padded != 0) finish_lengths(p, backward, lengths, call);
  return true;
}

}  // namespace molfuse
#endif

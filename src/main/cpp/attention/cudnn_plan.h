// SPDX-License-Identifier: Apache-2.0
// A plan is cuDNN's code for one shape of attention. cudnn_plan.cpp, the only file that sees the graph interface's headers, makes them of
// libcudnn; the tests on the simulated device make their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

namespace molfuse {

/// What a graph's memory is called. The lengths are int32 [B].
enum CudnnTensor {
  kCudnnQuery, kCudnnKey, kCudnnValue, kCudnnOut, kCudnnLse, kCudnnBias, kCudnnQueryLengths, kCudnnKeyLengths,
  kCudnnGradOut, kCudnnGradQuery, kCudnnGradKey, kCudnnGradValue, kCudnnTensors
};

enum class CudnnMask : int64_t { none, causal, causal_bottom_right };

/// All that a plan depends on; one word a field, so that two are the same if their bytes are. Strides of [B,H,rows,D] in elements, those of
/// D being 1.
struct CudnnPlanKey {
  int64_t device, major, minor, multiprocessors;
  int64_t backward, dtype, batch, heads, queries, keys, dim;
  int64_t stats;   ///< forward: lse is wanted
  int64_t padded;  ///< keys of each sequence are given
  CudnnMask mask;
  double scale;
  int64_t query[3], key[3], value[3], out[3], grad_out[3], grad_query[3], grad_key[3], grad_value[3];
  int64_t bias, bias_dtype, bias_size[4], bias_stride[4];  ///< bias: whether there is one

  bool operator==(const CudnnPlanKey& other) const { return std::memcmp(this, &other, sizeof other) == 0; }
};
static_assert(sizeof(CudnnPlanKey) == 8 * (15 + 8 * 3 + 10), "no padding, which would be compared");

class CudnnPlan {
 public:
  virtual ~CudnnPlan() = default;
  virtual size_t workspace() const = 0;  ///< bytes
  /// Enqueues the plan on the stream of the plan's device, which is current. Those of `memory` that the graph has not are ignored.
  /// Throws Error. May be called by several threads at once.
  virtual void execute(void* stream, void* const (&memory)[kCudnnTensors], void* workspace) = 0;
};

/// NULL and the reason where libcudnn has no such plan. The device is current. `description` is for tests: cuDNN's own JSON of a device
/// that need not be there, for which the plan is made but cannot be executed.
std::unique_ptr<CudnnPlan> make_cudnn_plan(const CudnnPlanKey& key, std::string& reason, const char* description = nullptr);

}  // namespace molfuse

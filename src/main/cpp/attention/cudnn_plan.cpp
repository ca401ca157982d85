// SPDX-License-Identifier: Apache-2.0
// Plans of libcudnn, through the headers of cudnn-frontend.
#include "attention/cudnn_plan.h"

#if defined(MOLFUSE_WITH_CUDNN)
#include <cuda_runtime_api.h>

namespace molfuse {
namespace {

// The headers ask the CUDA runtime for the current device's capability, in the middle of checking a graph. They are told the plan's device,
// of which the runtime may know nothing.
thread_local int planned_major = 0, planned_minor = 0;

cudaError_t planned_device(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t planned_properties(cudaDeviceProp* properties, int) {
  *properties = cudaDeviceProp();
  properties->major = planned_major;
  properties->minor = planned_minor;
  return cudaSuccess;
}

}  // namespace
}  // namespace molfuse

#undef cudaGetDevice
#undef cudaGetDeviceProperties
#define cudaGetDevice molfuse::planned_device
#define cudaGetDeviceProperties molfuse::planned_properties
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>
#undef cudaGetDevice
#undef cudaGetDeviceProperties

#include <algorithm>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/check.h"
#include "runtime/cudnn_library.h"

namespace molfuse {
namespace {

namespace fe = cudnn_frontend;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

/// A handle of the device, of those that no other call uses. They are never destroyed: their memory is small, and at the process's end
/// libcudnn may be gone first.
class BorrowedHandle {
 public:
  explicit BorrowedHandle(int64_t device) : device_(device) {
    {
      const std::lock_guard<std::mutex> lock(mutex());
      std::vector<cudnnHandle_t>& free = idle()[device];
      if (!free.empty()) {
        handle_ = free.back();
        free.pop_back();
      }
    }
    if (handle_ != nullptr) return;
    const cudnnStatus_t status = cudnnCreate(&handle_);
    if (status != CUDNN_STATUS_SUCCESS) throw Error{MOLFUSE_INTERNAL_ERROR, std::string("cudnnCreate: ") + cudnnGetErrorString(status)};
  }
  ~BorrowedHandle() {
    const std::lock_guard<std::mutex> lock(mutex());
    idle()[device_].push_back(handle_);
  }
  BorrowedHandle(const BorrowedHandle&) = delete;
  BorrowedHandle& operator=(const BorrowedHandle&) = delete;
  cudnnHandle_t get() const { return handle_; }

 private:
  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }
  static std::unordered_map<int64_t, std::vector<cudnnHandle_t>>& idle() {
    static auto* all = new std::unordered_map<int64_t, std::vector<cudnnHandle_t>>;
    return *all;
  }

  int64_t device_;
  cudnnHandle_t handle_ = nullptr;
};

fe::DataType_t type_of(int64_t dtype) {
  switch (dtype) {
    case MOLFUSE_F16: return fe::DataType_t::HALF;
    case MOLFUSE_BF16: return fe::DataType_t::BFLOAT16;
    default: return fe::DataType_t::FLOAT;
  }
}

class Plan : public CudnnPlan {
 public:
  explicit Plan(const CudnnPlanKey& key) : key_(key) {}

  fe::error_t make(const char* description) {
    planned_major = static_cast<int>(key_.major);
    planned_minor = static_cast<int>(key_.minor);
    graph_.set_io_data_type(type_of(key_.dtype)).set_intermediate_data_type(fe::DataType_t::FLOAT).set_compute_data_type(fe::DataType_t::FLOAT);
    graph_.set_sm_version(static_cast<int32_t>(10 * key_.major + key_.minor));
    if (key_.backward != 0) {
      describe_backward();
    } else {
      describe_forward();
    }
    fe::error_t error = graph_.validate();
    const auto good = [&error](fe::error_t next) { return (error = std::move(next)).is_good(); };
    if (error.is_bad()) return error;
    if (description != nullptr) {
      const std::string text = description;
      auto properties = std::make_shared<fe::DeviceProperties>();
      if (!good(properties->deserialize(std::vector<uint8_t>(text.begin(), text.end())))) return error;
      graph_.set_device_properties(properties);
      error = graph_.build_operation_graph();
    } else {
      const BorrowedHandle handle(key_.device);
      error = graph_.build_operation_graph(handle.get());
    }
    if (error.is_bad() || !good(graph_.create_execution_plans({fe::HeurMode_t::A}))) return error;
    graph_.deselect_numeric_notes({fe::NumericalNote_t::NONDETERMINISTIC});
    if (good(graph_.check_support()) && good(graph_.build_plans())) error = graph_.get_workspace_size(workspace_);
    return error;
  }

  size_t workspace() const override { return static_cast<size_t>(workspace_); }

  void execute(void* stream, void* const (&memory)[kCudnnTensors], void* workspace) override {
    const BorrowedHandle handle(key_.device);
    cudnnStatus_t status = cudnnSetStream(handle.get(), static_cast<cudaStream_t>(stream));
    if (status != CUDNN_STATUS_SUCCESS) throw Error{MOLFUSE_INTERNAL_ERROR, std::string("cudnnSetStream: ") + cudnnGetErrorString(status)};
    std::unordered_map<int64_t, void*> named;
    for (const int64_t tensor : used_) named[tensor] = memory[tensor];
    fe::error_t error = graph_.execute(handle.get(), named, workspace);
    if (error.is_bad()) throw Error{MOLFUSE_INTERNAL_ERROR, "cuDNN's attention: " + error.get_message()};
  }

 private:
  fe::graph::Tensor_attributes named(const char* name, CudnnTensor id, const std::vector<int64_t>& size, const std::vector<int64_t>& stride) {
    used_.push_back(id);
    return fe::graph::Tensor_attributes().set_name(name).set_uid(id).set_dim(size).set_stride(stride);
  }
  Tensor operand(const char* name, CudnnTensor id, int64_t rows, const int64_t (&stride)[3]) {
    return graph_.tensor(named(name, id, {key_.batch, key_.heads, rows, key_.dim}, {stride[0], stride[1], stride[2], 1}));
  }
  void result(const Tensor& tensor, CudnnTensor id, int64_t rows, const int64_t (&stride)[3]) {
    used_.push_back(id);
    tensor->set_output(true).set_uid(id).set_dim({key_.batch, key_.heads, rows, key_.dim}).set_stride({stride[0], stride[1], stride[2], 1});
  }
  std::vector<int64_t> lse_size() const { return {key_.batch, key_.heads, key_.queries, 1}; }
  std::vector<int64_t> lse_stride() const { return {key_.heads * key_.queries, key_.queries, 1, 1}; }

  /// What both directions have alike.
  template <class Attributes>
  Attributes attributes(const char* name) {
    Attributes result;
    result.set_name(name).set_attn_scale(static_cast<float>(key_.scale));
    if (key_.mask != CudnnMask::none) {
      result.set_diagonal_alignment(key_.mask == CudnnMask::causal ? fe::DiagonalAlignment_t::TOP_LEFT : fe::DiagonalAlignment_t::BOTTOM_RIGHT);
      result.set_diagonal_band_right_bound(0);
    }
    if (key_.bias != 0) {
      const int64_t* size = key_.bias_size;
      const int64_t* stride = key_.bias_stride;
      result.set_bias(graph_.tensor(named("bias", kCudnnBias, {size, size + 4}, {stride, stride + 4}).set_data_type(type_of(key_.bias_dtype))));
    }
    if (key_.padded != 0) {
      auto lengths = [&](const char* what, CudnnTensor id) {
        return graph_.tensor(named(what, id, {key_.batch, 1, 1, 1}, {1, 1, 1, 1}).set_data_type(fe::DataType_t::INT32));
      };
      result.set_padding_mask(true);
      result.set_seq_len_q(lengths("query_lengths", kCudnnQueryLengths)).set_seq_len_kv(lengths("key_lengths", kCudnnKeyLengths));
    }
    return result;
  }

  void describe_forward() {
    auto query = operand("query", kCudnnQuery, key_.queries, key_.query);
    auto key = operand("key", kCudnnKey, key_.keys, key_.key);
    auto value = operand("value", kCudnnValue, key_.keys, key_.value);
    auto [out, lse] = graph_.sdpa(query, key, value, attributes<fe::graph::SDPA_attributes>("forward").set_generate_stats(key_.stats != 0));
    result(out, kCudnnOut, key_.queries, key_.out);
    if (key_.stats != 0) {
      used_.push_back(kCudnnLse);
      lse->set_output(true).set_uid(kCudnnLse).set_data_type(fe::DataType_t::FLOAT).set_dim(lse_size()).set_stride(lse_stride());
    }
  }

  void describe_backward() {
    auto query = operand("query", kCudnnQuery, key_.queries, key_.query);
    auto key = operand("key", kCudnnKey, key_.keys, key_.key);
    auto value = operand("value", kCudnnValue, key_.keys, key_.value);
    auto out = operand("out", kCudnnOut, key_.queries, key_.out);
    auto grad_out = operand("grad_out", kCudnnGradOut, key_.queries, key_.grad_out);
    auto lse = graph_.tensor(named("lse", kCudnnLse, lse_size(), lse_stride()).set_data_type(fe::DataType_t::FLOAT));
    auto backward = attributes<fe::graph::SDPA_backward_attributes>("backward").set_deterministic_algorithm(true);
    auto [grad_query, grad_key, grad_value] = graph_.sdpa_backward(query, key, value, out, grad_out, lse, backward);
    result(grad_query, kCudnnGradQuery, key_.queries, key_.grad_query);
    result(grad_key, kCudnnGradKey, key_.keys, key_.grad_key);
    result(grad_value, kCudnnGradValue, key_.keys, key_.grad_value);
  }

  CudnnPlanKey key_;
  fe::graph::Graph graph_;
  std::vector<int64_t> used_;
  int64_t workspace_ = 0;
};

}  // namespace

std::unique_ptr<CudnnPlan> make_cudnn_plan(const CudnnPlanKey& key, std::string& reason, const char* description) {
  const CudnnLibrary library = cudnn_library();
  if (!library.usable) {
    reason = library.reason;
    return nullptr;
  }
  try {
    auto plan = std::make_unique<Plan>(key);
    fe::error_t error = plan->make(description);
    if (error.is_good()) return plan;
    // The rest is what each engine said, a page of it.
    reason = error.get_message();
    reason = reason.substr(0, std::min(reason.find('\n'), reason.find("__")));
  } catch (const std::exception& error) {
    reason = error.what();
  }
  reason = "cuDNN " + cudnn_version_text(library.version) + ": " + reason;
  return nullptr;
}

}  // namespace molfuse
#else
#include "runtime/cudnn_library.h"

namespace molfuse {

std::unique_ptr<CudnnPlan> make_cudnn_plan(const CudnnPlanKey&, std::string& reason, const char*) {
  reason = cudnn_library().reason;
  return nullptr;
}

}  // namespace molfuse
#endif

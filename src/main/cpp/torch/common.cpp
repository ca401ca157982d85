// SPDX-License-Identifier: Apache-2.0
#include "torch/common.h"

#include <algorithm>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/Parallel.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <limits>
#include <utility>

namespace molfuse::torch_ops {
namespace {

int32_t dtype_of(const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return MOLFUSE_F32;
    case at::kDouble: return MOLFUSE_F64;
    case at::kHalf: return MOLFUSE_F16;
    case at::kBFloat16: return MOLFUSE_BF16;
    case at::kInt: return MOLFUSE_I32;
    case at::kLong: return MOLFUSE_I64;
    default:
      MOLFUSE_CHECK(false, name, ": expected element type f32, f64, f16, bf16, int32 or int64, got ", tensor.scalar_type());
  }
  return -1;
}

/// The CUstream of a CUDA stream. libtorch's CPU build has no CUDA part to link to, so the one call is looked up: a default
/// stream has id 0 and is the null stream; any other needs the stream pool's table inside libc10_cuda.
void* native_stream(const c10::Stream& stream) {
  if (stream.id() == 0) return nullptr;
  using StreamOf = void* (*)(const c10::Stream*);  // CUDAStream::stream() const; a CUDAStream is a c10::Stream in layout
  static const StreamOf stream_of = [] {
    constexpr const char* symbol = "_ZNK3c104cuda10CUDAStream6streamEv";
    void* found = dlsym(RTLD_DEFAULT, symbol);
    if (found == nullptr) {
      // System.load gives libraries a local scope, which RTLD_DEFAULT does not search.
      if (void* library = dlopen("libc10_cuda.so", RTLD_LAZY | RTLD_NOLOAD)) found = dlsym(library, symbol);
    }
    return reinterpret_cast<StreamOf>(found);
  }();
  TORCH_CHECK_NOT_IMPLEMENTED(stream_of != nullptr,
                              "molfuse: unsupported: the current CUDA stream is not the default stream, and "
                              "c10::cuda::CUDAStream::stream was not found in this process");
  return stream_of(&stream);
}

/// Why libtorch's allocator gave no memory to the call that this thread is in, for check_status.
struct AllocatorFailure {
  std::string text;  ///< empty: it did not fail
  bool out_of_memory = false;
};
thread_local AllocatorFailure allocator_failure;

void* allocate_on_device(void* context, size_t bytes) {
  // An exception must not pass through the C interface; there, NULL is out of memory.
  try {
    return static_cast<c10::Allocator*>(context)->raw_allocate(bytes);
  } catch (const c10::OutOfMemoryError& error) {
    allocator_failure = {error.what_without_backtrace(), true};
  } catch (const c10::Error& error) {
    allocator_failure = {error.what_without_backtrace(), false};
  } catch (const std::exception& error) {
    allocator_failure = {error.what(), false};
  }
  return nullptr;
}

void release_on_device(void* context, void* memory) {
  try {
    static_cast<c10::Allocator*>(context)->raw_deallocate(memory);
  } catch (const std::exception&) {
    // Only on a device that is broken, of which the call itself tells.
  }
}

}  // namespace

void check_status(molfuse_status status, const char* op) {
  if (status == MOLFUSE_OK) return;
  std::string text = molfuse_last_error();
  const AllocatorFailure allocator = std::exchange(allocator_failure, AllocatorFailure());
  if (status == MOLFUSE_OUT_OF_MEMORY && !allocator.text.empty()) {
    text += ": " + allocator.text;
    if (!allocator.out_of_memory) status = MOLFUSE_INTERNAL_ERROR;
  }
  TORCH_CHECK_VALUE(status != MOLFUSE_INVALID_ARGUMENT, "molfuse: invalid argument: ", op, ": ", text);
  TORCH_CHECK_NOT_IMPLEMENTED(status != MOLFUSE_UNSUPPORTED, "molfuse: unsupported: ", op, ": ", text);
  TORCH_CHECK_WITH(OutOfMemoryError, status != MOLFUSE_OUT_OF_MEMORY, "molfuse: out of memory: ", op, ": ", text);
  TORCH_CHECK(false, "molfuse: internal error: ", op, ": ", text);
}

molfuse_tensor view(const char* name, const Tensor& tensor, int64_t to_dims) {
  static char empty_tensor_data[16];
  molfuse_tensor result{};
  const int64_t dims = tensor.dim();
  const int64_t padding = to_dims > dims ? to_dims - dims : 0;
  MOLFUSE_CHECK(dims + padding <= MOLFUSE_MAX_DIMS, name, ": expected at most ", MOLFUSE_MAX_DIMS, " dimensions, got shape ",
                tensor.sizes());
  result.dtype = dtype_of(name, tensor);
  result.ndim = static_cast<int32_t>(dims + padding);
  for (int64_t d = 0; d < padding; ++d) {
    result.size[d] = 1;
    result.stride[d] = 0;
  }
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  for (int64_t d = 0; d < dims; ++d) {
    result.size[padding + d] = sizes[d];
    result.stride[padding + d] = strides[d];
  }
  result.data = tensor.numel() > 0 ? const_cast<void*>(tensor.const_data_ptr()) : empty_tensor_data;
  return result;
}

Execution::Execution(const Tensor& tensor) {
  allocator_failure = AllocatorFailure();
  execution_.struct_size = sizeof(execution_);
  const c10::Device device = tensor.device();
  if (device.is_cpu()) {
    // Asking makes libtorch's number of threads OpenMP's in this thread; 0 then means at most so many.
    at::get_num_threads();
    execution_.num_threads = at::in_parallel_region() ? 1 : 0;
  } else {
    TORCH_CHECK_NOT_IMPLEMENTED(device.is_cuda(), "molfuse: unsupported: device ", device);
    guard_.reset_device(device);
    execution_.device_type = MOLFUSE_CUDA;
    execution_.device_index = device.index();
    execution_.stream = native_stream(c10::impl::getDeviceGuardImpl(device.type())->getStream(device));
    execution_.allocate = allocate_on_device;
    execution_.release = release_on_device;
    execution_.allocator_context = c10::GetAllocator(device.type());
    execution_.allow_tf32 = at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) == at::Float32Precision::TF32;
  }
  execution_.deterministic = at::globalContext().deterministicAlgorithms() ? 1 : 0;
}

void check_defined(const char* name, const Tensor& tensor) {
  MOLFUSE_CHECK(tensor.defined(), name, ": expected a tensor, got an undefined one");
  MOLFUSE_CHECK(tensor.layout() == at::kStrided, name, ": expected a strided tensor, got layout ", tensor.layout());
}

void check_dims(const char* name, const Tensor& tensor, int64_t dims, const char* expected) {
  check_defined(name, tensor);
  MOLFUSE_CHECK(tensor.dim() == dims, name, ": expected shape ", expected, ", got ", tensor.sym_sizes());
}

void check_size(const char* name, const Tensor& tensor, int64_t dim, const c10::SymInt& expected, const char* expected_text) {
  MOLFUSE_CHECK(tensor.sym_size(dim) == expected, name, ": expected shape ", expected_text, " with size ", expected,
                " in dimension ", dim, ", got ", tensor.sym_sizes());
}

void check_same_sizes(const char* name, const Tensor& tensor, const char* other_name, const Tensor& other) {
  check_defined(name, tensor);
  MOLFUSE_CHECK(tensor.sym_sizes() == other.sym_sizes(), name, ": expected the shape of ", other_name, ", ",
                other.sym_sizes(), ", got ", tensor.sym_sizes());
}

void check_float(const char* name, const Tensor& tensor) {
  const auto type = tensor.scalar_type();
  MOLFUSE_CHECK(type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16, name,
                ": expected element type f32, f64, f16 or bf16, got ", type);
}

void check_index(const char* name, const Tensor& tensor) {
  const auto type = tensor.scalar_type();
  MOLFUSE_CHECK(type == at::kInt || type == at::kLong, name, ": expected element type int32 or int64, got ", type);
}

void check_same_type(const char* name, const Tensor& tensor, const char* other_name, const Tensor& other) {
  MOLFUSE_CHECK(tensor.scalar_type() == other.scalar_type(), name, ": expected the element type of ", other_name, ", ",
                other.scalar_type(), ", got ", tensor.scalar_type());
}

void check_type_or_statistics(const char* name, const Tensor& tensor, at::ScalarType type) {
  const auto statistics = statistics_type(type);
  MOLFUSE_CHECK(tensor.scalar_type() == type || tensor.scalar_type() == statistics, name, ": expected element type ", type,
                type == statistics ? "" : " or Float", ", got ", tensor.scalar_type());
}

void check_same_device(const char* name, const Tensor& tensor, const char* other_name, const Tensor& other) {
  MOLFUSE_CHECK(tensor.device() == other.device(), name, ": expected device ", other.device(), " of ", other_name, ", got ",
                tensor.device());
}

void check_probability(const char* name, double p) {
  MOLFUSE_CHECK(p >= 0.0 && p < 1.0, name, ": expected a probability in [0, 1), got ", p);
}

void check_no_overlap(const char* name, const Tensor& tensor, const char* other_name, const Tensor& other) {
  if (tensor.is_meta() || other.is_meta() || is_traced(tensor)) return;
  const auto status = at::get_overlap_status(tensor, other);
  MOLFUSE_CHECK(status != at::MemOverlapStatus::Full && status != at::MemOverlapStatus::Partial, name,
                ": expected memory of its own, since it is written, got memory shared with ", other_name);
}

bool is_traced(const Tensor& tensor) { return at::isTensorSubclassLike(tensor); }

Randomness randomness_of(const Tensor& input, const std::optional<c10::SymInt>& seed, const c10::SymInt& offset, bool used) {
  if (seed.has_value()) return {*seed, offset, std::nullopt};
  if (!used) return {0, offset, std::nullopt};
  if (is_traced(input)) {
    // A number drawn now would become a constant of the graph: every run of it would drop the same elements.
    constexpr int64_t limit = std::numeric_limits<int64_t>::max();
    return {0, offset, at::randint(limit, {}, at::TensorOptions(at::kLong).device(at::kCPU))};
  }
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard<std::mutex> lock(generator.mutex());
  return {static_cast<int64_t>(at::check_generator<at::CPUGeneratorImpl>(generator)->random64()), offset, std::nullopt};
}

molfuse_philox philox_of(int64_t seed, int64_t offset, const OptionalTensor& drawn_seed) {
  if (has(drawn_seed)) {
    MOLFUSE_CHECK(drawn_seed->is_cpu() && drawn_seed->scalar_type() == at::kLong && drawn_seed->numel() == 1,
                  "drawn_seed: expected one int64 element on the CPU, got ", drawn_seed->scalar_type(), " ", drawn_seed->sizes());
    seed = drawn_seed->item<int64_t>();
  }
  return {static_cast<uint64_t>(seed), static_cast<uint64_t>(offset)};
}

void refuse_double_backward(const char* op, const variable_list& inputs, variable_list& gradients) {
  if (!c10::GradMode::is_enabled()) return;
  variable_list defined;
  for (const Tensor& input : inputs) {
    if (input.defined()) defined.push_back(input);
  }
  // What the operator was given is known to the node that runs, even where none of it was saved.
  torch::autograd::edge_list edges = torch::autograd::collect_next_edges(defined);
  if (const auto node = torch::autograd::get_current_node()) {
    edges.insert(edges.end(), node->next_edges().begin(), node->next_edges().end());
  }
  if (std::none_of(edges.begin(), edges.end(), [](const torch::autograd::Edge& edge) { return edge.is_valid(); })) return;
  std::shared_ptr<torch::autograd::Node> node(
      new torch::autograd::Error(std::string("molfuse: unsupported: double backward of molfuse::") + op +
                                     " (its gradient is not itself differentiable)",
                                 std::move(edges)),
      torch::autograd::deleteNode);
  for (Tensor& gradient : gradients) {
    // A gradient that is somebody else's tensor (passed through) keeps its own history.
    if (gradient.defined() && !gradient.requires_grad()) torch::autograd::set_history(gradient, node);
  }
}

Tensor autocast_lower(const Tensor& tensor, at::DeviceType device) {
  if (!tensor.defined()) return tensor;
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), tensor, device);
}

}  // namespace molfuse::torch_ops

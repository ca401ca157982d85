// SPDX-License-Identifier: Apache-2.0
#include "runtime/check.h"

#include <cmath>
#include <cstdio>
#include <limits>

namespace molfuse {
namespace {

constexpr size_t kErrorLength = 1024;
constexpr int64_t kMaxElements = int64_t{1} << 48;
thread_local char last_error[kErrorLength];

std::string format_text(const char* format, va_list list) {
  char text[kErrorLength];
  std::vsnprintf(text, sizeof text, format, list);
  return text;
}

}  // namespace

void set_last_error(const char* text) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", text);
}

void invalid(const char* format, ...) {
  va_list list;
  va_start(list, format);
  Error error{MOLFUSE_INVALID_ARGUMENT, format_text(format, list)};
  va_end(list);
  throw error;
}

void unsupported(const char* format, ...) {
  va_list list;
  va_start(list, format);
  Error error{MOLFUSE_UNSUPPORTED, format_text(format, list)};
  va_end(list);
  throw error;
}

molfuse_execution read_execution(const molfuse_execution* execution, const char* function) {
  molfuse_execution copy;
  std::memset(&copy, 0, sizeof copy);
  copy.struct_size = sizeof copy;
  if (execution != nullptr) copy = read_args(execution, function);
#if !defined(MOLFUSE_WITH_CUDA)
  if (copy.device_type == MOLFUSE_CUDA) unsupported("%s: this build has no CUDA kernels", function);
#endif
  if (copy.device_type != MOLFUSE_CPU && copy.device_type != MOLFUSE_CUDA) {
    invalid("%s: execution->device_type is %d, expected 0 (CPU) or 1 (CUDA)", function, copy.device_type);
  }
  if ((copy.allocate == nullptr) != (copy.release == nullptr)) {
    const char* const missing = copy.allocate == nullptr ? "allocate" : "release";
    invalid("%s: execution->%s is NULL: expected both allocate and release, or neither", function, missing);
  }
  if (copy.num_threads < 0) invalid("%s: execution->num_threads is %d, expected >= 0", function, copy.num_threads);
  return copy;
}

std::string shape_text(const molfuse_tensor& tensor) {
  std::string text = "[";
  for (int d = 0; d < tensor.ndim && d < MOLFUSE_MAX_DIMS; ++d) {
    if (d > 0) text += ",";
    text += std::to_string(tensor.size[d]);
  }
  return text + "]";
}

int64_t element_count(const molfuse_tensor& tensor) {
  for (int d = 0; d < tensor.ndim; ++d) {
    if (tensor.size[d] == 0) return 0;
  }
  int64_t count = 1;
  for (int d = 0; d < tensor.ndim; ++d) {
    if (__builtin_mul_overflow(count, tensor.size[d], &count)) return INT64_MAX;
  }
  return count;
}

void check_shape(const char* name, const molfuse_tensor& tensor, std::initializer_list<int64_t> expected) {
  bool matches = tensor.ndim == static_cast<int32_t>(expected.size());
  std::string text = "[";
  int d = 0;
  for (const int64_t size : expected) {
    if (d > 0) text += ",";
    text += size == kAny ? "*" : std::to_string(size);
    if (matches && size != kAny && tensor.size[d] != size) matches = false;
    ++d;
  }
  text += "]";
  for (d = 0; matches && d < tensor.ndim; ++d) matches = tensor.size[d] >= 0;
  if (!matches) invalid("%s: expected shape %s, got %s", name, text.c_str(), shape_text(tensor).c_str());
  const int64_t count = element_count(tensor);
  if (tensor.data == nullptr && count > 0) invalid("%s: is required (data is NULL)", name);
  const size_t element = molfuse_dtype_size(tensor.dtype);
  if (count > 0 && element > 0 && reinterpret_cast<uintptr_t>(tensor.data) % element != 0) {
    invalid("%s: expected data aligned to its elements of %zu bytes, got %p", name, element, tensor.data);
  }
  // With strides of 0 a tensor may be larger than any memory; sizes in bytes, padded, must still be numbers.
  if (count > kMaxElements) invalid("%s: too many elements, got shape %s", name, shape_text(tensor).c_str());
}

void check_dtype(const char* name, const molfuse_tensor& tensor, std::initializer_list<int32_t> allowed) {
  std::string text;
  for (const int32_t dtype : allowed) {
    if (tensor.dtype == dtype) return;
    const char* const name_of = molfuse_dtype_name(dtype);
    if (text == name_of) continue;  // T or S, and both the same
    if (!text.empty()) text += " or ";
    text += name_of;
  }
  invalid("%s: expected element type %s, got %s", name, text.c_str(), molfuse_dtype_name(tensor.dtype));
}

void check_output(const char* name, const molfuse_tensor& tensor) {
  if (element_count(tensor) == 0) return;
  for (int d = 0; d < tensor.ndim; ++d) {
    if (tensor.size[d] > 1 && tensor.stride[d] == 0) invalid("%s: an output may not be broadcast (stride 0 in dimension %d)", name, d);
  }
}

void check_probability(const char* name, double p) {
  if (!(p >= 0.0 && p < 1.0)) invalid("%s: expected a probability in [0,1), got %g", name, p);
}

void check_finite(const char* name, double value, int32_t dtype) {
  const double most = dtype == MOLFUSE_F64 ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
  if (!(std::fabs(value) <= most)) invalid("%s: expected a finite number, got %g", name, value);
}

void check_pointers(const char* name, const molfuse_tensor& pointers, int64_t total) {
  const int64_t count = pointers.size[0];
  if (count < 1) invalid("%s: expected at least one entry, got %s", name, shape_text(pointers).c_str());
  if (index_at(pointers, 0) != 0) invalid("%s: expected %s[0] = 0, got %lld", name, name, static_cast<long long>(index_at(pointers, 0)));
  int64_t previous = 0;
  for (int64_t n = 1; n < count; ++n) {
    const int64_t next = index_at(pointers, n);
    if (next < previous) {
      invalid("%s: expected ascending entries, got %lld after %lld at position %lld", name, static_cast<long long>(next),
              static_cast<long long>(previous), static_cast<long long>(n));
    }
    previous = next;
  }
  if (previous != total) {
    invalid("%s: expected the last entry to be %lld, got %lld", name, static_cast<long long>(total), static_cast<long long>(previous));
  }
}

}  // namespace molfuse

extern "C" const char* molfuse_last_error(void) { return molfuse::last_error; }

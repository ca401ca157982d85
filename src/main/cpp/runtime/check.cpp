// SPDX-License-Identifier: Apache-2.0
#include "runtime/check.h"

#include <algorithm>
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

uint64_t distance(int64_t stride) { return stride < 0 ? -static_cast<uint64_t>(stride) : static_cast<uint64_t>(stride); }

/// Addresses in 128 bits: sizes times strides may be any number.
using Address = __int128;
struct Bytes {
  Address begin, end;
};

Bytes bytes_of(const molfuse_tensor& tensor) {
  const Address element = static_cast<Address>(molfuse_dtype_size(tensor.dtype));
  Bytes bytes{static_cast<Address>(reinterpret_cast<uintptr_t>(tensor.data)), 0};
  bytes.end = bytes.begin + element;
  for (int d = 0; d < tensor.ndim; ++d) {
    const Address reach = static_cast<Address>(tensor.size[d] - 1) * tensor.stride[d] * element;
    (reach < 0 ? bytes.begin : bytes.end) += reach;
  }
  return bytes;
}

/// Whether an element of a, one-dimensional, shares a byte with one of b.
bool lines_meet(const molfuse_tensor& a, const molfuse_tensor& b) {
  const Address a_element = static_cast<Address>(molfuse_dtype_size(a.dtype)), b_element = static_cast<Address>(molfuse_dtype_size(b.dtype));
  const Address step = b.size[0] > 1 ? static_cast<Address>(distance(b.stride[0])) * b_element : 0, first = bytes_of(b).begin;
  for (int64_t n = 0; n < a.size[0]; ++n) {
    const Address from = static_cast<Address>(reinterpret_cast<uintptr_t>(a.data)) + static_cast<Address>(n) * a.stride[0] * a_element - first;
    // The last element of b that begins before this one of a ends.
    const Address before = from + a_element - 1;
    if (before < 0) continue;
    Address at = step == 0 ? 0 : before / step;
    if (at > b.size[0] - 1) at = b.size[0] - 1;
    if (at * step + b_element > from) return true;
  }
  return false;
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

void check_struct_size(const char* function, const char* name, size_t size, size_t known) {
  // What the caller's version added may not be ignored, and what a random number calls fields may not be memory of his.
  if (size > known) {
    invalid("%s: %s->struct_size is %zu, but molfuse %s knows %zu bytes of it: the caller was compiled with a newer version, or did not set it",
            function, name, size, molfuse_version(), known);
  }
  // Every version's structs end where the next pointer or 64-bit number could begin.
  if (size < sizeof(size_t) || size % alignof(size_t) != 0) {
    invalid("%s: %s->struct_size is not set to the size of the struct, got %zu of %zu", function, name, size, known);
  }
}

molfuse_execution read_execution(const molfuse_execution* execution, const char* function) {
  molfuse_execution copy;
  std::memset(&copy, 0, sizeof copy);
  copy.struct_size = sizeof copy;
  if (execution != nullptr) copy = read_args(execution, function, "execution");
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
  int order[MOLFUSE_MAX_DIMS] = {}, dims = 0;  // by stride, ascending
  for (int d = 0; d < tensor.ndim; ++d) {
    if (tensor.size[d] <= 1) continue;
    if (tensor.stride[d] == 0) invalid("%s: an output may not be broadcast (stride 0 in dimension %d)", name, d);
    int n = dims++;
    for (; n > 0 && distance(tensor.stride[order[n - 1]]) > distance(tensor.stride[d]); --n) order[n] = order[n - 1];
    order[n] = d;
  }
  uint64_t reach = 0;
  for (int n = 0; n < dims; ++n) {
    const uint64_t stride = distance(tensor.stride[order[n]]);
    uint64_t span;
    if (stride <= reach) {
      invalid("%s: elements of an output may not overlap, got stride %lld in dimension %d of %s", name,
              static_cast<long long>(tensor.stride[order[n]]), order[n], shape_text(tensor).c_str());
    }
    if (__builtin_mul_overflow(static_cast<uint64_t>(tensor.size[order[n]]) - 1, stride, &span) || __builtin_add_overflow(reach, span, &reach)) {
      invalid("%s: stride %lld in dimension %d reaches beyond any memory", name, static_cast<long long>(tensor.stride[order[n]]), order[n]);
    }
  }
}

void check_apart(std::initializer_list<NamedTensor> outputs, std::initializer_list<NamedTensor> indices) {
  for (const auto& [output_name, output] : outputs) {
    for (const auto& [index_name, index] : indices) {
      if (!present(output) || !present(index) || element_count(output) == 0 || element_count(index) == 0) continue;
      const Bytes written = bytes_of(output), read = bytes_of(index);
      if (written.end <= read.begin || read.end <= written.begin) continue;
      // Columns of one table, as sources and targets of edges may be, lie between each other.
      if (output.ndim == 1 && index.ndim == 1 && !lines_meet(output, index)) continue;
      invalid("%s: its memory overlaps that of %s", output_name, index_name);
    }
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
  // Entries with a stride of 0 are one, however many.
  const int64_t count = pointers.stride[0] == 0 ? std::min<int64_t>(pointers.size[0], 2) : pointers.size[0];
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

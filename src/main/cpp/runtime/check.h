// SPDX-License-Identifier: Apache-2.0
// Argument checks and the error boundary of the C interface. Failures inside the library are thrown as Error and become a
// status with per-thread text in guard(); nothing is thrown across the C interface or out of a parallel region.
#pragma once

#include <cstdarg>
#include <cstring>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>

#include "molfuse/runtime.h"

namespace molfuse {

struct Error {
  molfuse_status status;
  std::string text;
};

[[noreturn]] __attribute__((format(printf, 1, 2))) void invalid(const char* format, ...);
[[noreturn]] __attribute__((format(printf, 1, 2))) void unsupported(const char* format, ...);

void set_last_error(const char* text) noexcept;

template <class Function>
molfuse_status guard(Function&& function) noexcept {
  try {
    set_last_error("");
    function();
    return MOLFUSE_OK;
  } catch (const Error& error) {
    set_last_error(error.text.c_str());
    return error.status;
  } catch (const std::bad_alloc&) {
    set_last_error("out of memory");
    return MOLFUSE_OUT_OF_MEMORY;
  } catch (const std::length_error&) {  // what containers throw for sizes beyond any memory
    set_last_error("out of memory");
    return MOLFUSE_OUT_OF_MEMORY;
  } catch (...) {
    set_last_error("internal error: unexpected exception");
    return MOLFUSE_INTERNAL_ERROR;
  }
}

/// Throws unless pointer, an argument called name, lies where a T may lie.
template <class T>
void check_aligned(const char* name, const T* pointer) {
  if (reinterpret_cast<uintptr_t>(pointer) % alignof(T) != 0) {
    invalid("%s: expected an address aligned to %zu bytes, got %p", name, alignof(T), static_cast<const void*>(pointer));
  }
}

/// Throws unless a caller's struct of `size` bytes can be one of this version's, of `known` bytes, or of an earlier one's.
void check_struct_size(const char* function, const char* name, size_t size, size_t known);

/// A copy of the caller's struct in this version's layout: fields the caller does not know are zero.
template <class Args>
Args read_args(const Args* args, const char* function, const char* name = "args") {
  if (args == nullptr) invalid("%s: %s is NULL", function, name);
  check_aligned(name, args);
  check_struct_size(function, name, args->struct_size, sizeof(Args));
  Args copy;
  std::memset(static_cast<void*>(&copy), 0, sizeof(Args));
  std::memcpy(static_cast<void*>(&copy), args, args->struct_size);
  return copy;
}

/// The execution to use: defaults for NULL; refuses devices that this build has no kernels for.
molfuse_execution read_execution(const molfuse_execution* execution, const char* function);

/// Throws for a device: the function has no kernel for it.
inline void refuse_device(const molfuse_execution& execution, const char* function) {
  if (execution.device_type != MOLFUSE_CPU) unsupported("%s: there is no CUDA kernel for it", function);
}

inline bool present(const molfuse_tensor& tensor) { return tensor.data != nullptr; }

constexpr int64_t kAny = -1;

std::string shape_text(const molfuse_tensor& tensor);

/// Throws unless tensor has exactly these sizes (kAny matches any). An empty tensor may have NULL data.
void check_shape(const char* name, const molfuse_tensor& tensor, std::initializer_list<int64_t> expected);
/// Throws unless the element type is one of those given.
void check_dtype(const char* name, const molfuse_tensor& tensor, std::initializer_list<int32_t> allowed);
/// Throws for an output two of whose elements could be one: each stride must reach further than all smaller ones together.
void check_output(const char* name, const molfuse_tensor& tensor);
struct NamedTensor {
  const char* name;
  const molfuse_tensor& tensor;
};

/// Throws if an output lies in the memory of an input whose values are addresses of a kind, as lengths and indices are: they are checked
/// before the work, and what is written over them would be numbers that nobody has checked. Absent tensors lie nowhere.
void check_apart(std::initializer_list<NamedTensor> outputs, std::initializer_list<NamedTensor> indices);
/// Throws unless 0 <= p < 1.
void check_probability(const char* name, double p);

/// Throws unless value is finite in the accumulator type of dtype.
void check_finite(const char* name, double value, int32_t dtype);

/// Product of the sizes, INT64_MAX if it is larger than that.
int64_t element_count(const molfuse_tensor& tensor);

/// Element n of a one-dimensional int32 or int64 tensor.
inline int64_t index_at(const molfuse_tensor& tensor, int64_t n) {
  const int64_t at = n * tensor.stride[0];
  return tensor.dtype == MOLFUSE_I32 ? static_cast<const int32_t*>(tensor.data)[at]
                                     : static_cast<const int64_t*>(tensor.data)[at];
}

/// Throws unless pointers[0] = 0, ascending, and the last entry is total.
void check_pointers(const char* name, const molfuse_tensor& pointers, int64_t total);

inline bool is_float(int32_t dtype) { return dtype >= MOLFUSE_F32 && dtype <= MOLFUSE_BF16; }
/// The type statistics and accumulators of values of dtype have.
inline int32_t accumulate_dtype(int32_t dtype) { return dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32; }

}  // namespace molfuse

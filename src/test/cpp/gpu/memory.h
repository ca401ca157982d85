// SPDX-License-Identifier: Apache-2.0
// Memory that the tests and a GPU share, and the stream the tests' calls run on: a test poisons, fills and compares tensors as it does on
// the CPU, and waits for the stream before it looks.
#pragma once

#include <cstddef>

namespace molfuse_test::gpu {

/// Uses the first device. Prints what it is and returns true; or prints why there is none.
bool open();

void* stream();

/// Notes that a call may have been put on the stream.
void begin_call();
/// Waits for the stream if there was a call since the last time. Ends the process on an error of the device: it cannot be used again.
void finish_calls();

void* allocate(size_t bytes);
void release(void* memory);

template <class T>
struct Allocator {
  using value_type = T;
  Allocator() = default;
  template <class U>
  Allocator(const Allocator<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(gpu::allocate(count * sizeof(T))); }
  void deallocate(T* memory, size_t) { release(memory); }
  bool operator==(const Allocator&) const { return true; }
  bool operator!=(const Allocator&) const { return false; }
};

}  // namespace molfuse_test::gpu

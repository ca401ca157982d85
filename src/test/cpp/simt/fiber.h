// SPDX-License-Identifier: Apache-2.0
// Fibers: stacks of execution that give control to each other by name. What the threads of a simulated block run on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

/// A stack and where execution on it stands. The fiber that is made by the default constructor is the caller's own.
class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Prepares to call entry(argument) on stack (its lowest address) at the first switch. entry must never return. What the stack
  /// held before is forgotten, not unwound.
  void prepare(void* stack, size_t bytes, void (*entry)(void*), void* argument);

  /// Leaves `from`, which is running, for `to`.
  static void switch_between(Fiber& from, Fiber& to);

 private:
  static void start();
  void* pointer_ = nullptr;  // of the saved stack
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  // For AddressSanitizer, which must be told of every change of stack.
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;
  size_t size_ = 0;
};

}  // namespace simt

// SPDX-License-Identifier: Apache-2.0
#include "simt/fiber.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>

#include <new>
#endif

namespace simt {
namespace {

// The fibers of the switch that is under way.
Fiber* entering;
Fiber* leaving;

}  // namespace

#if defined(__x86_64__)

// Pushes what the System V ABI wants preserved, stores the stack pointer in *from and goes on at `to`. (swapcontext would do, but makes
// two system calls each time, and a simulated block switches at every shuffle of every thread.)
extern "C" void simt_switch_stack(void** from, void* to);
asm(R"(
.text
.type simt_switch_stack,@function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack,.-simt_switch_stack
)");

#endif

void Fiber::prepare(void* stack, size_t bytes, void (*entry)(void*), void* argument) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, bytes);
#endif
  entry_ = entry;
  argument_ = argument;
  bottom_ = stack;
  size_ = bytes;
  fake_stack_ = nullptr;
#if defined(__x86_64__)
  // Six registers and a return address; start() then finds the stack as after a call: 8 bytes below a multiple of 16.
  auto top = (reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t{15};
  auto* frame = reinterpret_cast<void**>(top) - 8;
  for (int n = 0; n < 6; ++n) frame[n] = nullptr;
  frame[6] = reinterpret_cast<void*>(&Fiber::start);
  frame[7] = nullptr;
  pointer_ = frame;
#else
  static_assert(sizeof(ucontext_t) + 64 < 4096);
  // The context lies at the stack's low end, which is then shorter by a page.
  auto* context = new (stack) ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = static_cast<char*>(stack) + 4096;
  context->uc_stack.ss_size = bytes - 4096;
  context->uc_link = nullptr;
  makecontext(context, &Fiber::start, 0);
  pointer_ = context;
#endif
}

void Fiber::start() {
  Fiber* self = entering;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &leaving->bottom_, &leaving->size_);
#endif
  self->entry_(self->argument_);
  __builtin_trap();
}

void Fiber::switch_between(Fiber& from, Fiber& to) {
  entering = &to;
  leaving = &from;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.size_);
#endif
#if defined(__x86_64__)
  simt_switch_stack(&from.pointer_, to.pointer_);
#else
  static thread_local ucontext_t own;
  if (from.pointer_ == nullptr) from.pointer_ = &own;
  swapcontext(static_cast<ucontext_t*>(from.pointer_), static_cast<ucontext_t*>(to.pointer_));
#endif
#if defined(__SANITIZE_ADDRESS__)
  // The bounds of the caller's own stack, too, are learnt when it is left.
  __sanitizer_finish_switch_fiber(from.fake_stack_, &leaving->bottom_, &leaving->size_);
#endif
}

}  // namespace simt

// SPDX-License-Identifier: Apache-2.0
// A call of the C interface as the fuzzer sees it: a struct of arguments, and what its tensors and numbers mean.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fuzz/choices.h"
#include "molfuse/runtime.h"

namespace molfuse_fuzz {

enum class Role {
  input,
  index,   ///< an input whose values say where to read or write
  output,
  updated  ///< read and written
};

struct Slot {
  std::string name;
  molfuse_tensor* at = nullptr;
  Role role = Role::input;
  int32_t dtype = MOLFUSE_F32;
  std::vector<int64_t> sizes;
  bool dense = false;     ///< the last dimension must have stride 1
  bool required = false;  ///< the call must fail without it, unless it is empty
  bool distinct = false;  ///< no two elements may be one, though it is an input
  bool sizes_only = false;
  bool sole = false;      ///< the only tensor with one of its sizes: a large one is no fault there, but work
  std::function<int64_t(int64_t)> index = nullptr;  ///< of an index tensor: element n
  std::string may_share = "";  ///< the input whose memory it may be
};

struct Number {
  enum Kind { i32, i64, f64 } kind;
  std::string name;
  void* at;
};

struct Call {
  std::string function;
  void* args = nullptr;   ///< the struct, its struct_size first; null for functions that take none
  size_t args_bytes = 0;
  std::shared_ptr<void> keep;
  std::function<molfuse_status(const void* args, const molfuse_execution*)> run;
  std::vector<Slot> slots;
  std::vector<Number> numbers;
  std::function<molfuse_status()> prepare = nullptr;   ///< makes inputs that must go with each other, of views without a fault
  std::function<void(Call&)> settle = nullptr;  ///< after the faults: roles that hang on a number

  Slot& add(const char* name, molfuse_tensor& at, Role role, int32_t dtype, std::vector<int64_t> sizes) {
    Slot slot;
    slot.name = name;
    slot.at = &at;
    slot.role = role;
    slot.dtype = dtype;
    slot.sizes = std::move(sizes);
    slots.push_back(std::move(slot));
    return slots.back();
  }
  Slot* find(const char* name) {
    for (Slot& slot : slots) {
      if (slot.name == name) return &slot;
    }
    return nullptr;
  }
  void number(const char* name, int32_t& at) { numbers.push_back({Number::i32, name, &at}); }
  void number(const char* name, int64_t& at) { numbers.push_back({Number::i64, name, &at}); }
  void number(const char* name, double& at) { numbers.push_back({Number::f64, name, &at}); }
};

/// A valid call of a function that choices names.
Call draw_call(Choices& choices);

/// Draws a call, spoils it or not, makes it and checks what is to be checked. Returns what is wrong; empty: nothing. calls and successes
/// count.
std::string fuzz_once(Choices& choices, uint64_t* calls, uint64_t* successes);

}  // namespace molfuse_fuzz

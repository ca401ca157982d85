// SPDX-License-Identifier: Apache-2.0
#include "runtime/parallel.h"

namespace molfuse {
namespace {

// Large enough for the usual block working sets of a few threads, small enough not to matter when a thread idles with it.
constexpr size_t kKeptBytes = size_t{16} << 20;

struct Pool {
  void* memory = nullptr;
  size_t bytes = 0;
  bool in_use = false;
  ~Pool() { std::free(memory); }
};

thread_local Pool pool;

void* allocate_aligned(size_t bytes) {
  void* memory = std::aligned_alloc(64, align_up(bytes));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

Scratch::Scratch(size_t bytes) : data_(nullptr), pooled_(false) {
  if (bytes == 0) bytes = 1;  // offsets are added to data_, which must not be null for that
  if (bytes > kKeptBytes || pool.in_use) {
    data_ = allocate_aligned(bytes);
    return;
  }
  if (pool.bytes < bytes) {
    std::free(pool.memory);
    pool.memory = nullptr;
    pool.bytes = 0;
    pool.memory = allocate_aligned(bytes);
    pool.bytes = align_up(bytes);
  }
  pool.in_use = true;
  pooled_ = true;
  data_ = pool.memory;
}

Scratch::~Scratch() {
  if (pooled_) {
    pool.in_use = false;
  } else {
    std::free(data_);
  }
}

}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// Parallel loops and per-thread scratch of the CPU backend. Not for cpu_*.cpp files: those hold code per instruction set and
// run inside one task; the loop over tasks is in the family's dispatch file, compiled once.
#pragma once

#include <omp.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "molfuse/runtime.h"

namespace molfuse {

/// Threads to use for `tasks` independent tasks.
inline int thread_count(const molfuse_execution& execution, int64_t tasks) {
  int threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  if (execution.num_threads > 0 && execution.num_threads < threads) threads = execution.num_threads;
  return static_cast<int>(tasks < threads ? (tasks < 1 ? 1 : tasks) : threads);
}

/// Where the caller leaves the number of threads open, no more of them than a call's work is worth: waking a sleeping thread and
/// waiting for it costs some ten microseconds. The estimate, of one thread's time, need be no better than within a factor of two.
inline molfuse_execution with_worthwhile_threads(molfuse_execution execution, double nanoseconds) {
  constexpr double kWorthAThread = 20e3;
  if (execution.num_threads == 0 && nanoseconds < kWorthAThread * 1024) {
    const int threads = static_cast<int>(nanoseconds / kWorthAThread);
    execution.num_threads = threads < 1 ? 1 : threads;
  }
  return execution;
}

/// Scratch memory, 64-byte aligned, kept by the calling thread between calls up to a bound and reused. Contents undefined.
class Scratch {
 public:
  explicit Scratch(size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* at(size_t byte_offset) const { return reinterpret_cast<T*>(static_cast<char*>(data_) + byte_offset); }

 private:
  void* data_;
  bool pooled_;
};

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Tasks to hand out at a time: few enough handings out to cost nothing, enough of them to even out.
inline int64_t chunk_of(int64_t tasks, int threads) {
  const int64_t chunk = tasks / (int64_t{16} * threads);
  return chunk < 1 ? 1 : chunk;
}

inline size_t align_up(size_t bytes) { return (bytes + 63) & ~size_t{63}; }

/// Runs body(task, thread) for each task in 0..tasks-1; tasks are handed out in chunks as threads become free, so body must give
/// the same result on any thread. body must not throw.
template <class Body>
void parallel_tasks(int threads, int64_t tasks, int64_t chunk, Body&& body) {
  if (threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task, 0);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, chunk)
    for (int64_t task = 0; task < tasks; ++task) body(task, thread);
  }
}

}  // namespace molfuse

// SPDX-License-Identifier: Apache-2.0
// A simulated GPU for tests: runs kernels on the host, one block after the other, the threads of a block as fibers in an order that a
// seed decides. It knows the programming model, not the speed: what a kernel may rely on happens, and what it may not rely on happens
// as late, as early and as differently as the model allows, so that a missing barrier or a wrong index gives a wrong result or an
// Error at some seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace simt {

constexpr int kWarp = 32;
constexpr uint32_t kFullMask = 0xFFFFFFFFu;

/// What a kernel did that no device would accept, or whose outcome on a device is undefined.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Dim {
  int x = 1, y = 1, z = 1;
};

/// What the next launches do.
struct Settings {
  uint64_t seed = 1;             ///< of the order of blocks and threads
  size_t max_shared = 99 << 10;  ///< bytes of shared memory a block may have
  int max_threads = 1024;
  int multiprocessors = 4;
};
Settings& settings();

/// Runs body once for every thread of every block. Throws the first Error.
void run(const char* name, Dim grid, int threads, size_t shared_bytes, const std::function<void()>& body);

/// Launches since the last call of reset_launches.
int launches();
void reset_launches();

// ---- for the thread that is running

int thread_index();
int block_threads();
Dim block_index();
Dim grid_size();
/// Dynamic shared memory of the block, poisoned with 0xFF at its start.
void* shared_memory();

[[noreturn]] void fail(const std::string& what);

/// Lets other threads run first, or not. Called at every memory access.
void maybe_yield();

/// Waits until `threads` threads, a multiple of 32, have come to barrier id (0..15).
void barrier(int id, int threads);

/// One lane's part in an operation of its warp. `complete` runs once every lane of mask has come to the same operation with the same
/// mask; it reads in[lane] and writes out[lane].
struct Lanes {
  const void* in[kWarp];
  void* out[kWarp];
};
void warp_operation(const char* name, uint32_t mask, const void* in, void* out, void (*complete)(Lanes&, uint32_t mask));

/// Checks an access of a running thread: aligned, and inside a range of memory that is known (the block's shared memory, or a Memory).
void check_access(const void* at, size_t bytes, size_t alignment, const char* what);
/// As check_access, but in the block's shared memory.
void check_shared(const void* at, size_t bytes, size_t alignment, const char* what);

/// Begins an asynchronous copy, of which `filled` bytes come from `from` and the rest are zero; it happens at some time between now and
/// the wait for its group.
void copy_async(void* to, const void* from, int bytes, int filled);
void commit_copies();
/// Waits until at most `pending` of this thread's committed groups are unfinished.
void wait_copies(int pending);

/// Makes a range of host memory known as device memory while it exists.
class Memory {
 public:
  Memory(const void* begin, size_t bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

 private:
  const void* begin_;
};

}  // namespace simt

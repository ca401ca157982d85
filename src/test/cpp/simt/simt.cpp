// SPDX-License-Identifier: Apache-2.0
#include "simt/simt.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "simt/fiber.h"

namespace simt {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr int kBarriers = 16;

enum class State { runnable, in_barrier, in_warp_operation, done };

struct Copy {
  void* to;
  const void* from;
  int bytes, filled, group;
  bool happened;
};

struct Thread {
  Fiber fiber;
  State state = State::done;
  int index = 0;
  // in_barrier
  int barrier_id = 0;
  // in_warp_operation
  const char* operation = nullptr;
  uint32_t mask = 0;
  const void* in = nullptr;
  void* out = nullptr;
  // asynchronous copies
  std::vector<Copy> copies;
  int groups = 0;
};

struct Barrier {
  int expected = 0, arrived = 0;
};

/// Orders in which a device might run its threads.
enum class Order { random, warp_by_warp, last_first, round_robin };

struct Machine {
  Settings settings;
  std::mt19937_64 random;
  Order order = Order::random;
  std::vector<std::unique_ptr<Thread>> threads;  // of the block; reused
  std::vector<void*> stacks;
  Fiber scheduler;
  Thread* running = nullptr;
  int alive = 0, count = 0;
  Dim grid, block;
  Barrier barriers[kBarriers];
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  const std::function<void()>* body = nullptr;
  const char* name = "";
  bool failed = false;
  std::string failure;
  int launches = 0;
  std::map<uintptr_t, size_t> memory;

  uint64_t below(uint64_t limit) { return random() % limit; }
};

Machine& machine() {
  static Machine m;
  return m;
}

void switch_to_scheduler(Thread& thread) {
  Fiber::switch_between(thread.fiber, machine().scheduler);
}

std::string where(const Thread& thread) {
  const Machine& m = machine();
  return std::string(m.name) + ", block (" + std::to_string(m.block.x) + "," + std::to_string(m.block.y) + "," + std::to_string(m.block.z) +
         "), thread " + std::to_string(thread.index);
}

void run_thread(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  Machine& m = machine();
  try {
    (*m.body)();
    for (const Copy& copy : thread.copies) {
      if (!copy.happened) fail("ends with asynchronous copies that nobody waited for");
    }
  } catch (const std::exception& error) {
    m.failed = true;
    m.failure = error.what();
  }
  thread.state = State::done;
  --m.alive;
  switch_to_scheduler(thread);
}

/// One of the threads that can run, where the order looks at all of them each time.
Thread* choose(const std::vector<Thread*>& runnable) {
  Machine& m = machine();
  if (m.order == Order::last_first) return runnable.back();
  // Warp by warp: stay with the one that ran last as long as one of its lanes can run, so that it gets as far ahead as it may.
  std::vector<Thread*> same;
  for (Thread* thread : runnable) {
    if (m.running != nullptr && thread->index / kWarp == m.running->index / kWarp) same.push_back(thread);
  }
  const std::vector<Thread*>& among = same.empty() ? runnable : same;
  return among[m.below(among.size())];
}

std::string describe_deadlock() {
  const Machine& m = machine();
  std::string text = std::string(m.name) + ", block (" + std::to_string(m.block.x) + "," + std::to_string(m.block.y) + "," +
                     std::to_string(m.block.z) + "): no thread can go on;";
  int shown = 0;
  for (int n = 0; n < m.count && shown < 4; ++n) {
    const Thread& thread = *m.threads[static_cast<size_t>(n)];
    if (thread.state == State::done) continue;
    ++shown;
    text += " thread " + std::to_string(n);
    if (thread.state == State::in_barrier) {
      const Barrier& barrier = m.barriers[thread.barrier_id];
      text += " waits at barrier " + std::to_string(thread.barrier_id) + " (" + std::to_string(barrier.arrived) + " of " +
              std::to_string(barrier.expected) + " threads came);";
    } else {
      char mask[16];
      std::snprintf(mask, sizeof mask, "%08x", thread.mask);
      text += std::string(" waits in ") + thread.operation + " for the lanes of mask " + mask + ";";
    }
  }
  return text;
}

void run_block(const std::function<void()>& body) {
  Machine& m = machine();
  m.body = &body;
  m.alive = m.count;
  m.running = nullptr;
  for (Barrier& barrier : m.barriers) barrier = Barrier{};
  // Of its own on the heap, exactly as long as asked for, so that AddressSanitizer sees plain accesses beyond it.
  std::unique_ptr<unsigned char, void (*)(void*)> shared(nullptr, std::free);
  if (m.shared_bytes > 0) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 128, m.shared_bytes) != 0) throw std::bad_alloc();
    shared.reset(static_cast<unsigned char*>(memory));
    std::memset(shared.get(), 0xFF, m.shared_bytes);
  }
  m.shared = shared.get();
  m.order = static_cast<Order>(m.below(4));
  while (static_cast<int>(m.threads.size()) < m.count) {
    m.threads.push_back(std::make_unique<Thread>());
    void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) throw std::bad_alloc();
    m.stacks.push_back(stack);
  }
  for (int n = 0; n < m.count; ++n) {
    Thread& thread = *m.threads[static_cast<size_t>(n)];
    thread.index = n;
    thread.state = State::runnable;
    thread.copies.clear();
    thread.groups = 0;
    thread.fiber.prepare(m.stacks[static_cast<size_t>(n)], kStackBytes, run_thread, &thread);
  }
  std::vector<Thread*> runnable;
  while (m.alive > 0 && !m.failed) {
    runnable.clear();
    for (int n = 0; n < m.count; ++n) {
      if (m.threads[static_cast<size_t>(n)]->state == State::runnable) runnable.push_back(m.threads[static_cast<size_t>(n)].get());
    }
    if (runnable.empty()) {
      m.failed = true;
      m.failure = describe_deadlock();
      break;
    }
    // Choosing is dear, so all of a list get a turn where the order allows it.
    if (m.order == Order::random || m.order == Order::round_robin) {
      if (m.order == Order::random) std::shuffle(runnable.begin(), runnable.end(), m.random);
      for (Thread* next : runnable) {
        if (m.failed || next->state != State::runnable) continue;
        m.running = next;
        Fiber::switch_between(m.scheduler, next->fiber);
      }
    } else {
      Thread* next = choose(runnable);
      m.running = next;
      Fiber::switch_between(m.scheduler, next->fiber);
    }
  }
  m.running = nullptr;
  m.shared = nullptr;
}

Thread& self() {
  Thread* thread = machine().running;
  if (thread == nullptr) throw Error("a device function was called outside a kernel");
  return *thread;
}

void perform(Copy& copy) {
  if (copy.happened) return;
  copy.happened = true;
  std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.filled));
  std::memset(static_cast<char*>(copy.to) + copy.filled, 0, static_cast<size_t>(copy.bytes - copy.filled));
}

bool inside(const void* at, size_t bytes, const void* begin, size_t length) {
  const auto a = reinterpret_cast<uintptr_t>(at), b = reinterpret_cast<uintptr_t>(begin);
  return a >= b && a - b <= length && bytes <= length - (a - b);
}

void check_alignment(const void* at, size_t bytes, size_t alignment, const char* what) {
  if (reinterpret_cast<uintptr_t>(at) % alignment != 0) {
    fail(std::string(what) + " of " + std::to_string(bytes) + " bytes at an address that is no multiple of " + std::to_string(alignment));
  }
}

}  // namespace

Settings& settings() { return machine().settings; }

int launches() { return machine().launches; }
void reset_launches() { machine().launches = 0; }

void run(const char* name, Dim grid, int threads, size_t shared_bytes, const std::function<void()>& body) {
  Machine& m = machine();
  if (m.running != nullptr) throw Error("a kernel was launched by a kernel");
  m.name = name;
  if (threads < 1 || threads > m.settings.max_threads) throw Error(std::string(name) + ": " + std::to_string(threads) + " threads in a block");
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 || grid.z > 65535) {
    throw Error(std::string(name) + ": a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z));
  }
  if (shared_bytes > m.settings.max_shared) {
    throw Error(std::string(name) + ": " + std::to_string(shared_bytes) + " bytes of shared memory, the block has " +
                std::to_string(m.settings.max_shared));
  }
  ++m.launches;
  m.random.seed(m.settings.seed * 0x9E3779B97F4A7C15ull + static_cast<uint64_t>(m.launches));
  m.grid = grid;
  m.count = threads;
  m.shared_bytes = shared_bytes;
  m.failed = false;
  const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
  std::vector<int64_t> order(static_cast<size_t>(blocks));
  for (int64_t n = 0; n < blocks; ++n) order[static_cast<size_t>(n)] = n;
  std::shuffle(order.begin(), order.end(), m.random);
  for (const int64_t n : order) {
    m.block = {static_cast<int>(n % grid.x), static_cast<int>(n / grid.x % grid.y), static_cast<int>(n / grid.x / grid.y)};
    run_block(body);
    if (m.failed) throw Error(m.failure);
  }
}

int thread_index() { return self().index; }
int block_threads() { return machine().count; }
Dim block_index() { return machine().block; }
Dim grid_size() { return machine().grid; }
void* shared_memory() { return machine().shared; }

void fail(const std::string& what) {
  Machine& m = machine();
  throw Error((m.running != nullptr ? where(*m.running) : std::string("no kernel")) + ": " + what);
}

void maybe_yield() {
  Machine& m = machine();
  if (m.order == Order::last_first || m.below(64) != 0) return;
  switch_to_scheduler(self());
}

void barrier(int id, int threads) {
  Machine& m = machine();
  Thread& thread = self();
  if (id < 0 || id >= kBarriers) fail("barrier " + std::to_string(id) + " does not exist");
  if (threads < 1 || threads > m.count || (threads % kWarp != 0 && threads != m.count)) {
    fail("barrier " + std::to_string(id) + " for " + std::to_string(threads) + " threads");
  }
  Barrier& at = m.barriers[id];
  if (at.arrived > 0 && at.expected != threads) {
    fail("barrier " + std::to_string(id) + " for " + std::to_string(threads) + " threads, others wait at it for " + std::to_string(at.expected));
  }
  at.expected = threads;
  if (++at.arrived < threads) {
    thread.state = State::in_barrier;
    thread.barrier_id = id;
    switch_to_scheduler(thread);
    return;
  }
  at.arrived = 0;
  for (int n = 0; n < m.count; ++n) {
    Thread& other = *m.threads[static_cast<size_t>(n)];
    if (other.state == State::in_barrier && other.barrier_id == id) other.state = State::runnable;
  }
  // Whoever came last need not be the first to go on.
  if (m.below(2) == 0) switch_to_scheduler(thread);
}

void warp_operation(const char* name, uint32_t mask, const void* in, void* out, void (*complete)(Lanes&, uint32_t)) {
  Machine& m = machine();
  Thread& thread = self();
  const int lane = thread.index % kWarp, first = thread.index - lane;
  if ((mask >> lane & 1u) == 0) fail(std::string(name) + ": the calling lane is not in the mask");
  thread.operation = name;
  thread.mask = mask;
  thread.in = in;
  thread.out = out;
  bool everybody = true;
  for (int n = 0; n < kWarp; ++n) {
    if ((mask >> n & 1u) == 0 || n == lane) continue;
    if (first + n >= m.count) fail(std::string(name) + ": lane " + std::to_string(n) + " of the mask does not exist");
    const Thread& other = *m.threads[static_cast<size_t>(first + n)];
    if (other.state == State::done) fail(std::string(name) + ": lane " + std::to_string(n) + " of the mask has returned");
    if (other.state == State::in_warp_operation) {
      if (std::strcmp(other.operation, name) != 0 || other.mask != mask) {
        fail(std::string(name) + ": lane " + std::to_string(n) + " of the mask is in " + other.operation + (other.mask != mask ? " with another mask" : ""));
      }
    } else {
      everybody = false;
    }
  }
  if (!everybody) {
    thread.state = State::in_warp_operation;
    switch_to_scheduler(thread);
    return;
  }
  Lanes lanes{};
  for (int n = 0; n < kWarp; ++n) {
    if ((mask >> n & 1u) == 0) continue;
    Thread& other = *m.threads[static_cast<size_t>(first + n)];
    lanes.in[n] = other.in;
    lanes.out[n] = other.out;
  }
  complete(lanes, mask);
  for (int n = 0; n < kWarp; ++n) {
    if ((mask >> n & 1u) != 0) m.threads[static_cast<size_t>(first + n)]->state = State::runnable;
  }
  if (m.below(2) == 0) switch_to_scheduler(thread);
}

void check_access(const void* at, size_t bytes, size_t alignment, const char* what) {
  Machine& m = machine();
  check_alignment(at, bytes, alignment, what);
  if (inside(at, bytes, m.shared, m.shared_bytes)) return;
  auto after = m.memory.upper_bound(reinterpret_cast<uintptr_t>(at));
  if (after != m.memory.begin()) {
    --after;
    if (inside(at, bytes, reinterpret_cast<const void*>(after->first), after->second)) return;
  }
  fail(std::string(what) + " of " + std::to_string(bytes) + " bytes outside every known range of memory");
}

void check_shared(const void* at, size_t bytes, size_t alignment, const char* what) {
  Machine& m = machine();
  check_alignment(at, bytes, alignment, what);
  if (!inside(at, bytes, m.shared, m.shared_bytes)) {
    const auto offset = static_cast<const unsigned char*>(at) - m.shared;
    fail(std::string(what) + " of " + std::to_string(bytes) + " bytes at offset " + std::to_string(offset) + " of " +
         std::to_string(m.shared_bytes) + " bytes of shared memory");
  }
}

void copy_async(void* to, const void* from, int bytes, int filled) {
  Thread& thread = self();
  check_shared(to, static_cast<size_t>(bytes), static_cast<size_t>(bytes), "asynchronous copy");
  if (filled < 0 || filled > bytes) fail("asynchronous copy fills " + std::to_string(filled) + " of " + std::to_string(bytes) + " bytes");
  if (filled > 0) check_access(from, static_cast<size_t>(filled), static_cast<size_t>(bytes), "asynchronous copy");
  thread.copies.push_back({to, from, bytes, filled, thread.groups, false});
  if (machine().below(2) == 0) {
    perform(thread.copies.back());
  } else {
    std::memset(to, 0xFF, static_cast<size_t>(bytes));
  }
}

void commit_copies() { ++self().groups; }

void wait_copies(int pending) {
  Thread& thread = self();
  size_t kept = 0;
  for (Copy& copy : thread.copies) {
    if (copy.group < thread.groups - pending) {
      perform(copy);
    } else {
      thread.copies[kept++] = copy;
    }
  }
  thread.copies.resize(kept);
}

Memory::Memory(const void* begin, size_t bytes) : begin_(begin) {
  if (bytes > 0) machine().memory[reinterpret_cast<uintptr_t>(begin)] = bytes;
}
Memory::~Memory() { machine().memory.erase(reinterpret_cast<uintptr_t>(begin_)); }

}  // namespace simt

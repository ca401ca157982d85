// SPDX-License-Identifier: Apache-2.0
// Calls of the C interface with random, often wrong arguments. Each must return an error with a text, or the right result, and touch no memory
// but its tensors' elements.
//
//   molfuse_fuzz [--seconds S] [--seed N] [--calls N]     without a seed: by the clock, and printed
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <chrono>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "fuzz/call.h"

// A tensor of 2^48 elements may be asked for; an allocation for it fails here as on any machine. The sanitizer's own operator new would
// end the program instead.
namespace {
constexpr size_t kMostBytes = size_t{1} << 30;
void* allocate_or_null(size_t bytes) noexcept { return bytes > kMostBytes ? nullptr : std::malloc(bytes > 0 ? bytes : 1); }
void* allocate(size_t bytes) {
  void* const memory = allocate_or_null(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
}  // namespace
void* operator new(size_t bytes) { return allocate(bytes); }
void* operator new[](size_t bytes) { return allocate(bytes); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return allocate_or_null(bytes); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return allocate_or_null(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() { return "allocator_may_return_null=1:max_allocation_size_mb=1024"; }

namespace {
constexpr int kSecondsOfACall = 60;  ///< of processor time
volatile uint64_t current;

/// Which call it was: --seed with that number and --calls 1 makes it again.
void name_call() {
  char text[64];
  const int length = std::snprintf(text, sizeof text, "in --seed %" PRIu64 " --calls 1\n", static_cast<uint64_t>(current));
  if (length > 0 && write(STDERR_FILENO, text, static_cast<size_t>(length)) < 0) std::_Exit(1);
}

void on_signal(int signal) {
  name_call();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void watch() {
  const itimerval once = {{0, 0}, {kSecondsOfACall, 0}};
  setitimer(ITIMER_PROF, &once, nullptr);
}
}  // namespace
#if defined(MOLFUSE_SANITIZE)
extern "C" void __sanitizer_set_death_callback(void (*callback)(void));
#endif

int main(int argc, char** argv) {
  double seconds = 20;
  uint64_t seed = 0, most = UINT64_MAX;
  for (int n = 1; n + 1 < argc; n += 2) {
    if (std::strcmp(argv[n], "--seconds") == 0) seconds = std::atof(argv[n + 1]);
    if (std::strcmp(argv[n], "--seed") == 0) seed = std::strtoull(argv[n + 1], nullptr, 0);
    if (std::strcmp(argv[n], "--calls") == 0) most = std::strtoull(argv[n + 1], nullptr, 0);
  }
  using Clock = std::chrono::steady_clock;
  if (seed == 0) seed = static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) | 1;
#if !defined(MOLFUSE_SANITIZE)  // which maps terabytes of shadow
  const rlimit limit = {rlim_t{4} << 30, rlim_t{4} << 30};
  setrlimit(RLIMIT_AS, &limit);
#endif
  std::signal(SIGPROF, on_signal);
#if defined(MOLFUSE_SANITIZE)
  __sanitizer_set_death_callback(name_call);
#else
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, on_signal);
#endif
  std::printf("seed %" PRIu64 "\n", seed);
  std::fflush(stdout);
  const auto begin = Clock::now();
  uint64_t calls = 0, successes = 0;
  for (uint64_t n = 0; n < most && std::chrono::duration<double>(Clock::now() - begin).count() < seconds; ++n) {
    const uint64_t one = seed + n;
    current = one;
    watch();
    molfuse_fuzz::Choices choices(one);
    const std::string wrong = molfuse_fuzz::fuzz_once(choices, &calls, &successes);
    if (!wrong.empty()) {
      std::fprintf(stderr, "--seed %" PRIu64 " --calls 1\n%s\n", one, wrong.c_str());
      return 1;
    }
  }
  std::printf("%" PRIu64 " calls, %" PRIu64 " succeeded\n", calls, successes);
  // A run that refuses everything, or nothing, has tested nothing.
  return calls > 100 && (successes == 0 || successes == calls) ? 1 : 0;
}

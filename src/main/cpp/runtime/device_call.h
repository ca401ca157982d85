// SPDX-License-Identifier: Apache-2.0
// The host's side of a call that runs on a GPU: device, stream, scratch memory, launches, and what kernels report. Implemented over the
// CUDA runtime in device_call.cpp, and for tests over the simulated device in src/test/cpp/simt/device_call.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "molfuse/runtime.h"
#include "runtime/check.h"
#include "runtime/device_error.h"

#if defined(MOLFUSE_SIMT)
#include "simt/simt.h"
#endif

namespace molfuse {

struct DeviceInfo {
  int index;
  int multiprocessors;
  int major, minor;         ///< compute capability
  size_t shared_per_block;  ///< bytes a block may ask for
  size_t total_memory;
  char name[64];
};

/// What there is to say of a device for molfuse_get_device_info, whether it can be used or not.
struct DeviceDescription {
  int count = 0;       ///< of devices
  DeviceInfo info{};   ///< all zero where count is 0
  std::string reason;  ///< why the device cannot be used; empty if it can
  int driver_version = 0, runtime_version = 0;
};
DeviceDescription describe_device(int index);

struct Grid {
  int64_t x = 1, y = 1, z = 1;
};

/// What a kernel found wrong with values that only the device can see.
enum class Fault : uint32_t { none, graph_ptr, row_ptr, edge_index, target, key_lengths, cu_seqlens_q, cu_seqlens_k, lengths };

/// A report fits one word, so that it is read and written whole: fault, value (cut to 24 bits) and position.
constexpr int kReportPositionBits = 36, kReportValueBits = 24;
constexpr int64_t kReportValueLimit = int64_t{1} << (kReportValueBits - 1);

/// Of scratch memory, the caller's too.
constexpr size_t kScratchAlignment = 256;

class DeviceCall {
 public:
  /// Makes the execution's device the current one until the call ends. Throws what an earlier call's kernels reported, if anything.
  DeviceCall(const molfuse_execution& execution, const char* function);
  ~DeviceCall();
  DeviceCall(const DeviceCall&) = delete;
  DeviceCall& operator=(const DeviceCall&) = delete;

  const DeviceInfo& device() const { return *device_; }
  void* stream() const { return execution_.stream; }
  bool allow_tf32() const { return execution_.allow_tf32 != 0; }
  bool deterministic() const { return execution_.deterministic != 0; }

  /// Device memory that is released, in the stream's order, when the call ends, however it ends. Aligned to kScratchAlignment; contents
  /// undefined.
  template <class T>
  T* scratch(int64_t count) {
    return static_cast<T*>(allocate(static_cast<size_t>(count < 1 ? 1 : count) * sizeof(T)));
  }
  /// Sets bytes to zero, in the stream's order.
  void zero(void* at, size_t bytes);
  /// Where kernels of this call report.
  unsigned long long* report() const { return report_; }

  /// Runs calls of another library that may load kernels or allocate, which a stream's capture allows a thread only if it says so.
  void external(const std::function<void()>& calls);

  template <class T>
  struct Same {
    using type = T;
  };
  /// Launches kernel<<<grid, threads, shared>>>; nothing for an empty grid.
  template <class... P>
  void launch(const char* name, void (*kernel)(P...), Grid grid, int threads, size_t shared, typename Same<P>::type... arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    check_launch(name, grid, shared);
#if defined(MOLFUSE_SIMT)
    simulate(name, grid, threads, shared, [&] { kernel(arguments...); });
#else
    void* pointers[] = {static_cast<void*>(const_cast<void*>(static_cast<const void*>(&arguments)))...};
    launch_kernel(name, reinterpret_cast<const void*>(kernel), grid, threads, shared, pointers);
#endif
  }

 private:
  void* allocate(size_t bytes);
  void* allocate_own(size_t bytes);  ///< NULL where there is no memory left
  void release_own(void* memory);
  void release_all();
  void check_launch(const char* name, const Grid& grid, size_t shared) const;
  DeviceErrorContext at(const char* doing) const;
#if defined(MOLFUSE_SIMT)
  void simulate(const char* name, Grid grid, int threads, size_t shared, const std::function<void()>& body);
#else
  void launch_kernel(const char* name, const void* kernel, Grid grid, int threads, size_t shared, void** arguments);
#endif

  molfuse_execution execution_;
  const char* function_;
  const DeviceInfo* device_ = nullptr;
  int previous_device_ = -1;
  unsigned long long* report_ = nullptr;
  std::vector<void*> allocated_;
};

/// In an entry point: if the execution is on a device, runs `function`(problem, call) there and returns. A build without CUDA has
/// refused such an execution before.
#if defined(MOLFUSE_WITH_CUDA)
#define MOLFUSE_ON_DEVICE(execution, name, function, problem)   \
  if ((execution).device_type == MOLFUSE_CUDA) {                \
    DeviceCall molfuse_call((execution), (name));               \
    return function((problem), molfuse_call);                   \
  }
#else
#define MOLFUSE_ON_DEVICE(execution, name, function, problem)
#endif

/// Whether a CUDA device can be used now; if not, reason says why.
bool device_usable(const char** reason);

/// Throws, as an invalid argument, what a report word says; does nothing for 0.
void throw_report(unsigned long long word);

}  // namespace molfuse

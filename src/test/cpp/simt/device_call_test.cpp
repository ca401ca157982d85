// SPDX-License-Identifier: Apache-2.0
// What can go wrong around the kernels, on the simulated device: no memory, failing launches, limits of the device.
#include "runtime/device_call.h"

#include <cstdlib>
#include <map>
#include <memory>

#include "operators.h"
#include "simt/failures.h"

using namespace molfuse_test;

namespace {

/// Calls op with one failure after the other until it meets none, and expects that each leaves nothing behind.
void at_every_failure(Operator& op, int simt::Failures::*which, const std::function<void(molfuse_status)>& check) {
  SCOPED_TRACE(op.function);
  ASSERT_EQ(op.call(here()), MOLFUSE_OK) << molfuse_last_error();
  const std::vector<double> expected = op.results();
  const auto inputs = op.input_bytes();
  int met = 0;
  for (;; ++met) {
    simt::failures().*which = met;
    const molfuse_status status = op.call(here());
    const bool failed = simt::failures().*which < 0;
    simt::failures().*which = -1;
    EXPECT_EQ(simt::scratch_blocks(), 0);
    if (!failed) break;
    check(status);
    EXPECT_EQ(op.input_bytes(), inputs);
    ASSERT_EQ(op.call(here()), MOLFUSE_OK) << molfuse_last_error();
    EXPECT_EQ(op.results(), expected);
  }
  if (which == &simt::Failures::launch) {
    EXPECT_GE(met, 1);
  }
}

TEST(DeviceCall, RunsOutOfMemoryAndGoesOn) {
  for (Operator& op : every_operator()) {
    at_every_failure(op, &simt::Failures::allocation, [&](molfuse_status status) {
      expect_status(status, MOLFUSE_OUT_OF_MEMORY, {op.function.c_str(), "device 0 (simulated)", "out of device memory", "bytes"});
    });
  }
}

TEST(DeviceCall, GoesOnAfterALaunchThatFailed) {
  for (Operator& op : every_operator()) {
    simt::failures().error = 209;
    at_every_failure(op, &simt::Failures::launch, [&](molfuse_status status) {
      expect_status(status, MOLFUSE_UNSUPPORTED, {op.function.c_str(), "device 0 (simulated)", "no machine code for the device"});
    });
  }
}

TEST(DeviceCall, SaysWhyALaunchFailed) {
  const struct {
    int error;
    molfuse_status status;
    const char* part;
  } cases[] = {{2, MOLFUSE_OUT_OF_MEMORY, "out of device memory"},
               {222, MOLFUSE_UNSUPPORTED, "PTX is newer than the driver"},
               {400, MOLFUSE_INVALID_ARGUMENT, "execution->stream"},
               {700, MOLFUSE_INTERNAL_ERROR, "must be started anew"},
               {901, MOLFUSE_INTERNAL_ERROR, "capture into a CUDA graph"},
               {999, MOLFUSE_INTERNAL_ERROR, "a failure that was asked for"}};
  for (Operator& op : every_operator()) {
    for (const auto& expected : cases) {
      simt::failures() = {-1, 0, expected.error};
      expect_status(op.call(here()), expected.status, {op.function.c_str(), "device 0 (simulated)", expected.part});
      EXPECT_EQ(simt::failures().launch, -1);
    }
  }
}

/// An allocator as a caller would provide it.
struct CallersMemory {
  int live = 0, left = -1;
  size_t offset = 0;
  std::map<void*, std::unique_ptr<simt::Memory>> known;

  molfuse_execution execution() {
    molfuse_execution e = *here();
    e.allocator_context = this;
    e.allocate = [](void* context, size_t bytes) -> void* {
      auto& self = *static_cast<CallersMemory*>(context);
      if (self.left >= 0 && self.left-- == 0) return nullptr;
      char* memory = static_cast<char*>(std::aligned_alloc(256, (bytes + 511) / 256 * 256)) + self.offset;
      self.known[memory] = std::make_unique<simt::Memory>(memory, bytes);
      ++self.live;
      return memory;
    };
    e.release = [](void* context, void* memory) {
      auto& self = *static_cast<CallersMemory*>(context);
      self.known.erase(memory);
      std::free(static_cast<char*>(memory) - self.offset);
      --self.live;
    };
    return e;
  }
};

TEST(DeviceCall, TakesScratchMemoryFromTheCaller) {
  int used = 0;
  for (Operator& op : every_operator()) {
    SCOPED_TRACE(op.function);
    ASSERT_EQ(op.call(here()), MOLFUSE_OK) << molfuse_last_error();
    const std::vector<double> expected = op.results();
    for (int left = 0;; ++left) {
      CallersMemory memory;
      memory.left = left;
      const molfuse_execution execution = memory.execution();
      const molfuse_status status = op.call(&execution);
      EXPECT_EQ(memory.live, 0);
      if (memory.left >= 0) {
        EXPECT_EQ(status, MOLFUSE_OK) << molfuse_last_error();
        EXPECT_EQ(op.results(), expected);
        break;
      }
      ++used;
      expect_status(status, MOLFUSE_OUT_OF_MEMORY, {op.function.c_str(), "bytes from execution->allocate"});
    }
  }
  EXPECT_GE(used, 5);
}

TEST(DeviceCall, RefusesScratchMemoryThatIsNotAligned) {
  int refused = 0;
  for (Operator& op : every_operator()) {
    CallersMemory memory;
    memory.offset = 16;
    const molfuse_execution execution = memory.execution();
    if (op.call(&execution) == MOLFUSE_OK) continue;  // needs none
    ++refused;
    expect_invalid(op.call(&execution), {op.function.c_str(), "execution->allocate", "256"});
    EXPECT_EQ(memory.live, 0);
  }
  EXPECT_GE(refused, 3);
}

TEST(DeviceCall, NamesADeviceWithTooLittleSharedMemory) {
  const simt::Settings before = simt::settings();
  int refused = 0;
  for (Operator& op : every_operator()) {
    simt::settings().max_shared = 16;
    const molfuse_status status = op.call(here());
    simt::settings() = before;
    EXPECT_EQ(simt::scratch_blocks(), 0);
    if (status == MOLFUSE_OK) continue;  // needs none
    ++refused;
    expect_status(status, MOLFUSE_UNSUPPORTED, {op.function.c_str(), "device 0 (simulated)", "shared memory", "the device has 16"});
    EXPECT_EQ(op.call(here()), MOLFUSE_OK) << molfuse_last_error();
  }
  EXPECT_GE(refused, 3);
}

TEST(DeviceCall, RefusesDevicesThatThereAreNot) {
  for (Operator& op : every_operator()) {
    for (const int32_t index : {-1, 1, 1000}) {
      molfuse_execution execution = *here();
      execution.device_index = index;
      expect_invalid(op.call(&execution), {op.function.c_str(), "device_index", std::to_string(index).c_str(), "1 devices"});
    }
  }
}

TEST(DeviceCall, DescribesTheDevice) {
  auto info = zeroed<molfuse_device_info>();
  ASSERT_EQ(molfuse_get_device_info(0, &info), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(info.device_count, 1);
  EXPECT_EQ(info.usable, 1);
  EXPECT_STREQ(info.reason, "");
  EXPECT_STREQ(info.name, "simulated");
  EXPECT_EQ(info.compute_major, 9);
  EXPECT_EQ(info.multiprocessors, simt::settings().multiprocessors);
  EXPECT_EQ(info.shared_memory_per_block, static_cast<int64_t>(simt::settings().max_shared));
  expect_invalid(molfuse_get_device_info(1, &info), {"device is 1", "1 devices"});
}

// ---- what CUDA's errors are turned into

molfuse::Error error_of(int number) {
  return molfuse::device_error(number, "cudaErrorName", "its description", {"molfuse_f", "kernel k", 3, "GPU of today"});
}

TEST(DeviceError, NamesFunctionDeviceStepAndError) {
  for (int number = 1; number < 1000; ++number) {
    const molfuse::Error error = error_of(number);
    EXPECT_EQ(error.text.rfind("molfuse_f: device 3 (GPU of today): kernel k: ", 0), 0u) << error.text;
    EXPECT_NE(error.status, MOLFUSE_OK);
    EXPECT_LT(error.text.size(), 700u) << error.text;  // the error text of a thread has 1024
    if (number != molfuse::kDeviceOutOfMemory) {
      EXPECT_NE(error.text.find("cudaErrorName, its description"), std::string::npos) << error.text;
    }
  }
  EXPECT_EQ(molfuse::device_error(46, "n", "d", {"molfuse_f"}).text.rfind("molfuse_f: the device is busy", 0), 0u);
}

TEST(DeviceError, StatusesFollowTheKindOfError) {
  for (const int number : {34, 35, 36, 46, 100, 200, 209, 218, 221, 222, 223, 701, 802, 803, 804}) {
    EXPECT_EQ(error_of(number).status, MOLFUSE_UNSUPPORTED) << number;
  }
  for (const int number : {101, 400}) EXPECT_EQ(error_of(number).status, MOLFUSE_INVALID_ARGUMENT);
  EXPECT_EQ(error_of(2).status, MOLFUSE_OUT_OF_MEMORY);
  for (const int number : {1, 9, 98, 300, 720, 999}) EXPECT_EQ(error_of(number).status, MOLFUSE_INTERNAL_ERROR);
}

TEST(DeviceError, ErrorsThatEndTheProcessSaySo) {
  // Those of which the CUDA runtime's documentation says that the process must be terminated, or that concern the whole device.
  const std::vector<int> all = {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911};
  for (int number = 0; number < 1000; ++number) {
    const bool expected = std::find(all.begin(), all.end(), number) != all.end();
    EXPECT_EQ(molfuse::ends_process(number), expected) << number;
    if (number == 0) continue;
    EXPECT_EQ(error_of(number).text.find("must be started anew") != std::string::npos, expected) << number;
    EXPECT_EQ(error_of(number).text.find("may be the fault of any earlier one") != std::string::npos, expected) << number;
  }
}

TEST(DeviceError, SaysWhyThereIsNoDevice) {
  EXPECT_EQ(molfuse::no_device_text(0, "no error", 13000, 13000), "there is no CUDA device");
  EXPECT_EQ(molfuse::no_device_text(100, "no device", 13000, 13000), "there is no CUDA device");
  EXPECT_EQ(molfuse::no_device_text(35, "old", 0, 13000), "there is no NVIDIA driver");
  EXPECT_EQ(molfuse::no_device_text(35, "old", 12080, 13000), "the NVIDIA driver supports CUDA 12.8, which is older than this build's 13.0");
  EXPECT_EQ(molfuse::no_device_text(999, "unknown error", 13000, 13000), "unknown error");
  EXPECT_NE(molfuse::no_device_text(803, "mismatch", 13000, 13000).find("different versions"), std::string::npos);
}

}  // namespace

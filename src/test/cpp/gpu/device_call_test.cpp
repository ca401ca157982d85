// SPDX-License-Identifier: Apache-2.0
// DeviceCall as it is built for GPUs, over a CUDA runtime that fails on demand. (A failed step of a device's first call is tried again by
// the next, so that many tests take a device of their own.)
#include "runtime/device_call.h"

#include "gpu/fake_cudart.h"
#include "support.h"

using fake_cudart::state;
using namespace molfuse_test;

namespace {

void kernel(int, float*) {}

class DeviceCallTest : public testing::Test {
 protected:
  void SetUp() override { state() = fake_cudart::State(); }
  void TearDown() override {
    EXPECT_EQ(state().device_memory.size(), 0u);
    EXPECT_EQ(state().last_error, cudaSuccess);  // nobody finds our errors
    EXPECT_EQ(state().capture_mode, cudaStreamCaptureModeGlobal);
  }

  /// What an operator does: scratch memory, set to zero, and a launch.
  static molfuse_status call(int device, size_t shared = 64 << 10) {
    auto execution = zeroed<molfuse_execution>();
    execution.device_type = MOLFUSE_CUDA;
    execution.device_index = device;
    execution.stream = &execution;
    return molfuse::guard([&] {
      molfuse::DeviceCall call(execution, "molfuse_f");
      EXPECT_EQ(state().current_device, device);
      float* scratch = call.scratch<float>(100);
      call.zero(scratch, 100 * sizeof(float));
      call.launch("f kernel", kernel, {7, 1, 1}, 128, shared, 3, scratch);
    });
  }
};

TEST_F(DeviceCallTest, LaunchesOnTheDeviceAndStreamThatWereNamed) {
  state().current_device = 2;
  ASSERT_EQ(call(5), MOLFUSE_OK) << molfuse_last_error();
  ASSERT_EQ(state().launches.size(), 1u);
  const fake_cudart::Launch& launch = state().launches[0];
  EXPECT_EQ(launch.device, 5);
  EXPECT_EQ(launch.kernel, reinterpret_cast<const void*>(&kernel));
  EXPECT_EQ(launch.blocks, 7u);
  EXPECT_EQ(launch.threads, 128u);
  EXPECT_EQ(launch.shared, size_t{64} << 10);
  EXPECT_NE(launch.stream, nullptr);
  EXPECT_EQ(state().asked_shared, size_t{200} << 10);  // all there is
  EXPECT_EQ(state().current_device, 2);
  state().asked_shared = 0;
  ASSERT_EQ(call(5, 48 << 10), MOLFUSE_OK);
  EXPECT_EQ(state().asked_shared, 0u);
}

TEST_F(DeviceCallTest, EveryFailingStepIsNamedUndoneAndTriedAgain) {
  const struct {
    const char* function;
    const char* step;
  } steps[] = {{"cudaGetDeviceProperties", "reading its properties"},     {"cudaGetDevice", "asking for the current device"},
               {"cudaSetDevice", "making it the current device"},         {"cudaHostAlloc", "allocating page-locked memory"},
               {"cudaHostGetDevicePointer", "allocating page-locked memory"}, {"cudaMallocAsync", "allocating scratch memory"},
               {"cudaMemsetAsync", "setting memory to zero"},             {"cudaFuncSetAttribute", "f kernel"},
               {"cudaLaunchKernel", "f kernel"}};
  const struct {
    cudaError_t error;
    molfuse_status status;
    const char* text;
  } errors[] = {{cudaErrorMemoryAllocation, MOLFUSE_OUT_OF_MEMORY, "out of device memory"},
                {cudaErrorNoKernelImageForDevice, MOLFUSE_UNSUPPORTED, "no machine code for the device"},
                {cudaErrorIllegalAddress, MOLFUSE_INTERNAL_ERROR, "must be started anew"}};
  int device = 10;
  for (const auto& step : steps) {
    for (const auto& error : errors) {
      SCOPED_TRACE(std::string(step.function) + ", " + error.text);
      state().failing = step.function;
      state().error = error.error;
      expect_status(call(device), error.status, {"molfuse_f: device ", std::to_string(device).c_str(), step.step, error.text});
      EXPECT_EQ(state().failing, "");
      EXPECT_EQ(state().current_device, 0);
      EXPECT_EQ(state().device_memory.size(), 0u);
      EXPECT_EQ(state().last_error, cudaSuccess);
      EXPECT_EQ(state().launches.size(), 0u);
      ASSERT_EQ(call(device), MOLFUSE_OK) << molfuse_last_error();
      EXPECT_EQ(state().launches.size(), 1u);
      state().launches.clear();
      ++device;
    }
  }
  // One word for each device.
  EXPECT_EQ(state().host_memory.size(), static_cast<size_t>(device - 10));
}

TEST_F(DeviceCallTest, AFirstCallMayBeCaptured) {
  state().capturing = true;
  ASSERT_EQ(call(6), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(state().launches.size(), 1u);
}

TEST_F(DeviceCallTest, CallsOfAnotherLibraryMayAllocateInACaptureHoweverTheyEnd) {
  auto execution = zeroed<molfuse_execution>();
  execution.device_type = MOLFUSE_CUDA;
  execution.stream = &execution;
  molfuse::DeviceCall call(execution, "molfuse_f");
  EXPECT_EQ(call.stream(), &execution);
  int calls = 0;
  call.external([&] { calls += state().capture_mode == cudaStreamCaptureModeRelaxed; });
  EXPECT_EQ(calls, 1);
  EXPECT_THROW(call.external([] { throw molfuse::Error{MOLFUSE_INTERNAL_ERROR, "of the library"}; }), molfuse::Error);
  EXPECT_EQ(state().capture_mode, cudaStreamCaptureModeGlobal);
}

TEST_F(DeviceCallTest, SaysWhyThereIsNoDevice) {
  state().count_error = cudaErrorInsufficientDriver;
  state().driver_version = 0;
  expect_status(call(0), MOLFUSE_UNSUPPORTED, {"molfuse_f", "there is no NVIDIA driver"});
  state().driver_version = 12040;
  expect_status(call(0), MOLFUSE_UNSUPPORTED, {"molfuse_f", "supports CUDA 12.4", "older than this build's"});
  state().count_error = cudaErrorNoDevice;
  expect_status(call(0), MOLFUSE_UNSUPPORTED, {"molfuse_f", "there is no CUDA device"});
  state().count_error = cudaErrorLaunchFailure;
  expect_status(call(0), MOLFUSE_INTERNAL_ERROR, {"molfuse_f", "a kernel failed", "must be started anew"});
  state().count_error = cudaSuccess;
  state().devices = 0;
  expect_status(call(0), MOLFUSE_UNSUPPORTED, {"molfuse_f", "there is no CUDA device"});
}

TEST_F(DeviceCallTest, RefusesDevicesThatThereAreNotOrThatAreTooOld) {
  state().devices = 3;
  for (const int device : {-1, 3, 1000}) {
    expect_invalid(call(device), {"molfuse_f", "device_index", std::to_string(device).c_str(), "3 devices"});
  }
  state().devices = 64;
  expect_status(call(fake_cudart::kOldDevice), MOLFUSE_UNSUPPORTED,
                {"molfuse_f: device 60 (Device number 60)", "compute capability is 7.5", "8.0 or newer"});
  EXPECT_EQ(state().current_device, 0);
}

TEST_F(DeviceCallTest, RefusesMoreSharedMemoryThanTheDeviceHas) {
  expect_status(call(7, 201 << 10), MOLFUSE_UNSUPPORTED,
                {"molfuse_f: device 7 (Device number 7): f kernel", "205824 bytes", "the device has 204800"});
  EXPECT_EQ(state().launches.size(), 0u);
}

TEST_F(DeviceCallTest, TheReportOfAnEarlierCallIsThrownOnceAndTheDeviceRestored) {
  auto execution = zeroed<molfuse_execution>();
  execution.device_type = MOLFUSE_CUDA;
  execution.device_index = 8;
  ASSERT_EQ(molfuse::guard([&] {
              molfuse::DeviceCall call(execution, "molfuse_f");
              const auto fault = static_cast<unsigned long long>(molfuse::Fault::target);
              *call.report() = fault << (molfuse::kReportPositionBits + molfuse::kReportValueBits) | 5;
            }),
            MOLFUSE_OK);
  expect_invalid(call(8), {"targets", "position 5"});
  EXPECT_EQ(state().current_device, 0);
  EXPECT_EQ(call(8), MOLFUSE_OK) << molfuse_last_error();
}

TEST_F(DeviceCallTest, DescribesDevices) {
  auto info = zeroed<molfuse_device_info>();
  ASSERT_EQ(molfuse_get_device_info(9, &info), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(info.device_count, 64);
  EXPECT_EQ(info.usable, 1);
  EXPECT_STREQ(info.name, "Device number 9");
  EXPECT_EQ(info.compute_major, 9);
  EXPECT_EQ(info.multiprocessors, 109);
  EXPECT_EQ(info.total_memory, int64_t{80} << 30);
  EXPECT_EQ(info.shared_memory_per_block, 200 << 10);
  EXPECT_EQ(info.driver_version, 13000);
  EXPECT_EQ(info.runtime_version, CUDART_VERSION);
  ASSERT_EQ(molfuse_get_device_info(fake_cudart::kOldDevice, &info), MOLFUSE_OK);
  EXPECT_EQ(info.usable, 0);
  EXPECT_NE(std::string(info.reason).find("7.5"), std::string::npos);
  expect_invalid(molfuse_get_device_info(64, &info), {"device is 64", "64 devices"});
  state().count_error = cudaErrorInsufficientDriver;
  state().driver_version = 12080;
  ASSERT_EQ(molfuse_get_device_info(0, &info), MOLFUSE_OK);
  EXPECT_EQ(info.device_count, 0);
  EXPECT_EQ(info.driver_version, 12080);
  EXPECT_NE(std::string(info.reason).find("supports CUDA 12.8"), std::string::npos);
  EXPECT_STREQ(info.name, "");
}

}  // namespace

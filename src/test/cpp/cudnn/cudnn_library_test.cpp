// SPDX-License-Identifier: Apache-2.0
// libcudnn as it is found: what is wrong with each that cannot be used, and which plans the one of the build's wheel makes, for devices that
// need not be there. What the plans compute is tested on GPUs (attention_device_test.cpp).
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "attention/cudnn_plan.h"
#include "molfuse/runtime.h"
#include "runtime/cudnn_library.h"

namespace {

using namespace molfuse;

CudnnLibrary library_at(const char* where) {
  setenv("MOLFUSE_CUDNN", where, 1);
  return cudnn_library();
}

void expect_unusable(const char* where, int version, const char* reason) {
  const CudnnLibrary library = library_at(where);
  EXPECT_FALSE(library.usable);
  EXPECT_EQ(library.version, version);
  EXPECT_NE(library.reason.find(reason), std::string::npos) << library.reason;
  std::string why;
  EXPECT_EQ(make_cudnn_plan(CudnnPlanKey(), why), nullptr);
  EXPECT_EQ(why, library.reason);
}

// A library that was found is kept, so these come first.
TEST(CudnnLibrary, SaysWhyOneCannotBeUsed) {
  expect_unusable("off", 0, "MOLFUSE_CUDNN is off");
  expect_unusable("/nowhere/libcudnn.so.9", 0, "/nowhere/libcudnn.so.9");
  expect_unusable("/", 0, "//libcudnn.so.9");
  expect_unusable(MOLFUSE_OLD_CUDNN, 90100, "cuDNN 9.1.0 was found, 9.15.1 or a newer 9 is needed");
  expect_unusable(MOLFUSE_NEXT_CUDNN, 100000, "cuDNN 10.0.0 was found");
  expect_unusable(MOLFUSE_BARE_CUDNN, 91900, "lacks cudnnCreate");
}

// Run by CTest a second time, without the library's path: libcudnn would end the process.
TEST(CudnnLibrary, IsNotUsedWithoutCublas) {
  if (*MOLFUSE_WHEEL_CUDNN == '\0') GTEST_SKIP() << "the build has no libcudnn for this platform";
  if (dlopen("libcublasLt.so.13", RTLD_LAZY) != nullptr) GTEST_SKIP() << "there is a libcublasLt";
  expect_unusable(MOLFUSE_WHEEL_CUDNN, 91900, "libcublasLt, which cuDNN 9.19.0 needs, was not found");
}

/// cuDNN's own description of a device, as much as attention's plans ask for.
std::string description(int major) {
  const bool hopper = major == 9;
  return std::string("{\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,\"warpSize\":32,") +
         "\"maxSharedMemoryPerBlock\":49152,\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32," +
         "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,\"supportCoopLaunch\":1," +
         "\"smClockRateKHz\":1410000,\"memClockRateKHz\":1593000,\"l2CacheSize\":41943040,\"totalGlobalMem\":85899345920," +
         "\"driverVer\":13000,\"cudaDeviceId\":0,\"deviceName\":\"described\",\"deviceVer\":" + std::to_string(100 * major) +
         ",\"multiProcessorCount\":" + (hopper ? "132" : "108") + ",\"maxSharedMemoryPerBlockOptin\":" + (hopper ? "232448" : "166912") + "}";
}

struct Shape {
  int64_t queries, keys, dim;
  CudnnMask mask = CudnnMask::none;
  bool padded = false;
  int32_t bias = -1;  // element type
  bool rows_outside = false;  // memory of [B,N,H,D]
};

CudnnPlanKey key_of(const Shape& shape, int major, bool backward, int32_t dtype) {
  CudnnPlanKey key;
  std::memset(static_cast<void*>(&key), 0, sizeof key);
  key.major = major;
  key.multiprocessors = major == 9 ? 132 : 108;
  key.backward = backward;
  key.dtype = dtype;
  key.batch = 2;
  key.heads = 3;
  key.queries = shape.queries;
  key.keys = shape.keys;
  key.dim = shape.dim;
  key.stats = !backward;
  key.padded = shape.padded;
  key.mask = shape.mask;
  key.scale = 0.125;
  const auto strides = [&](int64_t rows, int64_t (&to)[3]) {
    to[0] = key.heads * rows * key.dim;
    to[1] = shape.rows_outside ? key.dim : rows * key.dim;
    to[2] = shape.rows_outside ? key.heads * key.dim : key.dim;
  };
  for (auto* to : {&key.query, &key.out, &key.grad_out, &key.grad_query}) strides(key.queries, *to);
  for (auto* to : {&key.key, &key.value, &key.grad_key, &key.grad_value}) strides(key.keys, *to);
  if (shape.bias >= 0) {
    const int64_t size[4] = {1, key.heads, key.queries, key.keys};
    const int64_t stride[4] = {key.heads * key.queries * key.keys, key.queries * key.keys, key.keys, 1};
    key.bias = 1;
    key.bias_dtype = shape.bias;
    std::copy(size, size + 4, key.bias_size);
    std::copy(stride, stride + 4, key.bias_stride);
  }
  return key;
}

TEST(CudnnLibrary, MakesPlansForEveryKindOfProblem) {
  if (*MOLFUSE_WHEEL_CUDNN == '\0') GTEST_SKIP() << "the build has no libcudnn for this platform";
  const CudnnLibrary library = library_at(MOLFUSE_WHEEL_CUDNN);
  ASSERT_TRUE(library.usable) << library.reason;
  EXPECT_GE(library.version, kLowestCudnn);
  const Shape shapes[] = {
      {64, 64, 64},
      {4, 4, 32},
      {33, 33, 8, CudnnMask::causal, false, -1, true},
      {33, 65, 128, CudnnMask::causal_bottom_right},
      {100, 77, 40, CudnnMask::none, true},
      {100, 100, 40, CudnnMask::causal, true},
      {1, 77, 64},
      {77, 1, 64},
      {64, 101, 64, CudnnMask::none, false, MOLFUSE_F32},
      {64, 64, 64, CudnnMask::causal, true, MOLFUSE_BF16},
      {64, 64, 200},
  };
  for (const int major : {8, 9}) {
    const std::string device = description(major);
    for (const bool backward : {false, true}) {
      for (const Shape& shape : shapes) {
        if (backward && major == 8 && shape.dim > 128) continue;
        const CudnnPlanKey key = key_of(shape, major, backward, shape.bias >= 0 || shape.queries % 3 == 0 ? MOLFUSE_BF16 : MOLFUSE_F16);
        if (key.dtype == MOLFUSE_F16 && shape.bias == MOLFUSE_BF16) continue;
        std::string reason;
        const auto plan = make_cudnn_plan(key, reason, device.c_str());
        EXPECT_NE(plan, nullptr) << "sm_" << 10 * major << (backward ? " backward" : " forward") << " N " << shape.queries << " M " << shape.keys
                                 << " D " << shape.dim << " mask " << static_cast<int64_t>(shape.mask) << ": " << reason;
      }
    }
  }
}

TEST(CudnnLibrary, HasNoPlanForWhatItCannotDo) {
  if (*MOLFUSE_WHEEL_CUDNN == '\0') GTEST_SKIP() << "the build has no libcudnn for this platform";
  ASSERT_TRUE(library_at(MOLFUSE_WHEEL_CUDNN).usable);
  std::string reason;
  EXPECT_EQ(make_cudnn_plan(key_of({64, 64, 200}, 8, true, MOLFUSE_BF16), reason, description(8).c_str()), nullptr);
  EXPECT_EQ(reason.find('\n'), std::string::npos);
  EXPECT_NE(reason.find("cuDNN 9."), std::string::npos) << reason;
  reason.clear();
  EXPECT_EQ(make_cudnn_plan(key_of({64, 64, 12}, 9, false, MOLFUSE_BF16), reason, description(9).c_str()), nullptr);
  EXPECT_NE(reason.find("hidden_dim"), std::string::npos) << reason;
}

}  // namespace

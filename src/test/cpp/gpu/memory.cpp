// SPDX-License-Identifier: Apache-2.0
#include "gpu/memory.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>

namespace molfuse_test::gpu {
namespace {

cudaStream_t stream_of_tests;
bool pending;

void require(const char* doing, cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s (%s)\n", doing, cudaGetErrorString(error), cudaGetErrorName(error));
  std::abort();
}

}  // namespace

bool open() {
  cudaDeviceProp device;
  cudaError_t error = cudaGetDeviceProperties(&device, 0);
  if (error == cudaSuccess && device.managedMemory == 0) error = cudaErrorNotSupported;
  // Beside the default stream, with which it does not synchronise: a kernel on the wrong stream shows.
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream_of_tests, cudaStreamNonBlocking);
  if (error != cudaSuccess) {
    std::fprintf(stderr, "these tests need a GPU with managed memory: %s\n", cudaGetErrorString(error));
    return false;
  }
  std::printf("device 0: %s, compute capability %d.%d\n", device.name, device.major, device.minor);
  return true;
}

void* stream() { return stream_of_tests; }

void begin_call() { pending = true; }

void finish_calls() {
  if (!pending) return;
  require("waiting for the kernels of a test", cudaStreamSynchronize(stream_of_tests));
  pending = false;
}

void* allocate(size_t bytes) {
  finish_calls();
  void* memory = nullptr;
  require("allocating managed memory", cudaMallocManaged(&memory, bytes));
  // compute-sanitizer's initcheck does not know what the host writes.
  require("clearing managed memory", cudaMemsetAsync(memory, 0, bytes, stream_of_tests));
  require("clearing managed memory", cudaStreamSynchronize(stream_of_tests));
  return memory;
}

void release(void* memory) {
  finish_calls();
  require("freeing managed memory", cudaFree(memory));
}

}  // namespace molfuse_test::gpu

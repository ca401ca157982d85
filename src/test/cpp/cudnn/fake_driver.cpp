// SPDX-License-Identifier: Apache-2.0
// A libcuda.so.1 with no device, which takes the code that libcudnn compiles, so that plans can be made where there is no driver.
extern "C" {

constexpr int kSuccess = 0, kNoDevice = 100;

int cuLibraryLoadData(void** library) { return *library = library, kSuccess; }
int cuLibraryGetKernel(void** kernel) { return *kernel = kernel, kSuccess; }
int cuKernelGetFunction(void** function) { return *function = function, kSuccess; }
int cuLibraryUnload() { return kSuccess; }
int cuKernelSetAttribute() { return kSuccess; }
int cuFuncSetAttribute() { return kSuccess; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks) { return *blocks = 1, kSuccess; }
int cuOccupancyMaxPotentialClusterSize(int* size) { return *size = 1, kSuccess; }

#define MOLFUSE_NO_DEVICE(name) \
  int name() { return kNoDevice; }
MOLFUSE_NO_DEVICE(cuInit)
MOLFUSE_NO_DEVICE(cuDriverGetVersion)
MOLFUSE_NO_DEVICE(cuGetProcAddress_v2)
MOLFUSE_NO_DEVICE(cuGetErrorString)
MOLFUSE_NO_DEVICE(cuGetErrorName)
MOLFUSE_NO_DEVICE(cuStreamGetCtx)
MOLFUSE_NO_DEVICE(cuCtxGetCurrent)
MOLFUSE_NO_DEVICE(cuCtxPushCurrent)
MOLFUSE_NO_DEVICE(cuCtxPopCurrent)
MOLFUSE_NO_DEVICE(cuCtxGetLimit)
MOLFUSE_NO_DEVICE(cuDeviceGet)
MOLFUSE_NO_DEVICE(cuDeviceGetCount)
MOLFUSE_NO_DEVICE(cuLibraryLoadFromFile)
MOLFUSE_NO_DEVICE(cuKernelGetAttribute)
MOLFUSE_NO_DEVICE(cuFuncGetAttribute)
MOLFUSE_NO_DEVICE(cuLinkCreate)
MOLFUSE_NO_DEVICE(cuLinkAddData)
MOLFUSE_NO_DEVICE(cuLinkComplete)
MOLFUSE_NO_DEVICE(cuLinkDestroy)
MOLFUSE_NO_DEVICE(cuModuleLoadData)
MOLFUSE_NO_DEVICE(cuModuleLoadDataEx)
MOLFUSE_NO_DEVICE(cuModuleUnload)
MOLFUSE_NO_DEVICE(cuModuleGetFunction)
MOLFUSE_NO_DEVICE(cuModuleGetGlobal)
MOLFUSE_NO_DEVICE(cuLaunchKernel)
MOLFUSE_NO_DEVICE(cuLaunchKernelEx)
MOLFUSE_NO_DEVICE(cuLaunchCooperativeKernel)
MOLFUSE_NO_DEVICE(cuTensorMapEncodeTiled)
MOLFUSE_NO_DEVICE(cuTensorMapEncodeIm2col)

}  // extern "C"

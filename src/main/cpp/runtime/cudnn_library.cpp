// SPDX-License-Identifier: Apache-2.0
// The functions of libcudnn that this library and the graph interface's headers call, as forwards to the library that was found. The headers
// have a loading mode of their own, which also looks for a shared libcudart; libmolfuse holds a static one.
#include "runtime/cudnn_library.h"

#if defined(MOLFUSE_WITH_CUDNN)
#include <cudnn.h>
#include <dlfcn.h>
#include <sys/stat.h>

#include <cstdlib>
#include <mutex>
#endif

namespace molfuse {

std::string cudnn_version_text(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100);
}

#if defined(MOLFUSE_WITH_CUDNN)
namespace {

#define MOLFUSE_CUDNN_FUNCTIONS(X)                                                                                       \
  X(cudnnGetVersion) X(cudnnCreate) X(cudnnDestroy) X(cudnnSetStream) X(cudnnGetStream) X(cudnnGetErrorString)             \
  X(cudnnGetLastErrorString) X(cudnnBackendCreateDescriptor) X(cudnnBackendDestroyDescriptor) X(cudnnBackendFinalize)      \
  X(cudnnBackendSetAttribute) X(cudnnBackendGetAttribute) X(cudnnBackendExecute)

struct Functions {
#define X(name) decltype(&::name) name = nullptr;
  MOLFUSE_CUDNN_FUNCTIONS(X)
#undef X
};

Functions functions;  // written once, before the first plan can be asked for

void* open(std::string& reason) {
  const char* wish = std::getenv("MOLFUSE_CUDNN");
  if (wish == nullptr || *wish == '\0') {
    // Two copies in a process would hold two sets of kernels.
    if (void* loaded = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_NOLOAD)) return loaded;
    if (void* found = dlopen("libcudnn.so.9", RTLD_NOW)) return found;
    reason = "libcudnn.so.9 was not found (MOLFUSE_CUDNN can name it)";
    return nullptr;
  }
  std::string path = wish;
  if (path == "off") {
    reason = "MOLFUSE_CUDNN is off";
    return nullptr;
  }
  struct stat entry;
  if (stat(wish, &entry) == 0 && S_ISDIR(entry.st_mode)) path += "/libcudnn.so.9";
  void* found = dlopen(path.c_str(), RTLD_NOW);
  if (found == nullptr) {
    const char* error = dlerror();
    reason = std::string("MOLFUSE_CUDNN: ") + (error != nullptr ? error : path.c_str());
  }
  return found;
}

/// libcudnn ends the process where it does not find libcublasLt, at the first plan. It looks where the loader does, and in the folders that
/// the wheels of both are unpacked to. Left open, so that it finds the same.
bool has_cublas() {
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    if (dlopen(name, RTLD_LAZY) != nullptr) return true;
  }
  return false;
}

bool has_cublas_beside(void* library) {
  Dl_info where;
  if (dladdr(dlsym(library, "cudnnGetVersion"), &where) == 0 || where.dli_fname == nullptr) return false;
  const std::string file = where.dli_fname, folder = file.substr(0, file.rfind('/') + 1);
  for (const char* other : {"", "../../cublas/lib/", "../../cu13/lib/"}) {
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
      if (dlopen((folder + other + name).c_str(), RTLD_LAZY) != nullptr) return true;
    }
  }
  return false;
}

CudnnLibrary look() {
  CudnnLibrary result;
  void* library = open(result.reason);
  if (library == nullptr) return result;
  Functions found;
  const char* missing = nullptr;
#define X(name)                                                                 \
  found.name = reinterpret_cast<decltype(&::name)>(dlsym(library, #name));       \
  if (found.name == nullptr && missing == nullptr) missing = #name;
  MOLFUSE_CUDNN_FUNCTIONS(X)
#undef X
  if (found.cudnnGetVersion != nullptr) result.version = static_cast<int>(found.cudnnGetVersion());
  if (result.version != 0 && (result.version < kLowestCudnn || result.version >= 100000)) {
    result.reason = "cuDNN " + cudnn_version_text(result.version) + " was found, " + cudnn_version_text(kLowestCudnn) + " or a newer 9 is needed";
  } else if (missing != nullptr) {
    result.reason = std::string("the libcudnn that was found lacks ") + missing;
  } else if (!has_cublas() && !has_cublas_beside(library)) {
    result.reason = "libcublasLt, which cuDNN " + cudnn_version_text(result.version) + " needs, was not found";
  } else {
    functions = found;
    result.usable = true;
  }
  if (!result.usable) dlclose(library);
  return result;
}

}  // namespace

CudnnLibrary cudnn_library() {
  static std::mutex mutex;
  static CudnnLibrary known;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!known.usable) known = look();
  return known;
}

}  // namespace molfuse

using molfuse::functions;

size_t cudnnGetVersion(void) { return functions.cudnnGetVersion(); }
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) { return functions.cudnnCreate(handle); }
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return functions.cudnnDestroy(handle); }
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) { return functions.cudnnSetStream(handle, stream); }
cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) { return functions.cudnnGetStream(handle, stream); }
const char* cudnnGetErrorString(cudnnStatus_t status) { return functions.cudnnGetErrorString(status); }
void cudnnGetLastErrorString(char* message, size_t size) { functions.cudnnGetLastErrorString(message, size); }
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
  return functions.cudnnBackendCreateDescriptor(type, descriptor);
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) { return functions.cudnnBackendDestroyDescriptor(descriptor); }
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) { return functions.cudnnBackendFinalize(descriptor); }
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                       int64_t count, const void* elements) {
  return functions.cudnnBackendSetAttribute(descriptor, name, type, count, elements);
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                       int64_t asked, int64_t* count, void* elements) {
  return functions.cudnnBackendGetAttribute(descriptor, name, type, asked, count, elements);
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t variants) {
  return functions.cudnnBackendExecute(handle, plan, variants);
}
#else

CudnnLibrary cudnn_library() {
  CudnnLibrary none;
  none.reason = "this build has no cuDNN backend";
  return none;
}

}  // namespace molfuse
#endif

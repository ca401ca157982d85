# libmolfuse_torch: libtorch operators over libmolfuse. Headers from the PyPI wheel, libraries from the bytedeco preset.
# Nothing of CUDA is linked: the library must load beside the CPU and the GPU build of libtorch alike.
# With MOLFUSE_TORCH_ROOT, both from that PyTorch installation instead (its folder `torch`): a library for torch.ops.load_library there.
set(MOLFUSE_TORCH_ROOT "" CACHE PATH "Folder of an installed PyTorch to build libmolfuse_torch for; empty: the preset's libtorch")
if(MOLFUSE_TORCH_ROOT)
  set(MOLFUSE_TORCH_INCLUDE "${MOLFUSE_TORCH_ROOT}/include" "${MOLFUSE_TORCH_ROOT}/include/torch/csrc/api/include")
  set(MOLFUSE_PRESET_LIBRARIES "${MOLFUSE_TORCH_ROOT}/lib")
else()
  molfuse_provide(headers libraries)
endif()

# libtorch's headers do not pass -Wextra, hence SYSTEM. The C++ ABI is libstdc++'s current one, as in both the wheel and the preset.
add_library(molfuse_libtorch INTERFACE)
target_include_directories(molfuse_libtorch SYSTEM INTERFACE ${MOLFUSE_TORCH_INCLUDE})
# Error texts of its headers name them: relative to their folder, wherever the cache is.
list(GET MOLFUSE_TORCH_INCLUDE 0 torch_include)
target_compile_options(molfuse_libtorch INTERFACE "-ffile-prefix-map=${torch_include}/=")
target_link_directories(molfuse_libtorch INTERFACE ${MOLFUSE_PRESET_LIBRARIES})
target_link_libraries(molfuse_libtorch INTERFACE
  "${MOLFUSE_PRESET_LIBRARIES}/libtorch_cpu.so" "${MOLFUSE_PRESET_LIBRARIES}/libc10.so")
# libtorch_cpu.so itself needs OpenBLAS, which the process brings along; the linker need not see it.
target_link_options(molfuse_libtorch INTERFACE -Wl,--allow-shlib-undefined "-Wl,-rpath-link,${MOLFUSE_PRESET_LIBRARIES}")

file(GLOB torch_sources CONFIGURE_DEPENDS torch/*.cpp)
add_library(molfuse_torch SHARED ${torch_sources})
target_include_directories(molfuse_torch PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
target_compile_options(molfuse_torch PRIVATE -O2 -Wall -Wextra -Werror)
target_compile_definitions(molfuse_torch PRIVATE MOLFUSE_VERSION="${MOLFUSE_VERSION_TEXT}")
target_link_libraries(molfuse_torch PRIVATE molfuse molfuse_libtorch OpenMP::OpenMP_CXX)
target_link_options(molfuse_torch PRIVATE -Wl,--no-undefined)
set_target_properties(molfuse_torch PROPERTIES JOB_POOL_COMPILE heavy)
# Reading libtorch's headers is half the time of compiling such a file. (ccache has means of its own, and dislikes these.)
if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
  target_precompile_headers(molfuse_torch PRIVATE <ATen/ATen.h> <torch/library.h> <torch/csrc/autograd/custom_function.h>)
endif()

# SPDX-License-Identifier: Apache-2.0
# CUDA sources (*.cu) are compiled by nvcc: the system's CUDA 13, or the one from PyPI's wheels. Not through CMake's CUDA language: it
# wants a whole toolkit at configure time and links every target through nvcc, for what is a handful of objects.
set(MOLFUSE_CUDA AUTO CACHE STRING "CUDA kernels in libmolfuse: ON, OFF, or AUTO (where there is an NVIDIA GPU)")
set_property(CACHE MOLFUSE_CUDA PROPERTY STRINGS ON OFF AUTO)
option(MOLFUSE_CUDNN "With CUDA kernels: cuDNN as another backend of attention; its headers are fetched, the library is looked for at run time" ON)
set(MOLFUSE_CUDNN_INCLUDE "" CACHE PATH "Folders of cuDNN's headers and of cudnn-frontend's; empty: those of PyPI's wheels")
set(MOLFUSE_CUDA_ARCHITECTURES "80;90" CACHE STRING "Compute capabilities to hold machine code for; PTX of the last one serves newer ones")

set(MOLFUSE_WITH_CUDA OFF)
if(MOLFUSE_CUDA STREQUAL "AUTO")
  if(EXISTS /proc/driver/nvidia/version OR EXISTS /dev/nvidiactl)
    set(MOLFUSE_WITH_CUDA ON)
  endif()
elseif(MOLFUSE_CUDA)
  set(MOLFUSE_WITH_CUDA ON)
endif()
if(MOLFUSE_SANITIZE)
  # Device code is sanitized as the simulated device runs it (src/test/cpp/simt).
  set(MOLFUSE_WITH_CUDA OFF)
endif()
message(STATUS "CUDA kernels: ${MOLFUSE_WITH_CUDA}")
if(NOT MOLFUSE_WITH_CUDA)
  return()
endif()

molfuse_provide(cuda)
if(MOLFUSE_CUDNN AND NOT MOLFUSE_CUDNN_INCLUDE)
  molfuse_provide(cudnn)
endif()
set(MOLFUSE_CUDA_FLAGS -std=c++${MOLFUSE_CXX_STANDARD} -O3 --expt-relaxed-constexpr -Werror all-warnings
  -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Werror,-fno-math-errno
  -DMOLFUSE_WITH_CUDA "-I${PROJECT_SOURCE_DIR}/src/main/cpp/include" "-I${PROJECT_SOURCE_DIR}/src/main/cpp")
foreach(architecture IN LISTS MOLFUSE_CUDA_ARCHITECTURES)
  list(APPEND MOLFUSE_CUDA_FLAGS "-gencode=arch=compute_${architecture},code=sm_${architecture}")
  set(newest "${architecture}")
endforeach()
list(APPEND MOLFUSE_CUDA_FLAGS "-gencode=arch=compute_${newest},code=compute_${newest}")

# molfuse_cuda_objects(RESULT SOURCE...): RESULT gets the object files.
function(molfuse_cuda_objects result)
  set(objects "")
  foreach(source IN LISTS ARGN)
    get_filename_component(name "${source}" NAME)
    set(object "${PROJECT_BINARY_DIR}/cuda/${name}.o")
    add_custom_command(OUTPUT "${object}"
      COMMAND "${Python3_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/scripts/build/cuda_compile.py" --nvcc "${MOLFUSE_NVCC}"
        --output "${object}" --depfile "${object}.d" "${source}" ${MOLFUSE_CUDA_FLAGS}
      DEPENDS "${source}" "${PROJECT_SOURCE_DIR}/scripts/build/cuda_compile.py"
      DEPFILE "${object}.d"
      COMMENT "Building CUDA object ${name}.o" VERBATIM)
    list(APPEND objects "${object}")
  endforeach()
  set(${result} "${objects}" PARENT_SCOPE)
endfunction()
file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/cuda")

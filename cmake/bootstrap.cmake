# molfuse_provide(ITEM...): finds or fetches things through scripts/build/bootstrap.py and sets its variables in the caller.
set(MOLFUSE_MAVEN_REPOSITORY "" CACHE PATH "Local Maven repository to look for jars in first; empty: the default one")

function(molfuse_provide)
  set(arguments "")
  if(MOLFUSE_MAVEN_REPOSITORY)
    set(arguments --maven-repository "${MOLFUSE_MAVEN_REPOSITORY}")
  endif()
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/scripts/build/bootstrap.py" ${arguments} --format cmake ${ARGN}
    OUTPUT_FILE "${PROJECT_BINARY_DIR}/bootstrap.cmake"
    RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "Could not provide: ${ARGN} (the reason is above)")
  endif()
  include("${PROJECT_BINARY_DIR}/bootstrap.cmake")
  foreach(name IN ITEMS MOLFUSE_TORCH_INCLUDE MOLFUSE_PRESET_LIBRARIES MOLFUSE_OPENBLAS_LIBRARIES MOLFUSE_PRESET_CLASSPATH MOLFUSE_GOOGLETEST_SOURCE
      MOLFUSE_NVCC MOLFUSE_CUDA_INCLUDE MOLFUSE_CUDART MOLFUSE_CUOBJDUMP MOLFUSE_CUDNN_INCLUDE MOLFUSE_CUDNN_LIBRARIES)
    if(DEFINED ${name})
      set(${name} "${${name}}" PARENT_SCOPE)
    endif()
  endforeach()
  set_property(DIRECTORY "${PROJECT_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    "${PROJECT_SOURCE_DIR}/scripts/build/bootstrap.py" "${PROJECT_SOURCE_DIR}/requirements-build.txt")
endfunction()

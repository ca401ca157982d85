# SPDX-License-Identifier: Apache-2.0
# cmake --install: headers, libraries, find_package(molfuse), pkg-config; and the tests that use them as another project would.
include(CMakePackageConfigHelpers)

set(libraries molfuse)
if(MOLFUSE_TORCH)
  list(APPEND libraries molfuse_torch)
endif()
set_target_properties(${libraries} PROPERTIES INSTALL_RPATH "$ORIGIN" BUILD_WITH_INSTALL_RPATH ON)
# Before 1.0 a minor version may change the C interface. The jar holds plain files side by side, and no other version ever meets them.
if(NOT MOLFUSE_JNI)
  set_target_properties(${libraries} PROPERTIES
    VERSION "${PROJECT_VERSION}" SOVERSION "${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}")
endif()

set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/molfuse")
install(TARGETS molfuse EXPORT molfuseTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT molfuseTargets NAMESPACE molfuse:: DESTINATION ${package_folder})
install(DIRECTORY include/molfuse DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(MOLFUSE_TORCH)
  # Targets of their own, which are read only where they are asked for. molfuse_libtorch is not among them: the libtorch is that of the
  # program, which a package file cannot name.
  install(TARGETS molfuse_torch EXPORT molfuseTorchTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(FILES torch/molfuse_torch.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/molfuse)
  install(FILES "${PROJECT_SOURCE_DIR}/src/main/python/molfuse_torch.py" DESTINATION ${CMAKE_INSTALL_LIBDIR})
  set_target_properties(molfuse_torch PROPERTIES EXPORT_NAME torch)
  target_include_directories(molfuse_torch INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  install(EXPORT molfuseTorchTargets NAMESPACE molfuse:: DESTINATION ${package_folder})
endif()
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/molfuseConfig.cmake.in" "${PROJECT_BINARY_DIR}/molfuseConfig.cmake"
  INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file("${PROJECT_BINARY_DIR}/molfuseConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/molfuseConfig.cmake" "${PROJECT_BINARY_DIR}/molfuseConfigVersion.cmake"
  DESTINATION ${package_folder})

# Paths from the folder of the .pc file, so that the installed tree may be moved; an absolute libdir or includedir stays what it is.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(pc_prefix "${CMAKE_INSTALL_PREFIX}")
else()
  file(RELATIVE_PATH up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" up "${up}")
  set(pc_prefix "\${pcfiledir}/${up}")
endif()
foreach(name IN ITEMS LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${name}}")
    set(pc_${name} "${CMAKE_INSTALL_${name}}")
  else()
    set(pc_${name} "\${prefix}/${CMAKE_INSTALL_${name}}")
  endif()
endforeach()
configure_file("${PROJECT_SOURCE_DIR}/cmake/molfuse.pc.in" "${PROJECT_BINARY_DIR}/molfuse.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/molfuse.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# ---- held by tests

if(NOT MOLFUSE_TESTS)
  return()
endif()
set(parts kernels)
if(MOLFUSE_TORCH)
  list(APPEND parts torch)
endif()
add_test(NAME install COMMAND "${Python3_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/cmake/check_install.py" --cmake "${CMAKE_COMMAND}"
  --generator "${CMAKE_GENERATOR}" --make-program "${CMAKE_MAKE_PROGRAM}" --build "${PROJECT_BINARY_DIR}"
  --libdir "${CMAKE_INSTALL_LIBDIR}" --includedir "${CMAKE_INSTALL_INCLUDEDIR}" --version "${PROJECT_VERSION}"
  --cxx "${CMAKE_CXX_COMPILER}" --readelf "${CMAKE_READELF}" --soname $<TARGET_SONAME_FILE_NAME:molfuse> --parts ${parts}
  "--flags=$<$<BOOL:${MOLFUSE_SANITIZE}>:-fsanitize=address,undefined>")
# 77: a tool that only this test needs is not there.
set_tests_properties(install PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77)
if(CMAKE_NM AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  add_test(NAME abi COMMAND "${Python3_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/cmake/check_abi.py" --nm "${CMAKE_NM}"
    --library $<TARGET_FILE:molfuse> --cxx "${CMAKE_CXX_COMPILER}" --include "${CMAKE_CURRENT_SOURCE_DIR}/include"
    --list "${CMAKE_CURRENT_SOURCE_DIR}/abi.tsv")
endif()

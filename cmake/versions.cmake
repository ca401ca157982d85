# What the native build relies on. Versions of Maven artifacts (libtorch's libraries among them) are in pom.xml, those of
# Python packages (libtorch's headers, build tools) in requirements-build.txt.
set(MOLFUSE_CXX_STANDARD 17)
set(MOLFUSE_GOOGLETEST_MINIMUM 1.10)
# The compiler whose numbers src/main/cpp/kernels.tsv holds.
set(MOLFUSE_KERNEL_TABLE_CUDA 13.0)

# The project's own version is pom.xml's. CMake's numbers cannot carry a suffix such as -SNAPSHOT; molfuse_version() does.
file(READ "${CMAKE_CURRENT_LIST_DIR}/../pom.xml" pom)
string(REGEX MATCH "<artifactId>molfuse</artifactId>[ \t\r\n]*<version>(([0-9]+\\.[0-9]+\\.[0-9]+)[^<]*)</version>" found "${pom}")
if(NOT found)
  message(FATAL_ERROR "pom.xml: no <version>major.minor.patch</version> after <artifactId>molfuse</artifactId>")
endif()
set(MOLFUSE_VERSION_TEXT "${CMAKE_MATCH_1}")
set(MOLFUSE_VERSION_NUMBER "${CMAKE_MATCH_2}")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/../pom.xml")
unset(pom)
unset(found)

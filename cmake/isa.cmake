# Kernel sources named cpu_*.cpp are compiled once per instruction set, each copy in its own namespace (MOLFUSE_ISA) and with its
# own vector width; runtime/cpu_level.h chooses among the copies at run time.
option(MOLFUSE_EMULATE_AVX512 "Compile the 64-byte copies for AVX2, to test their logic on machines without AVX-512" OFF)

set(MOLFUSE_ISA_baseline_BYTES 16)
set(MOLFUSE_ISA_avx2_BYTES 32)
set(MOLFUSE_ISA_avx512_BYTES 64)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
  set(MOLFUSE_ISAS baseline avx2 avx512)
  set(MOLFUSE_ISA_baseline_FLAGS -march=x86-64)
  set(MOLFUSE_ISA_avx2_FLAGS -mavx2 -mfma -mf16c -mbmi2 -mtune=generic)
  set(MOLFUSE_ISA_avx512_FLAGS -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mbmi2 -mprefer-vector-width=512)
  if(MOLFUSE_EMULATE_AVX512)
    set(MOLFUSE_ISA_avx512_FLAGS ${MOLFUSE_ISA_avx2_FLAGS})
  endif()
else()
  set(MOLFUSE_ISAS baseline)
  set(MOLFUSE_ISA_baseline_FLAGS "")
endif()

# molfuse_isa_objects(RESULT usage SOURCE...): one object library per instruction set, compiled with the usage requirements of
# the interface library `usage`; RESULT gets their names.
function(molfuse_isa_objects result usage)
  set(names "")
  foreach(isa IN LISTS MOLFUSE_ISAS)
    set(name molfuse_${isa})
    add_library(${name} OBJECT ${ARGN})
    target_link_libraries(${name} PRIVATE ${usage})
    target_compile_definitions(${name} PRIVATE MOLFUSE_ISA=${isa} MOLFUSE_VECTOR_BYTES=${MOLFUSE_ISA_${isa}_BYTES})
    target_compile_options(${name} PRIVATE ${MOLFUSE_ISA_${isa}_FLAGS})
    list(APPEND names ${name})
  endforeach()
  set(${result} "${names}" PARENT_SCOPE)
endfunction()

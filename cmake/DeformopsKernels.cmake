# The kernels: objects that know no torch. Out: DEFORMOPS_KERNEL_OBJECTS.

add_library(deformops_settings INTERFACE)
target_include_directories(deformops_settings INTERFACE ${PROJECT_SOURCE_DIR}/csrc)
# Messages name a file by its path in the checkout, not by where the building machine has it. The last map that fits
# counts: a build folder inside the checkout is no part of a name.
set(relative_paths -ffile-prefix-map=${PROJECT_SOURCE_DIR}/=)
target_compile_options(deformops_settings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-ffunction-sections;-fdata-sections;${relative_paths};-ffile-prefix-map=${CMAKE_BINARY_DIR}=.>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,${relative_paths}>)

set(DEFORMOPS_KERNEL_OBJECTS "")
macro(deformops_add_kernels name)
  add_library(${name} OBJECT ${ARGN})
  target_compile_features(${name} PRIVATE cxx_std_17)
  target_link_libraries(${name} PRIVATE deformops_settings)
  list(APPEND DEFORMOPS_KERNEL_OBJECTS $<TARGET_OBJECTS:${name}>)
endmacro()

file(GLOB cpu_sources CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/csrc/core/*.cpp ${PROJECT_SOURCE_DIR}/csrc/geometry/*.cpp
  ${PROJECT_SOURCE_DIR}/csrc/kernels/*.cpp ${PROJECT_SOURCE_DIR}/csrc/kernels/cpu/*.cpp)
file(GLOB isa_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/kernels/cpu/*.isa.cpp)
list(FILTER cpu_sources EXCLUDE REGEX "\\.isa\\.cpp$")
if(cpu_sources)
  deformops_add_kernels(deformops_cpu ${cpu_sources})
endif()

# *.isa.cpp is compiled once per instruction set; the one to run is chosen when the library runs. Weakest first:
# should two of these objects share an inline function after all, the linker takes the first one, which runs everywhere.
set(DEFORMOPS_ISAS portable)
set(isa_flags_portable "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND DEFORMOPS_ISAS avx2 avx512)
  set(isa_flags_avx2 -mavx2 -mfma -mf16c)
  set(isa_flags_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512)
endif()
if(isa_sources)
  foreach(isa IN LISTS DEFORMOPS_ISAS)
    deformops_add_kernels(deformops_isa_${isa} ${isa_sources})
    # Multiply and add in one instruction, whatever the compiler's default for standard C++ is.
    target_compile_options(deformops_isa_${isa} PRIVATE -ffp-contract=fast ${isa_flags_${isa}})
    target_compile_definitions(deformops_isa_${isa} PRIVATE DEFORMOPS_ISA=${isa})
  endforeach()
endif()

if(DEFORMOPS_WITH_CUDA)
  deformops_add_kernels(deformops_cuda ${cuda_sources})
  # What each kernel takes of a multiprocessor is kept beside its object, for `python -m benchmarks kernels`.
  target_compile_options(deformops_cuda PRIVATE -Xptxas=-v)
  set_target_properties(deformops_cuda PROPERTIES CUDA_COMPILER_LAUNCHER
    "${CMAKE_COMMAND};-P;${PROJECT_SOURCE_DIR}/cmake/record_resources.cmake;--;${CMAKE_CUDA_COMPILER_LAUNCHER}")
endif()

# Before `target` is linked: objects of the vector instruction sets may export nothing that is not theirs alone.
function(deformops_check_instruction_sets target)
  foreach(isa IN LISTS DEFORMOPS_ISAS)
    if(TARGET deformops_isa_${isa} AND NOT isa STREQUAL "portable")
      add_custom_command(TARGET ${target} PRE_LINK VERBATIM COMMAND_EXPAND_LISTS
        COMMAND ${CMAKE_COMMAND} -DISA=${isa} -DNM=${CMAKE_NM} "-DOBJECTS=$<TARGET_OBJECTS:deformops_isa_${isa}>"
          -P ${PROJECT_SOURCE_DIR}/cmake/check_isa_symbols.cmake)
    endif()
  endforeach()
endfunction()

# Whether CUDA kernels are built, and for which architectures.
#
# In:  DEFORMOPS_CUDA (AUTO, ON, OFF), environment TORCH_CUDA_ARCH_LIST, CUDACXX, CUDA_HOME.
# Out: DEFORMOPS_WITH_CUDA, DEFORMOPS_CUDA_VERSION ("" without), DEFORMOPS_CUDA_ARCHITECTURES_TEXT,
#      DEFORMOPS_CUDA_LIBRARIES; CMAKE_CUDA_ARCHITECTURES is set and the language enabled.

set(DEFORMOPS_WITH_CUDA OFF)
set(DEFORMOPS_CUDA_VERSION "")
set(DEFORMOPS_CUDA_ARCHITECTURES_TEXT "")
set(DEFORMOPS_CUDA_LIBRARIES "")

# "8.0 9.0a+PTX" (torch's notation) to CMake's "80-real;90a-real;90a-virtual".
function(deformops_parse_arch_list list out)
  string(REGEX REPLACE "[ ,;]+" ";" entries "${list}")
  set(result "")
  foreach(entry IN LISTS entries)
    if(NOT entry MATCHES "^([0-9]+)\\.([0-9][af]?)(\\+PTX)?$")
      message(FATAL_ERROR
        "TORCH_CUDA_ARCH_LIST: '${entry}' is not understood; write numbers, for example \"8.0 9.0+PTX\"")
    endif()
    list(APPEND result "${CMAKE_MATCH_1}${CMAKE_MATCH_2}-real")
    if(CMAKE_MATCH_3)
      list(APPEND result "${CMAKE_MATCH_1}${CMAKE_MATCH_2}-virtual")
    endif()
  endforeach()
  list(REMOVE_DUPLICATES result)
  set(${out} "${result}" PARENT_SCOPE)
endfunction()

# Of the architectures that people have, those that this nvcc knows, and PTX of the newest for what comes later.
function(deformops_default_architectures nvcc out)
  execute_process(COMMAND ${nvcc} --list-gpu-arch OUTPUT_VARIABLE known COMMAND_ERROR_IS_FATAL ANY)
  set(result "")
  foreach(architecture IN ITEMS 75 80 86 90 100 120)
    if(known MATCHES "compute_${architecture}\n")
      list(APPEND result "${architecture}-real")
      set(newest "${architecture}")
    endif()
  endforeach()
  set(${out} "${result};${newest}-virtual" PARENT_SCOPE)
endfunction()

file(GLOB cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/kernels/cuda/*.cu)

if(NOT DEFORMOPS_CUDA)
  message(STATUS "deformops: CPU-only library, DEFORMOPS_CUDA=${DEFORMOPS_CUDA}")
  return()
endif()

if(DEFINED ENV{CUDACXX})
  set(DEFORMOPS_NVCC "$ENV{CUDACXX}")
endif()
find_program(DEFORMOPS_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin PATHS /usr/local/cuda/bin)
if(NOT DEFORMOPS_NVCC)
  if(DEFORMOPS_CUDA STREQUAL "AUTO")
    message(STATUS "deformops: CPU-only library, no nvcc found (CUDACXX, CUDA_HOME, PATH, /usr/local/cuda)")
    return()
  endif()
  message(FATAL_ERROR "DEFORMOPS_CUDA=${DEFORMOPS_CUDA}, but no nvcc found (CUDACXX, CUDA_HOME, PATH, /usr/local/cuda)")
elseif(NOT cuda_sources)
  message(STATUS "deformops: CPU-only library, csrc/kernels/cuda has no sources")
  return()
endif()

set(CMAKE_CUDA_COMPILER "${DEFORMOPS_NVCC}")
if(NOT "$ENV{TORCH_CUDA_ARCH_LIST}" STREQUAL "")
  deformops_parse_arch_list("$ENV{TORCH_CUDA_ARCH_LIST}" CMAKE_CUDA_ARCHITECTURES)
else()
  deformops_default_architectures("${DEFORMOPS_NVCC}" CMAKE_CUDA_ARCHITECTURES)
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
set(CMAKE_MESSAGE_LOG_LEVEL WARNING)  # it reports every library of the toolkit that it misses
find_package(CUDAToolkit REQUIRED)
unset(CMAKE_MESSAGE_LOG_LEVEL)

string(REGEX MATCH "^[0-9]+\\.[0-9]+" DEFORMOPS_CUDA_VERSION "${CMAKE_CUDA_COMPILER_VERSION}")
string(REGEX REPLACE "([0-9]+[af]?)-real" "sm_\\1" architectures_text "${CMAKE_CUDA_ARCHITECTURES}")
string(REGEX REPLACE "([0-9]+[af]?)-virtual" "compute_\\1" architectures_text "${architectures_text}")
string(REPLACE ";" " " DEFORMOPS_CUDA_ARCHITECTURES_TEXT "${architectures_text}")
set(DEFORMOPS_CUDA_LIBRARIES CUDA::cudart_static)
set(DEFORMOPS_WITH_CUDA ON)
message(STATUS
  "deformops: CUDA kernels with nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${DEFORMOPS_CUDA_ARCHITECTURES_TEXT}")

# Where torch's headers and libraries are, without find_package(Torch): that one insists on a CUDA toolkit when
# torch was built with CUDA, and nothing here needs more than the stable headers.
#
# In:  DEFORMOPS_TORCH_DIR (optional): the folder of the torch package, `.../site-packages/torch`.
# Out: DEFORMOPS_TORCH_INCLUDE_DIRS, DEFORMOPS_TORCH_LIBRARIES, DEFORMOPS_TORCH_TARGET.

set(DEFORMOPS_TORCH_DIR "" CACHE PATH "Folder of the torch package; empty: the one Python finds")
set(DEFORMOPS_TORCH_MINIMUM 2.13)
# The ABI asked for, major.minor in the two highest bytes: the library loads in this torch and every later one.
set(DEFORMOPS_TORCH_TARGET 0x020d000000000000)

set(torch_dir "${DEFORMOPS_TORCH_DIR}")
if(NOT torch_dir)
  find_package(Python REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
      "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '', end='')"
    OUTPUT_VARIABLE torch_dir)
endif()

set(version_header "${torch_dir}/include/torch/headeronly/version.h")
if(NOT EXISTS "${version_header}")
  message(FATAL_ERROR
    "torch >= ${DEFORMOPS_TORCH_MINIMUM} not found in '${torch_dir}': install it for the Python that builds, or pass "
    "-DDEFORMOPS_TORCH_DIR=.../site-packages/torch")
endif()
foreach(part MAJOR MINOR PATCH)
  file(STRINGS "${version_header}" line REGEX "#define TORCH_VERSION_${part} ")
  string(REGEX MATCH "[0-9]+$" torch_${part} "${line}")
endforeach()
set(torch_version ${torch_MAJOR}.${torch_MINOR}.${torch_PATCH})
if(torch_version VERSION_LESS DEFORMOPS_TORCH_MINIMUM)
  message(FATAL_ERROR "torch ${torch_version} in '${torch_dir}' is too old: >= ${DEFORMOPS_TORCH_MINIMUM} is needed")
endif()
message(STATUS "deformops: torch ${torch_version} in ${torch_dir}")

set(DEFORMOPS_TORCH_INCLUDE_DIRS "${torch_dir}/include")
# The library that has the stable ABI's functions. It is recorded by its bare name: the torch that is loaded
# already answers to it, wherever it is installed.
set(DEFORMOPS_TORCH_LIBRARIES "${torch_dir}/lib/libtorch_cpu.so")

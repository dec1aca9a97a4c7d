# cmake -P record_resources.cmake -- nvcc ... -Xptxas=-v -o OBJECT ...
#
# Runs the command and moves what ptxas reports, the registers, shared memory and spills of each kernel on each
# architecture, from its output to OBJECT.resources.

set(command "")
set(previous "")
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
  set(argument "${CMAKE_ARGV${i}}")
  if(DEFINED started AND NOT argument STREQUAL "")
    list(APPEND command "${argument}")
    if(previous STREQUAL "-o")
      set(object "${argument}")
    endif()
    set(previous "${argument}")
  elseif(argument STREQUAL "--")
    set(started ON)
  endif()
endforeach()

execute_process(COMMAND ${command} RESULT_VARIABLE status ERROR_VARIABLE messages)
set(report_line "(ptxas info|    [0-9]+ bytes stack frame)[^\n]*\n")
string(REGEX REPLACE "${report_line}" "" others "${messages}")
if(NOT others STREQUAL "")
  message("${others}")
endif()
if(NOT status EQUAL 0)
  file(REMOVE "${object}.resources")
  message(FATAL_ERROR "nvcc failed (${status})")
endif()
file(WRITE "${object}.resources" "${messages}")

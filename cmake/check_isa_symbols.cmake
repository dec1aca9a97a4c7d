# cmake -DISA=avx512 -DNM=nm "-DOBJECTS=a.o;b.o" -P check_isa_symbols.cmake
#
# An object compiled for AVX-512 that emits, say, std::vector<int>::push_back emits a weak symbol with AVX-512 code, and
# the linker may make it *the* push_back of the whole library: an illegal instruction on every older machine, from code
# that looks innocent. So every symbol that such an object defines for others must carry the instruction set in its
# mangled name, as anything does that is in the namespace deformops::avx512 or has a type from there as an argument.

string(LENGTH "${ISA}" length)
set(own "${length}${ISA}")
set(foreign "")
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only --format=posix "${object}"
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE "\n" ";" symbols "${symbols}")
  foreach(line IN LISTS symbols)
    # name type [value size]; a capital type is global, u/v/w (and V, W) are merged between objects.
    if(line MATCHES "^([^ ]+) ([A-Zuvw])( |$)")
      set(symbol "${CMAKE_MATCH_1}")
      # DW.ref.*: the pointer to the exception personality routine, the same in every object.
      if(NOT symbol MATCHES "${own}|^DW\\.ref\\.")
        list(APPEND foreign "  ${symbol}\n    in ${object}")
      endif()
    endif()
  endforeach()
endforeach()

if(foreign)
  list(JOIN foreign "\n" foreign)
  message(FATAL_ERROR
    "Code compiled for ${ISA} defines symbols that the linker may use for every processor (demangle with c++filt):\n"
    "${foreign}\n"
    "Put the code into the namespace named by DEFORMOPS_ISA, or keep the template out of *.isa.cpp.")
endif()

// The Python modules deformops.simulation._selftest_{plain,race,asan}: the kernels of ../selftest,
// each module compiled in one of the three ways. Arrays are numpy's; results are returned.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "simulation/memory.h"
#include "simulation/selftest/kernels.h"

namespace py = pybind11;
using namespace deformops::simulation;
using selftest::Mistake;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

template <class T>
const T* input(const Array<T>& array, const char* name) {
  register_memory(array.data(), static_cast<size_t>(array.nbytes()), Memory::kReadOnly, name);
  return array.data();
}

template <class T>
T* scratch(Array<T>& array, const char* name) {
  T* const data = array.mutable_data();
  register_memory(data, static_cast<size_t>(array.nbytes()), Memory::kUninitialized, name);
  return data;
}

// What kernels add to starts as zeros.
template <class T>
T* accumulator(Array<T>& array, const char* name) {
  T* const data = array.mutable_data();
  std::fill_n(data, array.size(), T(0));
  register_memory(data, static_cast<size_t>(array.nbytes()), Memory::kReadWrite, name);
  return data;
}

}  // namespace

PYBIND11_MODULE(DEFORMOPS_SELFTEST, m) {
  m.doc() = "Kernels with planted mistakes.";
  // Its exceptions are translated there.
  py::module_::import("deformops.simulation._device");

  py::enum_<Mistake>(m, "Mistake", py::module_local())
      .value("NONE", Mistake::kNone)
      .value("MISSING_BARRIER", Mistake::kMissingBarrier)
      .value("SHARED_OVERRUN", Mistake::kSharedOverrun)
      .value("DIVERGENT_BARRIER", Mistake::kDivergentBarrier)
      .value("TWO_BARRIERS", Mistake::kTwoBarriers)
      .value("EARLY_EXIT", Mistake::kEarlyExit)
      .value("MISSING_LANE", Mistake::kMissingLane)
      .value("WRONG_MASK", Mistake::kWrongMask)
      .value("MISMATCHED_COLLECTIVE", Mistake::kMismatchedCollective)
      .value("MISSING_WARP_BARRIER", Mistake::kMissingWarpBarrier)
      .value("MISSING_WAIT", Mistake::kMissingWait)
      .value("NO_BARRIER_AFTER_WAIT", Mistake::kNoBarrierAfterWait)
      .value("NO_BARRIER_BEFORE_REFILL", Mistake::kNoBarrierBeforeRefill)
      .value("WRONG_FRAGMENT", Mistake::kWrongFragment)
      .value("UNFINISHED_COPY", Mistake::kUnfinishedCopy)
      .value("NOT_ATOMIC", Mistake::kNotAtomic)
      .value("PAST_THE_END", Mistake::kPastTheEnd)
      .value("WRITE_TO_INPUT", Mistake::kWriteToInput)
      .value("UNWRITTEN_GLOBAL", Mistake::kUnwrittenGlobal)
      .value("MISALIGNED", Mistake::kMisaligned)
      .value("MISSING_FENCE", Mistake::kMissingFence)
      .value("ENDLESS_RECURSION", Mistake::kEndlessRecursion)
      .value("DIVISION_BY_ZERO", Mistake::kDivisionByZero)
      .value("TOO_MUCH_SHARED", Mistake::kTooMuchShared);

  m.def("block_sum", [](Mistake mistake, const Array<float>& in) {
    const MemoryScope scope("block_sum");
    Array<float> out(1);
    selftest::block_sum(mistake, input(in, "in"), static_cast<int>(in.size()),
                        accumulator(out, "out"));
    return out;
  });
  m.def("warp_tree", [](Mistake mistake, const Array<float>& in) {
    const MemoryScope scope("warp_tree");
    Array<float> out(1);
    selftest::warp_tree(mistake, input(in, "in"), accumulator(out, "out"));
    return out;
  });
  m.def("collectives", [] {
    const MemoryScope scope("collectives");
    Array<int> out({64, 12});
    selftest::collectives(scratch(out, "out"));
    return out;
  });
  m.def("groups_of_eight", [](Mistake mistake, const Array<float>& in) {
    const MemoryScope scope("groups_of_eight");
    Array<float> out(64);
    selftest::groups_of_eight(mistake, input(in, "in"), scratch(out, "out"));
    return out;
  });

  m.def("gemm", [](Mistake mistake, const Array<uint16_t>& a, const Array<uint16_t>& b) {
    const MemoryScope scope("gemm");
    const auto rows = static_cast<int>(a.shape(0)), depth = static_cast<int>(a.shape(1)),
               columns = static_cast<int>(b.shape(1));
    Array<float> c({rows, columns});
    selftest::gemm(mistake, input(a, "a"), input(b, "b"), scratch(c, "c"), rows, columns, depth);
    return c;
  });
  m.def("multiply",
        [](int shape, const Array<uint32_t>& a, const Array<uint32_t>& b, const Array<float>& c) {
          const MemoryScope scope("multiply");
          Array<float> d({32, 4});
          selftest::multiply(shape, input(a, "a"), input(b, "b"), input(c, "c"), scratch(d, "d"));
          return d;
        });
  m.def("multiply_f64", [](const Array<double>& a, const Array<double>& b, const Array<double>& c) {
    const MemoryScope scope("multiply_f64");
    Array<double> d({32, 2});
    selftest::multiply_f64(input(a, "a"), input(b, "b"), input(c, "c"), scratch(d, "d"));
    return d;
  });
  m.def("load_matrices", [](int count, bool transposed, const Array<uint16_t>& matrices) {
    const MemoryScope scope("load_matrices");
    Array<uint32_t> words({32, count});
    selftest::load_matrices(count, transposed, input(matrices, "matrices"),
                            scratch(words, "words"));
    return words;
  });

  m.def("scatter", [](Mistake mistake, const Array<int>& index, int size) {
    const MemoryScope scope("scatter");
    Array<float> out(size);
    selftest::scatter(mistake, input(index, "index"), accumulator(out, "out"));
    return out;
  });
  m.def("copy", [](Mistake mistake, const Array<float>& in) {
    const MemoryScope scope("copy");
    Array<float> out(in.size());
    selftest::copy(mistake, input(in, "in"), scratch(out, "out"), static_cast<int>(in.size()));
    return out;
  });
  m.def("through_scratch", [](Mistake mistake, const Array<float>& in) {
    const MemoryScope scope("through_scratch");
    Array<float> between(in.size()), out(in.size());
    selftest::through_scratch(mistake, input(in, "in"), scratch(between, "scratch"),
                              scratch(out, "out"), static_cast<int>(in.size()));
    return out;
  });
  m.def("last_block_sum", [](Mistake mistake, const Array<float>& in) {
    const MemoryScope scope("last_block_sum");
    Array<float> partial(8), out(1);
    Array<unsigned> arrived(1);
    selftest::last_block_sum(mistake, input(in, "in"), static_cast<int>(in.size()),
                             scratch(partial, "partial"), scratch(arrived, "arrived"),
                             scratch(out, "out"));
    return out;
  });
  m.def("divide", [](Mistake mistake, const Array<int>& in) {
    const MemoryScope scope("divide");
    Array<int> out(32);
    selftest::divide(mistake, input(in, "in"), scratch(out, "out"));
    return out;
  });

  m.def("transpose", [](const Array<float>& in, int pitch) {
    const MemoryScope scope("transpose");
    Array<float> out({32, 32});
    selftest::transpose(input(in, "in"), scratch(out, "out"), pitch);
    return out;
  });
  m.def("strided", [](const Array<float>& in, int stride) {
    const MemoryScope scope("strided");
    Array<float> out(32);
    selftest::strided(input(in, "in"), scratch(out, "out"), stride);
    return out;
  });
  m.def("window_sum", [](const Array<float>& in, int radius) {
    const MemoryScope scope("window_sum");
    Array<float> out(in.size());
    selftest::window_sum(input(in, "in"), scratch(out, "out"), static_cast<int>(in.size()), radius);
    return out;
  });
}

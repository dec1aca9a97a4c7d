// The Python module deformops.simulation._device: controls and reports of the simulated device.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "simulation/engine/controls.h"

namespace py = pybind11;
using namespace deformops::simulation;

namespace {

py::tuple to_tuple(uint3 index) { return py::make_tuple(index.x, index.y, index.z); }

const char* name_of(Space space) { return space == Space::kGlobal ? "global" : "shared"; }

const char* name_of(Motion motion) {
  switch (motion) {
    case Motion::kLoad:
      return "load";
    case Motion::kStore:
      return "store";
    case Motion::kAtomic:
      return "atomic";
  }
  return "";
}

// One dictionary for each instruction, with the source lines it comes from, innermost first.
py::list instructions_of(const LaunchRecord& record) {
  std::vector<const void*> counters;
  for (const InstructionTraffic& instruction : record.instructions) {
    counters.push_back(instruction.program_counter);
  }
  const std::vector<std::vector<Place>> places = places_of(counters);
  py::list rows;
  for (size_t i = 0; i < counters.size(); ++i) {
    const InstructionTraffic& instruction = record.instructions[i];
    const Traffic& traffic = instruction.traffic;
    py::list lines;
    for (const Place& place : places[i]) lines.append(to_string(place));
    using namespace py::literals;
    rows.append(py::dict("space"_a = name_of(instruction.space),
                         "motion"_a = name_of(instruction.motion), "places"_a = lines,
                         "requests"_a = traffic.requests, "partial"_a = traffic.partial,
                         "threads"_a = traffic.threads, "bytes"_a = traffic.bytes,
                         "transactions"_a = traffic.transactions, "ideal"_a = traffic.ideal));
  }
  return rows;
}

}  // namespace

PYBIND11_MODULE(_device, m) {
  m.doc() = "Controls and reports of the simulated CUDA device.";

  py::class_<Place>(m, "Place", "A line of source code.")
      .def_readonly("function", &Place::function)
      .def_readonly("file", &Place::file)
      .def_readonly("line", &Place::line)
      .def("__repr__", [](const Place& place) { return to_string(place); });

  py::class_<Failure>(m, "Failure", "What went wrong in a kernel, and where.")
      .def_readonly("kind", &Failure::kind)
      .def_readonly("message", &Failure::message)
      .def_readonly("op", &Failure::op)
      .def_readonly("kernel", &Failure::kernel)
      .def_readonly("in_thread", &Failure::in_thread)
      .def_property_readonly("block", [](const Failure& f) { return to_tuple(f.block); })
      .def_property_readonly("thread", [](const Failure& f) { return to_tuple(f.thread); })
      .def_readonly("stack", &Failure::stack)
      .def_readonly("seed", &Failure::seed)
      .def_readonly("launch", &Failure::launch)
      .def("__repr__", [](const Failure& f) { return "<Failure: " + f.kind + ">"; });

  static py::object error_type = py::exception<KernelError>(m, "KernelError", PyExc_RuntimeError);
  error_type.attr("__doc__") =
      "A kernel did what it must not do; the attribute `failure` says what, and where.";
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const KernelError& error) {
      py::object instance = error_type(error.what());
      instance.attr("failure") = error.failure();
      PyErr_SetObject(error_type.ptr(), instance.ptr());
    }
  });

  py::class_<LaunchRecord>(m, "Launch", "What one kernel launch did.")
      .def_property_readonly("kernel",
                             [](const LaunchRecord& r) { return name_of_kernel(r.kernel); })
      .def_property_readonly("grid", [](const LaunchRecord& r) { return to_tuple(r.grid); })
      .def_property_readonly("block", [](const LaunchRecord& r) { return to_tuple(r.block); })
      .def_readonly("static_shared_bytes", &LaunchRecord::static_shared_bytes)
      .def_readonly("dynamic_shared_bytes", &LaunchRecord::dynamic_shared_bytes)
      .def_readonly("seed", &LaunchRecord::seed)
      .def_readonly("number", &LaunchRecord::number)
      .def_readonly("threads", &LaunchRecord::threads)
      .def_readonly("switches", &LaunchRecord::switches)
      .def_readonly("block_barriers", &LaunchRecord::block_barriers)
      .def_readonly("warp_collectives", &LaunchRecord::warp_collectives)
      .def_readonly("atomics", &LaunchRecord::atomics)
      .def_readonly("async_copies", &LaunchRecord::async_copies)
      .def_readonly("multiplications", &LaunchRecord::multiplications)
      .def_readonly("bytes_read", &LaunchRecord::bytes_read)
      .def_readonly("bytes_written", &LaunchRecord::bytes_written)
      .def_readonly("profiled", &LaunchRecord::profiled)
      .def_readonly("sectors_read", &LaunchRecord::sectors_read)
      .def_readonly("sectors_written", &LaunchRecord::sectors_written)
      .def_readonly("block_sectors_read", &LaunchRecord::block_sectors_read)
      .def_readonly("block_sectors_written", &LaunchRecord::block_sectors_written)
      .def_property_readonly("instructions", &instructions_of)
      .def("__repr__", [](const LaunchRecord& r) {
        return "<Launch " + name_of_kernel(r.kernel) + " " + to_string(uint3(r.grid)) + " x " +
               to_string(uint3(r.block)) + ">";
      });

  // The device may be busy with another thread's op, which may be waiting for Python.
  const auto no_gil = py::call_guard<py::gil_scoped_release>();
  m.def(
      "configure",
      [](uint64_t seed, double preemption, bool allow_early_exit, bool profile) {
        configure({seed, preemption, allow_early_exit, profile});
      },
      py::kw_only(), py::arg("seed"), py::arg("preemption"), py::arg("allow_early_exit"),
      py::arg("profile"), no_gil);
  m.def("options", [] {
    using namespace py::literals;
    const Options options = current_options();
    return py::dict("seed"_a = options.seed, "preemption"_a = options.preemption,
                    "allow_early_exit"_a = options.allow_early_exit, "profile"_a = options.profile);
  });
  m.def("launches", &launches, no_gil);
  m.def("clear_launches", &clear_launches, no_gil);
  m.def("last_failure", &last_failure, no_gil);
}

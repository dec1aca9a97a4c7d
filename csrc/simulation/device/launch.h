// What kernel<<<grid, block, shared, stream>>>(arguments) becomes.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "simulation/device/runtime_api.h"

namespace deformops::simulation {

template <class... Parameters>
class Configured {
 public:
  Configured(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t dynamic_shared_bytes)
      : call_kernel_(kernel), grid_(grid), block_(block), shared_(dynamic_shared_bytes) {}

  template <class... Arguments>
  void operator()(Arguments&&... arguments) const {
    static_assert((std::is_trivially_copyable_v<Parameters> && ...),
                  "kernel parameters are copied to the device byte by byte");
    static_assert((sizeof(Parameters) + ... + 0) <= 4096, "kernel parameters exceed 4 KiB");
    Call call = {call_kernel_, {static_cast<Parameters>(std::forward<Arguments>(arguments))...}};
    launch({reinterpret_cast<const void*>(call_kernel_), grid_, block_, shared_, run, &call,
            sizeof(call)});
  }

 private:
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> parameters;
  };

  static void run(void* call) {
    run(*static_cast<Call*>(call), std::index_sequence_for<Parameters...>());
  }
  template <size_t... Index>
  static void run(Call& call, std::index_sequence<Index...>) {
    call.kernel(std::get<Index>(call.parameters)...);
  }

  void (*call_kernel_)(Parameters...);
  dim3 grid_, block_;
  size_t shared_;
};

template <class... Parameters>
Configured<Parameters...> configure(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                    size_t dynamic_shared_bytes = 0, cudaStream_t = nullptr) {
  return {kernel, grid, block, dynamic_shared_bytes};
}

}  // namespace deformops::simulation

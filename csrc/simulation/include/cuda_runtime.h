// Stands in for NVIDIA's header of this name when kernels are compiled for the simulated device. It
// has what this project's kernels use; what is missing is a compile error, never a wrong result.
#pragma once

#include "simulation/device/atomics.h"
#include "simulation/device/intrinsics.h"
#include "simulation/device/language.h"
#include "simulation/device/launch.h"
#include "simulation/device/runtime_api.h"
#include "simulation/device/shared.h"
#include "simulation/device/vector_types.h"
#include "simulation/device/warp.h"

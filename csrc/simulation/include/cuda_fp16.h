// Stands in for NVIDIA's header of this name.
#pragma once

#include "core/scalars.h"
#include "simulation/device/short_float.h"

DEFORMOPS_SHORT_FLOAT(__half, __half2, __half_raw, half, deformops::half)

using half = __half;
using half2 = __half2;

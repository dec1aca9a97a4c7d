// Stands in for NVIDIA's header of this name.
#pragma once

#include "core/scalars.h"
#include "simulation/device/short_float.h"

DEFORMOPS_SHORT_FLOAT(__nv_bfloat16, __nv_bfloat162, __nv_bfloat16_raw, bfloat16,
                      deformops::bfloat16)

using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

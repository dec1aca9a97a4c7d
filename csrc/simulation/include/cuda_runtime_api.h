// Stands in for NVIDIA's header of this name: the host's side only.
#pragma once

#include "simulation/device/runtime_api.h"

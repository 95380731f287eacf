/* SPDX-License-Identifier: BSD-3-Clause */
/* lib/virtq/inflight.c, to be killed: see kill.h. */
#include "kill.h"

#include "lib/virtq/inflight.c"

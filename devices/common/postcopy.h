/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * --postcopy: what programs whose queue threads serve the rings share about it. Control context.
 *
 * It is an option, and not the default, because it takes a right that few processes have, and because
 * the protocol gives it instead of memory slots.
 */
#ifndef COMMON_POSTCOPY_H
#define COMMON_POSTCOPY_H

#include <stdbool.h>
#include <stdint.h>

#include "options.h"

/* The option's entry; it writes to *@wanted. */
struct option_spec postcopy_option(bool *wanted);
/* 0 or the exit status, and then it is said why: the process has not the right that it takes. */
int postcopy_check(bool wanted);
/* For bf_backend_config.protocol_features. */
uint64_t postcopy_protocol_features(bool wanted);

#endif

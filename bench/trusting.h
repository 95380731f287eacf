/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device that trusts its driver: what the copies and checks of lib/virtq are compared with.
 *
 * The same work for the same driver (pop a batch with its pieces, push it, publish, decide whether
 * to call), with nothing that only a hostile or broken driver makes necessary: descriptors are used
 * where they lie, an address is one addition, no index is compared with anything, nothing is
 * remembered of what is in flight. It is what a device inside of the guest's own trust would do;
 * never serve a guest with it.
 */
#ifndef BENCH_TRUSTING_H
#define BENCH_TRUSTING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "../lib/virtq/packed_ring.h"
#include "../lib/virtq/ring.h"

struct trusting {
	uint8_t *base; /* of all memory; guest-physical address 0 */
	union {
		struct bf_desc *desc;
		struct bf_packed_desc *ring;
	};
	union {
		struct bf_avail *avail;
		struct bf_packed_event *driver_event;
	};
	struct bf_used *used;
	uint16_t size;
	uint16_t next_avail, next_used;
	bool avail_wrap, used_wrap;
	unsigned nr_calls; /* that would have been */
};

/* Serve a batch of up to 32; how many. */
unsigned trusting_split(struct trusting *dev, unsigned batch);
unsigned trusting_packed(struct trusting *dev, unsigned batch);

#endif

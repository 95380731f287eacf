/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The map of guest memory, swapped under running vrings.
 *
 * The new map is complete before anything is touched, so that a bad table changes nothing. The queues
 * are held while the map, the IOTLB's view of it and the rings' addresses change, and go on. Requests
 * that were popped before use the old mappings until they are pushed, and only then is the old map
 * dropped and the front end answered: it may take that memory away. A ring that the new map does not
 * have stays stopped, and the request is answered with failure although the map is in force: the front
 * end has taken memory away from under a ring, and must not believe otherwise.
 *
 * Control context. Must not unmap what a request may still use.
 */
#include "change.h"

#include <errno.h>

static int take_all_away(struct bf_backend *be)
{
	bf_vring_stop_all(be);
	if (be->iotlb)
		bf_iotlb_clear(be->iotlb);
	bf_memory_unref(be->memory);
	be->memory = NULL;
	return 0;
}

/* @drain: the old map's mappings go with it. A map that only has more shares all of them. */
int bf_backend_swap_memory(struct bf_backend *be, struct bf_memory *memory, bool drain)
{
	struct bf_memory *old = be->memory;
	struct bf_change change;
	int ret = 0;

	if (be->offload)
		return bf_offload_swap_memory(be, memory);
	if (!memory)
		return take_all_away(be);
	bf_change_begin(be, &change);
	if (be->iotlb)
		ret = bf_iotlb_remap(be->iotlb, memory);
	if (!ret) {
		be->memory = memory;
		bf_change_move(be, &change);
	}
	bf_change_end(&change, drain && !ret);
	if (ret) {
		bf_memory_unref(memory);
		return bf_report_error(&be->report, ret,
				       "the IOTLB could not follow the change of memory (error %d)",
				       ret);
	}
	bf_change_settle(be, &change);
	bf_memory_unref(old);
	return bf_vring_start_all(be);
}

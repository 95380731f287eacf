/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers: guest memory. "Changing memory under running vrings":
 *
 * The new map is complete before anything is touched, so that a bad table changes nothing. Then
 * every running vring is stopped (the device lets go), the map is swapped, and the vrings start
 * again with their rings translated anew. A ring whose addresses the new map does not have stays
 * stopped, and the request is answered with failure although the map is in force: the front end has
 * taken memory away from under a ring, and must not believe otherwise.
 *
 * Control context. Must not unmap while a queue context may be inside.
 */
#include "backend.h"

#include <errno.h>
#include <string.h>

#include "../mem/map.h"

static int swap_memory(struct bf_backend *be, struct bf_memory *memory)
{
	struct bf_memory *old = be->memory;

	if (be->offload)
		return bf_offload_swap_memory(be, memory);
	bf_vring_stop_all(be);
	be->memory = memory;
	bf_memory_unref(old);
	return bf_vring_start_all(be);
}

static struct bf_memory_region from_wire(const struct bf_mem_region *wire, int fd)
{
	return (struct bf_memory_region){
		.gpa = wire->gpa,
		.size = wire->size,
		.uva = wire->uva,
		.fd = fd,
		.fd_offset = wire->mmap_offset,
	};
}

static const char *reason(int error)
{
	switch (error) {
	case -EINVAL:
		return "a region is empty, wraps, or overlaps another";
	case -ENXIO:
		return "a region reaches beyond the end of its file";
	case -E2BIG:
		return "more regions than memory slots";
	case -ENOENT:
		return "there is no such region";
	default:
		return strerror(-error);
	}
}

static int refuse(struct bf_backend *be, int error, const char *request,
		  const struct bf_mem_region *region)
{
	return bf_report_error(&be->report, error,
			       "%s: %s (gpa 0x%llx, size 0x%llx, uva 0x%llx, offset 0x%llx)",
			       request, reason(error), (unsigned long long)region->gpa,
			       (unsigned long long)region->size, (unsigned long long)region->uva,
			       (unsigned long long)region->mmap_offset);
}

int bf_handle_set_mem_table(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_mem_table *table = &msg->payload.table;
	struct bf_memory_region regions[BF_TABLE_REGIONS];
	struct bf_memory *memory;
	int ret;

	(void)reply;
	if (!table->nr)
		return bf_report_error(&be->report, -EINVAL, "SET_MEM_TABLE: no regions");
	/* The table's check has made sure of one descriptor for each region, at most 8. */
	for (unsigned i = 0; i < table->nr; i++)
		regions[i] = from_wire(&table->regions[i], msg->fds[i]);
	ret = bf_memory_new(regions, table->nr, &memory);
	if (ret)
		return bf_report_error(&be->report, ret, "SET_MEM_TABLE of %u regions: %s",
				       table->nr, reason(ret));
	for (unsigned i = 0; i < table->nr; i++)
		bf_msg_take_fd(msg, i);
	return swap_memory(be, memory);
}

int bf_handle_get_max_mem_slots(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	(void)be;
	(void)msg;
	bf_msg_set_u64(reply, BF_MAX_REGIONS);
	return 0;
}

int bf_handle_add_mem_reg(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_mem_region *wire = &msg->payload.reg.region;
	struct bf_memory_region region = from_wire(wire, msg->fds[0]);
	struct bf_memory *memory;
	int ret;

	(void)reply;
	ret = bf_memory_with(be->memory, &region, &memory);
	if (ret)
		return refuse(be, ret, "ADD_MEM_REG", wire);
	bf_msg_take_fd(msg, 0);
	return swap_memory(be, memory);
}

int bf_handle_rem_mem_reg(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_mem_region *wire = &msg->payload.reg.region;
	struct bf_memory *memory;
	int ret;

	(void)reply;
	/* The key has no offset in it: front ends leave it zero here. */
	ret = bf_memory_without(be->memory, wire->gpa, wire->uva, wire->size, &memory);
	if (ret)
		return refuse(be, ret, "REM_MEM_REG", wire);
	return swap_memory(be, memory);
}

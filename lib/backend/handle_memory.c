/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers: guest memory. What a message says becomes a map, or nothing; memory.c puts it in force.
 *
 * Control context. Must not touch the map that is in force before the new one is complete.
 */
#include "backend.h"

#include <errno.h>
#include <string.h>

#include "../mem/map.h"

/* "GPA_ADDRESSES": user addresses are guest-physical ones then, whatever is in the field. */
static uint64_t user_address(const struct bf_backend *be, const struct bf_mem_region *wire)
{
	return bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_GPA_ADDRESSES) ? wire->gpa
										 : wire->uva;
}

static struct bf_memory_region from_wire(const struct bf_backend *be,
					 const struct bf_mem_region *wire, int fd)
{
	return (struct bf_memory_region){
		.gpa = wire->gpa,
		.size = wire->size,
		.uva = user_address(be, wire),
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

	if (!table->nr && be->postcopy_memory)
		return bf_postcopy_go_ahead(be);
	if (!table->nr)
		return bf_report_error(&be->report, -EINVAL, "SET_MEM_TABLE: no regions");
	/* The table's check has made sure of one descriptor for each region, at most 8. */
	for (unsigned i = 0; i < table->nr; i++)
		regions[i] = from_wire(be, &table->regions[i], msg->fds[i]);
	/* A thread that waits for a page does it at an address that the front end was told. */
	ret = bf_memory_new_keeping(be->listening ? be->memory : NULL, regions, table->nr, &memory);
	if (ret)
		return bf_report_error(&be->report, ret, "SET_MEM_TABLE of %u regions: %s",
				       table->nr, reason(ret));
	for (unsigned i = 0; i < table->nr; i++)
		bf_msg_take_fd(msg, i);
	be->nr_repeated_regions = 0;
	if (be->listening)
		return bf_postcopy_set_mem_table(be, msg, reply, memory);
	return bf_backend_swap_memory(be, memory, true);
}

int bf_handle_get_max_mem_slots(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	(void)be;
	(void)msg;
	bf_msg_set_u64(reply, BF_MAX_REGIONS);
	return 0;
}

/*
 * QEMU's network card with several queue pairs announces each region once for each pair, and takes it
 * back as often (7.2). The first one counts, and the first that takes it back.
 */
static bool is_known(const struct bf_memory *memory, const struct bf_memory_region *region)
{
	for (unsigned i = 0; memory && i < bf_memory_nr_regions(memory); i++) {
		const struct bf_memory_region *known = bf_memory_region(memory, i);

		if (known->gpa == region->gpa && known->size == region->size &&
		    known->uva == region->uva)
			return true;
	}
	return false;
}

int bf_handle_add_mem_reg(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_mem_region *wire = &msg->payload.reg.region;
	struct bf_memory_region region = from_wire(be, wire, msg->fds[0]);
	struct bf_memory *memory;
	int ret;

	(void)reply;
	if (is_known(be->memory, &region)) {
		be->nr_repeated_regions++;
		return 0;
	}
	ret = bf_memory_with(be->memory, &region, &memory);
	if (ret)
		return refuse(be, ret, "ADD_MEM_REG", wire);
	bf_msg_take_fd(msg, 0);
	/* The mappings that there were are those of the new map too: nothing goes. */
	return bf_backend_swap_memory(be, memory, false);
}

int bf_handle_rem_mem_reg(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_mem_region *wire = &msg->payload.reg.region;
	struct bf_memory *memory;
	int ret;

	(void)reply;
	/* The key has no offset in it: front ends leave it zero here. */
	ret = bf_memory_without(be->memory, wire->gpa, user_address(be, wire), wire->size, &memory);
	if (ret == -ENOENT && be->nr_repeated_regions) {
		be->nr_repeated_regions--;
		return 0;
	}
	if (ret)
		return refuse(be, ret, "REM_MEM_REG", wire);
	return bf_backend_swap_memory(be, memory, true);
}

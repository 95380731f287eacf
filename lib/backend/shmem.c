/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shared memory regions of the device: what the front end is asked to map into them for the guest.
 *
 * Control context. The list has what is mapped or asked for, so that "no map over a map" and "unmap
 * exactly one" are known before anything is sent. The front end drops all of it at a reset of the
 * device and at the end of the connection.
 */
#include "backend.h"

#include <errno.h>
#include <stdlib.h>

#include "../base/check.h"

#define SHMEM_WRITABLE 1u

struct bf_shmem_range {
	struct bf_shmem_range *next;
	uint8_t id;
	uint64_t start, len;
};

struct asked_map {
	struct bf_backend *be;
	uint8_t id;
	uint64_t start, len;
	bool map;
	bf_answer_fn *done;
	void *opaque;
};

int bf_handle_get_shmem_config(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	struct bf_shmem_config *config = &reply->payload.shmem_config;

	(void)msg;
	for (unsigned i = 0; i < be->nr_shmem; i++) {
		config->sizes[i] = be->shmem_sizes[i];
		config->nr += be->shmem_sizes[i] != 0;
	}
	reply->hdr.size = sizeof(*config);
	return 0;
}

void bf_shmem_forget(struct bf_backend *be)
{
	struct bf_shmem_range *range;

	while ((range = be->shmem)) {
		be->shmem = range->next;
		free(range);
	}
}

/* The place in the list of exactly this range, or of its end. */
static struct bf_shmem_range **find(struct bf_backend *be, uint8_t id, uint64_t start, uint64_t len)
{
	struct bf_shmem_range **at = &be->shmem;

	while (*at && ((*at)->id != id || (*at)->start != start || (*at)->len != len))
		at = &(*at)->next;
	return at;
}

static bool overlaps(const struct bf_backend *be, uint8_t id, uint64_t start, uint64_t len)
{
	for (const struct bf_shmem_range *range = be->shmem; range; range = range->next)
		if (range->id == id && bf_overlap(range->start, range->len, start, len))
			return true;
	return false;
}

static void remove_range(struct bf_backend *be, uint8_t id, uint64_t start, uint64_t len)
{
	struct bf_shmem_range **at = find(be, id, start, len), *range = *at;

	if (!range)
		return;
	*at = range->next;
	free(range);
}

static int add_range(struct bf_backend *be, uint8_t id, uint64_t start, uint64_t len)
{
	struct bf_shmem_range *range = malloc(sizeof(*range));

	if (!range)
		return -ENOMEM;
	*range = (struct bf_shmem_range){ be->shmem, id, start, len };
	be->shmem = range;
	return 0;
}

/* A map that failed is not there; nor is one that was taken away. */
static void answered(void *opaque, int result, struct bf_msg *reply)
{
	struct asked_map asked = *(struct asked_map *)opaque;

	(void)reply;
	free(opaque);
	if (asked.map ? result != 0 : result == 0)
		remove_range(asked.be, asked.id, asked.start, asked.len);
	if (asked.done)
		asked.done(asked.opaque, result);
}

static int check(struct bf_backend *be, uint8_t id, uint64_t start, uint64_t len)
{
	if (be->main.fd < 0)
		return -ENOTCONN;
	if (!bf_backend_can_ask(be) || !bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_SHMEM))
		return bf_report_error(&be->report, -EOPNOTSUPP,
				       "shared memory regions are not agreed with this front end");
	if (id >= be->nr_shmem || !len || !bf_range_ok(start, len, be->shmem_sizes[id]))
		return bf_report_error(
			&be->report, -EINVAL,
			"0x%llx bytes at 0x%llx are outside of shared memory region %u",
			(unsigned long long)len, (unsigned long long)start, id);
	return 0;
}

static int ask(struct bf_backend *be, struct bf_msg *msg, const struct asked_map *what)
{
	struct asked_map *asked = malloc(sizeof(*asked));
	int ret;

	if (!asked)
		return -ENOMEM;
	*asked = *what;
	ret = bf_backend_ask(be, msg, answered, asked);
	if (ret < 0)
		free(asked);
	return ret;
}

int bf_backend_map_shmem(struct bf_backend *be, uint8_t id, int fd, uint64_t fd_offset,
			 uint64_t shm_offset, uint64_t len, bool writable, bf_answer_fn *done,
			 void *opaque)
{
	const struct bf_shmem_map map = {
		.shmid = id,
		.fd_offset = fd_offset,
		.shm_offset = shm_offset,
		.len = len,
		.flags = writable ? SHMEM_WRITABLE : 0,
	};
	const struct asked_map what = { be, id, shm_offset, len, true, done, opaque };
	struct bf_msg msg;
	int ret = check(be, id, shm_offset, len);

	if (ret)
		return ret;
	if (fd < 0 || overlaps(be, id, shm_offset, len))
		return bf_report_error(
			&be->report, -EINVAL,
			"0x%llx bytes at 0x%llx of shared memory region %u: a mapping "
			"needs a descriptor, and may not lie over another",
			(unsigned long long)len, (unsigned long long)shm_offset, id);
	bf_msg_init(&msg, BF_BE_SHMEM_MAP, 0);
	bf_msg_set(&msg, &map, sizeof(map));
	bf_msg_lend_fd(&msg, fd);
	/* Before it is sent: the answer may come from inside. */
	ret = add_range(be, id, shm_offset, len);
	if (ret)
		return ret;
	ret = ask(be, &msg, &what);
	if (ret < 0)
		remove_range(be, id, shm_offset, len);
	return ret;
}

int bf_backend_unmap_shmem(struct bf_backend *be, uint8_t id, uint64_t shm_offset, uint64_t len,
			   bf_answer_fn *done, void *opaque)
{
	const struct bf_shmem_map map = { .shmid = id, .shm_offset = shm_offset, .len = len };
	const struct asked_map what = { be, id, shm_offset, len, false, done, opaque };
	struct bf_msg msg;
	int ret = check(be, id, shm_offset, len);

	if (ret)
		return ret;
	if (!*find(be, id, shm_offset, len))
		return bf_report_error(
			&be->report, -EINVAL,
			"0x%llx bytes at 0x%llx of shared memory region %u are not one "
			"mapping",
			(unsigned long long)len, (unsigned long long)shm_offset, id);
	bf_msg_init(&msg, BF_BE_SHMEM_UNMAP, 0);
	bf_msg_set(&msg, &map, sizeof(map));
	return ask(be, &msg, &what);
}

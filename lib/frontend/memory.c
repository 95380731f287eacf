/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory as the back end knows it: filter, check, announce; and where a ring is in it.
 *
 * Control context. Only RAM of an fd that cannot shrink is announced; doorbell pages never get
 * here, since they are no region of the caller's. With CONFIGURE_MEM_SLOTS the table is changed by
 * its differences, first what goes and then what comes: regions live at one time must not overlap.
 */
#include "frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/check.h"

void bf_fe_memory_forget(struct bf_frontend *fe)
{
	free(fe->regions);
	fe->regions = NULL;
	fe->nr_regions = 0;
}

int bf_fe_gpa_to_uva(const struct bf_frontend *fe, uint64_t gpa, uint64_t len, uint64_t *uva)
{
	for (unsigned i = 0; i < fe->nr_regions; i++) {
		const struct bf_fe_region *region = &fe->regions[i];

		if (gpa >= region->gpa && bf_range_ok(gpa - region->gpa, len, region->size)) {
			*uva = region->uva + (gpa - region->gpa);
			return 0;
		}
	}
	return -EFAULT;
}

static int bad(struct bf_frontend *fe, const struct bf_fe_region *region, int error,
	       const char *what)
{
	return bf_report_error(
		&fe->report, error, "memory region of 0x%llx bytes at guest address 0x%llx: %s",
		(unsigned long long)region->size, (unsigned long long)region->gpa, what);
}

static int check_shape(struct bf_frontend *fe, const struct bf_fe_region *region)
{
	uint64_t mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;

	if (region->size == 0)
		return bad(fe, region, -EINVAL, "it is empty");
	if ((region->gpa | region->size | region->uva | region->fd_offset) & mask)
		return bad(fe, region, -EINVAL, "address, size and offset must be whole pages");
	if (!bf_no_wrap(region->gpa, region->size) || !bf_no_wrap(region->uva, region->size) ||
	    !bf_no_wrap(region->fd_offset, region->size))
		return bad(fe, region, -EINVAL, "it runs past the end of the address space");
	return 0;
}

/* The seal is asked for before the length, so that the length stays true. */
static int check_file(struct bf_frontend *fe, struct bf_fe_region *region)
{
	struct stat st;
	int seals;

	if (fstat(region->fd, &st) < 0)
		return bad(fe, region, -errno, "its file descriptor cannot be examined");
	if (S_ISREG(st.st_mode)) {
		seals = fcntl(region->fd, F_GET_SEALS);
		if (seals < 0 || !(seals & F_SEAL_SHRINK))
			return bad(fe, region, -EPERM,
				   "its file could shrink; use a memfd with F_SEAL_SHRINK");
		if (fstat(region->fd, &st) < 0)
			return bad(fe, region, -errno, "its file descriptor cannot be examined");
		if (!bf_range_ok(region->fd_offset, region->size, (uint64_t)st.st_size))
			return bad(fe, region, -EINVAL, "its file is shorter than that");
	}
	region->dev = st.st_dev;
	region->ino = st.st_ino;
	return 0;
}

static int check_overlap(struct bf_frontend *fe, const struct bf_fe_region *regions, unsigned nr)
{
	const struct bf_fe_region *last = &regions[nr];

	for (unsigned i = 0; i < nr; i++) {
		if (bf_overlap(regions[i].gpa, regions[i].size, last->gpa, last->size) ||
		    bf_overlap(regions[i].uva, regions[i].size, last->uva, last->size))
			return bad(fe, last, -EINVAL, "it overlaps another region");
	}
	return 0;
}

/* Copy what can be announced. The number, or negative errno. */
static int select_regions(struct bf_frontend *fe, const struct bf_memory_region *from, unsigned nr,
			  struct bf_fe_region *to)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < nr; i++) {
		int ret;

		if (from[i].fd < 0)
			continue;
		to[kept] = (struct bf_fe_region){
			.gpa = from[i].gpa,
			.size = from[i].size,
			.uva = (uintptr_t)from[i].hva,
			.fd = from[i].fd,
			.fd_offset = from[i].fd_offset,
		};
		ret = check_shape(fe, &to[kept]);
		if (!ret)
			ret = check_file(fe, &to[kept]);
		if (!ret)
			ret = check_overlap(fe, to, kept);
		if (ret < 0)
			return ret;
		kept++;
	}
	if (kept > fe->max_regions)
		return bf_report_error(&fe->report, -E2BIG,
				       "%u memory regions, and the back end takes %u at most", kept,
				       fe->max_regions);
	return (int)kept;
}

static struct bf_mem_region wire_region(const struct bf_fe_region *region)
{
	return (struct bf_mem_region){
		.gpa = region->gpa,
		.size = region->size,
		.uva = region->uva,
		.mmap_offset = region->fd_offset,
	};
}

static int announce_table(struct bf_frontend *fe, const struct bf_fe_region *regions, unsigned nr)
{
	struct bf_batch batch;
	struct bf_msg msg;

	bf_batch_init(&batch, fe);
	bf_msg_init(&msg, BF_FE_SET_MEM_TABLE, 0);
	msg.payload.table.nr = nr;
	msg.hdr.size = bf_table_wire_size(nr);
	for (unsigned i = 0; i < nr; i++) {
		msg.payload.table.regions[i] = wire_region(&regions[i]);
		bf_msg_lend_fd(&msg, regions[i].fd);
	}
	bf_batch_ask(&batch, &msg, -1, NULL, NULL);
	return bf_batch_wait(&batch);
}

static int announced(void *opaque, struct bf_frontend *fe, const struct bf_msg *reply)
{
	(void)fe;
	(void)reply;
	((struct bf_fe_region *)opaque)->announced = true;
	return 0;
}

static int removed(void *opaque, struct bf_frontend *fe, const struct bf_msg *reply)
{
	(void)fe;
	(void)reply;
	((struct bf_fe_region *)opaque)->announced = false;
	return 0;
}

static void ask_slot(struct bf_batch *batch, uint32_t request, struct bf_fe_region *region)
{
	struct bf_msg msg;

	bf_msg_init(&msg, request, 0);
	msg.payload.reg.region = wire_region(region);
	msg.hdr.size = sizeof(msg.payload.reg);
	if (request == BF_FE_ADD_MEM_REG)
		bf_msg_lend_fd(&msg, region->fd);
	bf_batch_ask(batch, &msg, -1, request == BF_FE_ADD_MEM_REG ? announced : removed, region);
}

static bool same(const struct bf_fe_region *a, const struct bf_fe_region *b)
{
	return a->gpa == b->gpa && a->size == b->size && a->uva == b->uva &&
	       a->fd_offset == b->fd_offset && a->dev == b->dev && a->ino == b->ino;
}

static bool is_in(const struct bf_fe_region *region, const struct bf_fe_region *regions,
		  unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		if (same(region, &regions[i]))
			return true;
	}
	return false;
}

/* Move those that the back end has to the front; their number. */
static unsigned keep_announced(struct bf_fe_region *regions, unsigned nr)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < nr; i++) {
		if (regions[i].announced)
			regions[kept++] = regions[i];
	}
	return kept;
}

/*
 * @regions: the new ones in [0, nr), with room for the old ones behind, in case some of them stay
 * because the back end refused a step.
 */
static int announce_slots(struct bf_frontend *fe, struct bf_fe_region *regions, unsigned nr,
			  unsigned *nr_known)
{
	struct bf_fe_region *old = regions + nr;
	unsigned nr_old = 0;
	struct bf_batch batch;
	int ret;

	bf_batch_init(&batch, fe);
	for (unsigned i = 0; i < fe->nr_regions; i++) {
		if (is_in(&fe->regions[i], regions, nr))
			continue;
		old[nr_old] = fe->regions[i];
		ask_slot(&batch, BF_FE_REM_MEM_REG, &old[nr_old++]);
	}
	for (unsigned i = 0; i < nr; i++) {
		regions[i].announced = is_in(&regions[i], fe->regions, fe->nr_regions);
		if (!regions[i].announced)
			ask_slot(&batch, BF_FE_ADD_MEM_REG, &regions[i]);
	}
	ret = bf_batch_wait(&batch);
	*nr_known = keep_announced(regions, nr + nr_old);
	return ret;
}

static int announce(struct bf_frontend *fe, struct bf_fe_region *regions, unsigned nr,
		    unsigned *nr_known)
{
	int ret;

	if (bf_has(fe->agreed.protocol_features, BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
		return announce_slots(fe, regions, nr, nr_known);
	ret = announce_table(fe, regions, nr);
	*nr_known = ret < 0 ? 0 : nr; /* refused: what it has now is unknown */
	for (unsigned i = 0; i < *nr_known; i++)
		regions[i].announced = true;
	return ret;
}

int bf_frontend_set_memory(struct bf_frontend *fe, const struct bf_memory_region *regions,
			   unsigned nr)
{
	struct bf_fe_region *chosen;
	unsigned nr_known;
	int ret = bf_fe_check_attached(fe);
	int kept;

	if (ret < 0)
		return ret;
	if (nr > BF_MAX_REGIONS)
		return bf_report_error(&fe->report, -E2BIG,
				       "%u memory regions, %u at most expected", nr,
				       BF_MAX_REGIONS);
	chosen = calloc(nr + fe->nr_regions + 1, sizeof(*chosen));
	if (!chosen)
		return bf_report_error(&fe->report, -ENOMEM, "out of memory");
	kept = select_regions(fe, regions, nr, chosen);
	if (kept < 0) {
		free(chosen);
		return kept;
	}
	ret = announce(fe, chosen, (unsigned)kept, &nr_known);
	bf_fe_memory_forget(fe);
	if (!fe->attached) {
		free(chosen);
		return ret;
	}
	fe->regions = chosen;
	fe->nr_regions = nr_known;
	return ret < 0 ? ret : kept;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* The device of guest.h. Everything that a ring gives is compared with guest memory, and touched. */
#include "guest.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/virtio_config.h>

void guest_init(struct guest *guest)
{
	const uint64_t gpa[] = { 0, FIRST_END, HOLE_END };
	const uint64_t size[] = { FIRST_END, HOLE - FIRST_END, MEMORY_END - HOLE_END };
	struct bf_memory_region regions[3];

	memset(guest, 0, sizeof(*guest));
	for (unsigned i = 0; i < 3; i++) {
		int fd = memfd_create("bf-fuzz", MFD_CLOEXEC);

		fuzz_must(fd >= 0 && !ftruncate(fd, (off_t)size[i]));
		regions[i] = (struct bf_memory_region){
			.gpa = gpa[i], .uva = gpa[i] + UVA_OFFSET, .size = size[i], .fd = fd
		};
	}
	fuzz_must(!bf_memory_new(regions, 3, &guest->memory));
	guest->low = bf_memory_from_gpa(guest->memory, 0, FIRST_END);
	guest->ring = bf_memory_from_gpa(guest->memory, RING, MEMORY_END - RING);
	guest->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	guest->err_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	guest->vq = bf_virtq_new(0);
	fuzz_must(guest->low && guest->ring && guest->vq && guest->err_fd >= 0);
}

bool guest_start_with(struct guest *guest, uint16_t size, uint32_t base, uint64_t features,
		      const struct bf_virtq_extras *extras)
{
	const struct bf_virtq_setup setup = {
		.memory = guest->memory,
		.size = size,
		.base = base,
		.desc_uva = UVA_OFFSET + RING,
		.avail_uva = UVA_OFFSET + DRIVER,
		.used_uva = UVA_OFFSET + DEVICE,
		.features = features,
		.kick_fd = -1,
		.call_fd = guest->call_fd,
		.err_fd = guest->err_fd,
	};
	const char *why = NULL;
	uint64_t missing;
	int ret;

	guest->nr_taken = 0;
	ret = extras ? bf_virtq_start_with(guest->vq, &setup, extras, &missing, &why)
		     : bf_virtq_start(guest->vq, &setup, &why);
	fuzz_must(!ret || (why && strlen(why) > 5));
	return !ret;
}

bool guest_start(struct guest *guest, uint16_t size, uint32_t base, uint64_t features)
{
	return guest_start_with(guest, size, base, features, NULL);
}

static void touch(struct guest *guest, const struct iovec *piece, bool write)
{
	volatile uint8_t *bytes = piece->iov_base;
	bool inside = false;

	fuzz_must(piece->iov_len);
	for (unsigned i = 0; i < bf_memory_nr_regions(guest->memory); i++) {
		const struct bf_memory_region *region = bf_memory_region(guest->memory, i);
		uint64_t offset = (uint64_t)((uint8_t *)piece->iov_base - (uint8_t *)region->hva);

		inside |= piece->iov_len <= region->size && offset <= region->size - piece->iov_len;
	}
	fuzz_must(inside);
	if (write) {
		bytes[0] = 0x33;
		bytes[piece->iov_len - 1] = 0x44;
	} else {
		guest->bytes += bytes[0] ^ bytes[piece->iov_len - 1];
	}
	guest->pieces++;
	guest->bytes += piece->iov_len;
}

static void take(struct guest *guest, const struct bf_chain *chain)
{
	uint64_t out = 0, in = 0;

	fuzz_must(chain->head < bf_virtq_size(guest->vq));
	for (unsigned i = 0; i < (unsigned)chain->nr_out + chain->nr_in; i++) {
		touch(guest, &chain->iov[i], i >= chain->nr_out);
		if (i < chain->nr_out)
			out += chain->iov[i].iov_len;
		else
			in += chain->iov[i].iov_len;
	}
	fuzz_must(out == chain->out_len && in == chain->in_len);
	for (unsigned i = 0; i < guest->nr_taken; i++)
		fuzz_must(guest->taken[i] != chain->head);
	guest->taken[guest->nr_taken++] = chain->head;
	guest->popped++;
}

static void pop(struct guest *guest, unsigned nr)
{
	struct iovec iov[64];
	struct bf_chain chains[8];
	int got;

	if (nr > MAX_TAKEN - guest->nr_taken)
		nr = MAX_TAKEN - guest->nr_taken;
	if (!nr)
		return;
	got = bf_virtq_pop_batch(guest->vq, chains, nr, iov, 64);
	fuzz_must(got <= (int)nr);
	guest->broken += got < 0;
	for (int i = 0; i < got; i++)
		take(guest, &chains[i]);
}

/* The @nr from place @from, as one batch. */
static void push(struct guest *guest, unsigned from, unsigned nr)
{
	struct bf_done done[8];

	for (unsigned i = 0; i < nr; i++)
		done[i] = (struct bf_done){ guest->taken[from + i], i };
	bf_virtq_push_batch(guest->vq, done, nr);
	memmove(guest->taken + from, guest->taken + from + nr,
		(guest->nr_taken - from - nr) * sizeof(guest->taken[0]));
	guest->nr_taken -= nr;
	guest->pushed += nr;
}

static void unpop(struct guest *guest, unsigned nr)
{
	if (nr > guest->nr_taken || bf_virtq_broken(guest->vq, NULL))
		return;
	bf_virtq_unpop(guest->vq, guest->taken + guest->nr_taken - nr, nr);
	guest->nr_taken -= nr;
	guest->put_back += nr;
}

void guest_do(struct guest *guest, uint8_t op)
{
	unsigned nr = op >> 4 & 7;

	switch (op & 15) {
	case 0:
	case 1:
	case 2:
	case 3:
		pop(guest, nr + 1);
		break;
	case 4:
	case 5:
	case 6:
		if (nr && nr <= guest->nr_taken)
			push(guest, 0, nr);
		break;
	case 7:
		if (guest->nr_taken && !guest->vq->in_order)
			push(guest, guest->nr_taken - 1, 1);
		break;
	case 8:
	case 9:
		/* Only what was popped last, with nothing pushed behind it: the rule of unpop. */
		pop(guest, nr + 1);
		unpop(guest, 1);
		break;
	case 10:
		bf_virtq_want_kicks(guest->vq, op & 0x10);
		break;
	case 11:
		bf_virtq_has_work(guest->vq);
		break;
	default:
		bf_virtq_notify(guest->vq);
	}
}

void guest_end(struct guest *guest)
{
	uint64_t count;

	while (guest->nr_taken)
		push(guest, 0, guest->nr_taken > 8 ? 8 : guest->nr_taken);
	bf_virtq_notify(guest->vq);
	fuzz_must(bf_virtq_in_flight(guest->vq) == 0);
	bf_virtq_stop(guest->vq);
	(void)!read(guest->call_fd, &count, sizeof(count));
	(void)!read(guest->err_fd, &count, sizeof(count));
}

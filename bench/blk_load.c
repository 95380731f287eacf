/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-blk-load: random reads of 4 KiB at any vhost-user block device, over belfry/driver.h.
 *
 *	bench-blk-load --socket PATH --depth N --size BYTES [--seconds S] [--doorbell] [--packed]
 *		[--wait]
 *
 * One thread, one queue, which always holds --depth requests; it spins on the used ring, or with
 * --wait sleeps for calls. Prints one JSON object. The first tenth of the time is not counted. It
 * must not use a private header: it is what anybody could write.
 */
#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <belfry/driver.h>
#include <belfry/socket.h>

#define BLOCK      4096u
#define SECTOR     512u
#define MAX_DEPTH  256u
#define QUEUE_SIZE 1024 /* three descriptors a request */
#define LOOK       64u  /* rounds between two looks at the clock */
#define LIMIT_MS   20000u

struct options {
	const char *socket;
	unsigned depth;
	uint64_t size;
	double seconds;
	bool doorbell, packed, wait;
};

struct request {
	struct virtio_blk_outhdr *header;
	uint8_t *data, *status;
	struct iovec iov[3];
};

struct load {
	const struct options *opt;
	struct bf_driver *drv;
	struct request requests[MAX_DEPTH];
	uint64_t random, done;
};

static void log_line(void *opaque, enum bf_log_level level, const char *tag, const char *text)
{
	(void)opaque;
	(void)level;
	fprintf(stderr, "bench-blk-load: %s: %s\n", tag, text);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what, int error)
{
	fprintf(stderr, "bench-blk-load: %s: %s\n", what, strerror(-error));
	exit(1);
}

/* xorshift: any block is as likely as any other, and it costs nothing beside a request. */
static uint64_t next_block(struct load *load)
{
	uint64_t x = load->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	load->random = x;
	return (uint64_t)((__uint128_t)x * (load->opt->size / BLOCK) >> 64);
}

static void submit(struct load *load, struct request *req)
{
	int ret;

	req->header->sector = htole64(next_block(load) * (BLOCK / SECTOR));
	*req->status = 0xff;
	ret = bf_driver_add(load->drv, 0, req->iov, 1, 2, req);
	if (ret < 0)
		die("a request does not fit into the ring", ret);
}

static void prepare(struct load *load)
{
	for (unsigned i = 0; i < load->opt->depth; i++) {
		struct request *req = &load->requests[i];

		req->header = bf_driver_alloc(load->drv, sizeof(*req->header), 64);
		req->status = bf_driver_alloc(load->drv, 1, 64);
		req->data = bf_driver_alloc(load->drv, BLOCK, BLOCK);
		if (!req->header || !req->status || !req->data)
			die("memory", -ENOMEM);
		req->header->type = htole32(VIRTIO_BLK_T_IN);
		req->iov[0] = (struct iovec){ req->header, sizeof(*req->header) };
		req->iov[1] = (struct iovec){ req->data, BLOCK };
		req->iov[2] = (struct iovec){ req->status, 1 };
		submit(load, req);
	}
}

static unsigned turn_round(struct load *load)
{
	struct request *req;
	uint32_t len;
	unsigned nr = 0;

	while (nr < load->opt->depth && (req = bf_driver_get(load->drv, 0, &len))) {
		if (*req->status != VIRTIO_BLK_S_OK || len != BLOCK + 1) {
			fprintf(stderr,
				"bench-blk-load: a read failed: status %u, %u bytes written\n",
				*req->status, len);
			exit(1);
		}
		submit(load, req);
		nr++;
	}
	if (nr)
		bf_driver_kick(load->drv, 0);
	return nr;
}

static void drive_until(struct load *load, double end)
{
	double alive = now();
	uint64_t seen = load->done;
	double t;

	for (;;) {
		for (unsigned i = 0; i < LOOK; i++) {
			unsigned nr = turn_round(load);

			load->done += nr;
			if (nr == 0 && load->opt->wait)
				bf_driver_wait(load->drv, 0, 100);
		}
		t = now();
		if (t >= end)
			return;
		if (load->done != seen) {
			seen = load->done;
			alive = t;
		} else if (t - alive > 5) {
			die("nothing came back within 5 s", -ETIMEDOUT);
		}
		if (bf_driver_broken(load->drv, 0))
			die("the device broke the ring", -EPIPE);
	}
}

static void open_device(struct load *load)
{
	const struct options *opt = load->opt;
	const struct bf_driver_config config = {
		.name = "load",
		.nr_queues = 1,
		.queue_size = QUEUE_SIZE,
		.features = (opt->packed ? bf_bit(VIRTIO_F_RING_PACKED) : 0) |
			    bf_bit(VIRTIO_RING_F_EVENT_IDX),
		.memory_size = opt->depth * (BLOCK + 128ull) + (1u << 20),
		.no_doorbell = !opt->doorbell,
		.log = { .write = log_line, .level = BF_LOG_WARN },
	};
	char error[256];
	int fd = bf_socket_connect(opt->socket);

	if (fd < 0)
		die(opt->socket, fd);
	if (bf_driver_new(&config, fd, &load->drv, error, sizeof(error))) {
		fprintf(stderr, "bench-blk-load: %s\n", error);
		exit(1);
	}
	if (opt->packed && !bf_has(bf_driver_features(load->drv), VIRTIO_F_RING_PACKED))
		die("packed rings", -EOPNOTSUPP);
}

static void wait_doorbell(struct load *load)
{
	struct bf_doorbell_state state;

	for (unsigned ms = 0; ms < LIMIT_MS; ms++) {
		bf_frontend_doorbell_state(bf_driver_frontend(load->drv), 0, &state);
		if (state.mapped)
			return;
		if (bf_driver_dispatch(load->drv) < 0)
			break;
		bf_driver_wait(load->drv, 0, 1);
	}
	die("the back end gives no doorbell page", -EOPNOTSUPP);
}

static void measure(struct load *load)
{
	const struct bf_driver_counters *counters = bf_driver_counters(load->drv, 0);
	struct bf_driver_counters before;
	uint64_t done;
	double start;

	bf_driver_kick(load->drv, 0);
	drive_until(load, now() + load->opt->seconds / 10);
	before = *counters;
	done = load->done;
	start = now();
	drive_until(load, start + load->opt->seconds);
	printf("{\"iops\": %.0f, \"doorbells\": %llu, \"kicks\": %llu, \"suppressed\": %llu}\n",
	       (double)(load->done - done) / (now() - start),
	       (unsigned long long)(counters->doorbells - before.doorbells),
	       (unsigned long long)(counters->kicks - before.kicks),
	       (unsigned long long)(counters->suppressed - before.suppressed));
}

static int parse(int argc, char **argv, struct options *opt)
{
	static const struct option longopts[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "depth", required_argument, NULL, 'd' },
		{ "size", required_argument, NULL, 'b' },
		{ "seconds", required_argument, NULL, 't' },
		{ "doorbell", no_argument, NULL, 'D' },
		{ "packed", no_argument, NULL, 'P' },
		{ "wait", no_argument, NULL, 'W' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		switch (c) {
		case 's':
			opt->socket = optarg;
			break;
		case 'd':
			opt->depth = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'b':
			opt->size = strtoull(optarg, NULL, 10);
			break;
		case 't':
			opt->seconds = strtod(optarg, NULL);
			break;
		case 'D':
			opt->doorbell = true;
			break;
		case 'P':
			opt->packed = true;
			break;
		case 'W':
			opt->wait = true;
			break;
		default:
			return -EINVAL;
		}
	}
	return opt->socket && opt->depth >= 1 && opt->depth <= MAX_DEPTH && opt->size >= BLOCK &&
			       opt->seconds > 0
		       ? 0
		       : -EINVAL;
}

int main(int argc, char **argv)
{
	struct options opt = { .seconds = 1 };
	static struct load load;

	if (parse(argc, argv, &opt)) {
		fprintf(stderr,
			"usage: bench-blk-load --socket PATH --depth 1..%u --size BYTES"
			" [--seconds S] [--doorbell] [--packed] [--wait]\n",
			MAX_DEPTH);
		return 2;
	}
	load.opt = &opt;
	load.random = 0x9e3779b97f4a7c15u;
	open_device(&load);
	prepare(&load);
	if (opt.doorbell)
		wait_doorbell(&load);
	measure(&load);
	bf_driver_free(load.drv);
	return 0;
}

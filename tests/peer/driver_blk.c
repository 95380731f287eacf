/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A driver for any vhost-user block device, over belfry/driver.h: copies the first half of the disk
 * onto the second, then asks what a driver may ask, and prints TAP.
 *
 *	driver_blk --socket PATH --sectors N --queues N --notify eventfd|doorbell
 *
 * One thread, which is control and queue context at once. It knows nothing of who serves: what both
 * sides must agree on is in the options. The test that starts it compares the halves of the image.
 * It must not use a private header: whoever writes a driver has these.
 */
#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <belfry/driver.h>
#include <belfry/socket.h>

#define SECTOR     512u
#define DEPTH      16u         /* requests in flight on each queue */
#define CHUNK      (32u << 10) /* bytes of a request */
#define LIMIT_S    60
#define QUEUE_SIZE 64
#define MAX_QUEUES 16
#define ONE_DEEP   100u

struct options {
	const char *socket;
	uint64_t nr_sectors;
	unsigned nr_queues;
	bool doorbell;
};

struct request {
	struct virtio_blk_outhdr *header;
	uint8_t *data; /* CHUNK */
	uint8_t *status;
	struct iovec iov[8];
	unsigned queue;
	bool busy;
};

struct disk {
	const struct options *opt;
	struct bf_driver *drv;
	struct request requests[MAX_QUEUES][DEPTH];
	time_t deadline;
	char error[256]; /* the first thing that went wrong */
};

static unsigned nr_results, nr_failed;

static void ok(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void ok(bool good, const char *format, ...)
{
	va_list args;

	nr_results++;
	nr_failed += !good;
	printf("%s %u - ", good ? "ok" : "not ok", nr_results);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

static void log_line(void *opaque, enum bf_log_level level, const char *tag, const char *text)
{
	(void)opaque;
	(void)level;
	fprintf(stderr, "%s: %s\n", tag, text);
}

static int fail(struct disk *disk, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct disk *disk, const char *format, ...)
{
	va_list args;

	if (!disk->error[0]) {
		va_start(args, format);
		vsnprintf(disk->error, sizeof(disk->error), format, args);
		va_end(args);
	}
	return -EIO;
}

static bool went_well(struct disk *disk)
{
	bool good = !disk->error[0];

	if (!good)
		printf("# %s\n", disk->error);
	disk->error[0] = '\0';
	return good;
}

/* Life of the driver. */

static struct bf_driver *open_driver(const struct options *opt, unsigned nr_queues)
{
	const struct bf_driver_config config = {
		.name = "peer",
		.nr_queues = nr_queues,
		.queue_size = QUEUE_SIZE,
		.features = bf_bit(VIRTIO_BLK_F_FLUSH) | bf_bit(VIRTIO_BLK_F_SEG_MAX) |
			    bf_bit(VIRTIO_BLK_F_BLK_SIZE) | bf_bit(VIRTIO_BLK_F_MQ) |
			    bf_bit(VIRTIO_RING_F_EVENT_IDX) | bf_bit(VIRTIO_RING_F_INDIRECT_DESC),
		.memory_size = nr_queues * DEPTH * (CHUNK + 4096ull) + (1u << 20),
		.no_doorbell = !opt->doorbell,
		.log = { .write = log_line, .level = BF_LOG_INFO },
	};
	struct bf_driver *drv = NULL;
	char error[256];
	int fd = bf_socket_connect(opt->socket);

	if (fd < 0) {
		printf("# %s: %s\n", opt->socket, strerror(-fd));
		return NULL;
	}
	if (bf_driver_new(&config, fd, &drv, error, sizeof(error))) {
		printf("# %s\n", error);
		return NULL;
	}
	return drv;
}

static int allocate_requests(struct disk *disk)
{
	for (unsigned i = 0; i < disk->opt->nr_queues * DEPTH; i++) {
		struct request *req = &disk->requests[i / DEPTH][i % DEPTH];

		req->queue = i / DEPTH;
		req->header = bf_driver_alloc(disk->drv, sizeof(*req->header), 16);
		req->status = bf_driver_alloc(disk->drv, 1, 1);
		req->data = bf_driver_alloc(disk->drv, CHUNK, 4096);
		if (!req->header || !req->status || !req->data)
			return fail(disk, "no memory for buffers");
	}
	return 0;
}

/* The back end's requests are served between two waits. */
static bool wait_doorbells(struct disk *disk)
{
	struct bf_doorbell_state state;
	time_t deadline = time(NULL) + LIMIT_S;
	unsigned queue = 0;

	while (queue < disk->opt->nr_queues && time(NULL) < deadline) {
		bf_frontend_doorbell_state(bf_driver_frontend(disk->drv), queue, &state);
		if (state.mapped)
			queue++;
		else if (bf_driver_dispatch(disk->drv) < 0)
			break;
		else
			bf_driver_wait(disk->drv, queue, 10);
	}
	return queue == disk->opt->nr_queues;
}

/* Requests. */

/* Data in three pieces of different sizes, so that a chain is more than header, data, status. */
static int send_request(struct disk *disk, struct request *req, uint32_t type, uint64_t sector,
			size_t len)
{
	bool read = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	size_t cuts[] = { 0, len / 8 & ~511ul, len / 2 & ~511ul, len };
	unsigned nr = 1;
	int ret;

	req->header->type = htole32(type);
	req->header->sector = htole64(sector);
	*req->status = 0xff;
	req->iov[0] = (struct iovec){ req->header, sizeof(*req->header) };
	for (unsigned i = 0; i < 3; i++)
		if (cuts[i + 1] > cuts[i])
			req->iov[nr++] =
				(struct iovec){ req->data + cuts[i], cuts[i + 1] - cuts[i] };
	req->iov[nr] = (struct iovec){ req->status, 1 };
	ret = read ? bf_driver_add(disk->drv, req->queue, req->iov, 1, nr, req)
		   : bf_driver_add(disk->drv, req->queue, req->iov, nr, 1, req);
	if (ret)
		return fail(disk, "queue %u: request not taken: %s", req->queue, strerror(-ret));
	req->busy = true;
	return 0;
}

/* Wait until one request of @queue is finished. */
static struct request *finish_one(struct disk *disk, unsigned queue)
{
	struct request *req;
	uint32_t len;
	int ret;

	for (;;) {
		req = bf_driver_get(disk->drv, queue, &len);
		if (req) {
			req->busy = false;
			return req;
		}
		ret = bf_driver_dispatch(disk->drv);
		if (ret >= 0)
			ret = bf_driver_wait(disk->drv, queue, 100);
		if (ret < 0) {
			fail(disk, "queue %u: %s", queue, strerror(-ret));
			return NULL;
		}
		if (time(NULL) > disk->deadline) {
			fail(disk, "queue %u: no answer within %d s", queue, LIMIT_S);
			return NULL;
		}
	}
}

/* One request, alone on its queue. Returns its status, or negative errno. */
static int do_request(struct disk *disk, unsigned queue, uint32_t type, uint64_t sector, size_t len)
{
	struct request *req = &disk->requests[queue][0];

	disk->deadline = time(NULL) + LIMIT_S;
	if (send_request(disk, req, type, sector, len))
		return -EIO;
	bf_driver_kick(disk->drv, queue);
	if (!finish_one(disk, queue))
		return -EIO;
	return *req->status;
}

/* Batches of DEPTH requests on every queue at once: all are sent before the first is waited for. */
static int do_batch(struct disk *disk, uint32_t type, uint64_t sector)
{
	unsigned nr = disk->opt->nr_queues * DEPTH;

	disk->deadline = time(NULL) + LIMIT_S;
	for (unsigned i = 0; i < nr; i++)
		if (send_request(disk, &disk->requests[i / DEPTH][i % DEPTH], type,
				 sector + i * (CHUNK / SECTOR), CHUNK))
			return -EIO;
	for (unsigned queue = 0; queue < disk->opt->nr_queues; queue++)
		bf_driver_kick(disk->drv, queue);
	for (unsigned i = 0; i < nr; i++) {
		struct request *req = finish_one(disk, i / DEPTH);

		if (!req)
			return -EIO;
		if (*req->status != VIRTIO_BLK_S_OK)
			return fail(disk, "queue %u: status %u", req->queue, *req->status);
	}
	return 0;
}

/* Copy [@first, @first + @nr) sectors, in batches, to the second half. */
static void copy(struct disk *disk, uint64_t first, uint64_t nr)
{
	uint64_t batch = disk->opt->nr_queues * DEPTH * (CHUNK / SECTOR);
	uint64_t half = disk->opt->nr_sectors / 2;

	for (uint64_t at = first; at < first + nr; at += batch)
		if (do_batch(disk, VIRTIO_BLK_T_IN, at) ||
		    do_batch(disk, VIRTIO_BLK_T_OUT, half + at))
			return;
}

/* What is checked. */

static void check_config(struct disk *disk)
{
	struct virtio_blk_config config;
	uint64_t features = bf_driver_features(disk->drv);
	int ret = bf_frontend_get_config(bf_driver_frontend(disk->drv), 0, &config,
					 offsetof(struct virtio_blk_config, max_discard_sectors));

	ok(ret == 0, "config space can be read");
	if (ret)
		return;
	ok(le64toh(config.capacity) == disk->opt->nr_sectors, "capacity: %llu sectors",
	   (unsigned long long)le64toh(config.capacity));
	ok(bf_has(features, VIRTIO_BLK_F_BLK_SIZE) && le32toh(config.blk_size) == SECTOR,
	   "blocks of %u bytes", le32toh(config.blk_size));
	ok(bf_has(features, VIRTIO_BLK_F_SEG_MAX) && le32toh(config.seg_max) >= 3,
	   "%u pieces a request", le32toh(config.seg_max));
	ok(bf_has(features, VIRTIO_BLK_F_MQ) && le16toh(config.num_queues) == disk->opt->nr_queues,
	   "%u queues", le16toh(config.num_queues));
	ok(bf_has(features, VIRTIO_BLK_F_FLUSH), "flush is offered");
}

/*
 * One request at a time, so that the device sleeps or looks at its doorbell in between. Each queue
 * gets another number of them: whoever mixes up two doorbells counts wrong.
 */
static void check_one_deep(struct disk *disk)
{
	for (unsigned queue = 0; queue < disk->opt->nr_queues; queue++) {
		for (unsigned i = 0; i < (queue + 1) * ONE_DEEP && !disk->error[0]; i++) {
			int status = do_request(disk, queue, VIRTIO_BLK_T_IN, i, SECTOR);

			if (status != VIRTIO_BLK_S_OK)
				fail(disk, "queue %u, request %u: status %d", queue, i, status);
		}
	}
	ok(went_well(disk), "one request at a time, on queue n %u * (n + 1) of them", ONE_DEEP);
}

/* What one queue writes another reads. */
static void check_across(struct disk *disk)
{
	unsigned nr = disk->opt->nr_queues;
	uint64_t sector = disk->opt->nr_sectors / 2;
	int status;

	for (unsigned queue = 0; queue < nr && !disk->error[0]; queue++) {
		const struct request *to = &disk->requests[(queue + 1) % nr][0];
		uint8_t kept[CHUNK];

		status = do_request(disk, queue, VIRTIO_BLK_T_IN, sector, CHUNK);
		memcpy(kept, disk->requests[queue][0].data, CHUNK);
		if (status == VIRTIO_BLK_S_OK)
			status = do_request(disk, queue, VIRTIO_BLK_T_OUT, sector, CHUNK);
		memset(to->data, 0, CHUNK);
		if (status == VIRTIO_BLK_S_OK)
			status = do_request(disk, to->queue, VIRTIO_BLK_T_IN, sector, CHUNK);
		if (status != VIRTIO_BLK_S_OK || memcmp(kept, to->data, CHUNK) != 0)
			fail(disk, "queue %u: status %d, or other data", queue, status);
	}
	ok(went_well(disk), "what one queue writes the next one reads");
}

static void check_answers(struct disk *disk)
{
	uint64_t last = disk->opt->nr_sectors - 1;
	const char *id = (const char *)disk->requests[0][0].data;
	int status = do_request(disk, 0, VIRTIO_BLK_T_FLUSH, 0, 0);

	ok(status == VIRTIO_BLK_S_OK, "flush: status %d", status);
	status = do_request(disk, 0, VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES);
	ok(status == VIRTIO_BLK_S_OK && id[0], "identity: '%.*s'", VIRTIO_BLK_ID_BYTES, id);
	status = do_request(disk, 0, VIRTIO_BLK_T_IN, last, SECTOR);
	ok(status == VIRTIO_BLK_S_OK, "the last sector can be read: status %d", status);
	status = do_request(disk, 0, VIRTIO_BLK_T_IN, last, 2 * SECTOR);
	ok(status == VIRTIO_BLK_S_IOERR, "not the one behind it: status %d", status);
	status = do_request(disk, 0, VIRTIO_BLK_T_OUT, UINT64_MAX - 1, 2 * SECTOR);
	ok(status == VIRTIO_BLK_S_IOERR, "nor one that wraps around: status %d", status);
	status = do_request(disk, 0, VIRTIO_BLK_T_OUT, last + 9, SECTOR);
	ok(status == VIRTIO_BLK_S_IOERR, "nor can the disk be made longer: status %d", status);
	status = do_request(disk, 0, 0x7ff0, 0, SECTOR);
	ok(status == VIRTIO_BLK_S_UNSUPP, "unknown request: status %d", status);
	went_well(disk);
}

/* Notifications of one queue went the agreed way. */
static void check_notifications(struct disk *disk)
{
	for (unsigned queue = 0; queue < disk->opt->nr_queues; queue++) {
		const struct bf_driver_counters *c = bf_driver_counters(disk->drv, queue);

		ok(disk->opt->doorbell ? c->doorbells && !c->kicks : c->kicks && !c->doorbells,
		   "queue %u was rung by its %s only", queue,
		   disk->opt->doorbell ? "doorbell" : "eventfd");
		printf("# queue %u: %llu doorbells, %llu kicks, %llu suppressed, %llu requests\n",
		       queue, (unsigned long long)c->doorbells, (unsigned long long)c->kicks,
		       (unsigned long long)c->suppressed, (unsigned long long)c->finished);
	}
}

static void check_disk(struct disk *disk)
{
	const uint64_t half = disk->opt->nr_sectors / 2;

	check_config(disk);
	ok(!disk->opt->doorbell || wait_doorbells(disk), "doorbells: %s",
	   disk->opt->doorbell ? "a page for every queue" : "not wanted");
	copy(disk, 0, half / 2);
	ok(went_well(disk), "copied a quarter of the disk, %u requests deep on all queues", DEPTH);
	check_one_deep(disk);
	check_across(disk);
	check_answers(disk);

	ok(!bf_driver_stop(disk->drv) && !bf_driver_start(disk->drv),
	   "all queues stopped, and started from where they stood");
	ok(!disk->opt->doorbell || wait_doorbells(disk), "doorbells after it: %s",
	   disk->opt->doorbell ? "new pages" : "not wanted");
	copy(disk, half / 2, half / 2);
	ok(went_well(disk), "copied another quarter");
	ok(do_request(disk, 0, VIRTIO_BLK_T_FLUSH, 0, 0) == VIRTIO_BLK_S_OK, "flushed");
	check_notifications(disk);
}

/* A device is used more than once: look at it with one queue, go away, come back with all. */
static int run(const struct options *opt)
{
	struct bf_driver *looking = open_driver(opt, 1);
	static struct disk disk;

	ok(looking != NULL, "connected, one queue started");
	if (!looking)
		return EXIT_FAILURE;
	ok(bf_frontend_max_queues(bf_driver_frontend(looking)) >= opt->nr_queues,
	   "the back end offers %u queues", bf_frontend_max_queues(bf_driver_frontend(looking)));
	bf_driver_free(looking);

	disk.opt = opt;
	disk.drv = open_driver(opt, opt->nr_queues);
	ok(disk.drv != NULL, "connected again, %u queues started", opt->nr_queues);
	if (disk.drv && !allocate_requests(&disk))
		check_disk(&disk);
	bf_driver_free(disk.drv);
	return nr_failed || !disk.drv ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int parse(int argc, char **argv, struct options *opt)
{
	static const struct option names[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "sectors", required_argument, NULL, 'n' },
		{ "queues", required_argument, NULL, 'q' },
		{ "notify", required_argument, NULL, 'k' },
		{ 0 },
	};
	uint64_t batch;
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == 's')
			opt->socket = optarg;
		else if (c == 'n')
			opt->nr_sectors = strtoull(optarg, NULL, 0);
		else if (c == 'q')
			opt->nr_queues = (unsigned)strtoul(optarg, NULL, 0);
		else if (c == 'k')
			opt->doorbell = strcmp(optarg, "doorbell") == 0;
		else
			return -EINVAL;
	}
	if (!opt->socket || opt->nr_queues < 1 || opt->nr_queues > MAX_QUEUES)
		return -EINVAL;
	batch = opt->nr_queues * DEPTH * (CHUNK / SECTOR);
	return opt->nr_sectors && opt->nr_sectors % (4 * batch) == 0 ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	struct options opt = { .nr_queues = 1 };
	int status;

	if (parse(argc, argv, &opt)) {
		fprintf(stderr,
			"usage: driver_blk --socket PATH --sectors N [--queues 1..%d] "
			"[--notify eventfd|doorbell]\n"
			"N: a multiple of %u for each queue\n",
			MAX_QUEUES, 4 * DEPTH * (CHUNK / SECTOR));
		return 2;
	}
	status = run(&opt);
	printf("1..%u\n", nr_results);
	return status;
}

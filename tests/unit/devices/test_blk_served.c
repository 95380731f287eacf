/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * belfry-blk at work: the program is run and driven by a driver in this process, over eventfds and
 * over doorbell pages, with both I/O engines, by good and by hostile requests.
 */
#include "../support.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>

#include <jansson.h>

#include <belfry/driver.h>

#define DISK_SIZE  (1u << 20)
#define WAIT_MS    10000
#define LARGE_RUNS 5000

struct mode {
	const char *name;
	const char *notify;
	const char *io;
	const char *more;
	bool no_flush, packed;
};

struct served {
	const struct mode *mode;
	pid_t pid;
	int disk;
	struct bf_driver *drv;
	uint8_t *memory; /* of the requests */
};

static char folder[] = "/tmp/belfry-served-XXXXXX";
static char image[64], stats[64];

static pid_t start_program(const struct mode *mode, int fd)
{
	char fd_option[32], image_option[96], stats_option[96], notify[32], io[32];
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	fcntl(fd, F_SETFD, 0);
	snprintf(fd_option, sizeof(fd_option), "--fd=%d", fd);
	/* Not for a disk that is not there: then the option of it stands in this place. */
	snprintf(image_option, sizeof(image_option), "--blk-file=%s", image);
	if (mode->more && !strncmp(mode->more, "--null", 6))
		snprintf(image_option, sizeof(image_option), "%s", mode->more);
	snprintf(stats_option, sizeof(stats_option), "--stats=%s", stats);
	snprintf(notify, sizeof(notify), "--notify=%s", mode->notify);
	snprintf(io, sizeof(io), "--io=%s", mode->io);
	alarm(50);
	execl(BELFRY_BLK, "belfry-blk", fd_option, image_option, stats_option, notify, io,
	      "--num-queues=3", "--serial=the-serial", "--log-level=error", mode->more, NULL);
	_exit(127);
}

static void fill_disk(int fd)
{
	uint32_t sector[128];
	unsigned i, j;

	assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
	for (i = 0; i < DISK_SIZE / 512; i++) {
		for (j = 0; j < 128; j++)
			sector[j] = i * 128 + j;
		assert_int_equal(pwrite(fd, sector, 512, (off_t)i * 512), 512);
	}
}

static int connect_driver(struct served *s, int fd)
{
	const struct bf_driver_config config = {
		.name = "test",
		.nr_queues = 3,
		.queue_size = 64,
		.features = bf_bit(VIRTIO_BLK_F_SEG_MAX) | bf_bit(VIRTIO_BLK_F_MQ) |
			    bf_bit(VIRTIO_BLK_F_RO) | bf_bit(VIRTIO_RING_F_EVENT_IDX) |
			    bf_bit(VIRTIO_RING_F_INDIRECT_DESC) |
			    (s->mode->packed ? bf_bit(VIRTIO_F_RING_PACKED) : 0) |
			    (s->mode->no_flush ? 0 : bf_bit(VIRTIO_BLK_F_FLUSH)),
		.memory_size = 1 << 20,
		.timeout_ms = WAIT_MS,
	};
	char error[256] = "";
	int ret = bf_driver_new(&config, fd, &s->drv, error, sizeof(error));

	if (ret)
		print_error("%s\n", error);
	else if (s->mode->packed)
		assert_true(bf_has(bf_driver_features(s->drv), VIRTIO_F_RING_PACKED));
	return ret;
}

static int set_up(void **state)
{
	static struct served served;
	struct served *s = &served;
	int pair[2];

	*s = (struct served){ .mode = *state };
	s->disk = open(image, O_RDWR | O_CREAT | O_TRUNC, 0600);
	fill_disk(s->disk);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	s->pid = start_program(s->mode, pair[1]);
	close(pair[1]);
	if (connect_driver(s, pair[0]))
		return -1;
	s->memory = bf_driver_alloc(s->drv, 512 << 10, 4096);
	*state = s;
	return s->memory ? 0 : -1;
}

/* The driver leaves, and so does the program: by itself, with success. */
static int tear_down(void **state)
{
	struct served *s = *state;
	int status;

	bf_driver_free(s->drv);
	waitpid(s->pid, &status, 0);
	close(s->disk);
	unlink(image);
	unlink(stats);
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -1;
}

/* Serves the back end's side of things (doorbells come and go) while waiting. */
static uint32_t wait_one(struct served *s, unsigned queue, void *cookie)
{
	uint32_t len = 0;
	void *got;
	int ms;

	for (ms = 0; ms < WAIT_MS; ms++) {
		got = bf_driver_get(s->drv, queue, &len);
		if (got) {
			assert_ptr_equal(got, cookie);
			return len;
		}
		assert_true(bf_driver_dispatch(s->drv) >= 0);
		bf_driver_wait(s->drv, queue, 1);
	}
	fail_msg("queue %u stalls", queue);
	return 0;
}

static uint32_t submit(struct served *s, unsigned queue, const struct iovec *iov, unsigned nr_out,
		       unsigned nr_in)
{
	assert_int_equal(bf_driver_add(s->drv, queue, iov, nr_out, nr_in, s), 0);
	bf_driver_kick(s->drv, queue);
	return wait_one(s, queue, s);
}

/* A plain request with header at memory, data at memory + 4096. Status is what comes back. */
static uint8_t request(struct served *s, unsigned queue, uint32_t type, uint64_t sector,
		       uint32_t len, uint32_t *written)
{
	struct virtio_blk_outhdr *header = (void *)s->memory;
	uint8_t *status = s->memory + 64;
	bool out = type == VIRTIO_BLK_T_OUT;
	struct iovec iov[3] = { { header, sizeof(*header) } };
	unsigned nr = 1;

	header->type = htole32(type);
	header->sector = htole64(sector);
	*status = 0xee;
	if (len)
		iov[nr++] = (struct iovec){ s->memory + 4096, len };
	iov[nr++] = (struct iovec){ status, 1 };
	*written = submit(s, queue, iov, out ? nr - 1 : 1, out ? 1 : nr - 1);
	return *status;
}

static bool holds(const uint8_t *data, uint32_t sector, uint32_t len)
{
	uint32_t i, word;

	for (i = 0; i < len / 4; i++) {
		memcpy(&word, data + i * 4, 4);
		if (word != sector * 128 + i)
			return false;
	}
	return true;
}

static json_t *ask_stats(struct served *s)
{
	json_t *root = NULL;
	int i;

	unlink(stats);
	kill(s->pid, SIGUSR1);
	for (i = 0; i < 2000 && !root; i++) {
		usleep(2000);
		root = json_load_file(stats, 0, NULL);
	}
	assert_non_null(root);
	return root;
}

static json_int_t counter(json_t *root, unsigned queue, const char *name)
{
	json_t *queues = json_object_get(root, "queues");

	return json_integer_value(json_object_get(json_array_get(queues, queue), name));
}

static void test_requests(void **state)
{
	struct served *s = *state;
	uint32_t written;
	unsigned i;

	for (i = 0; i < 60; i++) {
		memset(s->memory + 4096, 0, 2048);
		assert_int_equal(request(s, i % 3, VIRTIO_BLK_T_IN, i * 17, 2048, &written), 0);
		assert_int_equal(written, 2049);
		assert_true(holds(s->memory + 4096, i * 17, 2048));
	}
	memset(s->memory + 4096, 0x77, 1024);
	assert_int_equal(request(s, 1, VIRTIO_BLK_T_OUT, 5, 1024, &written), 0);
	assert_int_equal(written, 1);
	assert_int_equal(request(s, 1, VIRTIO_BLK_T_FLUSH, 0, 0, &written), 0);
	assert_int_equal(pread(s->disk, s->memory, 1024, 5 * 512), 1024);
	assert_memory_equal(s->memory, s->memory + 4096, 1024);
	assert_int_equal(request(s, 2, VIRTIO_BLK_T_GET_ID, 0, 20, &written), 0);
	assert_int_equal(written, 21);
	assert_memory_equal(s->memory + 4096, "the-serial\0\0\0\0\0\0\0\0\0\0", 20);
}

#define NR_SPREAD 10
#define NR_PIECES 6

/* Several requests at once, the data of each in many places: all of it arrives where it belongs. */
static void test_pieces(void **state)
{
	struct served *s = *state;
	unsigned turn, i, j, done;
	uint32_t len;

	for (turn = 0; turn < 20; turn++) {
		memset(s->memory, 0xee, 8192 + NR_SPREAD * NR_PIECES * 1024);
		for (i = 0; i < NR_SPREAD; i++) {
			struct virtio_blk_outhdr *header = (void *)(s->memory + i * 64);
			struct iovec iov[NR_PIECES + 2] = { { header, sizeof(*header) } };

			header->type = htole32(VIRTIO_BLK_T_IN);
			header->sector = htole64(i * 100 + turn);
			for (j = 0; j < NR_PIECES; j++)
				iov[j + 1] = (struct iovec){
					s->memory + 8192 + (j * NR_SPREAD + i) * 1024, 512
				};
			iov[NR_PIECES + 1] = (struct iovec){ s->memory + i * 64 + 32, 1 };
			assert_int_equal(bf_driver_add(s->drv, 1, iov, 1, NR_PIECES + 1, s), 0);
		}
		bf_driver_kick(s->drv, 1);
		for (done = 0; done < NR_SPREAD; done++) {
			len = wait_one(s, 1, s);
			assert_int_equal(len, NR_PIECES * 512 + 1);
		}
		for (i = 0; i < NR_SPREAD; i++) {
			assert_int_equal(s->memory[i * 64 + 32], 0);
			for (j = 0; j < NR_PIECES; j++)
				assert_true(holds(s->memory + 8192 + (j * NR_SPREAD + i) * 1024,
						  i * 100 + turn + j, 512));
		}
	}
}

static void test_config(void **state)
{
	struct served *s = *state;
	struct virtio_blk_config config = { 0 };

	assert_int_equal(
		bf_frontend_get_config(bf_driver_frontend(s->drv), 0, &config, sizeof(config)), 0);
	assert_int_equal(le64toh(config.capacity), DISK_SIZE / 512);
	assert_int_equal(le32toh(config.seg_max), 126);
	assert_int_equal(le32toh(config.size_max), 0);
	assert_int_equal(le32toh(config.blk_size), 512);
	assert_int_equal(le16toh(config.num_queues), 3);
}

static void test_mistakes(void **state)
{
	struct served *s = *state;
	struct iovec iov[2] = { { s->memory, 8 }, { s->memory + 64, 1 } };
	json_t *root;
	uint32_t written;

	assert_int_equal(request(s, 0, VIRTIO_BLK_T_IN, DISK_SIZE / 512, 512, &written), 1);
	assert_int_equal(written, 1);
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_IN, UINT64_MAX, 512, &written), 1);
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_OUT, 0, 100, &written), 1);
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_DISCARD, 0, 512, &written), 2);
	/* No room for a header; then none for a status. */
	assert_int_equal(submit(s, 0, iov, 1, 1), 0);
	iov[0].iov_len = 16;
	assert_int_equal(submit(s, 0, iov, 1, 0), 0);
	root = ask_stats(s);
	assert_int_equal(counter(root, 0, "errors"), 2);
	json_decref(root);
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_IN, 0, 512, &written), 0);
}

/* The image is cut while it is served: an error that claims no more than was read. */
static void test_cut_image(void **state)
{
	struct served *s = *state;
	uint32_t written;

	assert_int_equal(ftruncate(s->disk, 700), 0);
	memset(s->memory + 4096, 0x33, 1024);
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_IN, 0, 1024, &written), 1);
	assert_int_equal(written, 701);
	assert_int_equal(s->memory[4096 + 700], 0x33);
	assert_int_equal(ftruncate(s->disk, DISK_SIZE), 0);
}

/* Rings full of reads on all queues, stopped in the middle, started again: nothing is lost. */
static void test_load(void **state)
{
	struct served *s = *state;
	struct virtio_blk_outhdr *header = (void *)s->memory;
	uint8_t *data = s->memory + 8192;
	struct iovec iov[3] = { { header, sizeof(*header) }, { data, 512 }, { s->memory + 64, 1 } };
	unsigned added[3] = { 0 }, got[3] = { 0 }, q, idle = 0, kicked = 0;
	uint32_t len;

	header->type = htole32(VIRTIO_BLK_T_IN);
	header->sector = htole64(77);
	while (got[0] + got[1] + got[2] < 3 * LARGE_RUNS) {
		unsigned before = got[0] + got[1] + got[2];

		for (q = 0; q < 3; q++) {
			while (added[q] < LARGE_RUNS && !bf_driver_add(s->drv, q, iov, 1, 2, s))
				added[q]++;
			bf_driver_kick(s->drv, q);
			if (++kicked % 50 == 0) {
				assert_int_equal(bf_driver_stop(s->drv), 0);
				assert_int_equal(bf_driver_start(s->drv), 0);
			}
			while (bf_driver_get(s->drv, q, &len)) {
				assert_int_equal(len, 513);
				got[q]++;
			}
		}
		assert_true(bf_driver_dispatch(s->drv) >= 0);
		if (before == got[0] + got[1] + got[2])
			usleep(100);
		idle = before == got[0] + got[1] + got[2] ? idle + 1 : 0;
		assert_true(idle < 50000);
	}
	assert_int_equal(s->memory[64], 0);
	assert_true(holds(data, 77, 512));
}

/* Which way the notifications came, from the beginning and after a stop. */
static void check_notifications(struct served *s);

static void test_notifications(void **state)
{
	struct served *s = *state;

	check_notifications(s);
	assert_int_equal(bf_driver_stop(s->drv), 0);
	assert_int_equal(bf_driver_start(s->drv), 0);
	check_notifications(s);
}

static void check_notifications(struct served *s)
{
	bool doorbell = !strcmp(s->mode->notify, "doorbell");
	json_t *before, *after;
	json_int_t kicks, rings;
	uint32_t written;
	unsigned i;

	for (i = 0; i < 500; i++) { /* until the front end has answered for the page */
		bf_driver_dispatch(s->drv);
		usleep(200);
	}
	before = ask_stats(s);
	for (i = 0; i < 200; i++)
		assert_int_equal(request(s, 1, VIRTIO_BLK_T_IN, i, 512, &written), 0);
	after = ask_stats(s);
	assert_int_equal(counter(after, 1, "requests") - counter(before, 1, "requests"), 200);
	kicks = counter(after, 1, "kicks") - counter(before, 1, "kicks");
	rings = counter(after, 1, "doorbells") - counter(before, 1, "doorbells");
	/* Fewer than requests: the driver may be quicker than the thread's next look. */
	assert_in_range(doorbell ? rings : kicks, 1, 200);
	assert_int_equal(doorbell ? kicks : rings, 0);
	if (doorbell)
		assert_int_equal(counter(after, 1, "wakeups"), counter(before, 1, "wakeups"));
	json_decref(before);
	json_decref(after);
}

static void test_read_only(void **state)
{
	struct served *s = *state;
	uint32_t written;

	assert_true(bf_has(bf_driver_features(s->drv), VIRTIO_BLK_F_RO));
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_OUT, 0, 512, &written), 1);
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_FLUSH, 0, 0, &written), 0);
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_IN, 9, 512, &written), 0);
	assert_true(holds(s->memory + 4096, 9, 512));
}

/* One thread for all queues, in whose table there are pages that ring and others that do not. */
static void test_threads(void **state)
{
	struct served *s = *state;
	unsigned nr_threads = 0;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)s->pid);
	dir = opendir(path);
	assert_non_null(dir);
	while (readdir(dir))
		nr_threads++;
	closedir(dir);
	assert_int_equal(nr_threads - 2, 2); /* control, and the one worker */
}

/* Nothing is read, nothing is kept, everything in range succeeds. */
static void test_null(void **state)
{
	struct served *s = *state;
	struct virtio_blk_config config = { 0 };
	uint32_t written;
	unsigned i;

	bf_frontend_get_config(bf_driver_frontend(s->drv), 0, &config, sizeof(config));
	assert_int_equal(le64toh(config.capacity), 8 << 20 >> 9);
	memset(s->memory + 4096, 0x5a, 4096);
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_IN, 77, 4096, &written), 0);
	assert_int_equal(written, 4097);
	for (i = 0; i < 4096; i++)
		assert_int_equal(s->memory[4096 + i], 0x5a);
	assert_int_equal(request(s, 1, VIRTIO_BLK_T_OUT, 5, 1024, &written), 0);
	assert_int_equal(written, 1);
	assert_int_equal(request(s, 1, VIRTIO_BLK_T_FLUSH, 0, 0, &written), 0);
	assert_int_equal(request(s, 2, VIRTIO_BLK_T_GET_ID, 0, 20, &written), 0);
	assert_int_equal(written, 21);
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_IN, 8 << 20 >> 9, 512, &written), 1);
	assert_int_equal(request(s, 0, VIRTIO_BLK_T_IN, 0, 100, &written), 1);
}

static int make_folder(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(image, sizeof(image), "%s/disk", folder);
	snprintf(stats, sizeof(stats), "%s/stats.json", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	return rmdir(folder);
}

int main(void)
{
	static struct mode modes[] = {
		{ .name = "eventfd", .notify = "eventfd", .io = "auto" },
		{ .name = "doorbell", .notify = "doorbell", .io = "auto" },
		{ .name = "threads", .notify = "eventfd", .io = "threads" },
		{ .name = "doorbell-threads", .notify = "doorbell", .io = "threads" },
		{ .name = "no-flush", .notify = "eventfd", .io = "auto", .no_flush = true },
		{ .name = "read-only", .notify = "eventfd", .io = "auto", .more = "--read-only" },
		{ .name = "poll", .notify = "poll", .io = "auto", .packed = true },
		{ .name = "one", .notify = "doorbell", .io = "auto", .more = "--num-threads=1" },
		{ .name = "two-packed",
		  .notify = "eventfd",
		  .io = "threads",
		  .more = "--num-threads=2",
		  .packed = true },
		{ .name = "null", .notify = "eventfd", .io = "auto", .more = "--null=8M" },
		{ .name = "null-poll",
		  .notify = "poll",
		  .io = "auto",
		  .more = "--null=8M",
		  .packed = true },
	};
#define WITH(test, mode)                                               \
	{                                                              \
#test " " #mode, test, set_up, tear_down, &modes[mode] \
	}
#define ALL(test) WITH(test, 0), WITH(test, 1), WITH(test, 2), WITH(test, 3)
	const struct CMUnitTest tests[] = {
		ALL(test_requests),      WITH(test_requests, 4),  ALL(test_mistakes),
		WITH(test_config, 0),    ALL(test_cut_image),     ALL(test_load),
		ALL(test_notifications), WITH(test_read_only, 5), WITH(test_requests, 6),
		WITH(test_mistakes, 6),  WITH(test_load, 6),      WITH(test_requests, 7),
		WITH(test_load, 7),      WITH(test_threads, 7),   WITH(test_notifications, 7),
		WITH(test_requests, 8),  WITH(test_load, 8),      WITH(test_null, 9),
		WITH(test_null, 10),     ALL(test_pieces),        WITH(test_pieces, 6),
	};

	alarm(55);
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control side of the echo device, and its process.
 *
 * With cycles it never leaves the doorbell of queue 0 alone: register a page, replace it by another,
 * withdraw that, again. Each step is taken when the one before was answered, and, since without
 * REPLY_ACK answers come from nowhere, when another request was served meanwhile. The page is
 * disarmed before the message that takes it away is sent and armed when its registration was
 * answered: in between there is only the kick eventfd.
 */
#include "echo_device.h"

#include "../unit/support.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include <belfry/backend.h>

#include "echo_queue.h"

#define LIFE_S 300 /* a device that nobody ends ends by itself */
#define PAGE   4096u

struct echo {
	const struct echo_config *config;
	struct echo_report *report;
	struct bf_backend *be;
	struct echo_queue queues[BF_MAX_QUEUES];
	int pages_fd;
	uint8_t *pages; /* two for each queue */
	bool ended;

	/* Of the cycles. */
	enum { REGISTER, REPLACE, WITHDRAW, NR_STEPS } step;
	bool answered;
	unsigned long served; /* at the last step */
};

static int failed(struct echo *echo, const char *what, int error)
{
	if (!echo->report->failure[0])
		snprintf(echo->report->failure, sizeof(echo->report->failure), "%s: %s", what,
			 strerror(-error));
	return error;
}

static uint64_t page_offset(unsigned queue, unsigned which)
{
	return (2ull * queue + which) * PAGE;
}

static atomic_uint *page_of(struct echo *echo, unsigned queue, unsigned which)
{
	unsigned place = echo->config->staggered ? queue % 64 * 64 : 0;

	return (void *)(echo->pages + page_offset(queue, which) + place);
}

static int publish(struct echo *echo, unsigned queue, unsigned which)
{
	int ret = bf_backend_publish_doorbell(echo->be, queue, echo->pages_fd,
					      page_offset(queue, which));

	/* A driver that wants none is served all the same. */
	return ret && ret != -EOPNOTSUPP ? failed(echo, "publish", ret) : 0;
}

static int vring_start(void *opaque, unsigned queue, struct bf_virtq *vq)
{
	struct echo *echo = opaque;
	int ret = 0;

	if (!echo->config->idle)
		ret = echo_queue_start(&echo->queues[queue], vq);
	if (!ret && echo->config->doorbell)
		ret = publish(echo, queue, 0);
	if (!ret && echo->config->cycles && queue == 0) {
		echo->step = REGISTER;
		echo->answered = true;
	}
	return ret;
}

static void vring_stop(void *opaque, unsigned queue)
{
	struct echo *echo = opaque;

	echo_queue_stop(&echo->queues[queue]);
}

/* The step that was answered; what comes next is up to step_on(). */
static void step_answered(struct echo *echo, int result)
{
	if (result)
		failed(echo, "a doorbell request was refused", result);
	if (echo->step != WITHDRAW)
		echo_queue_arm(&echo->queues[0], page_of(echo, 0, echo->step == REPLACE));
	else
		atomic_fetch_add(&echo->report->cycles, 1);
	echo->step = (echo->step + 1) % NR_STEPS;
	echo->answered = true;
	echo->served = atomic_load(&echo->report->requests);
}

static void doorbell_answered(void *opaque, unsigned queue, bool published, int result)
{
	struct echo *echo = opaque;

	(void)published; /* its own steps tell */
	atomic_fetch_add(result ? &echo->report->refused : &echo->report->mapped, 1);
	if (echo->config->cycles && queue == 0)
		step_answered(echo, result);
	else if (!result && echo->queues[queue].running)
		echo_queue_arm(&echo->queues[queue], page_of(echo, queue, 0));
}

static void disconnected(void *opaque, int error)
{
	struct echo *echo = opaque;

	atomic_store(&echo->report->end_error, error);
	echo->ended = true;
}

static int get_config(void *opaque, uint32_t offset, void *data, uint32_t len)
{
	(void)opaque;
	(void)offset;
	memset(data, 0x5a, len);
	return 0;
}

static const struct bf_backend_ops ops = {
	.vring_start = vring_start,
	.vring_stop = vring_stop,
	.get_config = get_config,
	.doorbell_answered = doorbell_answered,
	.disconnected = disconnected,
};

static bool step_due(const struct echo *echo)
{
	return echo->config->cycles && echo->answered && echo->queues[0].running &&
	       atomic_load(&echo->report->cycles) < echo->config->cycles &&
	       atomic_load(&echo->report->requests) != echo->served;
}

static void step_on(struct echo *echo)
{
	int ret = 0;

	echo->answered = false;
	echo_queue_disarm(&echo->queues[0]);
	if (echo->step != WITHDRAW)
		ret = publish(echo, 0, echo->step == REPLACE);
	else
		ret = bf_backend_withdraw_doorbell(echo->be, 0);
	if (ret)
		failed(echo, "cannot send a doorbell request", ret);
}

static void serve(struct echo *echo)
{
	const struct timespec moment = { .tv_nsec = 20000 };
	struct pollfd fd = { .fd = bf_backend_fd(echo->be), .events = POLLIN };

	while (!echo->ended && !echo->report->failure[0]) {
		bool busy = echo->config->cycles && echo->answered &&
			    atomic_load(&echo->report->cycles) < echo->config->cycles;

		/* A request that is served wakes nobody here: look again after a moment. */
		if (ppoll(&fd, 1, busy ? &moment : NULL, NULL) > 0)
			bf_backend_dispatch(echo->be);
		if (step_due(echo))
			step_on(echo);
	}
}

static int make_pages(struct echo *echo)
{
	size_t len = 2 * PAGE * (size_t)echo->config->nr_queues;

	echo->pages_fd = memfd_create("belfry-echo-bells", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (echo->pages_fd < 0 || ftruncate(echo->pages_fd, (off_t)len) ||
	    fcntl(echo->pages_fd, F_ADD_SEALS, F_SEAL_SHRINK))
		return -errno;
	echo->pages = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, echo->pages_fd, 0);
	if (echo->pages == MAP_FAILED)
		return -errno;
	memset(echo->pages, 0xff, len);
	return 0;
}

static int make_backend(struct echo *echo)
{
	const struct bf_backend_config config = {
		.ops = &ops,
		.opaque = echo,
		.name = "echo",
		.nr_queues = echo->config->nr_queues,
		.max_queue_size = 1024,
		.config_size = 16,
		.features = bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_RING_F_INDIRECT_DESC) |
			    bf_bit(VIRTIO_F_RING_PACKED) | bf_bit(VIRTIO_F_IN_ORDER) |
			    bf_bit(VIRTIO_RING_F_EVENT_IDX),
		.protocol_features = bf_backend_supported_protocol_features() &
				     ~echo->config->not_protocol_features,
	};
	int ret = bf_backend_new(&config, &echo->be);

	for (unsigned i = 0; !ret && i < config.nr_queues; i++)
		ret = echo_queue_init(&echo->queues[i], echo->config, echo->report);
	return ret;
}

int echo_device_serve(const struct echo_config *config, int fd, struct echo_report *report)
{
	static struct echo echo;
	int fds = (int)count_fds() - 1; /* the socket goes with the back end */
	int mappings = (int)count_mappings(ECHO_MAPPINGS);
	int ret;

	echo = (struct echo){ .config = config, .report = report, .pages_fd = -1 };
	ret = make_pages(&echo);
	if (!ret)
		ret = make_backend(&echo);
	if (!ret)
		ret = bf_backend_attach(echo.be, fd);
	if (ret)
		return failed(&echo, "the device cannot start", ret);
	serve(&echo);

	bf_backend_free(echo.be);
	for (unsigned i = 0; i < config->nr_queues; i++)
		echo_queue_done(&echo.queues[i]);
	munmap(echo.pages, 2 * PAGE * (size_t)config->nr_queues);
	close(echo.pages_fd);
	atomic_store(&report->nr_left_fds, (int)count_fds() - fds);
	atomic_store(&report->nr_left_mappings, (int)count_mappings(ECHO_MAPPINGS) - mappings);
	return report->failure[0] ? -EIO : 0;
}

void echo_device_start(struct echo_device *dev, const struct echo_config *config)
{
	int pair[2];

	dev->report = mmap(NULL, sizeof(*dev->report), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(dev->report != MAP_FAILED);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	dev->fd = pair[0];
	dev->pid = fork();
	assert_true(dev->pid >= 0);
	if (!dev->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(LIFE_S);
		close(pair[0]);
		_exit(echo_device_serve(config, pair[1], dev->report) ? 1 : 0);
	}
	close(pair[1]);
}

static int wait_exit(pid_t pid)
{
	int status = 0;

	for (unsigned i = 0; i < 20000; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid) {
			if (WIFSIGNALED(status))
				return WTERMSIG(status);
			return WEXITSTATUS(status) ? -1 : 0;
		}
		usleep(1000);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

int echo_device_end(struct echo_device *dev, struct echo_report *last)
{
	int ret;

	if (dev->fd >= 0)
		close(dev->fd);
	ret = wait_exit(dev->pid);
	if (last)
		*last = *dev->report;
	if (dev->report->failure[0])
		print_error("echo device: %s\n", dev->report->failure);
	munmap(dev->report, sizeof(*dev->report));
	dev->fd = -1;
	return ret;
}

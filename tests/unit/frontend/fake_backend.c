/* SPDX-License-Identifier: BSD-3-Clause */
/* The scripted back end and the noting front end of these tests. */
#include "fake_backend.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>

void send_bytes(int fd, const void *bytes, size_t len, const int *fds, unsigned nr_fds)
{
	char control[CMSG_SPACE(16 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { (void *)bytes, len };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nr_fds) {
		struct cmsghdr *cmsg = (struct cmsghdr *)control;

		hdr.msg_control = control;
		hdr.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
	}
	/* The front end may have closed already: that is the test's business. */
	(void)!sendmsg(fd, &hdr, MSG_NOSIGNAL);
}

struct request {
	struct bf_header hdr;
	uint8_t payload[5000];
	int fds[16];
	unsigned nr_fds;
};

static bool read_all(int fd, void *to, size_t len, struct request *request)
{
	for (size_t got = 0; got < len;) {
		char control[CMSG_SPACE(16 * sizeof(int))] __attribute__((aligned(8)));
		struct iovec iov = { (char *)to + got, len - got };
		struct msghdr hdr = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		ssize_t n = recvmsg(fd, &hdr, MSG_CMSG_CLOEXEC);
		struct cmsghdr *cmsg = n > 0 ? CMSG_FIRSTHDR(&hdr) : NULL;

		if (n <= 0)
			return false;
		got += (size_t)n;
		if (!cmsg)
			continue;
		request->nr_fds = (unsigned)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(request->fds, CMSG_DATA(cmsg), request->nr_fds * sizeof(int));
	}
	return true;
}

static bool read_request(int fd, struct request *request)
{
	memset(request, 0, sizeof(*request));
	return read_all(fd, &request->hdr, sizeof(request->hdr), request) &&
	       request->hdr.size <= sizeof(request->payload) &&
	       read_all(fd, request->payload, request->hdr.size, request);
}

static void note(struct fake *fake, const struct request *request)
{
	unsigned nr = fake->nr_seen;
	struct seen *seen = &fake->seen[nr % MAX_SEEN];

	seen->request = request->hdr.request;
	seen->flags = request->hdr.flags;
	seen->nr_fds = request->nr_fds;
	memcpy(&seen->u64, request->payload, sizeof(seen->u64));
	memcpy(seen->words, request->payload, sizeof(seen->words));
	if (nr < MAX_SEEN - 1)
		atomic_store(&fake->nr_seen, nr + 1);
}

struct reply {
	struct bf_header hdr;
	uint8_t payload[5000];
};

static void put_u64(struct reply *reply, uint64_t value)
{
	memcpy(reply->payload, &value, sizeof(value));
	reply->hdr.size = sizeof(value);
}

/* False: no reply is due. */
static bool make_reply(struct fake *fake, const struct request *request, struct reply *reply)
{
	bool ack = request->hdr.flags & BF_FLAGS_NEED_REPLY;
	uint32_t state[2];

	memset(reply, 0, sizeof(*reply));
	reply->hdr.request = request->hdr.request;
	reply->hdr.flags = BF_FLAGS_VERSION | BF_FLAGS_REPLY;
	put_u64(reply, 0);
	switch (request->hdr.request) {
	case BF_FE_GET_FEATURES:
		put_u64(reply, fake->features);
		return true;
	case BF_FE_GET_PROTOCOL_FEATURES:
		put_u64(reply, fake->protocol_features);
		return true;
	case BF_FE_GET_QUEUE_NUM:
		put_u64(reply, fake->nr_queues);
		return true;
	case BF_FE_GET_MAX_MEM_SLOTS:
		put_u64(reply, fake->max_slots);
		return true;
	case BF_FE_GET_STATUS:
		put_u64(reply, 0xf);
		return true;
	case BF_FE_GET_VRING_BASE:
		memcpy(state, request->payload, sizeof(state));
		state[1] = fake->vring_base;
		memcpy(reply->payload, state, sizeof(state));
		return true;
	case BF_FE_GET_CONFIG:
		memcpy(reply->payload, request->payload, 12);
		memcpy(state, request->payload, sizeof(state)); /* offset, size */
		memcpy(reply->payload + 12, fake->config + state[0], state[1]);
		reply->hdr.size = 12 + state[1];
		return true;
	default:
		return ack;
	}
}

static void send_slowly(struct fake *fake, const struct reply *reply)
{
	const struct timespec pause = { .tv_nsec = 40000000 };

	for (size_t i = 0; i < sizeof(reply->hdr) + reply->hdr.size; i++) {
		send_bytes(fake->fd, (const char *)reply + i, 1, NULL, 0);
		nanosleep(&pause, NULL);
	}
}

/* False: hang up. */
static bool misbehave(struct fake *fake, struct reply *reply)
{
	size_t len = sizeof(reply->hdr) + reply->hdr.size;
	uint32_t words[3];
	int fds[9];
	unsigned nr_fds = 0;

	memcpy(words, reply->payload, sizeof(words));
	for (unsigned i = 0; i < 9; i++)
		fds[i] = fake->fd;
	switch (fake->misdeed) {
	case WRONG_REQUEST:
		reply->hdr.request++;
		break;
	case NO_REPLY_FLAG:
		reply->hdr.flags &= ~BF_FLAGS_REPLY;
		break;
	case EXTRA_FLAG:
		reply->hdr.flags |= BF_FLAGS_NEED_REPLY;
		break;
	case VERSION_0:
	case VERSION_2:
		reply->hdr.flags = BF_FLAGS_REPLY | (fake->misdeed == VERSION_0 ? 0 : 2);
		break;
	case SIZE_0:
	case SIZE_4:
	case SIZE_9:
		reply->hdr.size = fake->misdeed == SIZE_0 ? 0 : fake->misdeed == SIZE_4 ? 4 : 9;
		len = sizeof(reply->hdr) + reply->hdr.size;
		break;
	case SIZE_HUGE:
		reply->hdr.size = UINT32_MAX;
		break;
	case ONE_FD:
		nr_fds = 1;
		break;
	case NINE_FDS:
		nr_fds = 9;
		break;
	case TWICE:
		send_bytes(fake->fd, reply, len, NULL, 0);
		break;
	case CLOSE:
		return false;
	case CLOSE_IN_HEADER:
		send_bytes(fake->fd, reply, 5, NULL, 0);
		return false;
	case CLOSE_IN_BODY:
		send_bytes(fake->fd, reply, len - 3, NULL, 0);
		return false;
	case SILENT:
		return true;
	case SLOW:
		send_slowly(fake, reply);
		return true;
	case FAILURE:
		put_u64(reply, 1);
		break;
	case CONFIG_OFFSET:
		words[0]++;
		break;
	case CONFIG_SIZE:
		words[1]--;
		reply->hdr.size--;
		len--;
		break;
	case CONFIG_EMPTY:
		reply->hdr.size = 0;
		len = sizeof(reply->hdr);
		break;
	case BASE_INDEX:
		words[0]++;
		break;
	case BASE_RANGE:
		words[1] = 0x10000;
		break;
	case NO_MISDEED:
		break;
	}
	if (fake->misdeed >= CONFIG_OFFSET)
		memcpy(reply->payload, words, sizeof(words));
	send_bytes(fake->fd, reply, len, fds, nr_fds);
	return true;
}

static void adopt(struct fake *fake, struct request *request)
{
	for (unsigned i = 0; i < request->nr_fds; i++) {
		if (request->hdr.request == BF_FE_SET_BACKEND_REQ_FD && i == 0)
			fake->back_fd = request->fds[i];
		else
			close(request->fds[i]);
	}
	if (request->hdr.request == BF_FE_SET_PROTOCOL_FEATURES)
		memcpy(&fake->acked_protocol, request->payload, sizeof(fake->acked_protocol));
}

static bool answer(struct fake *fake, const struct request *request)
{
	struct reply reply;
	bool due = make_reply(fake, request, &reply);

	if (fake->hook)
		fake->hook(fake, request->hdr.request);
	if (!due)
		return true;
	if (fake->misdeed && request->hdr.request == fake->bad_request &&
	    (int)fake->nr_bad++ == fake->bad_nr)
		return misbehave(fake, &reply);
	send_bytes(fake->fd, &reply, sizeof(reply.hdr) + reply.hdr.size, NULL, 0);
	return true;
}

static bool quiet(int fd, unsigned ms)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	return poll(&poll_fd, 1, (int)ms) == 0;
}

#define MAX_HELD 2048

static void *run(void *opaque)
{
	struct fake *fake = opaque;
	struct request *held = calloc(MAX_HELD, sizeof(*held));
	unsigned nr_held = 0;
	bool up = held != NULL;

	while (up) {
		up = read_request(fake->fd, &held[nr_held]);
		if (!up)
			break;
		adopt(fake, &held[nr_held]);
		note(fake, &held[nr_held++]);
		if (fake->hold_ms && nr_held < MAX_HELD && !quiet(fake->fd, fake->hold_ms))
			continue;
		fake->rounds++;
		for (unsigned i = 0; up && i < nr_held; i++)
			up = answer(fake, &held[i]);
		nr_held = 0;
	}
	shutdown(fake->fd, SHUT_RDWR);
	free(held);
	return NULL;
}

void fake_init(struct fake *fake)
{
	memset(fake, 0, sizeof(*fake));
	fake->features = ALL_FEATURES;
	fake->protocol_features = bf_frontend_supported_protocol_features() |
				  bf_bit(BF_PROTOCOL_F_SHMEM) | bf_bit(BF_PROTOCOL_F_XEN_MMAP);
	fake->nr_queues = 4;
	fake->max_slots = 32;
	fake->fd = fake->peer_fd = fake->back_fd = -1;
	for (unsigned i = 0; i < sizeof(fake->config); i++)
		fake->config[i] = (uint8_t)(i * 7);
}

void fake_start(struct fake *fake)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	fake->fd = fds[0];
	fake->peer_fd = fds[1];
	fake->back_fd = -1;
	assert_int_equal(pthread_create(&fake->thread, NULL, run, fake), 0);
	fake->running = true;
}

void fake_stop(struct fake *fake)
{
	if (!fake->running)
		return;
	shutdown(fake->fd, SHUT_RDWR);
	pthread_join(fake->thread, NULL);
	close(fake->fd);
	if (fake->back_fd >= 0)
		close(fake->back_fd);
	fake->fd = fake->back_fd = -1;
	fake->running = false;
}

void fake_sync(struct fake *fake, unsigned nr)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	for (unsigned i = 0; i < 2000 && atomic_load(&fake->nr_seen) < nr; i++)
		nanosleep(&pause, NULL);
	assert_true(atomic_load(&fake->nr_seen) >= nr);
}

unsigned fake_count(struct fake *fake, uint32_t request)
{
	unsigned nr = atomic_load(&fake->nr_seen), count = 0;

	for (unsigned i = 0; i < nr; i++)
		count += fake->seen[i].request == request;
	return count;
}

const struct seen *fake_nth(struct fake *fake, uint32_t request, unsigned nth)
{
	unsigned nr = atomic_load(&fake->nr_seen);

	for (unsigned i = 0; i < nr; i++) {
		if (fake->seen[i].request == request && nth-- == 0)
			return &fake->seen[i];
	}
	fail_msg("request %u not seen", request);
	return NULL;
}

void fake_back_send(struct fake *fake, uint32_t request, uint32_t flags, const void *payload,
		    uint32_t size, const int *fds, unsigned nr_fds)
{
	struct {
		struct bf_header hdr;
		uint8_t payload[64];
	} msg = { .hdr = { request, flags, size } };

	if (size)
		memcpy(msg.payload, payload, size);
	send_bytes(fake->back_fd, &msg, sizeof(msg.hdr) + size, fds, nr_fds);
}

uint64_t fake_back_ack(struct fake *fake)
{
	struct {
		struct bf_header hdr;
		uint8_t value[8];
	} ack;
	struct pollfd poll_fd = { .fd = fake->back_fd, .events = POLLIN };
	uint64_t value;

	_Static_assert(sizeof(ack) == 20, "as on the wire");
	if (poll(&poll_fd, 1, 2000) != 1)
		return UINT64_MAX;
	if (recv(fake->back_fd, &ack, sizeof(ack), MSG_WAITALL) != sizeof(ack))
		return UINT64_MAX;
	if (ack.hdr.flags != (BF_FLAGS_VERSION | BF_FLAGS_REPLY) || ack.hdr.size != 8)
		return UINT64_MAX;
	memcpy(&value, ack.value, sizeof(value));
	return value;
}

static int note_map(void *opaque, unsigned queue, void *page)
{
	struct front *front = opaque;

	front->nr_map++;
	if (front->map_result)
		return front->map_result;
	front->pages[queue] = page;
	return 0;
}

static void note_unmap(void *opaque, unsigned queue)
{
	struct front *front = opaque;

	/* The page must still be there: touch it, as a vCPU might until this returns. */
	*(volatile uint16_t *)front->pages[queue] = 7;
	front->pages[queue] = NULL;
	front->nr_unmap++;
	front->requests_at_unmap = atomic_load(&front->fake->nr_seen);
}

static void note_config(void *opaque)
{
	((struct front *)opaque)->nr_config++;
}

static void note_lost(void *opaque, int error)
{
	struct front *front = opaque;

	front->nr_lost++;
	front->lost_error = error;
}

static void note_log(void *opaque, enum bf_log_level level, const char *tag, const char *text)
{
	struct front *front = opaque;

	(void)level;
	snprintf(front->log, sizeof(front->log), "%s: %s", tag, text);
}

void front_init(struct front *front, struct fake *fake, uint64_t protocol_features,
		unsigned timeout_ms)
{
	static const struct bf_frontend_ops ops = {
		.doorbell_map = note_map,
		.doorbell_unmap = note_unmap,
		.config_changed = note_config,
		.disconnected = note_lost,
	};
	const struct bf_frontend_config config = {
		.ops = &ops,
		.opaque = front,
		.name = "test",
		.timeout_ms = timeout_ms,
		.protocol_features = protocol_features,
		.log = { .write = note_log, .opaque = front, .level = BF_LOG_DEBUG },
	};

	memset(front, 0, sizeof(*front));
	front->fake = fake;
	assert_int_equal(bf_frontend_new(&config, &front->fe), 0);
}

int front_dispatch(struct front *front)
{
	struct pollfd poll_fd = { .fd = bf_frontend_fd(front->fe), .events = POLLIN };
	int last = 0;

	while (poll(&poll_fd, 1, 20) == 1) {
		int ret = bf_frontend_dispatch(front->fe);

		last = ret ? ret : last;
	}
	return last;
}

void guest_init(struct guest *guest, uint64_t size)
{
	guest->region = (struct bf_memory_region){
		.gpa = GUEST_GPA,
		.size = size,
		.fd = make_memfd("guest", size, F_SEAL_SHRINK),
	};
	guest->region.hva =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, guest->region.fd, 0);
	assert_true(guest->region.hva != MAP_FAILED);
	guest->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	guest->call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

void guest_done(struct guest *guest)
{
	munmap(guest->region.hva, guest->region.size);
	close(guest->region.fd);
	close(guest->kick_fd);
	close(guest->call_fd);
}

struct bf_vring_setup guest_vring(const struct guest *guest, unsigned queue)
{
	uint64_t ring = GUEST_GPA + queue * 0x3000ull;

	return (struct bf_vring_setup){
		.queue = queue,
		.size = 256,
		.desc_gpa = ring,
		.avail_gpa = ring + 0x1000,
		.used_gpa = ring + 0x2000,
		.kick_fd = guest->kick_fd,
		.call_fd = guest->call_fd,
		.err_fd = -1,
	};
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages of single device types and features, good and bad: what the device and the front end get. */
#include "load.h"

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#define ALL_BY_NAME (bf_bit(BF_PROTOCOL_F_NR) - 1)

/* A device that has every operation there is. */
struct topics {
	struct echo echo; /* first */
	unsigned mtu, rarps, brokens, states, closed_sessions;
	uint8_t mac[6];
	int gpu_fd, object_fd, state_fd, other_fd, refuse, found, answers, last_answer;
	uint64_t session;
	size_t session_len;
	bool load;
	char reason[200];
};

static int on_mtu(void *opaque, uint16_t mtu)
{
	((struct topics *)opaque)->mtu = mtu;
	return ((struct topics *)opaque)->refuse;
}

static int on_rarp(void *opaque, const uint8_t mac[6])
{
	struct topics *t = opaque;

	memcpy(t->mac, mac, 6);
	t->rarps++;
	return t->refuse;
}

static int on_gpu(void *opaque, int fd)
{
	struct topics *t = opaque;

	if (!t->refuse)
		t->gpu_fd = fd;
	return t->refuse;
}

static int on_create(void *opaque, const void *session, size_t len, uint64_t *id)
{
	struct topics *t = opaque;

	t->session_len = len;
	assert_int_equal(((const uint8_t *)session)[20], 0xc7);
	*id = t->session;
	return t->refuse;
}

static int on_close(void *opaque, uint64_t id)
{
	((struct topics *)opaque)->closed_sessions++;
	return id == 5 ? 0 : -ENOENT;
}

static int on_object(void *opaque, const uint8_t uuid[16])
{
	return uuid[0] == 0xaa ? ((struct topics *)opaque)->object_fd : -ENOENT;
}

static int on_state(void *opaque, bool load, int fd, int *other_fd)
{
	struct topics *t = opaque;

	if (t->refuse)
		return t->refuse;
	t->states++;
	t->load = load;
	t->state_fd = fd;
	*other_fd = t->other_fd;
	return 0;
}

static int on_check(void *opaque)
{
	return ((struct topics *)opaque)->refuse;
}

static void on_broken(void *opaque, unsigned queue, const char *reason)
{
	struct topics *t = opaque;

	assert_int_equal(queue, 0);
	t->brokens++;
	snprintf(t->reason, sizeof(t->reason), "%s", reason);
}

static const struct bf_backend_ops topic_ops = {
	.vring_start = echo_start,
	.vring_stop = echo_stop,
	.vring_broken = on_broken,
	.get_config = fake_get_config,
	.set_mtu = on_mtu,
	.send_rarp = on_rarp,
	.set_gpu_socket = on_gpu,
	.create_session = on_create,
	.close_session = on_close,
	.get_shared_object = on_object,
	.device_state = on_state,
	.check_device_state = on_check,
};

static const uint64_t shmem_sizes[] = { 0x10000, 0, 0x1000 };

#define TOPIC_FEATURES (LOAD_FEATURES | bf_bit(VIRTIO_NET_F_MTU))

static void begin(struct topics *t, uint64_t protocol)
{
	struct peer *peer = &t->echo.peer;
	struct bf_backend_config config = peer_config(peer);

	memset(t, 0, sizeof(*t));
	config.ops = &topic_ops;
	config.features = TOPIC_FEATURES;
	config.protocol_features = protocol;
	config.shmem_sizes = shmem_sizes;
	config.nr_shmem = 3;
	peer_init_as(peer, &config);
	t->echo.halt = t->gpu_fd = t->object_fd = t->state_fd = t->other_fd = -1;
	say_u64(peer, BF_FE_SET_PROTOCOL_FEATURES, get_u64(peer, BF_FE_GET_PROTOCOL_FEATURES));
	assert_int_equal(say_u64(peer, BF_FE_SET_FEATURES, TOPIC_FEATURES | ACK_BIT), ACCEPTED);
	open_back(peer);
}

static void end(struct topics *t)
{
	peer_done(&t->echo.peer);
}

/* A message on @fd: its size, or negative errno; its first descriptor in *@got_fd, -1 none. */
static int receive(int fd, struct bf_header *hdr, void *payload, int *got_fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { hdr, sizeof(*hdr) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	ssize_t got = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

	*got_fd = -1;
	if (got < 0)
		return -errno;
	if (!got)
		return -ECONNRESET;
	assert_int_equal(got, sizeof(*hdr));
	if (CMSG_FIRSTHDR(&msg))
		memcpy(got_fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	if (hdr->size)
		assert_int_equal(read(fd, payload, hdr->size), hdr->size);
	return (int)hdr->size;
}

/* The reply of a request that has one. */
static int ask(struct peer *peer, uint32_t request, const void *payload, uint32_t size,
	       const int *fds, unsigned nr_fds, void *reply, int *fd)
{
	struct bf_header hdr;
	int ret;

	send_message(peer->fd, request, BF_FLAGS_VERSION, payload, size, fds, nr_fds);
	bf_backend_dispatch(peer->be);
	ret = receive(peer->fd, &hdr, reply, fd);
	if (ret >= 0)
		assert_int_equal(hdr.request, request);
	return ret;
}

static void answer(struct peer *peer, uint32_t request, uint64_t value, const int *fds,
		   unsigned nr_fds)
{
	send_message(peer->back, request, BF_FLAGS_VERSION | BF_FLAGS_REPLY, &value, 8, fds,
		     nr_fds);
	assert_int_equal(bf_backend_dispatch(peer->be), 0);
}

static void what_is_offered(void **state)
{
	const uint64_t named = bf_bit(BF_PROTOCOL_F_INBAND_NOTIFICATIONS) |
			       bf_bit(BF_PROTOCOL_F_GPA_ADDRESSES) |
			       bf_bit(BF_PROTOCOL_F_CROSS_ENDIAN) | bf_bit(BF_PROTOCOL_F_SHMEM) |
			       bf_bit(BF_PROTOCOL_F_PAGEFAULT);
	struct bf_backend_config config;
	struct topics t;
	uint64_t offered;

	(void)state;
	/* With all operations: all but what is named only. */
	begin(&t, 0);
	offered = get_u64(&t.echo.peer, BF_FE_GET_PROTOCOL_FEATURES);
	assert_int_equal(offered, bf_backend_supported_protocol_features());
	assert_int_equal(offered & named, 0);
	end(&t);
	/* Named: but XEN_MMAP is nobody's, and PAGEFAULT is without memory slots. */
	begin(&t, ALL_BY_NAME);
	assert_int_equal(get_u64(&t.echo.peer, BF_FE_GET_PROTOCOL_FEATURES),
			 (offered | named) & ~bf_bit(BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS));
	end(&t);
	/* Without the operations: none of theirs. */
	config = peer_config(&t.echo.peer);
	config.protocol_features = ALL_BY_NAME;
	peer_init_as(&t.echo.peer, &config);
	assert_int_equal(get_u64(&t.echo.peer, BF_FE_GET_PROTOCOL_FEATURES),
			 (OFFERED | named) & ~bf_bit(BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS) &
				 ~bf_bit(BF_PROTOCOL_F_SHMEM));
	peer_done(&t.echo.peer);
}

static void mtu_rarp_and_gpu(void **state)
{
	struct leaks before = leaks_now();
	struct topics t;
	struct peer *peer = &t.echo.peer;
	int event = eventfd(0, EFD_CLOEXEC);

	(void)state;
	begin(&t, 0);
	assert_int_equal(say_u64(peer, BF_FE_NET_SET_MTU, 1500), ACCEPTED);
	assert_int_equal(t.mtu, 1500);
	assert_int_equal(say_u64(peer, BF_FE_NET_SET_MTU, 65535), ACCEPTED);
	assert_int_equal(say_u64(peer, BF_FE_NET_SET_MTU, 65536), REFUSED);
	assert_int_equal(say_u64(peer, BF_FE_NET_SET_MTU, 67), REFUSED);
	assert_int_equal(say_u64(peer, BF_FE_NET_SET_MTU, 0x1000005dcull), REFUSED);
	assert_int_equal(t.mtu, 65535);
	assert_int_equal(say_u64(peer, BF_FE_SEND_RARP, 0xffff665544332211ull), ACCEPTED);
	assert_memory_equal(t.mac, "\x11\x22\x33\x44\x55\x66", 6);
	assert_int_equal(say(peer, BF_FE_GPU_SET_SOCKET, NULL, 0, &event, 1), ACCEPTED);
	/* It is the device's now. */
	assert_true(fcntl(t.gpu_fd, F_GETFD) >= 0);
	close(t.gpu_fd);
	t.refuse = -EBUSY;
	assert_int_equal(say(peer, BF_FE_GPU_SET_SOCKET, NULL, 0, &event, 1), REFUSED);
	assert_int_equal(say_u64(peer, BF_FE_NET_SET_MTU, 1500), REFUSED);
	assert_int_equal(say_u64(peer, BF_FE_SEND_RARP, 1), REFUSED);
	end(&t);
	/* QEMU sends it before SET_FEATURES, and does without the back end if it is refused. */
	begin(&t, 0);
	assert_int_equal(say_u64(peer, BF_FE_SET_FEATURES, LOAD_FEATURES | ACK_BIT), ACCEPTED);
	assert_int_equal(say_u64(peer, BF_FE_NET_SET_MTU, 1500), ACCEPTED);
	end(&t);
	close(event);
	assert_no_leaks(before, "MTU, RARP, GPU");
}

static void crypto_sessions(void **state)
{
	uint8_t session[2048], reply[2048];
	struct topics t;
	struct peer *peer = &t.echo.peer;
	int64_t id;
	int fd;

	(void)state;
	memset(session, 0xc7, sizeof(session));
	begin(&t, 0);
	t.session = 5;
	/* The id is in front in the old layout, behind in the new one; the rest is as it came. */
	assert_int_equal(ask(peer, BF_FE_CREATE_CRYPTO_SESSION, session, 656, NULL, 0, reply, &fd),
			 656);
	memcpy(&id, reply, 8);
	assert_int_equal(id, 5);
	assert_int_equal(t.session_len, 656);
	assert_memory_equal(reply + 8, session, 648);
	assert_int_equal(ask(peer, BF_FE_CREATE_CRYPTO_SESSION, session, 1096, NULL, 0, reply, &fd),
			 1096);
	memcpy(&id, reply + 1088, 8);
	assert_int_equal(id, 5);
	assert_memory_equal(reply, session, 1088);
	/* Refused: a negative id, and the connection lives. */
	t.refuse = -ENOTSUP;
	assert_int_equal(ask(peer, BF_FE_CREATE_CRYPTO_SESSION, session, 656, NULL, 0, reply, &fd),
			 656);
	memcpy(&id, reply, 8);
	assert_int_equal(id, -1);
	t.refuse = 0;
	t.session = 1ull << 63;
	assert_int_equal(ask(peer, BF_FE_CREATE_CRYPTO_SESSION, session, 656, NULL, 0, reply, &fd),
			 656);
	memcpy(&id, reply, 8);
	assert_int_equal(id, -1);
	assert_int_equal(say_u64(peer, BF_FE_CLOSE_CRYPTO_SESSION, 5), ACCEPTED);
	assert_int_equal(say_u64(peer, BF_FE_CLOSE_CRYPTO_SESSION, 6), REFUSED);
	end(&t);
}

static void found(void *opaque, int fd)
{
	((struct topics *)opaque)->found = fd;
}

static void shared_objects(void **state)
{
	struct leaks before = leaks_now();
	const uint8_t ours[16] = { 0xaa }, theirs[16] = { 0xbb };
	struct bf_header hdr;
	struct topics t;
	struct peer *peer = &t.echo.peer;
	uint8_t bytes[64];
	int fd;

	(void)state;
	begin(&t, 0);
	t.object_fd = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(ask(peer, BF_FE_GET_SHARED_OBJECT, ours, 16, NULL, 0, bytes, &fd), 0);
	assert_true(fd >= 0 && fd != t.object_fd);
	close(fd);
	assert_int_equal(ask(peer, BF_FE_GET_SHARED_OBJECT, theirs, 16, NULL, 0, bytes, &fd), 0);
	assert_int_equal(fd, -1);

	assert_int_equal(bf_backend_add_shared_object(peer->be, ours), 0);
	assert_int_equal(receive(peer->back, &hdr, bytes, &fd), 16);
	assert_int_equal(hdr.request, BF_BE_SHARED_OBJECT_ADD);
	assert_memory_equal(bytes, ours, 16);
	answer(peer, BF_BE_SHARED_OBJECT_ADD, 0, NULL, 0);
	assert_int_equal(bf_backend_remove_shared_object(peer->be, ours), 0);
	assert_int_equal(receive(peer->back, &hdr, bytes, &fd), 16);
	assert_int_equal(hdr.request, BF_BE_SHARED_OBJECT_REMOVE);
	answer(peer, BF_BE_SHARED_OBJECT_REMOVE, 1, NULL, 0);

	/* Found, not found, said to be found without a descriptor, and never answered. */
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(bf_backend_lookup_shared_object(peer->be, theirs, found, &t), 0);
		assert_int_equal(receive(peer->back, &hdr, bytes, &fd), 16);
		assert_int_equal(hdr.request, BF_BE_SHARED_OBJECT_LOOKUP);
		t.found = -1000;
		if (i < 3)
			answer(peer, BF_BE_SHARED_OBJECT_LOOKUP, i == 1, &t.object_fd, i != 2);
		if (i == 0) {
			assert_true(t.found >= 0);
			close(t.found);
		} else if (i < 3) {
			assert_int_equal(t.found, i == 1 ? -ENOENT : -EBADF);
		} else {
			assert_int_equal(t.found, -1000);
			bf_backend_detach(peer->be);
			assert_int_equal(t.found, -ECONNABORTED);
		}
	}
	assert_int_equal(bf_backend_add_shared_object(peer->be, ours), -ENOTCONN);
	close(t.object_fd);
	end(&t);
	begin(&t, OFFERED);
	assert_int_equal(bf_backend_add_shared_object(peer->be, ours), -EOPNOTSUPP);
	assert_int_equal(bf_backend_lookup_shared_object(peer->be, ours, found, &t), -EOPNOTSUPP);
	end(&t);
	assert_no_leaks(before, "shared objects");
}

static uint64_t state_fd(struct topics *t, uint32_t direction, uint32_t phase, int *fd)
{
	const struct bf_device_state state = { direction, phase };
	int ends[2];
	uint64_t value;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(ask(&t->echo.peer, BF_FE_SET_DEVICE_STATE_FD, &state, sizeof(state),
			     &ends[1], 1, &value, fd),
			 8);
	close(ends[0]);
	close(ends[1]);
	return value;
}

static void device_state(void **state)
{
	struct leaks before = leaks_now();
	struct topics t;
	struct peer *peer = &t.echo.peer;
	uint64_t value;
	int fd, kick;

	(void)state;
	begin(&t, 0);
	assert_int_equal(state_fd(&t, 0, 0, &fd), 0x100);
	assert_int_equal(fd, -1);
	assert_false(t.load);
	close(t.state_fd);
	t.other_fd = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(state_fd(&t, 1, 0, &fd), 0);
	assert_true(fd >= 0);
	assert_true(t.load);
	assert_true(fcntl(t.state_fd, F_GETFD) >= 0);
	close(fd);
	close(t.state_fd);
	assert_int_equal(get_u64(peer, BF_FE_CHECK_DEVICE_STATE), 0);
	/* Neither direction nor phase is any number; and no descriptor comes with an error. */
	assert_int_equal(state_fd(&t, 2, 0, &fd), 0x101);
	assert_int_equal(state_fd(&t, 0, 1, &fd), 0x101);
	assert_int_equal(fd, -1);
	t.refuse = -EIO;
	assert_int_equal(state_fd(&t, 0, 0, &fd), 0x101);
	assert_int_equal(get_u64(peer, BF_FE_CHECK_DEVICE_STATE), 1);
	t.refuse = 0;
	/* Only while all rings are stopped. */
	assert_int_equal(say_memory(peer, -1, MEMORY_SIZE), ACCEPTED);
	start(peer, 0, &kick);
	assert_int_equal(state_fd(&t, 0, 0, &fd), 0x101);
	assert_int_equal(t.states, 2);
	assert_int_equal(ask(peer, BF_FE_GET_VRING_BASE, &(struct bf_vring_state){ 0, 0 }, 8, NULL,
			     0, &value, &fd),
			 8);
	t.other_fd = -1;
	assert_int_equal(state_fd(&t, 0, 0, &fd), 0x100);
	close(t.state_fd);
	close(kick);
	end(&t);
	assert_no_leaks(before, "device state");
}

static void answered(void *opaque, int result)
{
	struct topics *t = opaque;

	t->answers++;
	t->last_answer = result;
}

static void shared_memory(void **state)
{
	struct leaks before = leaks_now();
	struct bf_shmem_config config;
	struct bf_shmem_map map;
	struct bf_header hdr;
	struct topics t;
	struct peer *peer = &t.echo.peer;
	int fd, page = make_memfd("bf-shmem", 0x10000, 0);

	(void)state;
	begin(&t, ALL_BY_NAME);
	assert_int_equal(ask(peer, BF_FE_GET_SHMEM_CONFIG, NULL, 0, NULL, 0, &config, &fd),
			 sizeof(config));
	assert_int_equal(config.nr, 2);
	assert_int_equal(config.sizes[0], 0x10000);
	assert_int_equal(config.sizes[1], 0);
	assert_int_equal(config.sizes[2], 0x1000);
	assert_int_equal(config.sizes[255], 0);

	/* Outside: nothing is sent. */
	assert_int_equal(bf_backend_map_shmem(peer->be, 1, page, 0, 0, 4096, true, NULL, NULL),
			 -EINVAL);
	assert_int_equal(bf_backend_map_shmem(peer->be, 3, page, 0, 0, 4096, true, NULL, NULL),
			 -EINVAL);
	assert_int_equal(bf_backend_map_shmem(peer->be, 2, page, 0, 4096, 4096, true, NULL, NULL),
			 -EINVAL);
	assert_int_equal(
		bf_backend_map_shmem(peer->be, 0, page, 0, UINT64_MAX - 10, 4096, true, NULL, NULL),
		-EINVAL);
	assert_int_equal(bf_backend_map_shmem(peer->be, 0, page, 0, 0, 0, true, NULL, NULL),
			 -EINVAL);
	assert_int_equal(bf_backend_map_shmem(peer->be, 0, -1, 0, 0, 4096, true, NULL, NULL),
			 -EINVAL);
	assert_int_equal(receive(peer->back, &hdr, &map, &fd), -EAGAIN);

	assert_int_equal(
		bf_backend_map_shmem(peer->be, 0, page, 4096, 8192, 8192, true, answered, &t), 0);
	assert_int_equal(receive(peer->back, &hdr, &map, &fd), sizeof(map));
	assert_int_equal(hdr.request, BF_BE_SHMEM_MAP);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(map.shmid, 0);
	assert_int_equal(map.fd_offset, 4096);
	assert_int_equal(map.shm_offset, 8192);
	assert_int_equal(map.len, 8192);
	assert_int_equal(map.flags, 1);
	assert_int_equal(t.answers, 0);
	/* It may not lie over one that is asked for, and not be taken away by halves. */
	assert_int_equal(bf_backend_map_shmem(peer->be, 0, page, 0, 12288, 4096, false, NULL, NULL),
			 -EINVAL);
	answer(peer, BF_BE_SHMEM_MAP, 0, NULL, 0);
	assert_int_equal(t.answers, 1);
	assert_int_equal(t.last_answer, 0);
	assert_int_equal(bf_backend_map_shmem(peer->be, 0, page, 0, 12288, 4096, false, NULL, NULL),
			 -EINVAL);
	assert_int_equal(bf_backend_unmap_shmem(peer->be, 0, 8192, 4096, NULL, NULL), -EINVAL);
	/* Beside it, refused: then it is not there. */
	assert_int_equal(
		bf_backend_map_shmem(peer->be, 0, page, 0, 16384, 4096, false, answered, &t), 0);
	assert_int_equal(receive(peer->back, &hdr, &map, &fd), sizeof(map));
	assert_int_equal(map.flags, 0);
	close(fd);
	answer(peer, BF_BE_SHMEM_MAP, 1, NULL, 0);
	assert_int_equal(t.last_answer, -EREMOTEIO);
	assert_int_equal(bf_backend_unmap_shmem(peer->be, 0, 16384, 4096, NULL, NULL), -EINVAL);
	/* Exactly one. */
	assert_int_equal(bf_backend_unmap_shmem(peer->be, 0, 8192, 8192, answered, &t), 0);
	assert_int_equal(receive(peer->back, &hdr, &map, &fd), sizeof(map));
	assert_int_equal(hdr.request, BF_BE_SHMEM_UNMAP);
	assert_int_equal(fd, -1);
	answer(peer, BF_BE_SHMEM_UNMAP, 0, NULL, 0);
	assert_int_equal(bf_backend_unmap_shmem(peer->be, 0, 8192, 8192, NULL, NULL), -EINVAL);
	/* A reset drops them at the front end, and so here. */
	assert_int_equal(bf_backend_map_shmem(peer->be, 2, page, 0, 0, 4096, true, NULL, NULL), 0);
	assert_int_equal(receive(peer->back, &hdr, &map, &fd), sizeof(map));
	close(fd);
	answer(peer, BF_BE_SHMEM_MAP, 0, NULL, 0);
	assert_int_equal(say(peer, BF_FE_RESET_DEVICE, NULL, 0, NULL, 0), ACCEPTED);
	assert_int_equal(bf_backend_unmap_shmem(peer->be, 2, 0, 4096, NULL, NULL), -EINVAL);
	/* Unanswered at the end of the connection. */
	assert_int_equal(bf_backend_map_shmem(peer->be, 2, page, 0, 0, 4096, true, answered, &t),
			 0);
	bf_backend_detach(peer->be);
	assert_int_equal(t.last_answer, -ECONNABORTED);
	assert_int_equal(bf_backend_map_shmem(peer->be, 2, page, 0, 0, 4096, true, NULL, NULL),
			 -ENOTCONN);
	end(&t);
	begin(&t, 0);
	assert_int_equal(bf_backend_map_shmem(peer->be, 2, page, 0, 0, 4096, true, NULL, NULL),
			 -EOPNOTSUPP);
	end(&t);
	close(page);
	assert_no_leaks(before, "shared memory");
}

static void byte_order(void **state)
{
	struct topics t;
	struct peer *peer = &t.echo.peer;
	int kick;

	(void)state;
	begin(&t, ALL_BY_NAME);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENDIAN, 0, 0), ACCEPTED);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENDIAN, 0, 1), REFUSED);
	assert_non_null(strstr(bf_backend_error(peer->be), "legacy"));
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENDIAN, 0, 2), REFUSED);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENDIAN, QUEUES, 0), REFUSED);
	assert_int_equal(say_eventfd(peer, BF_FE_SET_VRING_KICK, 0, &kick), ACCEPTED);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENDIAN, 0, 0), REFUSED);
	close(kick);
	end(&t);
}

/* "GPA_ADDRESSES": rings at guest-physical addresses, whatever user addresses are in the table. */
static void rings_at_guest_physical_addresses(void **state)
{
	struct topics t;
	struct peer *peer = &t.echo.peer;
	struct bf_chain chain;
	struct iovec iov[4];
	struct guest guest;
	int kick;

	(void)state;
	begin(&t, ALL_BY_NAME & ~bf_bit(BF_PROTOCOL_F_PAGEFAULT));
	guest_init(&guest);
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(echo_ring(&t.echo, 0, LOAD_RING, UVA, &kick), REFUSED);
	get_base(peer, 0);
	close(kick);
	assert_int_equal(echo_ring(&t.echo, 0, LOAD_RING, GPA, &kick), ACCEPTED);
	assert_true(peer->running[0]);
	guest_offer_in(&guest, 0, LOAD_RING, 1, GPA + LOAD_DATA, 64);
	chain = (struct bf_chain){ .iov = iov, .nr_iov = 4 };
	assert_int_equal(bf_virtq_pop(peer->vq[0], &chain), 1);
	bf_virtq_push(peer->vq[0], chain.head, 64);
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(peer->starts, 1);
	/* Its key is the address that counts. */
	assert_int_equal(say(peer, BF_FE_REM_MEM_REG,
			     &(struct bf_mem_reg){ .region = { GPA, MEMORY_SIZE, GPA, 0 } }, 40,
			     NULL, 0),
			 ACCEPTED);
	close(kick);
	end(&t);
	guest_done(&guest);
}

/* Kicks, calls and errors as messages. */
static void in_band(void **state)
{
	struct leaks before = leaks_now();
	const uint64_t all = ALL_BY_NAME & ~bf_bit(BF_PROTOCOL_F_PAGEFAULT) &
			     ~bf_bit(BF_PROTOCOL_F_GPA_ADDRESSES);
	struct bf_vring_state body;
	struct bf_chain chain;
	struct bf_header hdr;
	struct iovec iov[4];
	struct guest guest;
	struct topics t;
	struct peer *peer = &t.echo.peer;
	int fd;

	(void)state;
	begin(&t, all);
	guest_init(&guest);
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_NUM, 0, LOAD_RING), ACCEPTED);
	assert_int_equal(say_addr(peer, ring_addr(0)), ACCEPTED);
	assert_int_equal(say_u64(peer, BF_FE_SET_VRING_CALL, BF_VRING_NOFD), ACCEPTED);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENABLE, 0, 1), ACCEPTED);
	assert_int_equal(say_u64(peer, BF_FE_SET_VRING_KICK, BF_VRING_NOFD), ACCEPTED);
	assert_true(peer->running[0]);
	/* The device has an eventfd to sleep on, and knows no difference. */
	assert_true(bf_virtq_kick_fd(peer->vq[0]) >= 0);
	assert_int_equal(bf_virtq_drain_kick(peer->vq[0]), 0);
	assert_int_equal(say_state(peer, BF_FE_VRING_KICK, 0, 0), ACCEPTED);
	assert_int_equal(bf_virtq_drain_kick(peer->vq[0]), 1);
	assert_int_equal(say_state(peer, BF_FE_VRING_KICK, QUEUES, 0), REFUSED);

	/* Three calls while one is unanswered are two messages. */
	for (uint16_t i = 0; i < 3; i++) {
		guest_offer_in(&guest, 0, LOAD_RING, i, GPA + LOAD_DATA, 64);
		chain = (struct bf_chain){ .iov = iov, .nr_iov = 4 };
		assert_int_equal(bf_virtq_pop(peer->vq[0], &chain), 1);
		bf_virtq_push(peer->vq[0], chain.head, 64);
		assert_true(bf_virtq_notify(peer->vq[0]));
		bf_backend_dispatch(peer->be);
	}
	assert_int_equal(receive(peer->back, &hdr, &body, &fd), 8);
	assert_int_equal(hdr.request, BF_BE_VRING_CALL);
	assert_int_equal(body.index, 0);
	assert_int_equal(receive(peer->back, &hdr, &body, &fd), -EAGAIN);
	answer(peer, BF_BE_VRING_CALL, 0, NULL, 0);
	assert_int_equal(receive(peer->back, &hdr, &body, &fd), 8);
	assert_int_equal(hdr.request, BF_BE_VRING_CALL);
	answer(peer, BF_BE_VRING_CALL, 0, NULL, 0);
	assert_int_equal(receive(peer->back, &hdr, &body, &fd), -EAGAIN);

	/* What is given back at the stop is called for as well. */
	guest_offer_in(&guest, 0, LOAD_RING, 9, GPA + LOAD_DATA, 64);
	chain = (struct bf_chain){ .iov = iov, .nr_iov = 4 };
	assert_int_equal(bf_virtq_pop(peer->vq[0], &chain), 1);
	bf_virtq_push(peer->vq[0], chain.head, 64);
	assert_int_equal(get_base(peer, 0), 4);
	assert_int_equal(receive(peer->back, &hdr, &body, &fd), 8);
	assert_int_equal(hdr.request, BF_BE_VRING_CALL);
	answer(peer, BF_BE_VRING_CALL, 0, NULL, 0);

	/* Started by the kick itself. */
	assert_int_equal(say_state(peer, BF_FE_VRING_KICK, 0, 0), ACCEPTED);
	assert_true(peer->running[0]);
	assert_int_equal(bf_virtq_drain_kick(peer->vq[0]), 1);
	/* Broken: told in-band. */
	guest_desc(&guest, 0, 5, 0, 64, 2, 0);
	guest_offer(&guest, 0, LOAD_RING, 5);
	chain = (struct bf_chain){ .iov = iov, .nr_iov = 4 };
	assert_int_equal(bf_virtq_pop(peer->vq[0], &chain), -EFAULT);
	bf_backend_dispatch(peer->be);
	assert_int_equal(receive(peer->back, &hdr, &body, &fd), 8);
	assert_int_equal(hdr.request, BF_BE_VRING_ERR);
	assert_int_equal(receive(peer->back, &hdr, &body, &fd), 0);
	assert_int_equal(hdr.request, BF_BE_CONFIG_CHANGE_MSG);
	assert_int_equal(t.brokens, 1);
	end(&t);
	guest_done(&guest);

	/* Without what it needs the connection ends. */
	for (unsigned i = 0; i < 2; i++) {
		const unsigned needed[] = { BF_PROTOCOL_F_BACKEND_REQ, BF_PROTOCOL_F_REPLY_ACK };

		begin(&t, all);
		assert_int_equal(
			say_u64(peer, BF_FE_SET_PROTOCOL_FEATURES,
				get_u64(peer, BF_FE_GET_PROTOCOL_FEATURES) & ~bf_bit(needed[i])),
			CLOSED);
		assert_non_null(strstr(bf_backend_error(peer->be), "in-band"));
		end(&t);
	}
	assert_no_leaks(before, "in-band notifications");
}

static void a_broken_ring_is_told(void **state)
{
	struct bf_header hdr;
	struct bf_chain chain;
	struct iovec iov[4];
	struct guest guest;
	struct topics t;
	struct peer *peer = &t.echo.peer;
	uint8_t bytes[16];
	int kick, err, fd;

	(void)state;
	begin(&t, 0);
	guest_init(&guest);
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(say_eventfd(peer, BF_FE_SET_VRING_ERR, 0, &err), ACCEPTED);
	assert_int_equal(echo_ring(&t.echo, 0, LOAD_RING, UVA, &kick), ACCEPTED);
	assert_int_equal(say_u64(peer, BF_FE_SET_STATUS, 0xf), ACCEPTED);
	guest_offer(&guest, 0, LOAD_RING, LOAD_RING);
	chain = (struct bf_chain){ .iov = iov, .nr_iov = 4 };
	assert_int_equal(bf_virtq_pop(peer->vq[0], &chain), -EBADMSG);
	/* The error eventfd at once, the rest when control comes to it. */
	assert_int_equal(signals(err), 1);
	assert_int_equal(t.brokens, 0);
	assert_int_equal(
		poll(&(struct pollfd){ .fd = bf_backend_fd(peer->be), .events = POLLIN }, 1, 0), 1);
	assert_int_equal(bf_backend_dispatch(peer->be), 0);
	assert_int_equal(t.brokens, 1);
	assert_true(strlen(t.reason) > 10);
	assert_int_equal(receive(peer->back, &hdr, bytes, &fd), 0);
	assert_int_equal(hdr.request, BF_BE_CONFIG_CHANGE_MSG);
	assert_int_equal(get_u64(peer, BF_FE_GET_STATUS), 0x4f);
	assert_int_equal(
		poll(&(struct pollfd){ .fd = bf_backend_fd(peer->be), .events = POLLIN }, 1, 0), 0);
	/* The driver does not take it back but by a reset. */
	assert_int_equal(say_u64(peer, BF_FE_SET_STATUS, 0xf), ACCEPTED);
	assert_int_equal(get_u64(peer, BF_FE_GET_STATUS), 0x4f);
	assert_int_equal(say_u64(peer, BF_FE_SET_STATUS, 0), ACCEPTED);
	assert_int_equal(get_u64(peer, BF_FE_GET_STATUS), 0);
	assert_int_equal(t.brokens, 1);
	close(err);
	close(kick);
	end(&t);

	/* Found just before the end: no later than that. */
	begin(&t, 0);
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	guest_avail(&guest, 0)[1] = 0;
	assert_int_equal(echo_ring(&t.echo, 0, LOAD_RING, UVA, &kick), ACCEPTED);
	guest_offer(&guest, 0, LOAD_RING, LOAD_RING);
	chain = (struct bf_chain){ .iov = iov, .nr_iov = 4 };
	assert_int_equal(bf_virtq_pop(peer->vq[0], &chain), -EBADMSG);
	bf_backend_detach(peer->be);
	assert_int_equal(t.brokens, 1);
	close(kick);
	end(&t);
	guest_done(&guest);
}

/* Table by table as QEMU does it; the faults of memory that is missing are served by the test. */
static void postcopy(void **state)
{
	const uint64_t all = ALL_BY_NAME & ~bf_bit(BF_PROTOCOL_F_GPA_ADDRESSES) &
			     ~bf_bit(BF_PROTOCOL_F_INBAND_NOTIFICATIONS);
	const struct bf_mem_table table = { .nr = 1, .regions = { { GPA, MEMORY_SIZE, UVA, 0 } } };
	struct leaks before = leaks_now();
	struct bf_mem_table told;
	struct guest guest;
	struct topics t;
	struct peer *peer = &t.echo.peer;
	uint64_t none = 0, value;
	int uffd, fd, kick;

	(void)state;
	begin(&t, all);
	guest_init(&guest);
	assert_int_equal(say(peer, BF_FE_POSTCOPY_LISTEN, NULL, 0, NULL, 0), REFUSED);
	assert_int_equal(ask(peer, BF_FE_POSTCOPY_ADVISE, NULL, 0, NULL, 0, NULL, &uffd), 0);
	if (uffd < 0) {
		assert_non_null(strstr(bf_backend_error(peer->be), "userfaultfd"));
		end(&t);
		guest_done(&guest);
		skip();
	}
	assert_int_equal(say(peer, BF_FE_POSTCOPY_LISTEN, NULL, 0, NULL, 0), ACCEPTED);
	for (unsigned i = 0; i < 2; i++) {
		/* Asked for an acknowledgement or not: the answer is the table. */
		send_message(peer->fd, BF_FE_SET_MEM_TABLE, i ? NEED_REPLY : BF_FLAGS_VERSION,
			     &table, 40, &guest.fd, 1);
		assert_int_equal(bf_backend_dispatch(peer->be), 0);
		assert_int_equal(read_reply(peer->fd, BF_FE_SET_MEM_TABLE, &told, sizeof(told)),
				 40);
		assert_int_equal(told.nr, 1);
		assert_int_equal(told.regions[0].gpa, GPA);
		assert_int_equal(told.regions[0].size, MEMORY_SIZE);
		/* Not in force. */
		assert_int_equal(bf_backend_memory(peer->be) == NULL, i == 0);
		/* The go-ahead. It has no answer. */
		send_message(peer->fd, BF_FE_SET_MEM_TABLE, i ? NEED_REPLY : BF_FLAGS_VERSION,
			     &none, 8, NULL, 0);
		assert_int_equal(bf_backend_dispatch(peer->be), 0);
		assert_int_equal(read_reply(peer->fd, BF_FE_SET_MEM_TABLE, &told, sizeof(told)),
				 -EAGAIN);
		assert_int_equal(bf_memory_nr_regions(bf_backend_memory(peer->be)), 1);
		assert_ptr_equal(bf_memory_from_gpa(bf_backend_memory(peer->be), GPA, 1),
				 (void *)(uintptr_t)told.regions[0].uva);
	}
	/* All there already, as far as the rings go. */
	memset(guest.mem, 0, 4096);
	assert_int_equal(echo_ring(&t.echo, 0, LOAD_RING, UVA, &kick), ACCEPTED);
	assert_true(peer->running[0]);
	assert_int_equal(ask(peer, BF_FE_POSTCOPY_END, NULL, 0, NULL, 0, &value, &fd), 8);
	assert_int_equal(value, 0);
	/* From here on a table is a table again. */
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(say(peer, BF_FE_SET_MEM_TABLE, &none, 8, NULL, 0), REFUSED);
	close(uffd);
	close(kick);
	/* Left in the middle. */
	assert_int_equal(ask(peer, BF_FE_POSTCOPY_ADVISE, NULL, 0, NULL, 0, NULL, &uffd), 0);
	close(uffd);
	assert_int_equal(say(peer, BF_FE_POSTCOPY_LISTEN, NULL, 0, NULL, 0), REFUSED);
	end(&t);
	guest_done(&guest);
	assert_no_leaks(before, "postcopy");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_offered),
		cmocka_unit_test(mtu_rarp_and_gpu),
		cmocka_unit_test(crypto_sessions),
		cmocka_unit_test(shared_objects),
		cmocka_unit_test(device_state),
		cmocka_unit_test(shared_memory),
		cmocka_unit_test(byte_order),
		cmocka_unit_test(rings_at_guest_physical_addresses),
		cmocka_unit_test(in_band),
		cmocka_unit_test(a_broken_ring_is_told),
		cmocka_unit_test(postcopy),
	};

	return cmocka_run_group_tests_name("topics", tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The smallest useful back end: a virtio entropy device fills the guest's buffers with random bytes.
 * One thread is both contexts, control and queue. Try it with a guest of QEMU's:
 *	backend /tmp/rng.sock &
 *	qemu-system-x86_64 ... -chardev socket,id=c0,path=/tmp/rng.sock -device vhost-user-rng-pci,chardev=c0
 */
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include <belfry/backend.h>
#include <belfry/socket.h>

static struct bf_virtq *ring; /* the only one, between start and stop; else NULL */

static int vring_start(void *opaque, unsigned queue, struct bf_virtq *vq)
{
	(void)opaque, (void)queue;
	ring = vq;
	return 0;
}

static void vring_stop(void *opaque, unsigned queue)
{
	(void)opaque, (void)queue;
	ring = NULL;
}

static uint32_t fill(const struct bf_chain *chain)
{
	uint32_t len = 0;

	for (unsigned i = chain->nr_out; i < chain->nr_out + chain->nr_in; i++) {
		ssize_t got = getrandom(chain->iov[i].iov_base, chain->iov[i].iov_len, 0);

		if (got != (ssize_t)chain->iov[i].iov_len)
			break;
		len += (uint32_t)got;
	}
	return len;
}

static void serve(struct bf_virtq *vq)
{
	struct iovec iov[64];
	struct bf_chain chain = { .iov = iov, .nr_iov = 64 };

	bf_virtq_drain_kick(vq);
	do { /* until there was no request and the driver was told to kick for the next */
		while (bf_virtq_pop(vq, &chain) > 0)
			bf_virtq_push(vq, chain.head, fill(&chain));
		bf_virtq_notify(vq);
	} while (bf_virtq_want_kicks(vq, true));
}

static void complain(void *opaque, enum bf_log_level level, const char *tag, const char *text)
{
	(void)opaque, (void)level;
	fprintf(stderr, "%s: %s\n", tag, text);
}

int main(int argc, char *argv[])
{
	static const struct bf_backend_ops ops = { .vring_start = vring_start,
						   .vring_stop = vring_stop };
	const struct bf_backend_config config = {
		.ops = &ops,
		.nr_queues = 1,
		.log = { .write = complain, .level = BF_LOG_WARN },
		.features = bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_RING_F_INDIRECT_DESC) |
			    bf_bit(VIRTIO_RING_F_EVENT_IDX) | bf_bit(VIRTIO_F_RING_PACKED),
	};
	struct bf_backend *be;
	int fd = bf_socket_listen(argc == 2 ? argv[1] : "", 0600);
	int ret = fd < 0 ? fd : bf_backend_new(&config, &be);

	if (ret) {
		fprintf(stderr, "usage: %s SOCKET (%s)\n", argv[0], strerror(-ret));
		return 1;
	}
	while ((ret = bf_socket_accept(fd)) >= 0 && !bf_backend_attach(be, ret))
		while (bf_backend_attached(be)) {
			struct pollfd fds[] = {
				{ .fd = bf_backend_fd(be), .events = POLLIN },
				{ .fd = ring ? bf_virtq_kick_fd(ring) : -1, .events = POLLIN },
			};

			poll(fds, 2, -1);
			bf_backend_dispatch(be); /* may start the ring, or stop it */
			if (ring)
				serve(ring);
		}
	bf_backend_free(be);
	return 1;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* The scripted library of the VMM's device tests; see fake_library.h. */
#include "fake_library.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#include <belfry/socket.h>
#include <linux/virtio_config.h>

#include "vmm/virtio/kinds.h"

struct fake_library lib;

static int note(const struct bf_frontend *fe, const char *what, int err)
{
	size_t used = strlen(lib.diary);

	snprintf(lib.diary + used, sizeof(lib.diary) - used, "%s ", what);
	return fe->attached ? err : -ENOTCONN;
}

void fake_library_reset(void)
{
	memset(&lib, 0, sizeof(lib));
	lib.features = UINT64_MAX & ~(bf_bit(30) | bf_bit(VIRTIO_F_RING_PACKED));
	lib.protocol_features = UINT64_MAX;
	lib.max_queues = 4;
	memset(lib.config, 0x77, sizeof(lib.config));
}

void expect_diary(const char *expected)
{
	assert_string_equal(lib.diary, expected);
	lib.diary[0] = '\0';
}

static void hang_up(void)
{
	if (lib.peer_fd > 0)
		close(lib.peer_fd);
	lib.peer_fd = 0;
}

static int connected_socket(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	hang_up();
	lib.peer_fd = pair[1];
	return pair[0];
}

int bf_socket_connect(const char *path)
{
	(void)path;
	return lib.fail_connect ? lib.fail_connect : connected_socket();
}

/* Readable as often as a peer came. */
int bf_socket_listen(const char *path, unsigned mode)
{
	(void)path;
	(void)mode;
	lib.listen_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	return lib.listen_fd;
}

int bf_socket_accept(int listen_fd)
{
	eventfd_t one;

	return eventfd_read(listen_fd, &one) ? -EAGAIN : connected_socket();
}

uint64_t bf_frontend_supported_protocol_features(void)
{
	return bf_bit(BF_PROTOCOL_F_MQ) | bf_bit(BF_PROTOCOL_F_HOST_NOTIFIER) |
	       bf_bit(BF_PROTOCOL_F_CONFIG);
}

int bf_frontend_new(const struct bf_frontend_config *config, struct bf_frontend **fe)
{
	lib.fe = calloc(1, sizeof(*lib.fe));
	lib.fe->config = *config;
	lib.fe->fd = 1000 + (int)lib.nr_made++;
	*fe = lib.fe;
	return 0;
}

void bf_frontend_free(struct bf_frontend *fe)
{
	lib.nr_freed += fe != NULL;
	free(fe);
}

int bf_frontend_attach(struct bf_frontend *fe, int fd)
{
	static const struct timespec moment = { .tv_nsec = 1000000 };
	char byte;

	while (__atomic_load_n(&lib.hang, __ATOMIC_ACQUIRE) && recv(fd, &byte, 1, MSG_DONTWAIT))
		nanosleep(&moment, NULL);
	hang_up();
	close(fd);
	fe->attached = !lib.fail_attach && !lib.hang;
	return fe->attached ? 0 : lib.fail_attach ? lib.fail_attach : -ENOTCONN;
}

void bf_frontend_detach(struct bf_frontend *fe)
{
	fe->attached = false;
}

bool bf_frontend_attached(const struct bf_frontend *fe)
{
	return fe->attached;
}

/* Numbers that no file has; the loop is a fake too. */
int bf_frontend_fd(const struct bf_frontend *fe)
{
	return fe->fd;
}

int bf_frontend_dispatch(struct bf_frontend *fe)
{
	if (!fe->attached)
		fe->config.ops->disconnected(fe->config.opaque, -ENOTCONN);
	return 0;
}

const char *bf_frontend_error(const struct bf_frontend *fe)
{
	(void)fe;
	return "scripted";
}

uint64_t bf_frontend_features(const struct bf_frontend *fe)
{
	return fe->attached ? lib.features : 0;
}

uint64_t bf_frontend_protocol_features(const struct bf_frontend *fe)
{
	return fe->attached ? lib.protocol_features & fe->config.protocol_features : 0;
}

unsigned bf_frontend_max_queues(const struct bf_frontend *fe)
{
	return fe->attached ? lib.max_queues : 0;
}

int bf_frontend_set_features(struct bf_frontend *fe, uint64_t features)
{
	assert_int_equal(features & ~lib.features, 0);
	lib.sent_features = features;
	return note(fe, "features", lib.fail_features);
}

int bf_frontend_set_memory(struct bf_frontend *fe, const struct bf_memory_region *regions,
			   unsigned nr)
{
	assert_int_equal(regions[0].size, FAKE_RAM_SIZE);
	assert_ptr_equal((void *)(uintptr_t)regions[0].uva, regions[0].hva);
	return note(fe, "memory", lib.fail_memory ? lib.fail_memory : (int)nr);
}

int bf_frontend_start_vrings(struct bf_frontend *fe, const struct bf_vring_setup *vrings,
			     unsigned nr)
{
	assert_in_range(nr, 0, 16);
	memcpy(lib.setups, vrings, nr * sizeof(*vrings));
	lib.nr_setups = nr;
	if (lib.lose_at_start && !--lib.lose_at_start)
		fe->attached = false;
	return note(fe, "start", lib.fail_start);
}

int bf_frontend_enable_vrings(struct bf_frontend *fe, const unsigned *queues, unsigned nr,
			      bool enable)
{
	char word[64];
	int used = snprintf(word, sizeof(word), enable ? "on" : "off");

	for (unsigned i = 0; i < nr; i++)
		used += snprintf(word + used, sizeof(word) - (size_t)used, ",%u", queues[i]);
	return note(fe, word, lib.fail_enable);
}

int bf_frontend_stop_vrings(struct bf_frontend *fe, const unsigned *queues, unsigned nr,
			    uint32_t *bases)
{
	(void)queues;
	(void)nr;
	(void)bases;
	return note(fe, "stop", 0);
}

void bf_frontend_withdraw_doorbells(struct bf_frontend *fe, const char *why)
{
	(void)why;
	note(fe, "withdraw", 0);
}

int bf_frontend_get_config(struct bf_frontend *fe, uint32_t offset, void *data, uint32_t len)
{
	assert_int_equal(offset, 0);
	assert_in_range(len, 1, sizeof(lib.config));
	if (!fe->attached)
		return -ENOTCONN;
	if (!bf_has(bf_frontend_protocol_features(fe), BF_PROTOCOL_F_CONFIG))
		return -EOPNOTSUPP;
	memcpy(data, lib.config, len);
	if (len > 32)
		((uint8_t *)data)[32] = lib.written;
	lib.nr_config++;
	return lib.fail_config;
}

int bf_frontend_set_config(struct bf_frontend *fe, uint32_t offset, const void *data, uint32_t len)
{
	(void)offset;
	(void)len;
	memcpy(&lib.written, data, 1);
	return note(fe, "config", 0);
}

int bf_frontend_set_status(struct bf_frontend *fe, uint8_t status)
{
	char word[16];

	snprintf(word, sizeof(word), "s%u", status);
	return note(fe, word, 0);
}

void bf_frontend_doorbell_state(const struct bf_frontend *fe, unsigned queue,
				struct bf_doorbell_state *state)
{
	(void)fe;
	*state = (struct bf_doorbell_state){ .reason = "scripted", .nr_kicks = queue };
}

/* The event loop. */

#define MAX_WATCHED 32

static struct {
	int fd;
	void (*fn)(void *opaque, uint32_t events);
	void *opaque;
} watched[MAX_WATCHED];
static pthread_mutex_t watched_lock = PTHREAD_MUTEX_INITIALIZER;

static int find(int fd)
{
	int i;

	for (i = 0; i < MAX_WATCHED; i++)
		if (watched[i].fn && watched[i].fd == fd)
			return i;
	return -1;
}

int event_loop_add(struct event_loop *loop, int fd, uint32_t events,
		   void (*fn)(void *opaque, uint32_t events), void *opaque)
{
	int i, rc = -EEXIST;

	(void)loop;
	(void)events;
	pthread_mutex_lock(&watched_lock);
	if (find(fd) < 0) {
		for (i = 0; watched[i].fn; i++)
			assert_in_range(i, 0, MAX_WATCHED - 2);
		watched[i].fd = fd;
		watched[i].fn = fn;
		watched[i].opaque = opaque;
		rc = 0;
	}
	pthread_mutex_unlock(&watched_lock);
	return rc;
}

void event_loop_del(struct event_loop *loop, int fd)
{
	int i;

	(void)loop;
	pthread_mutex_lock(&watched_lock);
	i = find(fd);
	if (i >= 0)
		watched[i].fn = NULL;
	pthread_mutex_unlock(&watched_lock);
}

bool loop_has(int fd)
{
	bool has;

	pthread_mutex_lock(&watched_lock);
	has = find(fd) >= 0;
	pthread_mutex_unlock(&watched_lock);
	return has;
}

unsigned loop_nr(void)
{
	unsigned i, nr = 0;

	pthread_mutex_lock(&watched_lock);
	for (i = 0; i < MAX_WATCHED; i++)
		nr += watched[i].fn != NULL;
	pthread_mutex_unlock(&watched_lock);
	return nr;
}

void loop_fire(int fd)
{
	int i;

	pthread_mutex_lock(&watched_lock);
	i = find(fd);
	pthread_mutex_unlock(&watched_lock);
	assert_true(i >= 0);
	watched[i].fn(watched[i].opaque, 1);
}

/* The fixture. */

int device_make(struct device_fixture *f, const char *spec)
{
	const struct vhost_user_kind *kind;
	struct vhost_user_options options;
	char err[320];
	int rc;

	assert_int_equal(kinds_parse(spec, &kind, &options, err, sizeof(err)), 0);
	rc = vhost_user_device_new(f->vm, f->bus, NULL, kind, &options, &f->device);
	if (!rc)
		f->vdev = &f->device->vdev;
	return rc;
}

int device_setup(void **state)
{
	struct device_fixture *f = calloc(1, sizeof(*f));

	fake_library_reset();
	f->fds = count_fds();
	f->vm = fake_vm_new();
	f->bus = pci_bus_new(f->vm);
	*state = f;
	return 0;
}

int device_teardown(void **state)
{
	struct device_fixture *f = *state;

	vhost_user_device_free(f->device);
	pci_bus_free(f->bus);
	fake_vm_free(f->vm);
	hang_up();
	assert_int_equal(count_fds(), f->fds);
	assert_int_equal(lib.nr_made, lib.nr_freed);
	assert_int_equal(loop_nr(), 0);
	free(f);
	return 0;
}

int device_accept(struct device_fixture *f, uint64_t features)
{
	int err;

	assert_int_equal(features & ~f->vdev->features, 0);
	err = f->vdev->ops->set_features(f->vdev, features);
	if (!err)
		f->vdev->driver_features = features;
	return err;
}

/* Rings of 16 entries, a page for each part, from the middle of RAM on. */
void device_enable(struct device_fixture *f, unsigned queue)
{
	struct virtio_queue *q = &f->vdev->queues[queue];

	q->enabled = true;
	q->size = 16;
	q->desc_gpa = 0x80000 + 0x3000ull * queue;
	q->driver_gpa = q->desc_gpa + 0x1000;
	q->device_gpa = q->desc_gpa + 0x2000;
}

void device_lose(struct device_fixture *f)
{
	struct bf_frontend *fe;

	pthread_mutex_lock(&f->vdev->lock);
	fe = f->device->frontend;
	fe->attached = false;
	pthread_mutex_unlock(&f->vdev->lock);
	loop_fire(bf_frontend_fd(fe));
}

bool device_returns(struct device_fixture *f, unsigned nr, unsigned ms)
{
	static const struct timespec moment = { .tv_nsec = 1000000 };
	bool there = false;

	for (; ms && !there; ms--) {
		nanosleep(&moment, NULL);
		pthread_mutex_lock(&f->vdev->lock);
		there = f->device->connected && f->device->again.nr == nr;
		pthread_mutex_unlock(&f->vdev->lock);
	}
	return there;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every vhost-user device of this VMM shares: a virtio device whose queues are served by a
 * process at the other end of a socket.
 *
 * Context: the virtio device's lock is the control context of the connection; it is taken at every
 * entry (guest access, event loop, statistics) and held around every call of the front-end library.
 */
#ifndef VMM_VHOST_USER_DEVICE_H
#define VMM_VHOST_USER_DEVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "../base/event_loop.h"
#include "../pci/pci.h"
#include "../kvm/vm.h"

struct vhost_user_device;

/* What the person asked for, the same for every kind of device. */
struct vhost_user_options {
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	unsigned nr_queues;
	unsigned queue_size;
	bool doorbells; /* false: notify=eventfd, host notifiers are not agreed */
};

/*
 * vhost_user_options_parse - "socket=PATH[,num-queues=N][,notify=auto|eventfd][,queue-size=N]".
 * 0 and *@options; -EINVAL and in @err a sentence that names the key.
 */
int vhost_user_options_parse(const char *args, struct vhost_user_options *options, char *err,
			     size_t err_len);

/* What a kind of device is: constant, one per kind. */
struct vhost_user_kind {
	const char *name; /* "blk": devices are called blk0, ... */
	uint16_t device_id;
	uint32_t pci_class;
	uint64_t features; /* of the device's own feature bits, those that may pass */
	uint32_t config_size;
	/* Make what the back end says of itself fit the number of queues shown; may be NULL. */
	void (*adjust_config)(uint8_t *config, unsigned nr_queues);
};

/*
 * Connect, negotiate and put the device on the bus (waits for the back end). Negative errno, after
 * a report() of what is wrong.
 */
int vhost_user_device_new(struct vm *vm, struct pci_bus *bus, struct event_loop *loop,
			  const struct vhost_user_kind *kind,
			  const struct vhost_user_options *options, struct vhost_user_device **out);
/* Stop the queues, as a device reset. Any state; a dead back end does not make it wait. */
void vhost_user_device_reset(struct vhost_user_device *device);
/* On the event loop's thread, no vCPU running. NULL is fine. */
void vhost_user_device_free(struct vhost_user_device *device);
/* A new object for the statistics, or NULL out of memory. */
json_t *vhost_user_device_stats(struct vhost_user_device *device);

#endif

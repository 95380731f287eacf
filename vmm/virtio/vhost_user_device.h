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

#include "../base/event_loop.h"
#include "../pci/pci.h"
#include "../kvm/vm.h"
#include "vhost_user_options.h"

struct vhost_user_device;

/*
 * What a kind does by itself. All run with the device's lock held; any but config may be NULL.
 */
struct vhost_user_kind_ops {
	/* Make device->model. On the event loop's thread, connected, not on the bus yet. */
	int (*create)(struct vhost_user_device *device);
	void (*destroy)(struct vhost_user_device *device);
	/* Device features that are offered whatever the back end offers. */
	uint64_t (*features)(struct vhost_user_device *device);
	/*
	 * Fill in config space as the guest sees it, @config[kind->config_size]. @theirs: the first
	 * kind->config_asked bytes of what the back end says; NULL if it says nothing.
	 */
	void (*config)(struct vhost_user_device *device, const uint8_t *theirs, uint8_t *config);
	/* The queue that is served here, as the driver's features place it; -1: none. */
	int (*own_queue)(struct vhost_user_device *device);
	int (*own_start)(struct vhost_user_device *device, unsigned queue);
	void (*own_stop)(struct vhost_user_device *device);
	/* Is a queue of the back end to be enabled when it starts? NULL: all are. */
	bool (*enabled)(struct vhost_user_device *device, unsigned queue);
	void (*reset)(struct vhost_user_device *device);
	/* The back end was lost, or is there again and serves the queues. */
	void (*connection)(struct vhost_user_device *device, bool up);
	void (*stats)(struct vhost_user_device *device, json_t *stats);
};

/* What a kind of device is: constant, one per kind. */
struct vhost_user_kind {
	const char *name; /* "blk": devices are called blk0, ... */
	uint16_t device_id;
	uint32_t pci_class;
	uint64_t features; /* of the device's own feature bits, those that may pass from the back end */
	uint64_t kept;     /* those never passed to it: they are served here */
	uint32_t config_size;
	uint32_t config_asked; /* bytes of it that the back end is asked for */
	bool needs_config;     /* a back end that serves no config space is of no use */
	/*
	 * Requests complete in any order, and none may be lost or done twice: a queue goes on with
	 * another back end only if nothing was outstanding.
	 */
	bool exact;
	bool reconnect; /* the default of the option */
	unsigned default_queues;
	const char *queues_key; /* how a person asks for them */
	unsigned nr_own_queues; /* served here, behind the back end's */
	const struct vhost_user_key *keys;
	unsigned nr_keys;
	const struct vhost_user_kind_ops *ops;
};

/*
 * Connect (or wait for the back end to), negotiate and put the device on the bus. Negative errno,
 * after a report() of what is wrong.
 */
int vhost_user_device_new(struct vm *vm, struct pci_bus *bus, struct event_loop *loop,
			  const struct vhost_user_kind *kind,
			  const struct vhost_user_options *options, struct vhost_user_device **out);
/* Stop the queues, as a device reset. Any state; a dead back end does not make it wait. */
void vhost_user_device_reset(struct vhost_user_device *device);
/*
 * Break off an attempt to connect again, so that nobody has to wait for a peer that does not
 * answer; attempts go on after vhost_user_device_reset(). Any thread, never waits.
 */
void vhost_user_device_interrupt(struct vhost_user_device *device);
/* Take all doorbells away from the guest; how many there were. Any thread. */
unsigned vhost_user_device_withdraw(struct vhost_user_device *device, const char *why);
/* On the event loop's thread, no vCPU running. NULL is fine. */
void vhost_user_device_free(struct vhost_user_device *device);
/* A new object for the statistics, or NULL out of memory. */
json_t *vhost_user_device_stats(struct vhost_user_device *device);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the vhost-user device share. Everything below is under vdev.lock once the
 * device is on the bus.
 */
#ifndef VMM_VHOST_USER_INTERNAL_H
#define VMM_VHOST_USER_INTERNAL_H

#include <belfry/frontend.h>

#include "../base/report_limit.h"
#include "vhost_user_device.h"
#include "virtio.h"
#include "../pci/virtio_pci.h"

enum vhost_user_state {
	VHOST_USER_IDLE,    /* connected, no driver */
	VHOST_USER_RUNNING, /* DRIVER_OK */
	VHOST_USER_FAILED,  /* the back end is gone */
};

struct vhost_user_device {
	struct virtio_device vdev;
	const struct vhost_user_kind *kind;
	struct vhost_user_options options;
	char name[24];
	struct vm *vm;
	struct event_loop *loop;
	struct virtio_pci *transport;
	struct bf_frontend *frontend;
	bool watched;          /* the connection's fd is in the loop */
	bool memory_announced; /* guest RAM never changes: once per connection */
	enum vhost_user_state state;
	uint8_t *config; /* [kind->config_size], as the guest sees it */
	bool *started;   /* [nr_queues] */
	struct report_limit limit;
};

extern const struct virtio_device_ops vhost_user_virtio_ops; /* vhost_user_queues.c */

/* Read config space from the back end anew. */
int vhost_user_refresh_config(struct vhost_user_device *device);

#endif

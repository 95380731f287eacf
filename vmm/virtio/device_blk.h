/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtio block device served over vhost-user. Contexts as in vhost_user_device.h.
 */
#ifndef VMM_DEVICE_BLK_H
#define VMM_DEVICE_BLK_H

#include "vhost_user_device.h"

struct device_blk;

struct device_blk_options {
	struct vhost_user_options vhost_user;
};

/*
 * "[blk,]socket=PATH[,num-queues=N][,notify=auto|eventfd][,queue-size=N]". 0 and *@o, or -EINVAL
 * and in @err a sentence that names the key.
 */
int device_blk_parse(const char *args, struct device_blk_options *o, char *err, size_t err_len);

/* Waits for the back end. Negative errno, after a report() of what is wrong. */
int device_blk_new(struct vm *vm, struct pci_bus *bus, struct event_loop *loop,
		   const struct device_blk_options *o, struct device_blk **out);
void device_blk_reset(struct device_blk *blk);
/* On the event loop's thread, no vCPU running. NULL is fine. */
void device_blk_free(struct device_blk *blk);
json_t *device_blk_stats(struct device_blk *blk);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* A virtio block device served over vhost-user. Contexts as in vhost_user_device.h. */
#ifndef VMM_DEVICE_BLK_H
#define VMM_DEVICE_BLK_H

#include "vhost_user_device.h"

/* "socket=PATH[,num-queues=N]", and the keys that all have. */
extern const struct vhost_user_kind device_blk_kind;

#endif

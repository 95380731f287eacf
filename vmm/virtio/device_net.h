/* SPDX-License-Identifier: BSD-3-Clause */
/* A virtio network device served over vhost-user. Contexts as in vhost_user_device.h. */
#ifndef VMM_DEVICE_NET_H
#define VMM_DEVICE_NET_H

#include "vhost_user_device.h"

/* "socket=PATH[,mac=MAC][,queues=N][,mtu=N]", and the keys that all have. */
extern const struct vhost_user_kind device_net_kind;

#endif

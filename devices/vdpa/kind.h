/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What depends on the type of a virtio device: its name, which queues are the guest's, and which
 * features can pass between guest and device. Pure.
 */
#ifndef VDPA_KIND_H
#define VDPA_KIND_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio_pci.h"

#define KIND_NO_QUEUE 0xffffffffu

/* As vhost-user's back-end descriptors call the type ("net", "block", ...); NULL: none of theirs. */
const char *kind_name(unsigned device_id);

struct kind {
	unsigned device_id;
	const char *name;    /* of the type; "virtio-N" has none, so never NULL */
	unsigned nr_queues;  /* data queues that the guest can have; numbers 0 .. nr_queues - 1 */
	uint64_t features;   /* to offer to the front end */
	bool ordered;        /* buffers come back in order, or losing and repeating one is no harm */
	bool queues_by_pair; /* net: SET_VRING_ENABLE chooses how many pairs the device uses */
};

/* What the device @vp is. -ENODEV with no queue that can be used (and says so). */
int kind_of(const struct virtio_pci *vp, unsigned nr_vectors, struct kind *kind);

/* What to accept at the device when the guest's driver accepted @driver. */
uint64_t kind_device_features(const struct kind *kind, uint64_t offered, uint64_t driver);
/* The device's control queue with these features, or KIND_NO_QUEUE: none is needed. */
unsigned kind_ctrl_queue(const struct kind *kind, const struct virtio_pci *vp, uint64_t features);
/*
 * How many queues the driver must have started with the features it accepted: fewer may be the whole
 * of a driver that uses only some.
 */
unsigned kind_full_set(const struct kind *kind, uint64_t driver);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * belfry-vdpa as a device: what main.c makes and runs.
 *
 * Everything runs on the control context; the relay has a thread of its own (relay.h).
 */
#ifndef VDPA_VDPA_H
#define VDPA_VDPA_H

#include <stdbool.h>

#include <jansson.h>

#include <belfry/backend.h>

struct vdpa;

struct vdpa_config {
	const char *bdf; /* as vfio_bdf_parse() gives it */
	bool offer_config; /* net: offer config space too; other types always do */
};

/* Takes the device. Negative errno, and it is said why. */
int vdpa_new(const struct vdpa_config *config, struct vdpa **out);
/* Ends the connection, resets the device and gives it back. NULL is fine. */
void vdpa_free(struct vdpa *vdpa);

struct bf_backend *vdpa_backend(struct vdpa *vdpa);
/* Readable when vdpa_event() has something to do; borrowed. */
int vdpa_event_fd(const struct vdpa *vdpa);
/* False: the kernel wants the device back. */
bool vdpa_event(void *vdpa);
json_t *vdpa_stats(void *vdpa);

#endif

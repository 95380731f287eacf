/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One network card as a vhost-user device: features, configuration space, and the operations of a back end.
 * Control context throughout.
 */
#ifndef NET_DEVICE_H
#define NET_DEVICE_H

#include <jansson.h>

#include <belfry/backend.h>

#include "devices/common/worker.h"
#include "port.h"

struct net_device;

struct net_device_config {
	const char *name;      /* tag in messages */
	struct net_port *port; /* owned from here on, also on failure */
	unsigned nr_pairs;
	uint16_t queue_size; /* the most that is accepted */
	struct worker **workers;
	unsigned nr_workers, first_worker; /* pair n is served by the (first + n)th, modulo nr */
	bool doorbells, polled;
	bool postcopy; /* offer it */
	unsigned mtu; /* 0: not given */
	/* The configuration space: only for front ends that want it. */
	bool offer_config;
	uint8_t mac[NET_MAC_LEN];
	bool has_mac;
};

/* 0 or negative errno, and then it is said why. */
int net_device_new(const struct net_device_config *config, struct net_device **device);
/* Ends the connection first. The workers go on. NULL is fine. */
void net_device_free(struct net_device *device);

struct bf_backend *net_device_backend(struct net_device *device);
/* For --stats. A new object, or NULL without memory. */
json_t *net_device_stats(const struct net_device *device);

#endif

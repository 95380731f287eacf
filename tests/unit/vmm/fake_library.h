/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A front-end library that is a script: it writes down what is asked of it, answers as told, and can
 * lose its connection; and an event loop whose events are the test's.
 *
 * Any number of front ends may be made, one after another, on any thread; `lib` is about the last.
 */
#ifndef TESTS_UNIT_VMM_FAKE_LIBRARY_H
#define TESTS_UNIT_VMM_FAKE_LIBRARY_H

#include "unit/support.h"

#include <pthread.h>
#include <stdbool.h>

#include <belfry/frontend.h>

#include "fake_vm.h"
#include "vmm/pci/pci.h"
#include "vmm/virtio/vhost_user_internal.h"

struct bf_frontend {
	struct bf_frontend_config config;
	bool attached;
	int fd;
};

struct fake_library {
	struct bf_frontend *fe; /* the last that was made */
	unsigned nr_made, nr_freed;
	char diary[1024];
	uint64_t features, protocol_features, sent_features;
	unsigned max_queues;
	/* Negative errno to give. */
	int fail_connect, fail_attach, fail_features, fail_start, fail_memory, fail_config, fail_enable;
	int lose_at_start; /* the connection ends within the next that many-th start */
	bool hang;   /* attach waits until its socket is shut down */
	int listen_fd; /* eventfd: a peer comes */
	int peer_fd; /* the other end of the last socket; 0: none */
	struct bf_vring_setup setups[16];
	unsigned nr_setups;
	unsigned nr_config;
	uint8_t written;    /* byte 32 of config space */
	uint8_t config[64]; /* the beginning of it; byte 32 is `written` */
};

extern struct fake_library lib;

void fake_library_reset(void);
/* The words since the last time. */
void expect_diary(const char *expected);

/* Run what waits for @fd; fails the test when nothing does. */
void loop_fire(int fd);
bool loop_has(int fd);
unsigned loop_nr(void);

/* One device over the script. */
struct device_fixture {
	struct vm *vm;
	struct pci_bus *bus;
	struct vhost_user_device *device;
	struct virtio_device *vdev;
	unsigned fds;
};

/* Group fixture functions of cmocka. */
int device_setup(void **state);
int device_teardown(void **state);
/* "blk,socket=a": 0 and f->device, or the error of making it. Bad options fail the test. */
int device_make(struct device_fixture *f, const char *spec);
/* As the transport does: negotiate @features, describe queues, DRIVER_OK. */
int device_accept(struct device_fixture *f, uint64_t features);
void device_enable(struct device_fixture *f, unsigned queue);
/* The connection ends, and the loop says so. */
void device_lose(struct device_fixture *f);
/* Wait for a reconnection number @nr; false if it does not come within @ms. */
bool device_returns(struct device_fixture *f, unsigned nr, unsigned ms);

#endif

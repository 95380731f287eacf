/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the vhost-user device share, with the kinds too. Everything below is under
 * vdev.lock once the device is on the bus, except where said otherwise.
 */
#ifndef VMM_VHOST_USER_INTERNAL_H
#define VMM_VHOST_USER_INTERNAL_H

#include <pthread.h>

#include <belfry/frontend.h>

#include "../base/report_limit.h"
#include "vhost_user_device.h"
#include "virtio.h"
#include "../pci/virtio_pci.h"

#define VHOST_USER_MAX_CONFIG 256

enum vhost_user_state {
	VHOST_USER_IDLE,        /* no driver */
	VHOST_USER_RUNNING,     /* DRIVER_OK; the back end may be away */
	VHOST_USER_NEEDS_RESET, /* nothing goes on until the driver resets the device */
	VHOST_USER_FAILED,      /* the back end is gone for good */
};

/* A queue of the back end. */
struct vhost_user_queue {
	bool wanted;  /* the driver has it running */
	bool started; /* the back end serves it */
	bool served;  /* some back end did since the driver set it up: it may not be fresh any more */
	int lost;     /* 0, or why nobody knows where it stood when the back end was lost */
	uint16_t used_at_loss;
	struct {
		uint64_t mapped, withdrawn, refused, kicks; /* of connections that have ended */
	} past;
};

/* Trying to connect again; a thread of its own while the back end is away. */
struct vhost_user_reconnect {
	pthread_t thread;
	bool running;         /* to be joined */
	int stop_fd;          /* eventfd, -1: no reconnection */
	pthread_mutex_t lock; /* of the two below; innermost */
	int socket_fd;        /* duplicate of the attempt's socket, to shut it down; -1 */
	bool interrupted;
	uint64_t nr; /* times it worked */
	char said[320];
};

struct vhost_user_device {
	struct virtio_device vdev;
	const struct vhost_user_kind *kind;
	struct vhost_user_options options;
	char name[24];
	struct vm *vm;
	struct event_loop *loop;
	struct virtio_pci *transport;
	struct bf_frontend *frontend; /* the last one, while none is connected */
	int listen_fd;                /* server=on; else -1 */
	bool watched;                 /* the connection's fd is in the loop */
	bool connected;
	bool memory_announced; /* guest RAM never changes: once per connection */
	enum vhost_user_state state;
	uint8_t config[VHOST_USER_MAX_CONFIG]; /* as the guest sees it */
	uint8_t theirs[VHOST_USER_MAX_CONFIG]; /* as the back end last said it */
	bool has_theirs;
	struct vhost_user_queue *queues;       /* [options.nr_queues] */
	void *model;                           /* the kind's */
	struct vhost_user_reconnect again;
	struct report_limit limit, log_limit;
};

/* vhost_user_queues.c */
extern const struct virtio_device_ops vhost_user_virtio_ops;
/* Tell the back end the features that the driver has accepted. */
int vhost_user_send_features(struct vhost_user_device *device, uint64_t features);
/* Start all wanted queues, each where it stands (@bases, by queue number; NULL: at the beginning). */
int vhost_user_start_queues(struct vhost_user_device *device, const uint32_t *bases);
/* Enable or disable those of the queues [first, end) that are started. */
int vhost_user_enable_queues(struct vhost_user_device *device, unsigned first, unsigned end,
			     bool on);

/* vhost_user_device.c */
/* Ask the back end for its config space, and make the guest's of it. Negative errno. */
int vhost_user_refresh_config(struct vhost_user_device *device);
/* What the kind says has changed: make the guest's config space anew. */
void vhost_user_rebuild_config(struct vhost_user_device *device);
/* Tell the driver that config space changed. */
void vhost_user_config_interrupt(struct vhost_user_device *device);
/* What the guest is offered from now on. */
void vhost_user_update_offer(struct vhost_user_device *device);
void vhost_user_needs_reset(struct vhost_user_device *device);
/* The connection has ended; doorbells are withdrawn already. */
void vhost_user_lost(struct vhost_user_device *device);
int vhost_user_watch(struct vhost_user_device *device);
void vhost_user_unwatch(struct vhost_user_device *device);

/* vhost_user_connect.c; any thread, the device's lock not needed */
/*
 * A connected socket: the back end's, or in server mode the next that comes before @stop_fd (-1:
 * a signal that ends the process) is signalled. Negative errno and a sentence.
 */
int vhost_user_open_socket(struct vhost_user_device *device, int stop_fd,
			   const struct vhost_user_sentence *why);
/* Shake hands over @fd (owned) and check that the offer is enough. A front end that nobody uses yet. */
int vhost_user_attach(struct vhost_user_device *device, int fd, struct bf_frontend **frontend,
		      const struct vhost_user_sentence *why);
int vhost_user_listen(struct vhost_user_device *device);

/* vhost_user_reconnect.c */
int vhost_user_reconnect_init(struct vhost_user_device *device);
/* On the event loop's thread: the back end was lost. */
void vhost_user_reconnect_begin(struct vhost_user_device *device);
/* Without the device's lock. No attempt is made any more. */
void vhost_user_reconnect_done(struct vhost_user_device *device);

/* vhost_user_position.c */
/* At the loss of the back end, while the rings are as it left them. */
void vhost_user_position_note(struct vhost_user_device *device);
/*
 * Where each wanted queue stands, for another back end. 0 and @bases[options.nr_queues], or -ESTALE
 * and a sentence: nobody knows.
 */
int vhost_user_position_find(struct vhost_user_device *device, uint32_t *bases,
			     const struct vhost_user_sentence *why);

/* vhost_user_stats.c */
/* Before a front end is freed. */
void vhost_user_stats_keep(struct vhost_user_device *device);

#endif

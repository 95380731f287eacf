/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of belfry-vdpa's device share. Control context, all of it.
 *
 *	vdpa.c      made and ended; events of the device
 *	session.c   what the front end says: queues come and go, and when the device can start
 *	start.c     the device as a whole: started, stopped, queues added to it and taken from it
 *	mediated.c  queues that the device cannot serve directly
 *	doorbells.c host notifiers
 *	stats.c
 */
#ifndef VDPA_VDPA_INTERNAL_H
#define VDPA_VDPA_INTERNAL_H

#include "vdpa.h"

#include <linux/virtio_config.h>

#include "ctrl_queue.h"
#include "devices/common/stats.h"
#include "guest_dma.h"
#include "kind.h"
#include "mediator.h"
#include "relay.h"
#include "vfio.h"
#include "virtio_pci.h"

struct vdpa_queue {
	struct bf_offload_vring vring; /* as the front end set it up; valid while present */
	bool present;                  /* the front end has started it */
	bool in_device;                /* set up and enabled in the device, which runs */
	uint32_t position;             /* where it stands, once it is not in the device any more */
	enum stats_doorbell doorbell;

	/* Mediated: NULL and -1 otherwise. */
	struct mediator *mediator;
	struct bf_memory *rings; /* keeps the guest's rings mapped, whatever happens to the map */
	int irq_fd;              /* what the device signals instead of the call eventfd */
	int watched_fd;          /* the kick eventfd, in our epoll set */
	unsigned nr_starts, nr_mediated;
};

/* Memory of this program that the device has: its control queue and the rings of mediated queues. */
struct own_memory {
	uint8_t *base; /* NULL: none */
	size_t size;
	uint64_t iova;
};

enum vdpa_event_source { EVENT_CONFIG, EVENT_REQUEST, EVENT_SETTLE, EVENT_KICK, EVENT_IRQ };

struct vdpa {
	struct vfio_device *vfio;
	struct virtio_pci *pci;
	struct relay *relay;
	struct bf_backend *be;
	struct kind kind;
	struct guest_dma dma;

	/* One connection. */
	uint64_t driver_features;
	uint8_t status;
	bool said_refused; /* that kicks are relayed, and why */

	/* From start to stop of the device. */
	bool running;
	uint64_t device_features;
	struct ctrl_queue ctrl;
	bool has_ctrl;
	unsigned pairs; /* that the device was told to use */
	struct own_memory own;

	int epoll_fd, config_fd, request_fd, settle_fd;
	unsigned nr_starts;
	struct vdpa_queue *queues; /* [kind.nr_queues] */
};

/* Queue and configuration vectors of the device. */
#define VDPA_CONFIG_VECTOR 0
static inline uint16_t vdpa_vector(unsigned queue)
{
	return (uint16_t)(queue + 1);
}

static inline bool vdpa_is_packed(const struct vdpa *v)
{
	return bf_has(v->driver_features, VIRTIO_F_RING_PACKED);
}

/* vdpa.c: watch @fd for reading until unwatched. */
int vdpa_watch(struct vdpa *v, int fd, enum vdpa_event_source source, unsigned queue);
void vdpa_unwatch(struct vdpa *v, int fd);

/* session.c */
extern const struct bf_offload_ops vdpa_offload_ops;
int vdpa_on_set_features(void *opaque, uint64_t features);
void vdpa_on_disconnected(void *opaque, int error);
/* No queue has come or gone for a while. */
void vdpa_on_settled(struct vdpa *v);

/* start.c: all say why not. */
int vdpa_start_device(struct vdpa *v);
/* Reset; where each queue stands is in its position. Idempotent. */
void vdpa_stop_device(struct vdpa *v);
/* While the device runs, a queue that it does not have. */
int vdpa_add_queue(struct vdpa *v, unsigned queue);
/* Take one queue from a running device. False: this device cannot, without stopping. */
bool vdpa_remove_queue(struct vdpa *v, unsigned queue);
int vdpa_set_pairs(struct vdpa *v);
/* Give a set-up queue its interrupt, its relay and its doorbell. */
int vdpa_connect_queue(struct vdpa *v, unsigned queue);
void vdpa_disconnect_queue(struct vdpa *v, unsigned queue);
/* Set up a queue in the device, at the guest's own rings. */
int vdpa_set_up_direct(struct vdpa *v, unsigned queue);

/* Can the ring be given to the device as it is? If not, can it be mediated? -EINVAL and says. */
bool vdpa_is_fresh(const struct vdpa *v, const struct bf_offload_vring *vring);
int vdpa_check_position(struct vdpa *v, unsigned queue, const struct bf_offload_vring *vring);

/* mediated.c */
size_t vdpa_mediated_size(const struct vdpa *v, unsigned queue);
/* @at: bytes into v->own. */
int vdpa_mediate(struct vdpa *v, unsigned queue, size_t at);
/* Watch kicks and interrupts, and look at the rings once. */
int vdpa_mediated_connect(struct vdpa *v, unsigned queue);
void vdpa_mediated_event(struct vdpa *v, unsigned queue);
/* What the device has returned last, then let go; the position remains. */
void vdpa_mediated_end(struct vdpa *v, unsigned queue);

/* doorbells.c */
void vdpa_offer_doorbell(struct vdpa *v, unsigned queue);
void vdpa_on_doorbell_answered(void *opaque, unsigned queue, bool published, int result);

#endif

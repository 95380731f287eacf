/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Doorbells in the guest's hands: the page of the device's notify region, offered to the front end.
 *
 * Control context. All queues' pages are on their way before the first answer comes. Whatever
 * becomes of one, the relay goes on; after each answer the library signals the kick eventfd, and so
 * the relay rings for what may have fallen in between.
 */
#include "vdpa_internal.h"

#include <errno.h>

#include "devices/common/log.h"

/* Once for each connection: a front end that refuses one page refuses them all. */
static void say_relayed(struct vdpa *v, const char *why)
{
	if (!v->said_refused)
		log_info("notifications are relayed, not direct: %s", why);
	v->said_refused = true;
}

void vdpa_offer_doorbell(struct vdpa *v, unsigned queue)
{
	struct vdpa_queue *q = &v->queues[queue];
	uint64_t offset;
	int ret;

	if (q->mediator)
		return;
	q->doorbell = DOORBELL_REFUSED;
	if (virtio_pci_doorbell(v->pci, queue, &offset)) {
		say_relayed(v, "the device's doorbells are not each at the beginning of a page of "
			       "its own that can be mapped");
		return;
	}
	q->doorbell = DOORBELL_PENDING;
	ret = bf_backend_publish_doorbell(v->be, queue, vfio_fd(v->vfio), offset);
	if (!ret)
		return;
	q->doorbell = DOORBELL_REFUSED;
	say_relayed(v, ret == -EOPNOTSUPP ? "the front end does not take host notifiers" :
					    bf_backend_error(v->be));
}

void vdpa_on_doorbell_answered(void *opaque, unsigned queue, bool published, int result)
{
	struct vdpa *v = opaque;
	struct vdpa_queue *q = &v->queues[queue];

	if (!q->in_device || q->mediator)
		return;
	if (result) {
		q->doorbell = DOORBELL_REFUSED;
		say_relayed(v, "the front end refused the doorbell's page (QEMU needs "
			       "page-per-vq=on for the device)");
		return;
	}
	q->doorbell = published ? DOORBELL_MAPPED : DOORBELL_OFF;
	virtio_pci_ring(v->pci, queue);
}

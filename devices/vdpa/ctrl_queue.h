/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control queue of a virtio-net device, driven by this program in memory of its own: one
 * command at a time, waited for by looking at the ring. Split or packed, as was negotiated.
 *
 * Control context. The memory is the caller's: mapped for DMA at @iova, away from the guest's.
 */
#ifndef VDPA_CTRL_QUEUE_H
#define VDPA_CTRL_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio_pci.h"

#define CTRL_QUEUE_MEMORY 8192 /* bytes needed: rings on the first page, buffers on the second */
#define CTRL_QUEUE_DATA   1024 /* longest data of a command */

struct ctrl_queue {
	struct virtio_pci *vp;
	unsigned queue;
	bool packed;
	uint16_t size, next;
	bool wrap;   /* packed: the driver's wrap counter */
	bool broken; /* a command was not answered: its buffers are still the device's */
	uint8_t *memory;
	uint64_t iova;
};

/*
 * Between virtio_pci_negotiate() and virtio_pci_driver_ok(). Clears the memory, which is 16-byte
 * aligned. As virtio_pci_queue_start(); -EINVAL also a queue of less than 2 entries.
 */
int ctrl_queue_start(struct ctrl_queue *ctrl, struct virtio_pci *vp, unsigned queue, bool packed,
		     void *memory, uint64_t iova);
/*
 * Do one command after driver_ok. 0; -EREMOTEIO the device answered with an error; -ETIMEDOUT
 * (about a second; and then each command until the next start); -EBADMSG an answer that makes no
 * sense (an answer to another question ends the queue likewise); -EMSGSIZE more than
 * CTRL_QUEUE_DATA.
 */
int ctrl_queue_command(struct ctrl_queue *ctrl, uint8_t class, uint8_t command, const void *data,
		       uint32_t len);
/* VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET */
int ctrl_queue_set_pairs(struct ctrl_queue *ctrl, uint16_t pairs);

#endif

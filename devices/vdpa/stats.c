/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Statistics of belfry-vdpa. Control context. What the guest does by itself, ringing and being
 * interrupted, is not counted here: nobody of ours sees it.
 */
#include "vdpa_internal.h"

static const char *doorbell_word(enum stats_doorbell doorbell)
{
	switch (doorbell) {
	case DOORBELL_PENDING:
		return "pending";
	case DOORBELL_MAPPED:
		return "mapped";
	case DOORBELL_REFUSED:
		return "refused";
	default:
		return "off";
	}
}

static json_t *queue_json(const struct vdpa *v, unsigned queue)
{
	const struct vdpa_queue *q = &v->queues[queue];

	return json_pack("{s:i, s:b, s:b, s:i, s:s, s:b, s:I, s:i, s:i}", "queue", (int)queue,
			 "started", (int)q->in_device, "enabled",
			 (int)(q->present && q->vring.enabled), "size",
			 q->present ? (int)q->vring.size : 0, "doorbell",
			 doorbell_word(q->doorbell), "mediated", (int)!!q->mediator, "relayed",
			 (json_int_t)relay_kicks(v->relay, queue), "starts", (int)q->nr_starts,
			 "starts_mediated", (int)q->nr_mediated);
}

json_t *vdpa_stats(void *opaque)
{
	const struct vdpa *v = opaque;
	json_t *queues = json_array();
	uint64_t bytes = 0;
	unsigned mappings = vfio_dma_count(v->vfio, &bytes);

	for (unsigned i = 0; i < v->kind.nr_queues; i++)
		json_array_append_new(queues, queue_json(v, i));
	return json_pack("{s:{s:s, s:s, s:s}, s:o, s:I, s:i, s:i, s:{s:i, s:I}}", "device", "bdf",
			 vfio_name(v->vfio), "type", v->kind.name, "state",
			 v->running ? "running" : "idle", "queues", queues, "relay_wakeups",
			 (json_int_t)relay_wakeups(v->relay), "starts", (int)v->nr_starts, "pairs",
			 (int)v->pairs, "dma", "mappings", (int)mappings, "bytes",
			 (json_int_t)bytes);
}

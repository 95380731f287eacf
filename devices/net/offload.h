/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checksums and segmentation in software, for a receiver that did not ask for them to be left to it.
 * Pure; any thread. Works on a private copy of the packet, which nobody changes meanwhile.
 */
#ifndef NET_OFFLOAD_H
#define NET_OFFLOAD_H

#include "header.h"

/* One packet in, at most this many out; a sender who wants more is refused. */
#define NET_SEGMENTS_MAX 2048

/* Takes a packet, whose bytes it may use until it returns. False: no more of this one. */
typedef bool net_emit_fn(void *opaque, const struct net_packet *packet);

/* Sum of 16-bit words in network order, not folded; chains through @sum. Odd lengths end a packet. */
uint64_t net_sum(const void *data, size_t len, uint64_t sum);
uint16_t net_fold(uint64_t sum);

/*
 * Give @emit what a receiver that accepted @features may be given in place of the packet: itself,
 * or with its checksum filled in, or the segments of it. @packet: [@len], changed; @meta: checked.
 * False: it cannot be taken apart (its headers are not what @meta says), and nothing was emitted.
 */
bool net_offload(uint8_t *packet, uint32_t len, const struct net_meta *meta, uint64_t features,
		 net_emit_fn *emit, void *opaque);

#endif

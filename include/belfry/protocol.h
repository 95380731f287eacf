/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * belfry/protocol.h - vhost-user on the wire: message ids, feature bits, payloads.
 *
 * Everything is in host byte order ("vhost-user Protocol", Header). Structures here are exactly the
 * bytes on the wire and carry nothing else. The table of which message has which payload, file
 * descriptors, reply and condition is lib/proto/messages.def.
 */
#ifndef BELFRY_PROTOCOL_H
#define BELFRY_PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Does @features have feature number @bit? Features are numbers everywhere, never masks. */
static inline bool bf_has(uint64_t features, unsigned bit)
{
	return (features >> bit) & 1;
}
/** A mask with only feature number @bit. */
static inline uint64_t bf_bit(unsigned bit)
{
	return (uint64_t)1 << bit;
}

/** In the virtio feature word, on the wire only: the driver never sees it. */
#define BF_VHOST_F_LOG_ALL              26
#define BF_VHOST_USER_F_PROTOCOL_FEATURES 30

enum bf_protocol_feature {
	BF_PROTOCOL_F_MQ                     = 0,
	BF_PROTOCOL_F_LOG_SHMFD              = 1,
	BF_PROTOCOL_F_RARP                   = 2,
	BF_PROTOCOL_F_REPLY_ACK              = 3,
	BF_PROTOCOL_F_MTU                    = 4,
	BF_PROTOCOL_F_BACKEND_REQ            = 5,
	BF_PROTOCOL_F_CROSS_ENDIAN           = 6,
	BF_PROTOCOL_F_CRYPTO_SESSION         = 7,
	BF_PROTOCOL_F_PAGEFAULT              = 8,
	BF_PROTOCOL_F_CONFIG                 = 9,
	BF_PROTOCOL_F_BACKEND_SEND_FD        = 10,
	BF_PROTOCOL_F_HOST_NOTIFIER          = 11,
	BF_PROTOCOL_F_INFLIGHT_SHMFD         = 12,
	BF_PROTOCOL_F_RESET_DEVICE           = 13,
	BF_PROTOCOL_F_INBAND_NOTIFICATIONS   = 14,
	BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS    = 15,
	BF_PROTOCOL_F_STATUS                 = 16,
	BF_PROTOCOL_F_XEN_MMAP               = 17,
	BF_PROTOCOL_F_SHARED_OBJECT          = 18,
	BF_PROTOCOL_F_DEVICE_STATE           = 19,
	BF_PROTOCOL_F_GET_VRING_BASE_INFLIGHT = 20,
	BF_PROTOCOL_F_GPA_ADDRESSES          = 21,
	BF_PROTOCOL_F_SHMEM                  = 22,
	BF_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN = 23,
	BF_PROTOCOL_F_NR                     = 24,
};

/** Requests of the front end, on the main channel. */
enum bf_frontend_request {
	BF_FE_GET_FEATURES              = 1,
	BF_FE_SET_FEATURES              = 2,
	BF_FE_SET_OWNER                 = 3,
	BF_FE_RESET_OWNER               = 4,
	BF_FE_SET_MEM_TABLE             = 5,
	BF_FE_SET_LOG_BASE              = 6,
	BF_FE_SET_LOG_FD                = 7,
	BF_FE_SET_VRING_NUM             = 8,
	BF_FE_SET_VRING_ADDR            = 9,
	BF_FE_SET_VRING_BASE            = 10,
	BF_FE_GET_VRING_BASE            = 11,
	BF_FE_SET_VRING_KICK            = 12,
	BF_FE_SET_VRING_CALL            = 13,
	BF_FE_SET_VRING_ERR             = 14,
	BF_FE_GET_PROTOCOL_FEATURES     = 15,
	BF_FE_SET_PROTOCOL_FEATURES     = 16,
	BF_FE_GET_QUEUE_NUM             = 17,
	BF_FE_SET_VRING_ENABLE          = 18,
	BF_FE_SEND_RARP                 = 19,
	BF_FE_NET_SET_MTU               = 20,
	BF_FE_SET_BACKEND_REQ_FD        = 21,
	BF_FE_IOTLB_MSG                 = 22,
	BF_FE_SET_VRING_ENDIAN          = 23,
	BF_FE_GET_CONFIG                = 24,
	BF_FE_SET_CONFIG                = 25,
	BF_FE_CREATE_CRYPTO_SESSION     = 26,
	BF_FE_CLOSE_CRYPTO_SESSION      = 27,
	BF_FE_POSTCOPY_ADVISE           = 28,
	BF_FE_POSTCOPY_LISTEN           = 29,
	BF_FE_POSTCOPY_END              = 30,
	BF_FE_GET_INFLIGHT_FD           = 31,
	BF_FE_SET_INFLIGHT_FD           = 32,
	BF_FE_GPU_SET_SOCKET            = 33,
	BF_FE_RESET_DEVICE              = 34,
	BF_FE_VRING_KICK                = 35,
	BF_FE_GET_MAX_MEM_SLOTS         = 36,
	BF_FE_ADD_MEM_REG               = 37,
	BF_FE_REM_MEM_REG               = 38,
	BF_FE_SET_STATUS                = 39,
	BF_FE_GET_STATUS                = 40,
	BF_FE_GET_SHARED_OBJECT         = 41,
	BF_FE_SET_DEVICE_STATE_FD       = 42,
	BF_FE_CHECK_DEVICE_STATE        = 43,
	BF_FE_GET_SHMEM_CONFIG          = 44,
	BF_FE_GET_VRING_BASE_SKIP_DRAIN = 45,
};

/** Requests of the back end, on the back-end channel. */
enum bf_backend_request {
	BF_BE_IOTLB_MSG            = 1,
	BF_BE_CONFIG_CHANGE_MSG    = 2,
	BF_BE_VRING_HOST_NOTIFIER_MSG = 3,
	BF_BE_VRING_CALL           = 4,
	BF_BE_VRING_ERR            = 5,
	BF_BE_SHARED_OBJECT_ADD    = 6,
	BF_BE_SHARED_OBJECT_REMOVE = 7,
	BF_BE_SHARED_OBJECT_LOOKUP = 8,
	BF_BE_SHMEM_MAP            = 9,
	BF_BE_SHMEM_UNMAP          = 10,
};

/** Bits of bf_header.flags. The version has two bits. */
#define BF_FLAGS_VERSION_MASK 0x3u
#define BF_FLAGS_VERSION      0x1u
#define BF_FLAGS_REPLY        0x4u
#define BF_FLAGS_NEED_REPLY   0x8u

/** Queue number and "no file descriptor", in the u64 of kick, call, err and host notifier. */
#define BF_VRING_IDX_MASK 0xffull
#define BF_VRING_NOFD     0x100ull

/** The index has 8 bits on the wire. */
#define BF_MAX_QUEUES    256
/** The most descriptors a message may carry, on either channel. */
#define BF_MAX_FDS       8
/** The most regions of one SET_MEM_TABLE. */
#define BF_TABLE_REGIONS 8
/** The most bytes of config space in one message. */
#define BF_CONFIG_MAX    4096
#define BF_MAX_QUEUE_SIZE 32768

struct bf_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of the payload, bytes */
};

struct bf_vring_state {
	uint32_t index;
	uint32_t num;
};

#define BF_VRING_F_LOG 0 /* bit number in bf_vring_addr.flags */

/** Addresses are user addresses of the front end (IOVA with an IOMMU, GPA with bit 21). */
struct bf_vring_addr {
	uint32_t index;
	uint32_t flags;
	uint64_t desc;
	uint64_t used;
	uint64_t avail;
	uint64_t log;
};

struct bf_mem_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t uva;
	uint64_t mmap_offset;
};

struct bf_mem_table {
	uint32_t nr;
	uint32_t pad;
	struct bf_mem_region regions[BF_TABLE_REGIONS]; /* [nr] on the wire */
};

struct bf_mem_reg {
	uint64_t pad;
	struct bf_mem_region region;
};

/** With BF_PROTOCOL_F_XEN_MMAP a region has two more fields. */
struct bf_xen_region {
	struct bf_mem_region region;
	uint32_t xen_flags;
	uint32_t xen_domid;
};

struct bf_xen_table {
	uint32_t nr;
	uint32_t pad;
	struct bf_xen_region regions[BF_TABLE_REGIONS];
};

struct bf_xen_reg {
	uint64_t pad;
	struct bf_xen_region region;
};

struct bf_log_area {
	uint64_t size;
	uint64_t offset;
};

struct bf_iotlb {
	uint64_t iova;
	uint64_t size;
	uint64_t uva;
	uint8_t perm; /* 1 read, 2 write, 3 both */
	uint8_t type; /* enum bf_iotlb_type */
	uint8_t pad[6];
};

enum bf_iotlb_type {
	BF_IOTLB_MISS = 1,
	BF_IOTLB_UPDATE = 2,
	BF_IOTLB_INVALIDATE = 3,
	BF_IOTLB_ACCESS_FAIL = 4,
};

/** bf_config.flags of SET_CONFIG. Some front ends send bit 1 for a migration write. */
#define BF_CONFIG_WRITE     0u
#define BF_CONFIG_MIGRATION 1u

struct bf_config {
	uint32_t offset;
	uint32_t size;
	uint32_t flags;
	uint8_t data[BF_CONFIG_MAX]; /* [size] on the wire */
};

struct bf_inflight {
	uint64_t mmap_size;
	uint64_t mmap_offset;
	uint16_t nr_queues;
	uint16_t queue_size;
	uint8_t pad[4];
};

/**
 * One host page of @size bytes at @offset of the descriptor, for the queue in @index (with
 * BF_VRING_NOFD: none any more).
 */
struct bf_vring_area {
	uint64_t index;
	uint64_t size;
	uint64_t offset;
};

/**
 * A crypto session's description. Its layout differs between front ends of different age (with and
 * without asymmetric sessions), so the codec carries the bytes and the crypto device reads them.
 */
struct bf_crypto_session {
	uint8_t bytes[BF_CONFIG_MAX];
};

struct bf_uuid {
	uint8_t bytes[16];
};

struct bf_device_state {
	uint32_t direction; /* 0 save, 1 load */
	uint32_t phase;     /* 0 stopped */
};

struct bf_shmem_config {
	uint32_t nr;
	uint32_t pad;
	uint64_t sizes[256]; /* by shmid; 0: none */
};

struct bf_shmem_map {
	uint8_t shmid;
	uint8_t pad[7];
	uint64_t fd_offset;
	uint64_t shm_offset;
	uint64_t len;
	uint64_t flags; /* bit 0: writable */
};

#ifdef __cplusplus
}
#endif
#endif

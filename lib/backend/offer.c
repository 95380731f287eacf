/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a back end offers: what the library serves, what the device's operations allow, what is named.
 *
 * Control context, once. Front ends agree to whatever is offered and use what they know. So nothing is
 * offered that nobody would serve, and what front ends are known to agree to blindly only by name.
 */
#include "backend.h"

#include <linux/virtio_config.h>

#include "../base/check.h"

/* XEN_MMAP is not served: pages of another domain are nothing that this library can map. */
static uint64_t only_by_name(void)
{
	return bf_bit(BF_PROTOCOL_F_INBAND_NOTIFICATIONS) | bf_bit(BF_PROTOCOL_F_GPA_ADDRESSES) |
	       bf_bit(BF_PROTOCOL_F_PAGEFAULT) | bf_bit(BF_PROTOCOL_F_CROSS_ENDIAN) |
	       bf_bit(BF_PROTOCOL_F_SHMEM);
}

uint64_t bf_backend_supported_protocol_features(void)
{
	return bf_bit(BF_PROTOCOL_F_MQ) | bf_bit(BF_PROTOCOL_F_LOG_SHMFD) |
	       bf_bit(BF_PROTOCOL_F_RARP) | bf_bit(BF_PROTOCOL_F_REPLY_ACK) |
	       bf_bit(BF_PROTOCOL_F_MTU) | bf_bit(BF_PROTOCOL_F_BACKEND_REQ) |
	       bf_bit(BF_PROTOCOL_F_CRYPTO_SESSION) | bf_bit(BF_PROTOCOL_F_CONFIG) |
	       bf_bit(BF_PROTOCOL_F_BACKEND_SEND_FD) | bf_bit(BF_PROTOCOL_F_HOST_NOTIFIER) |
	       bf_bit(BF_PROTOCOL_F_INFLIGHT_SHMFD) | bf_bit(BF_PROTOCOL_F_RESET_DEVICE) |
	       bf_bit(BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS) | bf_bit(BF_PROTOCOL_F_STATUS) |
	       bf_bit(BF_PROTOCOL_F_SHARED_OBJECT) | bf_bit(BF_PROTOCOL_F_DEVICE_STATE) |
	       bf_bit(BF_PROTOCOL_F_GET_VRING_BASE_INFLIGHT) |
	       bf_bit(BF_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN);
}

/* What needs the rings to be in our hands. */
static uint64_t of_queue_threads(void)
{
	return bf_bit(BF_PROTOCOL_F_LOG_SHMFD) | bf_bit(BF_PROTOCOL_F_INFLIGHT_SHMFD) |
	       bf_bit(BF_PROTOCOL_F_GET_VRING_BASE_INFLIGHT) |
	       bf_bit(BF_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN) |
	       bf_bit(BF_PROTOCOL_F_INBAND_NOTIFICATIONS) | bf_bit(BF_PROTOCOL_F_GPA_ADDRESSES) |
	       bf_bit(BF_PROTOCOL_F_PAGEFAULT);
}

static uint64_t without_operations(const struct bf_backend_config *config)
{
	const struct bf_backend_ops *ops = config->ops;
	uint64_t none = 0;

	if (!config->config_size || !ops->get_config)
		none |= bf_bit(BF_PROTOCOL_F_CONFIG);
	if (!ops->set_mtu)
		none |= bf_bit(BF_PROTOCOL_F_MTU);
	if (!ops->send_rarp)
		none |= bf_bit(BF_PROTOCOL_F_RARP);
	if (!ops->create_session || !ops->close_session)
		none |= bf_bit(BF_PROTOCOL_F_CRYPTO_SESSION);
	if (!ops->get_shared_object)
		none |= bf_bit(BF_PROTOCOL_F_SHARED_OBJECT);
	if (!ops->device_state || !ops->check_device_state)
		none |= bf_bit(BF_PROTOCOL_F_DEVICE_STATE);
	if (!config->nr_shmem)
		none |= bf_bit(BF_PROTOCOL_F_SHMEM);
	return none;
}

uint64_t bf_offer_protocol_features(const struct bf_backend_config *config)
{
	uint64_t offer = bf_backend_supported_protocol_features();

	if (config->protocol_features)
		offer = (offer | only_by_name()) & config->protocol_features;
	if (config->offload)
		offer &= ~of_queue_threads();
	/* "PAGEFAULT": its messages are forbidden where memory slots are agreed. */
	if (bf_has(offer, BF_PROTOCOL_F_PAGEFAULT))
		offer &= ~bf_bit(BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
	return offer & ~without_operations(config);
}

uint64_t bf_offer_features(const struct bf_backend_config *config)
{
	return config->features | (config->offload ? 0 : bf_bit(BF_VHOST_F_LOG_ALL));
}

static bool operations_ok(const struct bf_backend_config *config)
{
	const struct bf_offload_ops *offload = config->offload;

	if (!config->ops)
		return false;
	if (!offload)
		return config->ops->vring_start && config->ops->vring_stop;
	return offload->vring_start && offload->vring_stop && offload->vring_eventfds &&
	       offload->memory;
}

static bool features_ok(const struct bf_backend_config *config)
{
	/* The wire's own two bits are the library's. */
	if (config->features &
	    (bf_bit(BF_VHOST_F_LOG_ALL) | bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES)))
		return false;
	return !config->offload || !bf_has(config->features, VIRTIO_F_ACCESS_PLATFORM);
}

bool bf_offer_config_ok(const struct bf_backend_config *config)
{
	if (!operations_ok(config) || !features_ok(config))
		return false;
	if (!config->nr_queues || config->nr_queues > BF_MAX_QUEUES)
		return false;
	if (config->nr_shmem > 256 || (config->nr_shmem && !config->shmem_sizes))
		return false;
	return config->max_queue_size <= BF_MAX_QUEUE_SIZE && config->config_size <= BF_CONFIG_MAX;
}

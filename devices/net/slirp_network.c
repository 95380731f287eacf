/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The network of --slirp: its addresses, which are QEMU's, and the ports that are forwarded into it. Control
 * context, once at start.
 */
#include "slirp_network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "devices/common/log.h"
#include "forward.h"

void slirp_network_configure(SlirpConfig *config, unsigned mtu)
{
	*config = (SlirpConfig){ .version = SLIRP_CONFIG_VERSION_MIN,
				 .in_enabled = true,
				 .in6_enabled = true,
				 .vprefix_len = 64,
				 .vhostname = "belfry",
				 .if_mtu = mtu,
				 .if_mru = mtu };
	inet_pton(AF_INET, "10.0.2.0", &config->vnetwork);
	inet_pton(AF_INET, "255.255.255.0", &config->vnetmask);
	inet_pton(AF_INET, "10.0.2.2", &config->vhost);
	inet_pton(AF_INET, "10.0.2.15", &config->vdhcp_start);
	inet_pton(AF_INET, "10.0.2.3", &config->vnameserver);
	inet_pton(AF_INET6, "fec0::", &config->vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &config->vhost6);
	inet_pton(AF_INET6, "fec0::3", &config->vnameserver6);
}

int slirp_network_forward(Slirp *slirp, const char *const *forwards, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		const char *expected;
		struct forward f;

		if (!forward_parse(forwards[i], &f, &expected)) {
			log_error("--hostfwd=%s: expected %s, as in tcp::8022-:22", forwards[i],
				  expected);
			return -EINVAL;
		}
		if (slirp_add_hostfwd(slirp, f.udp, f.host, (int)f.host_port, f.guest,
				      (int)f.guest_port)) {
			log_error("--hostfwd=%s: port %u of the host: %s", forwards[i], f.host_port,
				  strerror(errno));
			return -errno;
		}
	}
	return 0;
}

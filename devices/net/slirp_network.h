/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the network of --slirp looks like to the guest. Control context.
 */
#ifndef NET_SLIRP_NETWORK_H
#define NET_SLIRP_NETWORK_H

#include <slirp/libslirp.h>

/* @mtu: 0 for Ethernet's. */
void slirp_network_configure(SlirpConfig *config, unsigned mtu);
/* @forwards: [@nr], as of --hostfwd. 0 or negative errno, and then it is said why. */
int slirp_network_forward(Slirp *slirp, const char *const *forwards, unsigned nr);

#endif

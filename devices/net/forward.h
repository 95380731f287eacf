/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * --hostfwd in the form that users know from QEMU: [tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT. Pure.
 */
#ifndef NET_FORWARD_H
#define NET_FORWARD_H

#include <netinet/in.h>
#include <stdbool.h>

struct forward {
	bool udp;
	struct in_addr host, guest; /* all zero: any, and the guest's own address */
	unsigned host_port, guest_port;
};

/* False, and *@expected: what should have stood there. */
bool forward_parse(const char *text, struct forward *forward, const char **expected);

#endif

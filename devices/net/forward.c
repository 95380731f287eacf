/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Port forwarding rules, from text. Pure.
 */
#include "forward.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* An address up to @end, or nothing: zero. */
static bool parse_address(const char **text, char end, struct in_addr *address)
{
	const char *stop = strchr(*text, end);
	size_t len = stop ? (size_t)(stop - *text) : 0;
	char word[INET_ADDRSTRLEN] = "";

	address->s_addr = 0;
	if (!stop || len >= sizeof(word))
		return false;
	memcpy(word, *text, len);
	*text = stop + 1;
	return !len || inet_pton(AF_INET, word, address) == 1;
}

/* Decimal digits, then @end. */
static bool parse_port(const char **text, char end, unsigned *port)
{
	unsigned long value;
	char *stop;

	if (**text < '0' || **text > '9')
		return false;
	value = strtoul(*text, &stop, 10);
	if (*stop != end || value < 1 || value > 65535)
		return false;
	*port = (unsigned)value;
	*text = stop + (end != '\0');
	return true;
}

bool forward_parse(const char *text, struct forward *forward, const char **expected)
{
	struct forward f = { 0 };

	*expected = "\"tcp:\", \"udp:\" or \":\" first";
	if (!strncmp(text, "udp:", 4))
		f.udp = true;
	else if (strncmp(text, "tcp:", 4) && text[0] != ':')
		return false;
	text = strchr(text, ':') + 1;
	*expected = "an IPv4 address of the host, or nothing, and a colon";
	if (!parse_address(&text, ':', &f.host))
		return false;
	*expected = "a port of the host from 1 to 65535, and a dash";
	if (!parse_port(&text, '-', &f.host_port))
		return false;
	*expected = "an IPv4 address of the guest, or nothing, and a colon";
	if (!parse_address(&text, ':', &f.guest))
		return false;
	*expected = "a port of the guest from 1 to 65535 at the end";
	if (!parse_port(&text, '\0', &f.guest_port))
		return false;
	*forward = f;
	return true;
}

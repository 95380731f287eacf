/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of kinds of devices, and the beginning of a --device: its kind. Pure. */
#include "kinds.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "device_blk.h"
#include "device_net.h"

static const struct vhost_user_kind *const kinds[] = { &device_blk_kind, &device_net_kind };

#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static int unknown_kind(char *err, size_t err_len)
{
	char names[64] = "";
	size_t i, used = 0;

	for (i = 0; i < NR_KINDS && used < sizeof(names); i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
					 i ? " or " : "", kinds[i]->name);
	snprintf(err, err_len, "unknown device: expected %s, and then ,socket=PATH[,...]", names);
	return -EINVAL;
}

int kinds_parse(const char *spec, const struct vhost_user_kind **kind,
		struct vhost_user_options *options, char *err, size_t err_len)
{
	size_t len = strcspn(spec, ",");
	size_t i;
	int rc;

	for (i = 0; i < NR_KINDS; i++)
		if (strlen(kinds[i]->name) == len && !strncmp(spec, kinds[i]->name, len))
			break;
	if (i == NR_KINDS)
		return unknown_kind(err, err_len);
	if (!spec[len]) {
		snprintf(err, err_len, "expected %s,socket=PATH[,...]", kinds[i]->name);
		return -EINVAL;
	}
	rc = vhost_user_options_parse(kinds[i], spec + len + 1, options, err, err_len);
	if (!rc)
		*kind = kinds[i];
	return rc;
}

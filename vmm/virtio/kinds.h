/* SPDX-License-Identifier: BSD-3-Clause */
/* The kinds of devices that --device knows. Pure. */
#ifndef VMM_KINDS_H
#define VMM_KINDS_H

#include "vhost_user_device.h"

/*
 * kinds_parse - "KIND,key=value...". 0, *@kind and *@options; -EINVAL and in @err a sentence;
 * -ENOMEM.
 */
int kinds_parse(const char *spec, const struct vhost_user_kind **kind,
		struct vhost_user_options *options, char *err, size_t err_len);

#endif

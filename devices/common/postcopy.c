/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * --postcopy. Control context, at start; knows no device. Whether the kernel allows it is found out
 * before there is a socket: in the middle of a migration it would cost the guest.
 */
#include "postcopy.h"

#include <stdlib.h>
#include <string.h>

#include <belfry/backend.h>

#include "log.h"

struct option_spec postcopy_option(bool *wanted)
{
	return (struct option_spec){
		.name = "postcopy",
		.kind = OPTION_FLAG,
		.value = wanted,
		.help = "offer postcopy migration: serve a guest whose memory is still to come",
	};
}

int postcopy_check(bool wanted)
{
	int ret = wanted ? bf_backend_check_postcopy() : 0;

	if (!ret)
		return 0;
	log_error(
		"--postcopy: expected to be allowed a userfaultfd that sees faults of the kernel, "
		"found \"%s\"; give the program CAP_SYS_PTRACE or access to /dev/userfaultfd, or "
		"set vm.unprivileged_userfaultfd=1",
		strerror(-ret));
	return EXIT_FAILURE;
}

uint64_t postcopy_protocol_features(bool wanted)
{
	if (!wanted)
		return 0;
	return bf_backend_supported_protocol_features() | bf_bit(BF_PROTOCOL_F_PAGEFAULT);
}

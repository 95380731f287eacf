#!/bin/busybox sh
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=dash
#
# Load for the disks of the tests' guest, until the file /stop is there. /load.NAME has the number of
# rounds; /bad.NAME is there if something failed or came back other than it was.
#
#	guest_load.sh write NAME DEVICE SEEK	random data, written with many requests at once, read back;
#						the last round's stays in /data.NAME
#	guest_load.sh read NAME DEVICE SUM	the first 2 MiB, past the page cache

PATH=/bin
what=$1 name=$2 device=$3 argument=$4
blocks=32
size=65536

bad() { echo "round $round: $*" >>"/bad.$name"; }

write_round()
{
	head -c $((blocks * size)) /dev/urandom >"/data.$name"
	dd if="/data.$name" of="$device" bs=$size seek="$argument" conv=notrunc,fsync 2>/dev/null ||
		bad "written with an error"
	dd if="$device" bs=$size skip="$argument" count=$blocks iflag=direct 2>/dev/null |
		cmp -s - "/data.$name" || bad "read back other than written"
}

read_round()
{
	sum=$(dd if="$device" bs=$size count=$blocks iflag=direct 2>/dev/null | sha256sum)
	[ "${sum%% *}" = "$argument" ] || bad "read $sum"
}

round=0
while [ ! -e /stop ]; do
	round=$((round + 1))
	"${what}_round"
	# Whole at every moment: somebody may be reading it.
	echo $round >"/load.$name.new"
	mv "/load.$name.new" "/load.$name"
done
touch "/end.$name"

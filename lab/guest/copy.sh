# SPDX-License-Identifier: BSD-3-Clause
#
# The demo's guest: copies the first half of its disk onto the second, with direct I/O, one request at
# a time. It stops before and after, so that the counters can be read with nothing else going on.

blocks=${blocks:-10000}

echo "guest: Linux $(uname -r), disk of $(cat /sys/block/vda/size) sectors"
echo "guest: ready"
read -r _
dd if=/dev/vda of=/dev/vda bs=4k count="$blocks" seek="$blocks" \
	iflag=direct oflag=direct conv=notrunc 2>/dev/null || echo "guest: failed"
echo "guest: done"
read -r _

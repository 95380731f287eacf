# SPDX-License-Identifier: BSD-3-Clause
#
# The guest of the tests against other programs: runs what the console says, a command a line, and
# says how each ended. "off" ends it.

stty -echo
echo "guest: ready"
while read -r command; do
	[ "$command" != off ] || break
	eval "$command"
	echo "guest: status $?"
done

# SPDX-License-Identifier: BSD-3-Clause
#
# The tests' guest: does what it is told on the console, a line at a time, and says how it ended. The
# test on the other side is tests/lab/lab.py, Guest.run().

stty -echo
echo "guest: up"
while read -r line; do
	eval "$line"
	echo "guest: status $?."
done

# SPDX-License-Identifier: BSD-3-Clause
#
# The demo's guest for the accelerator: sends data to the lab's echo service and gets it back, when it is
# told to, and says how far it is when it is asked. Words are "go MIB TIMES", "?", "off".

count() { cat "/sys/class/net/eth0/statistics/$1"; }

echo "guest: Linux $(uname -r), network card $(cat /sys/class/net/eth0/address)"
talk up || echo "guest: failed"
# Every queue has been used once: what is measured begins with all pages where they belong.
talk 1 >/dev/null || echo "guest: failed"
talk prepare 16 "${pieces:-4}" || echo "guest: failed"
echo "guest: ready"
while read -r word mib times; do
	case $word in
	go)	{ talk "$mib" "$times" >/dev/null && echo "guest: whole" || echo "guest: broken"; } & ;;
	'?')	echo "guest: rx_bytes $(count rx_bytes) frames $(($(count rx_packets) + $(count tx_packets)))" ;;
	off)	break ;;
	esac
done

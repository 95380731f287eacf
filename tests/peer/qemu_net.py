#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""QEMU's vhost-user network card with belfry-net, in every configuration that fits into one guest.

qemu_net.py BELFRY_NET: TCP both ways with sums on both sides, into TAPs of a name space and into user
networking; offloads on and off, two queue pairs, packed rings, doorbells.
"""

import os
import sys

import disk
import net
from net import RX, TX
from peer import MIB, guest_kernel, wait_until
from qemu import Qemu, net_device

OFF = "".join(f",{name}=off" for name in (
    "csum", "gso", "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo", "host_tso4",
    "host_tso6", "host_ecn", "host_ufo"))

# number: title, queue pairs, notify, QEMU's options, offloads
CARDS = {
    1: ("two pairs, doorbells", 2, "doorbell", ",page-per-vq=on", True),
    2: ("no offloads", 1, "eventfd", OFF, False),
    3: ("packed, two pairs", 2, "eventfd", ",packed=on", True),
    4: ("packed, no offloads, no mergeable buffers", 1, "eventfd",
        ",packed=on,mrg_rxbuf=off" + OFF, False),
    5: ("offloads, no mergeable buffers", 1, "eventfd", ",mrg_rxbuf=off", True),
}
SLIRP = 6


def transfer(run, guest, host, number):
    """Both ways. Frames beyond the MTU are on the TAP when, and only when, there are offloads."""
    title, offloads = CARDS[number][0], CARDS[number][4]
    address = f"10.0.{number}.2"
    with net.Sniffer(f"tap{number}") as sniffer:
        net.send(run, guest, host, address, title)
        net.receive(run, guest, host, address, title)
    largest = f"sent {sniffer.sent}, received {sniffer.received}"
    if offloads:
        run.ok(min(sniffer.sent, sniffer.received) > net.FRAME,
               f"{title}: both ways in frames beyond the MTU", largest)
    else:
        run.ok(1000 < min(sniffer.sent, sniffer.received)
               and max(sniffer.sent, sniffer.received) <= net.FRAME,
               f"{title}: no frame beyond the MTU", largest)


def both_pairs(run, guest, host, backend, number):
    """Linux gives each CPU a transmit queue; what an interrupt makes it send goes by that CPU's."""
    title = CARDS[number][0]
    before = backend.stats()
    for cpu in (0, 1):
        net.send(run, guest, host, f"10.0.{number}.2", f"{title}, CPU {cpu}", 1, cpu)
    moved = disk.difference(before, backend.stats(), "packets")
    run.ok(min(moved[TX], moved[2 + TX]) >= 5 and sum(moved[RX::2]) >= 20,
           f"{title}: both pairs are used", moved)


def by_doorbell(run, guest, host, backend, qemu):
    backend.wait_doorbells("mapped")
    run.equal(set(qemu.doorbell_pages("net")), {0, 1, 2, 3},
              "'info mtree' shows a page for each queue of both pairs")
    before = backend.stats()
    net.send(run, guest, host, "10.0.1.2", "by doorbell")
    after = backend.stats()
    rung, kicks = (disk.difference(before, after, counter) for counter in ("doorbells", "kicks"))
    run.ok(sum(rung[TX::2]) > 0 and sum(kicks) <= 4, "the guest notifies by doorbell",
           f"doorbells {rung}, kicks {kicks}")


def slirp(run, guest, host):
    """10.0.2.2 is this side's loopback."""
    guest.run("printf '#!/bin/sh\\n[ \"$1\" != bound ] || ip addr add $ip/24 dev $interface\\n'"
              " >/dhcp && chmod 755 /dhcp")
    interface = f"eth{SLIRP - 1}"
    guest.run(f"ip link set {interface} up && udhcpc -i {interface} -n -q -s /dhcp")
    said = guest.run(f"ip addr show {interface}")
    run.ok("10.0.2." in said, "user networking: the guest gets an address by DHCP", said)
    net.send(run, guest, host, "10.0.2.2", "user networking", 1)
    net.receive(run, guest, host, "10.0.2.2", "user networking")


def test(run):
    kernel, initrd = guest_kernel(run, *net.iperf3_files())
    host = net.Host(os.urandom(2 * MIB))
    backends, devices = {}, []
    for number, (_, pairs, notify, options, _) in CARDS.items():
        tap = net.add_tap(number, pairs)
        backends[number] = net.Net(run, sys.argv[1], f"--tap={tap}", notify=notify, pairs=pairs)
        devices.append(net_device(number, backends[number].socket, options, pairs))
    backends[SLIRP] = net.Net(run, sys.argv[1], "--slirp")
    devices.append(net_device(SLIRP, backends[SLIRP].socket))
    qemu = Qemu(run, kernel, initrd, devices)
    guest = qemu.guest
    guest.wait_ready()
    for number in CARDS:
        net.up(guest, number, f"eth{number - 1}")
    for number in CARDS:
        transfer(run, guest, host, number)
    for number in (1, 2):
        for reverse in (False, True):
            net.iperf3(run, guest, number, CARDS[number][0], reverse)
    for number in (1, 3):
        both_pairs(run, guest, host, backends[number], number)
    by_doorbell(run, guest, host, backends[1], qemu)
    slirp(run, guest, host)
    run.ok(qemu.quit(), "QEMU ends well")
    run.equal(qemu.said(), "", "QEMU had nothing to complain of")
    for number, backend in backends.items():
        wait_until(f"belfry-net {number}: connection ended",
                   lambda: not backend.stats()["connected"])  # pylint: disable=cell-var-from-loop
        run.equal(backend.total("errors"), 0, f"belfry-net {number} found no error")
        run.ok(backend.terminate(), f"belfry-net {number} ends well and removes its socket")


if __name__ == "__main__":
    sys.exit(net.main_in_namespace(test, ["qemu-system-x86_64", "ip", "iperf3"]))

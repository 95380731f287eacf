#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Two guests of belfry-vmm that talk through one belfry-net --switch, by doorbell; one of them into a TAP as well.

usage: test_switch.py BELFRY_VMM BELFRY_NET
"""

import hashlib
import os
import pathlib
import re
import subprocess
import sys

import lab

sys.path.insert(0, str(lab.ROOT / "tests/peer"))
# pylint: disable=wrong-import-position
import net  # noqa: E402

MIB = 1 << 20
PORT = 5000
TAP = 2  # network 10.0.2.0/24; the switch is 10.0.1.0/24


class Net(lab.Program):
    """belfry-net, listening at all of @sockets. Its threads watch doorbells: one for each is enough here."""

    def __init__(self, path, work, name, sockets, *port):
        self.sockets = sockets
        arguments = [f"--socket-path={one}" for one in sockets]
        super().__init__(path, [*arguments, *port, "--notify=doorbell"], work, name)
        lab.wait_until(lambda: all(one.exists() for one in sockets) or self.process.poll() is not None,
                       "its sockets")
        if self.process.poll() is not None:
            raise lab.Failed(f"{name} ended: {self.said()}")

    def devices(self):
        stats = self.stats()
        return stats.get("devices", [stats])

    def total(self, counter):
        return sum(queue[counter] for device in self.devices() for queue in device["queues"])


def sum_of(guest, command):
    return re.search(r"\b[0-9a-f]{64}\b", guest.must(command + " | sha256sum", 90)).group(0)


def bring_up(guest, host):
    guest.up()
    guest.must("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set lo up;"
               f" ip link set eth0 up; ip addr add 10.0.1.{host}/24 dev eth0")


def mapped(guest):
    return [queue["doorbell_mapped"] for device in guest.stats()["devices"]
            for queue in device["queues"]]


def from_guest_to_guest(tap, sender, receiver, host, what):
    # A nc whose own input ends would end the sender's.
    receiver.must("rm -f /came; printf '#!/bin/sh\\nsha256sum >/sum; mv /sum /came\\n' >/take;"
                  f" chmod 755 /take; {{ nc -l -p {PORT} -e /take; }} &")
    sender.must(f"head -c {MIB} /dev/urandom >/data")
    expected = sum_of(sender, "cat /data")
    # The listener may not be there yet.
    sender.must(f"for i in 1 2 3 4 5; do nc 10.0.1.{host} {PORT} </data && break; sleep 1; done", 90)
    lab.wait_until(lambda: not receiver.run("[ -e /came ]")[0], "the sum", 60)
    tap.matches(receiver.must("cat /came"), expected, f"{what}: 1 MiB arrives (sha256)")


def by_doorbell(tap, switch, guests, transfer, what):
    kicks, rung = switch.total("kicks"), switch.total("doorbells")
    transfer()
    now = switch.total("kicks"), switch.total("doorbells")
    tap.ok(now[0] - kicks <= 4 and now[1] > rung, f"{what}: by doorbell alone",
           f"kicks {kicks} and doorbells {rung} before, {now} now")
    tap.equal([all(mapped(guest)) for guest in guests], [True, True],
              f"{what}: the doorbells of all queues are mapped")


def into_tap(tap, guest, host):
    guest.must("ip link set eth1 up; ip addr add 10.0.2.15/24 dev eth1;"
               f" head -c {2 * MIB} /dev/urandom >/data")
    expected = sum_of(guest, "cat /data")
    with net.Sniffer(f"tap{TAP}") as sniffer:
        guest.must(f"nc 10.0.{TAP}.2 {net.SINK} </data", 90)
        tap.ok(host.wait_came(expected), "into a TAP: 2 MiB arrive (sha256)", host.came)
        tap.equal(sum_of(guest, f"nc 10.0.{TAP}.2 {net.SOURCE} </dev/null"),
                  hashlib.sha256(host.given).hexdigest(), "out of a TAP: 2 MiB arrive (sha256)")
    tap.ok(min(sniffer.sent, sniffer.received) > net.FRAME, "both ways in frames beyond the MTU",
           f"sent {sniffer.sent}, received {sniffer.received}")


def talk(tap, switch, one, two, host):
    with tap.part("start"):
        for guest, number in ((one, 1), (two, 2)):
            bring_up(guest, number)
        lab.wait_until(lambda: all(mapped(one) + mapped(two)), "doorbells of all queues")
    with tap.part("guest to guest"):
        by_doorbell(tap, switch, (one, two), lambda: from_guest_to_guest(
            tap, one, two, 2, "from the first guest to the second"), "there")
        by_doorbell(tap, switch, (one, two), lambda: from_guest_to_guest(
            tap, two, one, 1, "from the second guest to the first"), "and back")
    with tap.part("TAP"):
        into_tap(tap, one, host)
    with tap.part("end"):
        two.tell("poweroff -f")
        tap.equal(two.ends(20), 0, "one guest powers off")
        status, _ = one.run("ping -c 1 -W 1 10.0.1.2", 10)
        tap.ok(status != 0, "and does not answer any more")
        one.tell("poweroff -f")
        tap.equal(one.ends(20), 0, "so does the other")
        tap.equal(switch.total("errors"), 0, "the switch found no error")


def main():
    if sys.argv[1] != "--inside":
        lab.run_in_lab(__file__, sys.argv[1:], 210)
    kernel, initrd = sys.argv[2:4]
    vmm, path = (pathlib.Path(path).resolve() for path in sys.argv[4:6])
    tap = lab.Tap()
    subprocess.run(["modprobe", "tun"], check=False)
    net.add_tap(TAP)
    host = net.Host(os.urandom(2 * MIB))
    with lab.folder() as work, tap.part("switch"):
        sockets = [work / f"port{number}.sock" for number in (1, 2)]
        out = work / "tap.sock"
        with Net(path, work, "switch", sockets, "--switch") as switch, \
             Net(path, work, "tap", [out], f"--tap=tap{TAP}") as uplink, \
             lab.Guest(vmm, work, kernel, initrd, [f"net,socket={sockets[0]}", f"net,socket={out}"],
                       name="one") as one, \
             lab.Guest(vmm, work, kernel, initrd, [f"net,socket={sockets[1]}"], name="two") as two:
            talk(tap, switch, one, two, host)
            for program in (switch, uplink):
                program.process.terminate()
                tap.equal(program.ends(10), 0, f"{program.name} ends well")
    tap.equal(lab.left_over(vmm, path), [], "no process is left")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())

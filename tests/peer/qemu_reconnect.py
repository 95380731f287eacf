#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Our back ends are killed under load and started again; QEMU's chardevs come back by themselves.

qemu_reconnect.py BELFRY_BLK BELFRY_NET SLOW_FLUSH: the guest writes, reads back and has a TCP
connection all the time, and notices nothing but a pause. Requests in flight are in the in-flight region,
for split and packed rings; a flush takes long (slow_flush.c), so that there is always one that others
have overtaken. A network card has none and loses packets; its ring is found by the used index, which
only a split ring has.
"""

import os
import signal
import sys

import disk
import net
from peer import MIB, Blk, Failed, guest_kernel, sha256, wait_until
from qemu import Qemu, blk_device, net_device

KILLS = 2
RECONNECT = ",reconnect=1"
SEEK = 64  # in 64 KiB: behind the given half
KINDS = (("split", ""), ("packed", ",packed=on"))


class Backends:
    """A disk with split rings, one with packed rings, a network card; started as often as needed."""

    def __init__(self, run):
        self.run = run
        self.images = [disk.image(run, f"disk-{title}.img") for title, _ in KINDS]
        self.tap = net.add_tap(1)
        self.now = [None] * (len(KINDS) + 1)
        self.start()

    def start(self):
        sockets = [one and one.socket for one in self.now]
        for index, image in enumerate(self.images):
            self.now[index] = Blk(self.run, sys.argv[1], image, "eventfd", 2,
                                  socket_path=sockets[index], options=["--io=threads"],
                                  env=dict(os.environ, LD_PRELOAD=sys.argv[3]))
        self.now[-1] = net.Net(self.run, sys.argv[2], f"--tap={self.tap}", socket_path=sockets[-1])

    def kill(self):
        for backend in self.now:
            backend.signal(signal.SIGKILL)
        for backend in self.now:
            backend.wait()


def kill_and_start(run, backends, loads, host, number):
    busy = [backend.total("requests") for backend in backends.now[:-1]]
    wait_until("requests on both disks", lambda: all(
        backend.total("requests") > before for backend, before in zip(backends.now, busy)))
    backends.kill()
    backends.start()
    came = host.paced_bytes
    for load in loads:
        load.wait_rounds(1)
    wait_until("more of the guest's TCP connection", lambda: host.paced_bytes > came + MIB / 4)
    run.ok(True, f"killed and started again, {number} of {KILLS}: disks and connection go on")


def test(run):
    kernel, initrd = guest_kernel(run, disk.LOAD)
    host = net.Host(os.urandom(1 * MIB))
    backends = Backends(run)
    devices = [blk_device(index, backends.now[index].socket, options, 2, RECONNECT)
               for index, (_, options) in enumerate(KINDS)]
    devices.append(net_device(1, backends.now[-1].socket, "", 1, RECONNECT))
    qemu = Qemu(run, kernel, initrd, devices)
    guest = qemu.guest
    guest.wait_ready()
    net.up(guest, 1, "eth0")
    guest.run(f"nc 10.0.1.2 {net.PACED} </dev/null | sha256sum >/paced &")
    # Readers beside the writers, so that requests are not finished in the order in which they came.
    loads, readers = [], []
    for index, (title, _) in enumerate(KINDS):
        device = f"/dev/vd{'ab'[index]}"
        loads.append(disk.Load(run, guest, "write", title, device, SEEK))
        given = sha256(backends.images[index], 0, disk.LOAD_SIZE)
        readers += [disk.Load(run, guest, "read", f"{title}{number}", device, given)
                    for number in range(2)]
    for load in loads:
        load.wait_rounds(1)
    for number in range(1, KILLS + 1):
        kill_and_start(run, backends, loads + readers, host, number)
    host.end_pace.set()
    guest.run("touch /stop")
    for load in readers:
        load.end()
    for index, load in enumerate(loads):
        load.end()
        written = guest.sha256_of(f"cat /data.{load.name}")
        run.equal(sha256(backends.images[index], SEEK << 16, disk.LOAD_SIZE), written,
                  f"{load.name}: what the guest wrote last is in the image")
        disk.read(run, guest, backends.images[index], load.name, f"/dev/vd{'ab'[index]}")
    wait_until("the sum of the connection", lambda: guest.run("cat /paced").strip())
    run.ok(host.paced.hexdigest() in guest.run("cat /paced"),
           f"one TCP connection through it all: {host.paced_bytes >> 10} KiB (sha256)")
    net.send(run, guest, host, "10.0.1.2", "afterwards", 1)
    if not qemu.quit():
        raise Failed("QEMU did not end well")
    for backend in backends.now:
        run.equal(backend.total("errors"), 0, f"{backend.name} found no error")
        run.ok(backend.terminate(), f"{backend.name} ends well and removes its socket")


if __name__ == "__main__":
    sys.exit(net.main_in_namespace(test, ["qemu-system-x86_64", "ip"]))

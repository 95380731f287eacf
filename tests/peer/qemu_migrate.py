#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Live migration between two QEMUs with back ends of ours on both sides, under load.

qemu_migrate.py BELFRY_BLK BELFRY_NET

Did the dirty log have everything? When all of memory has been sent once, the guest reads its disks
into the page cache: those pages are written by nobody but the device. Behind the disks on the other
side there are zeroes instead, so that what the guest finds in its page cache afterwards can only have come
with the migration. A third disk, one image for both sides, is read and written without a break, and a
TCP connection through a bridge goes on through it all.
"""

import os
import sys

import disk
import net
from migrate import (APPEND, FAST, KINDS, SLOW, Side, bridge, count_up, end_count, end_pace,
                     set_parameters, start_pace, status, wait_counting, wait_status)
from peer import KIB, MIB, SOON_S, guest_kernel, make_image, sha256, wait_until
from qemu import Qemu

SIZE = 8 * MIB
BRISK = 32 * MIB  # bytes a second
MAC = "52:54:00:00:00:01"
ETH_P_RARP = b"\x80\x35"


def make_images(run):
    """For this side and for the other."""
    here = [make_image(run.folder / f"here{index}.img", SIZE, SIZE) for index in range(3)]
    there = [make_image(run.folder / f"there{index}.img", SIZE, 0) for index in range(2)]
    return here, [*there, here[2]]


def cache(guest, device, skip, count):
    """So many MiB into the page cache."""
    guest.run(disk.dd(64 * KIB, count * 16, f"if={device} of=/dev/null skip={skip * 16}"))


def cancelled(run, qemu, host):
    """The log comes and goes under running queues."""
    guest = qemu.guest
    set_parameters(qemu, SLOW, 1)
    qemu.monitor.call("migrate", uri="exec:cat >/dev/null")
    wait_status(qemu, "active")
    for _, device, _ in KINDS:
        cache(guest, device, 0, 2)
    net.receive(run, guest, host, "10.0.1.2", "while a migration runs that will be cancelled")
    qemu.monitor.call("migrate_cancel")
    wait_status(qemu, "cancelled")
    net.send(run, guest, host, "10.0.1.2", "after it was cancelled", 1)


def migrate(run, here, there, socket, host):
    """Ends when the other side runs."""
    guest = here.guest
    # As much again in less time than it takes to send it, or it would be over too soon.
    guest.run(f"head -c {8 * MIB} /dev/urandom >/random; while [ ! -e /calm ]; do cp /random /dirty;"
              " usleep 40000; done >/dev/null 2>&1 &")
    set_parameters(here, BRISK, 1)
    here.monitor.call("migrate", uri=f"unix:{socket}")
    wait_until("all of memory to be sent",
               lambda: status(here).get("ram", {}).get("dirty-sync-count", 0) >= 2)
    set_parameters(here, SLOW, 1)
    for _, device, _ in KINDS:
        cache(guest, device, 2, SIZE // MIB - 2)
    net.receive(run, guest, host, "10.0.1.2", "while it migrates")
    run.equal(status(here)["status"], "active", "migration is still active when all has been read")
    guest.run("touch /calm")
    set_parameters(here, FAST, 3000)
    wait_status(here, "completed")
    wait_until("the other QEMU runs", lambda: there.monitor.call("query-status")["running"])
    run.ok(True, f"migrated, the guest stood still for {status(here)['downtime']} ms")


def announced(sniffer):
    """A RARP from the guest's address on the new side's TAP."""
    sniffer.settimeout(SOON_S)
    try:
        while True:
            frame = sniffer.recv(2048)
            if frame[6:14] == bytes.fromhex(MAC.replace(":", "")) + ETH_P_RARP:
                return True
    except TimeoutError:
        return False


def compare(run, guest, images, there):
    before = [blk.total("requests") for blk in there.blks]
    for index, (title, device, _) in enumerate(KINDS):
        found = guest.sha256_of(disk.dd(64 * KIB, SIZE // (64 * KIB), f"if={device}"))
        run.equal(found, sha256(images[index]),
                  f"{title}: what the device wrote into the guest's memory came with it")
        served = there.blks[index].total("requests") - before[index]
        run.equal(served, 0, f"{title}: and was not read again")


def test(run):
    bridge()
    kernel, initrd = guest_kernel(run, disk.LOAD)
    host = net.Host(os.urandom(1 * MIB))
    images = make_images(run)
    sides = [Side(run, *sys.argv[1:3], number, images[number]) for number in (0, 1)]
    here = Qemu(run, kernel, initrd, sides[0].devices, append=APPEND)
    guest = here.guest
    guest.wait_ready()
    net.up(guest, 1, "eth0")
    start_pace(guest)
    guest.run("exec 5</dev/vda 6</dev/vdb")  # the page cache of a closed disk is dropped
    load = disk.Load(run, guest, "read", "steady", "/dev/vdc",
                     sha256(images[0][2], 0, disk.LOAD_SIZE))
    load.wait_rounds(1)
    count_up(guest)
    cancelled(run, here, host)

    socket = run.folder / "migration.sock"
    there = Qemu(run, kernel, initrd, sides[1].devices, ["-incoming", f"unix:{socket}"],
                 APPEND, "qemu-there")
    sniffer = net.packet_socket(sides[1].tap)
    migrate(run, here, there, socket, host)
    run.ok(announced(sniffer), "belfry-net announces the guest at its new place (RARP)")
    load.guest = guest = there.guest
    compare(run, guest, images[0], sides[1])
    written = wait_counting(images[0][2])
    load.wait_rounds(2)
    run.ok(here.quit(), "the first QEMU ends well")
    came = host.paced_bytes
    wait_until("more of the guest's TCP connection", lambda: host.paced_bytes > came + MIB / 4)
    guest.run("touch /stop")
    load.end()
    end_count(run, guest, images[0][2],
              f"{written} and more writes of the guest, before and after: none is lost")
    end_pace(run, guest, host)
    net.send(run, guest, host, "10.0.1.2", "at its new place", 1)
    run.ok(there.quit(), "the other QEMU ends well")
    for side, title in zip(sides, ("here", "there")):
        side.end(run, title)


if __name__ == "__main__":
    sys.exit(net.main_in_namespace(test, ["qemu-system-x86_64", "ip"]))

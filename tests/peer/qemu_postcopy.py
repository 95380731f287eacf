#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Postcopy between two QEMUs: the guest goes on while its memory is still on the other side.

qemu_postcopy.py BELFRY_BLK BELFRY_NET: disks with split and packed rings, by io_uring and by threads, and
a network card, with --postcopy on both sides.

Memory goes slowly, so that hardly anything but what is asked for comes. In that state

	the guest writes back pages of its cache that it had written before it moved: the back end's read
	of them is the first touch, and what reaches the image must be what the guest had written;

	the guest reads what it had in its cache, and with new buffers what it had not. Disks of
	the other side have other content, so it shows where the data came from.

A disk that is written and read back, one that is counted on, and a TCP connection go on through it all.
QEMU's trace says that the faults it served were ours.

Then back again, and both QEMUs end in the middle, when the back ends wait for memory. They must not
wait on, and what never came must not be zeroes on a disk.
"""

import ctypes
import errno
import os
import pathlib
import re
import signal
import sys
import time

import disk
import net
from migrate import (APPEND, FAST, KINDS, SHARED, SLOW, Side, bridge, count_up, end_count, end_pace,
                     set_parameters, start_pace, status, wait_counting, wait_status)
from peer import KIB, MIB, guest_kernel, make_image, sha256, wait_until
from qemu import Qemu

SIZE = 8 * MIB
PIECE = 2 * MIB  # of each disk: in the cache, written there, and not read yet
CACHED, DIRTY, FRESH = 0, PIECE, 2 * PIECE
IO = ("uring", "threads", "auto")
LOAD_SEEK = 64  # in 64 KiB: behind what is counted
CALM = 6 * MIB  # bytes a second, with what is asked for
BALLAST = 64  # MiB that nobody touches, so that memory is missing all the time
TRACE = ("-trace", "vhost_user_postcopy_fault_handler",
         "-trace", "vhost_user_postcopy_end_exit")
FAULT = re.compile(r"^vhost_user_postcopy_fault_handler vhost-user: @0x([0-9a-f]+)", re.MULTILINE)
SYS_USERFAULTFD = 323


def allowed():
    """A userfaultfd that sees faults of the kernel, for us as for QEMU."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC)
    if fd >= 0:
        os.close(fd)
    return fd >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS)


def piece(guest, device, at, more=""):
    """Its sum, as the guest sees it."""
    return guest.sha256_of(disk.dd(64 * KIB, PIECE // (64 * KIB),
                                   f"if={device} skip={at // (64 * KIB)} {more}"))


def guest_memory(backend):
    """Where a back end has it."""
    maps = pathlib.Path(f"/proc/{backend.process.pid}/maps").read_text()
    found = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) .* /memfd:memory-backend-memfd", maps, re.MULTILINE)
    return [(int(start, 16), int(end, 16)) for start, end in found]


def faults(qemu, backend):
    """How many faults of that back end QEMU has heard of."""
    memory = guest_memory(backend)
    addresses = (int(address, 16) for address in FAULT.findall(qemu.said()))
    return sum(start <= address < end for address in addresses for start, end in memory)


def make_dirty(guest, device):
    """Written and not written back. Returns its sum."""
    guest.run(f"head -c {PIECE} /dev/urandom >/data")
    guest.run(disk.dd(64 * KIB, PIECE // (64 * KIB),
                      f"if=/data of={device} seek={DIRTY // (64 * KIB)} conv=notrunc"))
    return guest.sha256_of("cat /data")


def asleep(backend):
    """Threads that wait for a page, as far as we may know."""
    tasks = pathlib.Path(f"/proc/{backend.process.pid}/task").iterdir()
    return sum((task / "wchan").read_text() == "handle_userfault" for task in tasks)


def prepare(guest):
    """What is cached, and what is not written back. Returns sums of the latter."""
    # Nothing is written back before it is told to. Without an interval the thread would not wait at all.
    guest.run("echo 360000 >/proc/sys/vm/dirty_writeback_centisecs")
    guest.run(f"head -c {BALLAST * MIB} /dev/urandom >/ballast")
    guest.run("exec 5</dev/vda 6</dev/vdb")  # the page cache of a closed disk is dropped
    sums = []
    for _, device, _ in KINDS:
        piece(guest, device, CACHED)
        sums.append(make_dirty(guest, device))
    return sums


def switch(run, here, there, socket):
    """Ends when the other side runs."""
    for qemu in (here, there):
        qemu.monitor.call("migrate-set-capabilities", capabilities=[
            {"capability": "postcopy-ram", "state": True}])
    set_parameters(here, SLOW, 1, **{"max-postcopy-bandwidth": CALM})
    here.monitor.call("migrate", uri=f"unix:{socket}")
    wait_status(here, "active")
    wait_until("the first of its memory", lambda: status(here)["ram"]["transferred"] > MIB)
    here.monitor.call("migrate-start-postcopy")
    wait_status(here, "postcopy-active")
    wait_until("the other QEMU runs", lambda: there.monitor.call("query-status")["running"])
    run.ok(True, f"switched over after {status(here)['ram']['transferred'] >> 20} MiB, "
           f"{status(here)['ram']['remaining'] >> 20} MiB are missing")


def write_back(run, there, side, images, sums):
    before = [faults(there, blk) for blk in side.blks]
    there.guest.run("sync")
    for index, (title, _, _) in enumerate(KINDS):
        served = faults(there, side.blks[index]) - before[index]
        run.ok(served > 5, f"{title}: pages that the disk wrote were missing: {served} faults", served)
        run.equal(sha256(images[index], DIRTY, PIECE), sums[index],
                  f"{title}: what the guest had written before reaches the image")


def read(run, there, images, title_of_time):
    """@images: [here, there]."""
    guest = there.guest
    for index, (title, device, _) in enumerate(KINDS):
        run.equal(piece(guest, device, CACHED), sha256(images[0][index], CACHED, PIECE),
                  f"{title}, {title_of_time}: the guest has what was in its cache")
        run.equal(piece(guest, device, FRESH), sha256(images[1][index], FRESH, PIECE),
                  f"{title}, {title_of_time}: it reads what was not")


def zero_sectors(image):
    with open(image, "rb") as file:
        file.seek(DIRTY)
        return sum(not any(file.read(512)) for _ in range(PIECE // 512))


def abandoned(run, kernel, initrd, qemu, side, images):
    """To @side, and both QEMUs end when its disks wait for pages."""
    for _, device, _ in KINDS:
        make_dirty(qemu.guest, device)
    socket = run.folder / "abandoned.sock"
    last = Qemu(run, kernel, initrd, side.devices, ["-incoming", f"unix:{socket}", *TRACE],
                APPEND, "qemu-last")
    switch(run, qemu, last, socket)
    last.guest.send("sync")
    disks = side.blks[:len(KINDS)]
    wait_until("faults of both disks", lambda: all(faults(last, blk) > 2 for blk in disks))
    # Nothing comes any more; what is asked for now is waited for.
    qemu.signal(signal.SIGSTOP)
    time.sleep(0.5)
    waiting = sum(asleep(blk) for blk in disks)
    last.kill()
    qemu.kill()
    for backend in side.backends:
        wait_until(f"{backend.name} to see that nobody is there",
                   lambda one=backend: not one.stats()["connected"], 5)
    run.ok(True, f"killed while {waiting} threads of the disks wait for memory: nobody waits on")
    for index, (title, _, _) in enumerate(KINDS):
        run.equal(zero_sectors(images[index]), 0, f"{title}: what never came is not written as zeroes")


def test(run):
    bridge()
    kernel, initrd = guest_kernel(run, disk.LOAD)
    host = net.Host(os.urandom(1 * MIB))
    images = [[make_image(run.folder / f"{name}{index}.img", SIZE, SIZE) for index in range(2)]
              for name in ("here", "there")]
    shared = make_image(run.folder / "shared.img", SIZE, 0)
    sides = [Side(run, *sys.argv[1:3], number, [*images[number], shared], IO, ["--postcopy"])
             for number in (0, 1)]
    here = Qemu(run, kernel, initrd, sides[0].devices, append=APPEND)
    guest = here.guest
    guest.wait_ready()
    net.up(guest, 1, "eth0")
    start_pace(guest)
    sums = prepare(guest)
    load = disk.Load(run, guest, "write", "steady", SHARED, LOAD_SEEK + 8)
    load.wait_rounds(1)
    count_up(guest)

    socket = run.folder / "migration.sock"
    there = Qemu(run, kernel, initrd, sides[1].devices, ["-incoming", f"unix:{socket}", *TRACE],
                 APPEND, "qemu-there")
    switch(run, here, there, socket)
    load.guest = guest = there.guest
    came = host.paced_bytes
    write_back(run, there, sides[1], images[1], sums)
    read(run, there, images, "while memory is missing")
    wait_until("more of the guest's TCP connection", lambda: host.paced_bytes > came + MIB / 4)
    load.wait_rounds(1)
    written = wait_counting(shared)
    net.receive(run, guest, host, "10.0.1.2", "while memory is missing")
    now = status(here)
    run.equal(now["status"], "postcopy-active",
              f"all of that while memory was missing: {now['ram']['remaining'] >> 20} MiB are still")
    run.note(f"{faults(there, sides[1].net)} faults of belfry-net's, "
             f"{now['ram']['postcopy-requests']} pages were asked for in all")
    set_parameters(here, FAST, 1, **{"max-postcopy-bandwidth": FAST})
    wait_status(here, "completed")
    wait_status(there, "completed")
    run.equal(len(re.findall("^vhost_user_postcopy_end_exit", there.said(), re.MULTILINE)), 4,
              "QEMU's POSTCOPY_END is answered by all four")
    run.ok(here.quit(), "the first QEMU ends well")

    disk.write(run, guest, images[1][0], "after it all", 1)
    load.wait_rounds(1)
    wait_counting(shared)
    guest.run("touch /stop")
    load.end()
    end_count(run, guest, shared, f"{written} and more writes of the guest: none is lost")
    end_pace(run, guest, host)
    net.send(run, guest, host, "10.0.1.2", "at its new place", 1)
    sides[0].no_errors(run, "here")
    abandoned(run, kernel, initrd, there, sides[0], images[0])
    sides[0].terminate(run, "here")
    sides[1].end(run, "there")


if __name__ == "__main__":
    if not allowed():
        print("1..0 # SKIP needs a userfaultfd: CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd=1",
              flush=True)
        sys.exit(0)
    sys.exit(net.main_in_namespace(test, ["qemu-system-x86_64", "ip"]))

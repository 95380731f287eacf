#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""QEMU is killed while its guest is busy; belfry-blk goes on listening and serves the next QEMU.

qemu_killed.py BELFRY_BLK: by doorbells, both queues.
"""

import signal
import sys

import disk
from peer import Blk, Failed, guest_kernel, main, wait_until
from qemu import Qemu, blk_device

BUSY = 500  # requests that have to be seen before the kill


def keep_busy(guest):
    """Both queues, without end: one reads the given half, one writes behind it."""
    for cpu, what in enumerate(("if=/dev/vda of=/dev/null iflag=direct",
                                "if=/dev/zero of=/dev/vda oflag=direct conv=notrunc seek=1024")):
        loop = f"while :; do taskset {1 << cpu:x} " + disk.dd(4096, 512, what) + "; done"
        guest.run(f"{{ {loop}; }} &")


def kill_while_busy(run, qemu, blk):
    keep_busy(qemu.guest)
    start = blk.stats()

    def busy():
        grown = disk.difference(start, blk.stats(), "requests")
        return all(requests >= BUSY for requests in grown)

    wait_until("requests in both queues", busy, 60)
    qemu.signal(signal.SIGKILL)
    run.equal(qemu.wait(), -signal.SIGKILL, "QEMU was killed while both queues were busy")
    after = wait_until("belfry-blk: connection ended",
                       lambda: (lambda stats: not stats["connected"] and stats)(blk.stats()))
    run.equal(after["ended"], 1, "belfry-blk saw the connection end, and lives")


def test(run):
    kernel, initrd = guest_kernel(run)
    image = disk.image(run)
    blk = Blk(run, sys.argv[1], image, "doorbell")
    first = Qemu(run, kernel, initrd, [blk_device(0, blk.socket, ",page-per-vq=on")])
    first.guest.wait_ready()
    blk.wait_doorbells("mapped")
    kill_while_busy(run, first, blk)
    at_rest = blk.stats()

    second = Qemu(run, kernel, initrd, [blk_device(0, blk.socket, ",page-per-vq=on")])
    second.guest.wait_ready()
    blk.wait_doorbells("mapped")
    run.ok(len(second.doorbell_pages()) == 2, "the next QEMU got the doorbell pages")
    disk.read(run, second.guest, image, "next QEMU")
    disk.write(run, second.guest, image, "next QEMU")
    before = blk.stats()
    disk.ring(second.guest)
    rung = disk.difference(before, blk.stats(), "doorbells")
    run.ok(all(rung), "the next QEMU's guest rings both doorbells", rung)
    run.equal(disk.difference(at_rest, blk.stats(), "errors"), [0, 0],
              "belfry-blk found no error since")
    if not second.quit():
        raise Failed("the next QEMU did not end well")
    run.ok(blk.terminate(), "belfry-blk ends well and removes its socket")


if __name__ == "__main__":
    sys.exit(main(test, ["qemu-system-x86_64"]))

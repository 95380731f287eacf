#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""QEMU without page-per-vq=on refuses the doorbell pages: belfry-blk says so and serves by eventfd.

qemu_eventfd.py BELFRY_BLK
"""

import sys

import disk
from peer import Blk, guest_kernel, main
from qemu import Qemu, blk_device


def test(run):
    kernel, initrd = guest_kernel(run)
    image = disk.image(run)
    blk = Blk(run, sys.argv[1], image, "doorbell")
    qemu = Qemu(run, kernel, initrd, [blk_device(0, blk.socket)])
    qemu.guest.wait_ready()
    blk.wait_doorbells("refused")
    run.ok(True, "the statistics say that both pages were refused")
    run.equal(qemu.doorbell_pages(), {}, "'info mtree' shows no page")
    said = blk.said()
    run.ok("refused the doorbell page" in said and "page-per-vq=on" in said,
           "belfry-blk reports the refusal, and what to do", said)
    disk.read(run, qemu.guest, image, "by eventfd")
    disk.write(run, qemu.guest, image, "by eventfd")

    before = blk.stats()
    disk.ring(qemu.guest)
    after = blk.stats()
    requests, doorbells, kicks = (disk.difference(before, after, counter)
                                  for counter in ("requests", "doorbells", "kicks"))
    run.ok(sum(requests) >= 2 * disk.NR_RINGS, "every request was served", requests)
    run.ok(all(4 * kicked >= served > 0 for kicked, served in zip(kicks, requests)),
           "both queues were kicked by their eventfds", f"kicks {kicks}, requests {requests}")
    run.equal(doorbells, [0, 0], "no doorbell was rung")
    run.ok(sum(disk.difference(before, after, "wakeups")) > 0, "the back end sleeps in between")

    run.ok(qemu.quit(), "QEMU ends well")
    run.equal(blk.total("errors"), 0, "belfry-blk found no error")
    run.ok(blk.terminate(), "belfry-blk ends well and removes its socket")


if __name__ == "__main__":
    sys.exit(main(test, ["qemu-system-x86_64"]))

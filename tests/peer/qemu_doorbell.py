#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""QEMU lays belfry-blk's doorbell pages over the notify region of its guest.

qemu_doorbell.py BELFRY_BLK: data, the pages as QEMU's monitor shows them, and their coming and
going with stop, reset and power-off.
"""

import sys

import disk
from peer import Blk, guest_kernel, main, wait_until
from qemu import Qemu, blk_device

BOTH = {0: "ramd", 1: "ramd"}


def rings_of_cpu(run, blk, guest, cpu, title):
    """A CPU's notifications arrive in the page of the queue that got its requests, nowhere else.

    Returns the queue.
    """
    before = blk.stats()
    disk.ring_from(guest, cpu)
    after = blk.stats()
    requests, doorbells, kicks = (disk.difference(before, after, counter)
                                  for counter in ("requests", "doorbells", "kicks"))
    counted = f"by queue: {requests} requests, {doorbells} doorbells, {kicks} kicks"
    queue = requests.index(max(requests))
    other = 1 - queue
    run.ok(requests[queue] >= disk.NR_RINGS, f"{title}, CPU {cpu}: every request was served",
           counted)
    # Not one for one: the guest need not ring while the back end is still looking at the ring.
    run.ok(2 * doorbells[queue] >= disk.NR_RINGS and doorbells[queue] <= requests[queue] + 1
           and doorbells[other] <= requests[other] + 1,
           f"{title}, CPU {cpu}: by the doorbell of its queue", counted)
    run.ok(sum(kicks) <= 4, f"{title}, CPU {cpu}: not by eventfd", counted)
    return queue


def rings(run, blk, guest, title):
    queues = [rings_of_cpu(run, blk, guest, cpu, title) for cpu in (0, 1)]
    run.equal(sorted(queues), [0, 1], f"{title}: each CPU has a queue of its own")


def pages_come(run, qemu, blk, title):
    blk.wait_doorbells("mapped")
    run.equal(qemu.doorbell_pages(), BOTH, f"{title}: 'info mtree' shows a page for each queue")


def stop_and_go(run, qemu, blk):
    qemu.monitor.call("stop")
    run.equal(qemu.doorbell_pages(), {}, "stopped by the monitor: the pages are gone")
    qemu.monitor.call("cont")
    pages_come(run, qemu, blk, "continued")
    rings(run, blk, qemu.guest, "continued")


def reset(run, qemu, blk, image):
    said = len(blk.said())
    qemu.monitor.call("system_reset")
    qemu.monitor.wait_event("RESET")
    pages = qemu.doorbell_pages()
    new = blk.said()[said:]
    # The firmware may be quick, and use the disk by now.
    run.ok(not pages or "queue 0: started" in new, "reset: the pages are gone", pages, new)
    run.ok(all(f"queue {queue}: stopped" in new for queue in (0, 1)),
           "reset: belfry-blk heard that both queues stopped", new)
    qemu.guest.wait_ready()
    pages_come(run, qemu, blk, "after the reset")
    disk.read(run, qemu.guest, image, "after the reset")
    rings(run, blk, qemu.guest, "after the reset")


def power_off(run, qemu):
    qemu.guest.power_off()
    qemu.monitor.wait_event("SHUTDOWN")
    wait_until("QEMU at rest after the guest's power-off",
               lambda: not qemu.monitor.call("query-status")["running"])
    run.equal(qemu.doorbell_pages(), {}, "powered off: the pages are gone")


def test(run):
    kernel, initrd = guest_kernel(run)
    image = disk.image(run)
    blk = Blk(run, sys.argv[1], image, "doorbell", log_level="debug")
    qemu = Qemu(run, kernel, initrd, [blk_device(0, blk.socket, ",page-per-vq=on")])
    qemu.guest.wait_ready()
    pages_come(run, qemu, blk, "booted")
    disk.read(run, qemu.guest, image, "booted")
    disk.write(run, qemu.guest, image, "booted")
    rings(run, blk, qemu.guest, "booted")
    stop_and_go(run, qemu, blk)
    reset(run, qemu, blk, image)
    power_off(run, qemu)
    run.ok(qemu.quit(), "QEMU ends well")
    run.equal(qemu.said(), "", "QEMU had nothing to complain of")
    wait_until("belfry-blk: connection ended", lambda: not blk.stats()["connected"])
    run.equal(blk.total("errors"), 0, "belfry-blk found no error")
    run.ok(blk.terminate(), "belfry-blk ends well and removes its socket")


if __name__ == "__main__":
    sys.exit(main(test, ["qemu-system-x86_64"]))

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""QEMU's guest uses packed rings of belfry-blk: by doorbells on one disk, by eventfd on another.

qemu_packed.py BELFRY_BLK
"""

import sys

import disk
from peer import Blk, Failed, guest_kernel, main
from qemu import Qemu, blk_device

PACKED = 34  # VIRTIO_F_RING_PACKED
# title, notify, QEMU's options. Linux's indirect tables are longer than the small queue: it asks seg_max only.
DISKS = (("packed, by doorbell", "doorbell", ",packed=on,page-per-vq=on"),
         ("packed, by eventfd, small queue", "eventfd", ",packed=on,queue-size=8"))


def uses_packed(run, guest, index, title):
    """/sys has the features as a string of bits, the lowest first."""
    features = guest.run(f"cat /sys/block/vd{'ab'[index]}/device/features").strip()
    run.equal(features[PACKED], "1", f"{title}: the driver accepted packed rings")


def test(run):
    kernel, initrd = guest_kernel(run)
    images = [disk.image(run, f"disk{index}.img") for index in range(len(DISKS))]
    backends = [Blk(run, sys.argv[1], image, notify) for image, (_, notify, _) in zip(images, DISKS)]
    qemu = Qemu(run, kernel, initrd, [blk_device(index, blk.socket, options) for index, (
        blk, (_, _, options)) in enumerate(zip(backends, DISKS))])
    guest = qemu.guest
    guest.wait_ready()
    backends[0].wait_doorbells("mapped")
    for index, (title, _, _) in enumerate(DISKS):
        device = f"/dev/vd{'ab'[index]}"
        uses_packed(run, guest, index, title)
        disk.read(run, guest, images[index], title, device)
        disk.write(run, guest, images[index], title, 2, device)
    before = backends[0].stats()
    disk.ring(guest)
    after = backends[0].stats()
    rung, kicks = (disk.difference(before, after, counter) for counter in ("doorbells", "kicks"))
    run.ok(all(2 * number >= disk.NR_RINGS for number in rung) and sum(kicks) <= 4,
           "packed, by doorbell: both queues are rung by their pages",
           f"doorbells {rung}, kicks {kicks}")
    for command in ("stop", "cont"):  # from where the rings stand
        qemu.monitor.call(command)
    for index, (title, _, _) in enumerate(DISKS):
        disk.read(run, guest, images[index], f"{title}, stopped and continued",
                  f"/dev/vd{'ab'[index]}")
    if not qemu.quit():
        raise Failed("QEMU did not end well")
    run.equal(qemu.said(), "", "QEMU had nothing to complain of")
    for blk, (title, _, _) in zip(backends, DISKS):
        run.equal(blk.total("errors"), 0, f"{title}: belfry-blk found no error")
        run.ok(blk.terminate(), f"{title}: belfry-blk ends well and removes its socket")


if __name__ == "__main__":
    sys.exit(main(test, ["qemu-system-x86_64"]))

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""QEMU's virtual Intel IOMMU between its guest and our back ends: every address is an IOVA.

qemu_iommu.py BELFRY_BLK BELFRY_NET: disks and network cards, split and packed, in one guest. The
IOMMU is strict: what the guest unmaps is invalidated at once, so that translations are asked for all
the time, while the queues run.
"""

import os
import re
import sys

import disk
import net
from peer import MIB, Blk, Failed, guest_kernel
from qemu import BEHIND_IOMMU, IOMMU, IOMMU_APPEND, Qemu, blk_device, net_device

IOTLB_MSG = 22
PLATFORM = 33  # VIRTIO_F_ACCESS_PLATFORM
KINDS = (("split", ""), ("packed", ",packed=on"))
TRACE = ("-trace", "vhost_iotlb_miss", "-trace", "vhost_user_write")


def behind_iommu(run, guest):
    said = guest.run("dmesg | grep -c 'Adding to iommu group'; cat /sys/bus/virtio/devices/*/features")
    bits = re.findall(r"^[01]{64}$", said, re.MULTILINE)
    run.ok(len(bits) == 4 and all(one[PLATFORM] == "1" for one in bits),
           "the guest's drivers use the IOMMU on all four devices", said)


def traffic(qemu):
    """How often QEMU was asked for a translation, and how many IOTLB messages it sent."""
    said = qemu.said()
    return (len(re.findall("^vhost_iotlb_miss .* step 1$", said, re.MULTILINE)),
            len(re.findall(f"^vhost_user_write req:{IOTLB_MSG} ", said, re.MULTILINE)))


def used(run, qemu, before, title):
    asked, sent = (now - then for now, then in zip(traffic(qemu), before))
    run.ok(asked > 10, f"{title}: translations were asked for", asked)
    run.ok(sent > asked, f"{title}: and taken back, while the queue ran",
           f"{asked} misses, {sent} messages")


def test(run):
    kernel, initrd = guest_kernel(run)
    host = net.Host(os.urandom(1 * MIB))
    devices, backends, images = [], [], []
    for number, (_, options) in enumerate(KINDS, 1):
        images.append(disk.image(run, f"disk{number}.img"))
        backends.append(Blk(run, sys.argv[1], images[-1], "eventfd", log_level="debug"))
        devices.append(blk_device(number, backends[-1].socket, options + BEHIND_IOMMU))
        backends.append(net.Net(run, sys.argv[2], f"--tap={net.add_tap(number)}"))
        devices.append(net_device(number, backends[-1].socket, options + BEHIND_IOMMU))
    qemu = Qemu(run, kernel, initrd, devices, [*IOMMU, *TRACE], IOMMU_APPEND)
    guest = qemu.guest
    guest.wait_ready()
    behind_iommu(run, guest)
    for number, (title, _) in enumerate(KINDS, 1):
        before = traffic(qemu)
        device = f"/dev/vd{'_ab'[number]}"
        disk.read(run, guest, images[number - 1], f"{title} disk", device)
        disk.write(run, guest, images[number - 1], f"{title} disk", 2, device)
        used(run, qemu, before, f"{title} disk")
        before = traffic(qemu)
        net.up(guest, number, f"eth{number - 1}")
        net.send(run, guest, host, f"10.0.{number}.2", f"{title} network card", 1)
        net.receive(run, guest, host, f"10.0.{number}.2", f"{title} network card")
        used(run, qemu, before, f"{title} network card")
    if not qemu.quit():
        raise Failed("QEMU did not end well")
    for backend in backends:
        run.equal(backend.total("errors"), 0, f"{backend.name} found no error")
        run.ok(backend.terminate(), f"{backend.name} ends well and removes its socket")


if __name__ == "__main__":
    sys.exit(net.main_in_namespace(test, ["qemu-system-x86_64", "ip"]))

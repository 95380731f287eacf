#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""qemu-storage-daemon serves the guest of belfry-vmm, by eventfd: it has no doorbell pages.

storage_daemon_vmm.py BELFRY_VMM: calls itself a second time where KVM works, with the guest's
kernel and initrd.
"""

import pathlib
import subprocess
import sys

import disk
from peer import ROOT, StorageDaemon, Vmm, guest_kernel, main

LAB_S = 360
NR_QUEUES = 2


def mmio_exits(stats):
    return sum(vcpu["mmio_exits"] for vcpu in stats["vcpus"])


def eventfds_only(run, vmm):
    """No page is mapped, and the VMM emulates no store: what is left is KVM's ioeventfd."""
    before = vmm.stats()
    disk.ring(vmm.guest, NR_QUEUES)
    after = vmm.stats()
    queues = after["devices"][0]["queues"]
    run.equal([queue["started"] for queue in queues], [True] * NR_QUEUES, "every queue is started")
    run.equal([queue["doorbell_mapped"] for queue in queues], [False] * NR_QUEUES,
              "no doorbell is mapped")
    reasons = [queue["doorbell_reason"] for queue in queues]
    run.ok(all("back end" in reason for reason in reasons), "the statistics say why", reasons)
    run.equal(sum(queue["doorbells_refused"] for queue in queues), 0,
              "none was refused: none was offered")
    run.equal(mmio_exits(after) - mmio_exits(before), 0,
              "belfry-vmm emulated no store of the guest's notifications")


def inside(run, program, kernel, initrd):
    image = disk.image(run)
    daemon = StorageDaemon(run, image, NR_QUEUES)
    vmm = Vmm(run, program, kernel, initrd, daemon.socket, NR_QUEUES)
    vmm.guest.wait_ready()
    disk.read(run, vmm.guest, image, "belfry-vmm")
    disk.write(run, vmm.guest, image, "belfry-vmm", NR_QUEUES)
    eventfds_only(run, vmm)
    vmm.guest.power_off()
    run.equal(vmm.wait(), 0, "belfry-vmm ends well when the guest powers off")
    run.ok(daemon.terminate(), "qemu-storage-daemon ends well")


def outside(run):
    kernel, initrd = guest_kernel(run)
    command = [ROOT / "lab/run", "--again", "--timeout", LAB_S, "--dir", run.folder, "--", sys.executable,
               __file__, sys.argv[1], kernel, initrd]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True,
                          errors="replace", check=False)
    run.adopt(done.stdout)
    if run.nr_failed:
        run.note(f"status {done.returncode}, and it said:")
        run.note(done.stdout)


def test(run):
    if len(sys.argv) > 2:
        inside(run, pathlib.Path(sys.argv[1]), *map(pathlib.Path, sys.argv[2:]))
    else:
        outside(run)


if __name__ == "__main__":
    sys.exit(main(test, ["qemu-storage-daemon"]))

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A block accelerator of the lab given to a stock kernel by belfry-vdpa and belfry-vmm, split and packed.

usage: test_vdpa_blk.py BELFRY_VMM BELFRY_VDPA
"""

import os
import pathlib
import sys
import time

import lab
import vdpa

ACCELERATORS = ["blk", "blk,queues=2,packed=on"]
MIB = 1 << 20
SIZE = 64 * MIB
READ = "dd if=/dev/vda bs=64k count={} iflag=direct 2>/dev/null | sha256sum"


class Case:
    def __init__(self, tap, kernel, initrd, vmm, vdpa_path, work):
        self.tap, self.vmm_path, self.vdpa_path = tap, vmm, vdpa_path
        self.kernel, self.initrd, self.work = kernel, initrd, work

    def vdpa(self, number):
        return vdpa.Vdpa(self.vdpa_path, self.work, number)

    def guest(self, backend, queues, notify="auto"):
        return lab.Guest(self.vmm_path, self.work, self.kernel, self.initrd,
                         [f"blk,socket={backend.socket},num-queues={queues},notify={notify}"], queues)


def image(number):
    return pathlib.Path(os.environ["BELFRY_LAB_DIR"]) / f"accelerator{number}.img"


def write(guest, seek, mib=4):
    """Random data from MiB @seek on; what its sum has to be."""
    said = guest.must(f"dd if=/dev/urandom of=/tmp/data bs=64k count={mib * 16} 2>/dev/null;"
                      f" dd if=/tmp/data of=/dev/vda bs=64k seek={seek * 16} oflag=direct"
                      " 2>/dev/null && sha256sum </tmp/data", 120)
    return said.split()[0]


def read(guest, skip, mib=4):
    return guest.must(f"dd if=/dev/vda bs=64k skip={skip * 16} count={mib * 16} iflag=direct"
                      " 2>/dev/null | sha256sum", 120).split()[0]


def on_image(number, skip, mib=4):
    with open(image(number), "rb") as file:
        file.seek(skip * MIB)
        return lab.sha256(file.read(mib * MIB))


def boots(case, guest, queues, packed):
    tap = case.tap
    guest.up()
    lab.wait_until(lambda: all(guest.mapped()), "doorbells of all queues")
    tap.equal(guest.must("cat /sys/block/vda/size").split()[0], str(SIZE // 512),
              "the size is the device's")
    features = guest.must("cat /sys/block/vda/device/features").strip()
    tap.equal(features[vdpa.PACKED], "1" if packed else "0",
              f"the rings are {'packed' if packed else 'split'}")
    tap.equal(guest.must("ls /sys/block/vda/mq | wc -l").strip(), str(queues), "all queues are there")


def verify(case, guest, backend, number, title):
    tap = case.tap
    wanted = write(guest, 8)
    tap.equal(read(guest, 8), wanted, f"{title}: what was written is read (sha256)")
    tap.equal(on_image(number, 8), wanted, f"{title}: and is what the image holds")


def direct(case, guest, backend, number):
    wanted = write(guest, 16)
    found, cost = vdpa.cost_of(backend, lambda: (read(guest, 16), write(guest, 24)))
    case.tap.equal(found[0], wanted, "direct: data is whole")
    case.tap.equal(cost, {"cpu_ns": 0, "switches": 0, "relayed": 0},
                   "direct: belfry-vdpa did nothing meanwhile")


def stop(case, guest, backend, number):
    guest.must("dd if=/dev/urandom of=/tmp/data bs=64k count=128 2>/dev/null")
    guest.must("dd if=/tmp/data of=/dev/vda bs=4k oflag=direct 2>/dev/null &")
    with vdpa.stopped(backend):
        said = guest.must("wait; sha256sum </tmp/data", 120).split()[0]
        case.tap.equal(read(guest, 0, 8), said, "SIGSTOP: belfry-vdpa is stopped, data is whole")


def unbind(case, guest, backend, number):
    before = guest.queues()
    for _ in range(3):
        guest.must("dd if=/dev/vda of=/dev/null bs=4k iflag=direct 2>/dev/null &")
        time.sleep(0.5)
        guest.must("echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/unbind; wait", 60)
        guest.must("echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/bind", 60)
    lab.wait_until(lambda: all(guest.mapped()), "doorbells after bind")
    case.tap.equal([queue["doorbells_mapped"] for queue in guest.queues()],
                   [queue["doorbells_mapped"] + 3 for queue in before],
                   "three resets under traffic: doorbells registered anew each time")
    verify(case, guest, backend, number, "after resets")


def reboots(case, guest, backend, number):
    wanted = write(guest, 32)
    guest.tell("reboot -f -n")
    guest.up()
    lab.wait_until(lambda: all(guest.mapped()), "doorbells after the reboot")
    case.tap.equal(read(guest, 32), wanted, "after a reboot: what was written is read")
    verify(case, guest, backend, number, "after a reboot")


def life(case, number, queues, packed):
    with case.vdpa(number) as backend, case.guest(backend, queues) as guest:
        boots(case, guest, queues, packed)
        verify(case, guest, backend, number, "booted")
        for part in (direct, stop, unbind, reboots):
            with case.tap.part(part.__name__):
                part(case, guest, backend, number)
        vdpa.ends_well(case.tap, guest, backend, "power-off")


def by_relay(case, number, queues):
    with case.vdpa(number) as backend, case.guest(backend, queues, "eventfd") as guest:
        guest.up()
        _, cost = vdpa.cost_of(backend, lambda: verify(case, guest, backend, number, "by relay"))
        case.tap.ok(cost["relayed"] > 50, "by relay: kicks were relayed", cost)
        vdpa.ends_well(case.tap, guest, backend, "by relay")


def main():
    if sys.argv[1] != "--inside":
        lab.run_in_lab(__file__, sys.argv[1:], 240,
                       [f"--accelerator={kind}" for kind in ACCELERATORS])
    kernel, initrd = sys.argv[2:4]
    vmm, path = (pathlib.Path(path).resolve() for path in sys.argv[4:6])
    tap = lab.Tap()
    with lab.folder() as work:
        case = Case(tap, kernel, initrd, vmm, path, work)
        for name, run in (("split", lambda: life(case, 1, 1, False)),
                          ("packed, two queues", lambda: life(case, 2, 2, True)),
                          ("by relay", lambda: by_relay(case, 1, 1))):
            print(f"# {name}", flush=True)
            with tap.part(name):
                run()
    tap.equal(lab.left_over(vmm, path), [], "no process is left")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())

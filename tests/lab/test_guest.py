#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A stock kernel on belfry-vmm with a disk of belfry-blk: what its doorbells go through in a guest's life.

usage: test_guest.py BELFRY_VMM BELFRY_BLK
"""

import os
import pathlib
import signal
import sys
import time

import lab

HALF = 1 << 20
READ = "dd if=/dev/vda bs=64k count=16 iflag=direct 2>/dev/null | sha256sum"


class Case:
    def __init__(self, tap, vmm, blk, kernel, initrd, work):
        self.tap, self.vmm_path, self.blk_path = tap, vmm, blk
        self.kernel, self.initrd, self.work = kernel, initrd, work
        self.image = work / "disk.img"
        self.image.write_bytes(os.urandom(HALF) + bytes(HALF))

    def blk(self, queues=2):
        return lab.Blk(self.blk_path, self.work, self.image, queues)

    def guest(self, blk, queues=2, cpus=2):
        return lab.Guest(self.vmm_path, self.work, self.kernel, self.initrd,
                         [f"blk,socket={blk.socket},num-queues={queues}"], cpus)

    def first_half(self):
        return lab.sha256(self.image.read_bytes()[:HALF])

    def second_half(self):
        return lab.sha256(self.image.read_bytes()[HALF:])


def boots(case, guest, blk):
    tap = case.tap
    guest.up()
    tap.equal(guest.must("nproc").strip(), "2", "the guest has two processors")
    lab.wait_until(lambda: guest.mapped() == [True, True], "doorbells of both queues")
    tap.ok(True, "the doorbells of both queues are mapped")
    tap.equal([queue["doorbell_reason"] for queue in guest.queues()], ["", ""],
              "and no reason says otherwise")


def copies(case, guest, blk):
    """Data both ways, by doorbell only, and by either queue."""
    tap = case.tap
    before = blk.stats()["queues"]
    tap.matches(guest.must(READ), case.first_half(), "the guest reads what the host wrote (sha256)")
    said = guest.must("dd if=/dev/urandom of=/data bs=64k count=16 2>/dev/null;"
                      " dd if=/data of=/dev/vda bs=64k seek=16 oflag=direct 2>/dev/null &&"
                      " sha256sum /data")
    tap.ok(case.second_half() in said, "the host reads what the guest wrote (sha256)", said)
    for cpu in (1, 2):  # masks: a queue belongs to a processor
        guest.must(f"taskset {cpu} dd if=/dev/vda of=/dev/null bs=4k count=50 iflag=direct 2>&1")
    after = blk.stats()["queues"]
    for queue in range(2):
        rings = after[queue]["doorbells"] - before[queue]["doorbells"]
        kicks = after[queue]["kicks"] - before[queue]["kicks"]
        tap.ok(rings > 25 and kicks == 0, f"queue {queue} was rung by doorbell alone",
               f"{rings} doorbells, {kicks} kicks")


def unbind(case, guest, blk):
    tap = case.tap
    before = guest.queues()
    guest.must("echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/unbind")
    queues = guest.queues()
    tap.equal([queue["doorbell_mapped"] for queue in queues], [False, False],
              "the driver leaves: doorbells withdrawn")
    tap.ok(all(queue["doorbell_reason"] for queue in queues), "with a reason", queues)
    tap.equal([queue["doorbells_withdrawn"] for queue in queues],
              [queue["doorbells_withdrawn"] + 1 for queue in before], "each once")
    guest.must("echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/bind")
    lab.wait_until(lambda: guest.mapped() == [True, True], "doorbells after bind")
    tap.ok(True, "the driver comes back: doorbells registered anew")
    tap.matches(guest.must(READ), case.first_half(), "and the disk can be read")


def bar_disabled(case, guest, blk):
    """Memory decoding off and on again, under a driver that does not know."""
    tap = case.tap
    command = ("printf '\\x{:02x}' | dd of=/sys/bus/pci/devices/0000:00:01.0/config bs=1 seek=4"
               " conv=notrunc 2>/dev/null")
    old = int(guest.must("hexdump -s 4 -n 1 -e '1/1 \"%d\"' /sys/bus/pci/devices/0000:00:01.0/config"))
    tap.ok(old & 2, "memory decoding is on", old)
    before = guest.queues()
    guest.must(command.format(old & ~2))
    queues = guest.queues()
    tap.equal([queue["doorbell_mapped"] for queue in queues], [False, False],
              "memory decoding off: doorbells withdrawn")
    tap.ok(all("BAR" in queue["doorbell_reason"] or "memory" in queue["doorbell_reason"]
               or "region" in queue["doorbell_reason"] for queue in queues),
           "the reason says so", queues)
    tap.equal([queue["doorbells_withdrawn"] for queue in queues],
              [queue["doorbells_withdrawn"] + 1 for queue in before], "each once")
    guest.must(command.format(old))
    kicks, rings = sum(blk.total("kicks")), sum(blk.total("doorbells"))
    tap.matches(guest.must(READ), case.first_half(), "on again: the disk can be read")
    tap.ok(sum(blk.total("kicks")) > kicks and sum(blk.total("doorbells")) == rings,
           "by eventfd", blk.stats())
    tap.equal(guest.mapped(), [False, False], "no page came back by itself")


def reboots(case, guest, blk):
    tap = case.tap
    before = guest.queues()
    guest.tell("reboot -f -n")
    guest.up()
    tap.equal(guest.stats()["start"]["resets"], 1, "the guest reboots in the same VMM")
    lab.wait_until(lambda: guest.mapped() == [True, True], "doorbells after the reboot")
    after = guest.queues()
    tap.equal([queue["doorbells_mapped"] for queue in after],
              [queue["doorbells_mapped"] + 1 for queue in before], "doorbells registered anew")
    copies(case, guest, blk)


def powers_off(case, guest, blk):
    tap = case.tap
    guest.tell("poweroff -f")
    tap.equal(guest.ends(20), 0, "the guest powers off: the VMM ends with 0")
    tap.equal(blk.ends(10), 0, "belfry-blk ends with 0")
    tap.ok(not blk.socket.exists(), "no socket is left")
    tap.equal(lab.left_over(case.vmm_path, case.blk_path), [], "no process is left")


def life(case):
    with case.blk() as blk, case.guest(blk) as guest:
        for part in (boots, copies, unbind, bar_disabled, reboots, powers_off):
            with case.tap.part(part.__name__):
                part(case, guest, blk)


def kill_back_end(case, guest, blk):
    """With the doorbell in use: a reader is at work when the other side is gone."""
    tap = case.tap
    guest.up()
    lab.wait_until(lambda: guest.mapped() == [True], "the doorbell")
    guest.must("(while dd if=/dev/vda of=/dev/null bs=4k iflag=direct 2>/dev/null; do :; done) &")
    rings = blk.total("doorbells")[0]
    lab.wait_until(lambda: blk.total("doorbells")[0] > rings + 100, "the guest's reading")
    blk.process.send_signal(signal.SIGKILL)
    blk.process.wait()
    time.sleep(1)
    tap.equal(guest.process.poll(), None, "belfry-blk is killed: the VMM lives")
    device = guest.stats()["devices"][0]
    tap.equal(device["queues"][0]["doorbell_mapped"], False, "the doorbell is withdrawn")
    tap.matches(device["queues"][0]["doorbell_reason"], "connection", "the statistics say why")
    tap.equal(device["state"], "failed", "the device has failed")
    tap.matches(guest.said(), "lost the back end", "the VMM says so")
    status, output = guest.run("cat /proc/uptime; uname -r")
    tap.ok(status == 0 and "Oops" not in guest.output and "Call Trace" not in output,
           "the guest runs on", output)


def killed_then_power_off(case):
    with case.blk(1) as blk, case.guest(blk, queues=1, cpus=1) as guest:
        with case.tap.part("killed"):
            kill_back_end(case, guest, blk)
            guest.tell("poweroff -f -n")
            case.tap.equal(guest.ends(20), 0, "the guest can power off: the VMM ends with 0")
    blk.socket.unlink(missing_ok=True)  # SIGKILL leaves it


def killed_then_sigterm(case):
    """The guest need not have come far for this."""
    with case.blk(1) as blk, case.guest(blk, queues=1, cpus=1) as guest:
        lab.wait_until(lambda: "front end connected" in blk.said(), "the VMM's connection")
        guest.stats()  # comes when its loop runs
        blk.process.kill()
        lab.wait_until(lambda: "lost the back end" in guest.said(), "the VMM's notice")
        guest.process.terminate()
        case.tap.equal(guest.ends(5), 0, "belfry-blk is killed: the VMM ends on SIGTERM within 5 s")
    case.tap.equal(lab.left_over(case.vmm_path, case.blk_path), [], "no process is left")


def main():
    if sys.argv[1] != "--inside":
        lab.run_in_lab(__file__, sys.argv[1:], 220)
    kernel, initrd = sys.argv[2:4]
    vmm, blk = (pathlib.Path(path).resolve() for path in sys.argv[4:6])
    tap = lab.Tap()
    with lab.folder() as work:
        case = Case(tap, vmm, blk, kernel, initrd, work)
        for test in (life, killed_then_power_off, killed_then_sigterm):
            with tap.part(test.__name__):
                test(case)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
